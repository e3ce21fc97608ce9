//! One scenario against one relay program.

use crate::difference::Difference;
use crate::port;
use crate::scenario::Scenario;
use crate::steps;
use crate::suite::Setup;
use crate::world::World;

/// How a scenario went.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Passed,
    Failed(Failure),
}

/// Where and why a scenario failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Number from 1 and text of the step; `None`: before the first one.
    pub(crate) step: Option<(usize, String)>,
    pub(crate) reason: String,
    /// The last lines of each relay.
    pub(crate) relay_lines: Vec<String>,
}

/// Runs a scenario; again, when somebody took a port meant for one of its relays.
pub(crate) fn run(setup: &Setup, scenario: &Scenario) -> Verdict {
    let mut verdict = attempt(setup, scenario);
    for _ in 1..ATTEMPTS {
        match verdict {
            Attempt::Settled(verdict) => return verdict,
            Attempt::PortTaken(_) => verdict = attempt(setup, scenario),
        }
    }
    match verdict {
        Attempt::Settled(verdict) => verdict,
        Attempt::PortTaken(failure) => Verdict::Failed(failure),
    }
}

enum Attempt {
    Settled(Verdict),
    PortTaken(Failure),
}

fn attempt(setup: &Setup, scenario: &Scenario) -> Attempt {
    let mut world = match World::prepare(setup, scenario) {
        Ok(world) => world,
        Err(error) => {
            let reason = format!("{error:#}");
            let failure = Failure { step: None, reason, relay_lines: Vec::new() };
            return Attempt::Settled(Verdict::Failed(failure));
        }
    };
    let Err((step, reason)) = run_in(&mut world, scenario) else {
        return Attempt::Settled(Verdict::Passed);
    };
    let failure = Failure { step, reason, relay_lines: relay_lines(&world) };
    if port_taken(&world) {
        Attempt::PortTaken(failure)
    } else {
        Attempt::Settled(Verdict::Failed(failure))
    }
}

/// Error: the step, if any, and the reason.
pub(crate) fn run_in(
    world: &mut World<'_>,
    scenario: &Scenario,
) -> Result<(), (Option<(usize, String)>, String)> {
    for (name, _) in scenario.relays.iter().filter(|(_, relay)| !relay.manual) {
        world.start_relay(name).map_err(|error| (None, format!("{error:#}")))?;
    }
    for (index, step) in scenario.steps.iter().enumerate() {
        let failed = |reason| {
            let text = scenario.step_texts.get(index).cloned().unwrap_or_default();
            (Some((index + 1, text)), reason)
        };
        let observed = steps::perform(world, step).map_err(|error| failed(format!("{error:#}")))?;
        if let Some(expected) = &step.expect
            && let Some(difference) = Difference::first(expected, &observed)
        {
            return Err(failed(difference.to_string()));
        }
    }
    Ok(())
}

fn relay_lines(world: &World<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for relay in &world.relays {
        if let Some(process) = &relay.process {
            let last = process.last_lines(RELAY_LINES);
            lines.extend(last.into_iter().map(|line| format!("relay {} {line}", relay.name)));
        }
    }
    lines
}

fn port_taken(world: &World<'_>) -> bool {
    let mut processes = world.relays.iter().filter_map(|relay| relay.process.as_ref());
    processes.any(|process| port::is_taken_message(&process.output()))
}

const ATTEMPTS: u32 = 3;

/// Lines of each stream of a relay that a report shows.
const RELAY_LINES: usize = 8;
