//! Steps on the scenario's Redis.

use anyhow::Context;
use serde_json::{Value, json};

use super::STEP_MS;
use super::platform::{expand_members, signature};
use crate::bus_frame::{self, FrameRecipe};
use crate::redis_server::reply_json;
use crate::step::{Redis, RedisPush, RedisRestart, Step};
use crate::watched::{Deadline, pause_ms};
use crate::world::World;

pub(super) fn command(
    world: &mut World<'_>,
    step: &Step,
    arguments: &Redis,
) -> anyhow::Result<Value> {
    let args: anyhow::Result<Vec<_>> = arguments.args.iter().map(|arg| world.expand(arg)).collect();
    let args = args?;
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let reply = loop {
        let reply = world.redis()?.command(&args)?;
        let raw = reply_json(&reply, &|text| json!(text));
        if !arguments.wait_non_empty || !is_empty(&raw) || deadline.passed() {
            break reply;
        }
        pause_ms(POLL_PAUSE_MS);
    };
    let raw = reply_json(&reply, &|text| json!(text));
    if let Some((low, high)) = arguments.range {
        let in_range = raw.as_f64().is_some_and(|number| (low..=high).contains(&number));
        return Ok(json!({"inRange": in_range}));
    }
    let mut observed = json!({"reply": reply_json(&reply, &|text| world.observe(text))});
    let signatures = signatures(world, &raw)?;
    if !signatures.is_empty() {
        observed["signatures"] = json!(signatures);
    }
    Ok(observed)
}

pub(super) fn push(world: &mut World<'_>, arguments: &RedisPush) -> anyhow::Result<Value> {
    let text = match (&arguments.raw, &arguments.frame) {
        (Some(raw), _) => world.expand(raw)?,
        (None, frame) => {
            let frame = frame.as_ref().context("neither raw nor frame")?;
            let recipe = FrameRecipe {
                members: expand_members(world, frame)?,
                issued_at_offset_ms: arguments.issued_at_offset_ms,
                sign_key: arguments.sign_key.as_deref(),
                overrides: expand_members(world, &arguments.overrides)?,
            };
            bus_frame::text(&recipe.make())
        }
    };
    let args = ["RPUSH".to_owned(), world.expand(&arguments.key)?, text];
    for _ in 0..arguments.times.unwrap_or(1) {
        world.redis()?.command(&args)?;
    }
    Ok(Value::Null)
}

pub(super) fn restart(world: &mut World<'_>, arguments: &RedisRestart) -> anyhow::Result<Value> {
    world.redis()?.restart(arguments.down_ms)?;
    Ok(Value::Null)
}

fn is_empty(reply: &Value) -> bool {
    match reply {
        Value::Null => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Object(_) => false,
    }
}

/// What can be said of the signed values in a reply.
fn signatures(world: &World<'_>, reply: &Value) -> anyhow::Result<Vec<&'static str>> {
    let values = match reply {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let checked = values.iter().filter_map(|value| signature(world, value.as_str()?).transpose());
    checked.collect()
}

const POLL_PAUSE_MS: u64 = 10;
