//! Steps on the platform behind the relay.

use serde_json::{Map, Value, json};

use super::STEP_MS;
use crate::bus_frame::{self, FrameRecipe};
use crate::members::Members;
use crate::platform::LoggedRequest;
use crate::step::{BusInject, PlatformBodyContains, PlatformRequests, PlatformSet, Step};
use crate::watched::{Deadline, pause_ms};
use crate::world::{World, expand_rules};

pub(super) fn set(world: &World<'_>, arguments: &PlatformSet) -> anyhow::Result<Value> {
    world.platform.set_rules(expand_rules(&arguments.responses, &world.placeholders)?);
    Ok(Value::Null)
}

pub(super) fn requests(
    world: &World<'_>,
    step: &Step,
    arguments: &PlatformRequests,
) -> anyhow::Result<Value> {
    let path = world.expand(&arguments.path)?;
    let requests = if arguments.count == 0 {
        pause_ms(arguments.ms.unwrap_or(LISTEN_MS));
        world.platform.take_all_requests(&path)
    } else {
        let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
        world.platform.take_requests(&path, arguments.count, deadline)
    };
    let default = DEFAULT_HEADERS.map(str::to_owned);
    let headers = arguments.headers.as_deref().unwrap_or(&default);
    let observed = requests.iter().map(|request| observe(world, request, headers));
    Ok(json!({"requests": observed.collect::<anyhow::Result<Vec<_>>>()?}))
}

pub(super) fn body_contains(
    world: &World<'_>,
    step: &Step,
    arguments: &PlatformBodyContains,
) -> anyhow::Result<Value> {
    let path = world.expand(&arguments.path)?;
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let body = world.platform.body(&path, arguments.index, deadline);
    let text = world.expand(&arguments.text)?;
    Ok(json!({"contains": body.is_some_and(|body| body.contains(&text))}))
}

pub(super) fn inject(world: &World<'_>, arguments: &BusInject) -> anyhow::Result<Value> {
    let recipe = FrameRecipe {
        members: expand_members(world, &arguments.frame)?,
        issued_at_offset_ms: arguments.issued_at_offset_ms,
        sign_key: arguments.sign_key.as_deref(),
        overrides: expand_members(world, &arguments.overrides)?,
    };
    world.platform.inject(arguments.deliver_to.clone(), recipe.make());
    Ok(Value::Null)
}

pub(super) fn expand_members(
    world: &World<'_>,
    members: &Members<Value>,
) -> anyhow::Result<Members<Value>> {
    let members = members
        .iter()
        .map(|(name, value)| Ok((name.to_owned(), world.placeholders.expand_json(value)?)));
    Ok(Members(members.collect::<anyhow::Result<_>>()?))
}

/// `"valid"` or `"invalid"` for a text signed with the key of the first relay.
pub(super) fn signature(world: &World<'_>, text: &str) -> anyhow::Result<Option<&'static str>> {
    let key = world.relay(None)?.variable("RELAY_BUS_HMAC_KEY").unwrap_or_default();
    Ok(bus_frame::check(text, key))
}

fn observe(
    world: &World<'_>,
    request: &LoggedRequest,
    headers: &[String],
) -> anyhow::Result<Value> {
    let headers = headers.iter().map(|name| {
        let value = request.head.header(name).map(|value| world.observe(value));
        (name.clone(), json!(value))
    });
    let mut observed = json!({
        "method": request.method,
        "path": world.observe(&request.target),
        "headers": headers.collect::<Map<_, _>>(),
        "body": world.observe(&request.body),
    });
    if let Some(signature) = signature(world, &request.body)? {
        observed["signature"] = json!(signature);
    }
    Ok(observed)
}

const DEFAULT_HEADERS: [&str; 2] = ["content-type", "x-relay-internal-key"];

/// How long a step listens that expects no particular number of requests.
const LISTEN_MS: u64 = 150;
