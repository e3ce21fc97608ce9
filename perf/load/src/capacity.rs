//! `relay-load capacity`: is what `relay plan` says at a part of the load what the relay then does?
//!
//! Pairs send at a fixed rate while the plan is made. Then two of its answers are held against
//! measurement. At its limit: as many pairs, each with one frame in flight, send as fast as they
//! are served. At the objective: as many connections as the plan has room for send at the rate of
//! the first, and the relay itself says what hop latency they have.

use std::ops::Range;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::Capacity;
use crate::figures::{Spread, write_json};
use crate::generator::Generator;
use crate::guard::{self, Guard, Watched};
use crate::metronome::Metronome;
use crate::pair::Shape;
use crate::platform;
use crate::subject::{ADMIN_TOKEN, PENDING_BYTES_MAX, Subject};
use crate::trial::Header;
use crate::watch::{Bottleneck, Who};

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    relay: String,
    pairs: usize,
    shards: usize,
    messages_per_s_and_pair: usize,
    objective_us: f64,
    rounds: Vec<Round>,
    /// Predicted rate with full processors over what was measured.
    ratio: Spread,
    /// Latency with as many connections as the plan allowed, over the objective.
    latency_ratio: Spread,
}

/// One plan and what came of it.
#[derive(Debug, Serialize)]
struct Round {
    /// Share of its processor that the relay used while the plan was made.
    share: f64,
    predicted_frames_per_s: f64,
    /// What it served for each second of its processor: the load may leave it a little of that.
    measured_frames_per_s: f64,
    /// Share of its processor that the relay used then.
    full_share: f64,
    held: Held,
    watched: Vec<Watched>,
    /// As `relay plan --json` prints it.
    plan: Value,
}

/// As many connections as the plan allows, or as the load can open.
#[derive(Clone, Copy, Debug, Serialize)]
struct Held {
    planned_connections: f64,
    pairs: usize,
    frames_per_s: f64,
    /// As the relay measures it, of the shard where it is longest.
    hop_p99_us: f64,
    share: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Capacity) -> Result<()> {
    let platform = platform::start()?;
    let trial = &arguments.trial;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let subject = Subject::relay_set(
            &trial.relay()?,
            trial.driver.as_deref(),
            platform,
            trial.processors(),
            None,
            &[
                ("RELAY_MAX_PENDING_BYTES", PENDING_BYTES_MAX.to_string()),
                ("RELAY_SHARDS", arguments.shards.to_string()),
            ],
        )?;
        let round = round(arguments, &subject)?;
        println!("{number}/{}: {}", arguments.rounds, round.line(arguments.p99_us));
        rounds.push(round);
    }
    let ratios = rounds.iter().map(Round::ratio);
    let latency = rounds.iter().map(|round| round.held.hop_p99_us / arguments.p99_us);
    let report = Report {
        header: trial.header()?,
        relay: trial.relay_name(),
        pairs: arguments.pairs,
        shards: arguments.shards,
        messages_per_s_and_pair: arguments.rate,
        objective_us: arguments.p99_us,
        ratio: Spread::of(ratios),
        latency_ratio: Spread::of(latency),
        rounds,
    };
    let Spread { median, least, most } = report.ratio;
    println!("predicted over measured: {median:.3} ({least:.3} to {most:.3})");
    let Spread { median, least, most } = report.latency_ratio;
    println!("latency over the objective: {median:.3} ({least:.3} to {most:.3})");
    write_json(trial.json.as_deref(), &report)?;
    trial.judge(&guard::found(report.rounds.iter().flat_map(|round| &round.watched)))?;
    judge(report.ratio, report.latency_ratio, arguments.tolerance, arguments.latency_tolerance)
}

/// A plan that is wrong once is wrong: the worst round counts. Less latency than the objective is
/// no error where something else ends first.
fn judge(ratio: Spread, latency: Spread, tolerance: f64, latency_tolerance: f64) -> Result<()> {
    let error = (ratio.most - 1.0).max(1.0 - ratio.least);
    ensure!(error <= tolerance, "a plan is off by {:.0} %", error * 100.0);
    let above = latency.most - 1.0;
    ensure!(
        above <= latency_tolerance,
        "with the connections that a plan allowed latency is {:.0} % above the objective",
        above * 100.0
    );
    Ok(())
}

fn round(arguments: &Capacity, subject: &Subject) -> Result<Round> {
    let mut watched = Vec::new();
    let planned = beside_plan(arguments, subject, 0..arguments.pairs, &mut watched)?;
    let plan = planned.plan;
    let predicted = plan["saturatesAtFramesPerSecond"].as_f64();
    let predicted = predicted.context("the plan found too little traffic")?;
    let planned_connections = plan["holdsConnections"].as_f64().context("the plan has no end")?;
    ensure!(
        planned_connections >= 2.0,
        "even one pair would miss the objective of {} µs, says the plan: take another",
        arguments.p99_us
    );
    let pairs = ((planned_connections / 2.0) as usize).min(PAIRS_MAX);
    let numbers = arguments.pairs..arguments.pairs + pairs;
    let at_objective = beside_plan(arguments, subject, numbers, &mut watched)?;
    let shards = at_objective.plan["shards"].as_array().into_iter().flatten();
    let hop_p99_us = shards.filter_map(|shard| shard["hopP99Us"].as_f64()).reduce(f64::max);
    let held = Held {
        planned_connections,
        pairs,
        frames_per_s: at_objective.plan["framesPerSecond"].as_f64().unwrap_or_default(),
        hop_p99_us: hop_p99_us.context("nothing was forwarded")?,
        share: at_objective.share,
    };
    let guard = Guard::start(&[subject.process()], arguments.trial.processors())?;
    let shape =
        Shape { pairs: arguments.pairs, payload_bytes: PAYLOAD_BYTES, depth: 1, echo: false };
    let mut generator = Generator::open(subject, shape)?;
    let full = generator.measure(WARM_UP, Duration::from_secs_f64(arguments.seconds))?;
    let mut seen = guard.finish()?;
    seen.bottlenecks.extend(unfilled(full.cpu_share));
    watched.push(seen);
    Ok(Round {
        share: planned.share,
        predicted_frames_per_s: predicted,
        measured_frames_per_s: full.frames_per_s / full.cpu_share,
        full_share: full.cpu_share,
        held,
        watched,
        plan,
    })
}

/// What a relay does with a full processor is not seen where the load leaves much of it unused.
fn unfilled(share: f64) -> Option<Bottleneck> {
    let why = format!("the load filled {:.0} % of the relay's processor only", share * 100.0);
    (share < FULL_SHARE_MIN).then_some(Bottleneck { who: Who::Load, why })
}

/// A plan, and the share of its processor that the relay used while it was made.
struct Planned {
    plan: Value,
    share: f64,
}

/// Lets the pairs of these numbers send at the rate while the relay is asked for a plan.
fn beside_plan(
    arguments: &Capacity,
    subject: &Subject,
    numbers: Range<usize>,
    watched: &mut Vec<Watched>,
) -> Result<Planned> {
    let (first, pairs) = (numbers.start, numbers.len());
    let mut metronome = Metronome::open_from(subject, first, pairs, arguments.rate)?;
    metronome.measure(Duration::ZERO, WARM_UP)?;
    let guard = Guard::start(&[subject.process()], arguments.trial.processors())?;
    // The plan watches for a part of the window, which ends with it.
    let planner = Command::new(arguments.trial.relay()?)
        .args(["plan", "--json", "--url", &format!("http://{}", subject.address)])
        .args(["--seconds", &arguments.seconds.to_string()])
        .args(["--p99-us", &arguments.p99_us.to_string()])
        .env("RELAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("relay plan")?;
    let planner = thread::spawn(|| planner.wait_with_output());
    metronome.beat_until(|| planner.is_finished())?;
    let seen = guard.finish()?;
    let share = seen.facts.subject_cpu_share;
    watched.push(seen);
    let planned = planner.join().map_err(|_| anyhow!("who waits for the plan panicked"))?;
    let planned = planned.context("relay plan")?;
    ensure!(planned.status.success(), "relay plan failed");
    let plan = serde_json::from_slice(&planned.stdout).context("relay plan --json")?;
    Ok(Planned { plan, share })
}

impl Round {
    fn ratio(&self) -> f64 {
        self.predicted_frames_per_s / self.measured_frames_per_s
    }

    fn line(&self, objective_us: f64) -> String {
        format!(
            "at {:.0} % it predicts {:.0} frames/s; measured {:.0} ({:.0} % busy) ({:+.1} %); with \
             {} pairs of {:.0} connections planned p99 hop is {:.0} µs of {objective_us:.0}",
            self.share * 100.0,
            self.predicted_frames_per_s,
            self.measured_frames_per_s,
            self.full_share * 100.0,
            (self.ratio() - 1.0) * 100.0,
            self.held.pairs,
            self.held.planned_connections,
            self.held.hop_p99_us
        )
    }
}

/// Pairs that the descriptors of this process allow.
const PAIRS_MAX: usize = 9000;
/// Share of its processor from which on a relay counts as full.
const FULL_SHARE_MIN: f64 = 0.75;
/// Load before each window.
const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes of a message: the metronome's.
const PAYLOAD_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_both_directions_do_not_make_up_for_each_other() {
        let calm = Spread::of([0.9]);
        assert!(judge(Spread::of([0.6, 1.0, 1.4]), calm, 0.15, 0.2).is_err());
        assert!(judge(Spread::of([0.9, 1.0, 1.1]), calm, 0.15, 0.2).is_ok());
        assert!(judge(Spread::of([1.0, 1.0, 1.2]), calm, 0.15, 0.2).is_err());
    }

    #[test]
    fn a_relay_that_was_not_filled_tells_nothing_of_a_full_one() {
        assert_eq!(unfilled(0.63).map(|found| found.who), Some(Who::Load));
        assert_eq!(unfilled(0.98), None);
    }

    #[test]
    fn latency_above_the_objective_is_an_error_and_below_is_none() {
        let exact = Spread::of([1.0]);
        assert!(judge(exact, Spread::of([0.2, 0.9]), 0.15, 0.2).is_ok());
        assert!(judge(exact, Spread::of([0.9, 1.3]), 0.15, 0.2).is_err());
    }
}
