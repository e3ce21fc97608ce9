//! Steps on relay processes.

use serde_json::{Map, Value, json};

use super::{STEP_MS, poll};
use crate::step::{RelayAlive, RelayRun, RelaySignal, RelayStdout, Step};
use crate::watched::{Deadline, pause_ms};
use crate::world::World;

pub(super) fn run(
    world: &mut World<'_>,
    step: &Step,
    arguments: &RelayRun,
) -> anyhow::Result<Value> {
    let name = world.relay(step.relay.as_deref())?.name.clone();
    world.spawn_relay(&name)?;
    let process = world.process(Some(&name))?;
    let exit = process.wait_exit(Deadline::after_ms(step.timeout_ms(RUN_MS)));
    let output = process.output();
    let mut contains = Map::new();
    for text in &arguments.contains {
        let contained = output.contains(&world.expand(text)?);
        contains.insert(text.clone(), json!(contained));
    }
    Ok(json!({"exit": exit, "contains": contains}))
}

pub(super) fn start(world: &mut World<'_>, step: &Step) -> anyhow::Result<Value> {
    let name = world.relay(step.relay.as_deref())?.name.clone();
    world.start_relay(&name)?;
    Ok(Value::Null)
}

pub(super) fn signal(
    world: &World<'_>,
    step: &Step,
    arguments: &RelaySignal,
) -> anyhow::Result<Value> {
    world.process(step.relay.as_deref())?.signal(&arguments.signal)?;
    Ok(Value::Null)
}

pub(super) fn exited(world: &World<'_>, step: &Step) -> anyhow::Result<Value> {
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let exit = world.process(step.relay.as_deref())?.wait_exit(deadline);
    Ok(json!({"exit": exit}))
}

pub(super) fn alive(
    world: &World<'_>,
    step: &Step,
    arguments: &RelayAlive,
) -> anyhow::Result<Value> {
    pause_ms(arguments.ms.unwrap_or(ALIVE_MS));
    Ok(json!({"alive": world.process(step.relay.as_deref())?.is_alive()}))
}

pub(super) fn stdout(
    world: &World<'_>,
    step: &Step,
    arguments: &RelayStdout,
) -> anyhow::Result<Value> {
    let process = world.process(step.relay.as_deref())?;
    poll(step, || {
        let lines = process.stdout().with(|output| output.lines.clone());
        let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wanted = entries.filter(|entry| {
            let event = entry["event"].as_str();
            event.is_some_and(|event| arguments.events.iter().any(|wanted| wanted == event))
        });
        let events: Vec<_> =
            wanted.map(|entry| observe_event(world, |name| entry.get(name))).collect();
        Ok(json!({"events": events}))
    })
}

/// Level, event and details of a log entry.
pub(super) fn observe_event<'a>(
    world: &World<'_>,
    member: impl Fn(&str) -> Option<&'a Value>,
) -> Map<String, Value> {
    let members = ["level", "event", "details"].into_iter().filter_map(|name| {
        let value = member(name)?;
        Some((name.to_owned(), world.normaliser.json(value)))
    });
    members.collect()
}

/// How long a relay may take to refuse to start.
const RUN_MS: u64 = 8_000;
const ALIVE_MS: u64 = 100;
