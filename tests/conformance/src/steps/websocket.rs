//! Steps on WebSocket connections.

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::STEP_MS;
use crate::conversation::{Conversation, Habits};
use crate::frame::{Frame, OPCODE_PING, OPCODE_TEXT};
use crate::hexadecimal;
use crate::normalise::sha256_hex;
use crate::opening::Opening;
use crate::step::{
    FrameSpec, OfConnection, Step, WsAbort, WsClose, WsClosed, WsOpen, WsPing, WsPings, WsQuiet,
    WsRecv, WsResume, WsSend,
};
use crate::transport::error_name;
use crate::watched::{Deadline, pause_ms};
use crate::websocket::WebSocket;
use crate::world::World;

pub(super) fn open(
    world: &mut World<'_>,
    step: &Step,
    arguments: &WsOpen,
) -> anyhow::Result<Value> {
    let relay = world.relay(step.relay.as_deref())?;
    let opening = opening(world, relay.port, arguments)?;
    let habits = Habits { answers_pings: arguments.auto_pong, echoes_close: arguments.echo_close };
    let opened = WebSocket::open(&opening, world.tls_to(relay)?, habits);
    let opened = opened.map_err(|error| error_name(&error));
    world.websockets.insert(arguments.conn.clone(), opened);
    if arguments.nowait { Ok(Value::Null) } else { observe_opened(world, step, &arguments.conn) }
}

pub(super) fn opened(
    world: &World<'_>,
    step: &Step,
    arguments: &OfConnection,
) -> anyhow::Result<Value> {
    observe_opened(world, step, &arguments.conn)
}

pub(super) fn send(world: &World<'_>, arguments: &WsSend) -> anyhow::Result<Value> {
    let websocket = world.websocket(&arguments.conn)?;
    if let Some(text) = &arguments.text {
        let bytes = Frame::from_client(OPCODE_TEXT, world.expand(text)?).encode();
        for _ in 0..arguments.times.unwrap_or(1) {
            websocket.send(&bytes);
        }
    }
    if let Some(hex) = &arguments.hex {
        websocket.send(&hexadecimal::decode(&world.expand(hex)?)?);
    }
    for frame in &arguments.frames {
        websocket.send(&encode(world, frame)?);
    }
    Ok(Value::Null)
}

pub(super) fn receive(world: &World<'_>, step: &Step, arguments: &WsRecv) -> anyhow::Result<Value> {
    let conversation = world.websocket(&arguments.conn)?.conversation();
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let count = arguments.count;
    conversation.wait(deadline, |conversation| {
        let done = conversation.messages.len() >= count || !conversation.is_open();
        done.then_some(())
    });
    let (messages, closed) = conversation.with(|conversation| {
        let available = conversation.messages.len().min(count);
        let messages: Vec<_> = conversation.messages.drain(..available).collect();
        (messages, observe_closed(world, conversation))
    });
    let missing = count - messages.len();
    let observed: Vec<_> = messages.iter().map(|m| m.observe(&world.normaliser)).collect();
    if missing > 0 {
        return Ok(json!({"messages": observed, "missing": missing, "closed": closed}));
    }
    if arguments.summary {
        let texts = messages.iter().map(|message| message.text());
        let joined = texts.collect::<Vec<_>>().join("\n");
        return Ok(json!({"count": count, "sha256": sha256_hex(joined.as_bytes())}));
    }
    Ok(json!({"messages": observed}))
}

pub(super) fn quiet(world: &World<'_>, arguments: &WsQuiet) -> anyhow::Result<Value> {
    pause_ms(arguments.ms.unwrap_or(QUIET_MS));
    let mut observed = Map::new();
    for conn in &arguments.conns {
        let conversation = world.websocket(conn)?.conversation();
        let seen = conversation.with(|conversation| {
            let messages = observe_messages(world, conversation);
            json!({"messages": messages, "open": conversation.is_open()})
        });
        observed.insert(conn.clone(), seen);
    }
    Ok(Value::Object(observed))
}

pub(super) fn close(world: &World<'_>, step: &Step, arguments: &WsClose) -> anyhow::Result<Value> {
    let websocket = world.websocket(&arguments.conn)?;
    let reason = world.expand(arguments.reason.as_deref().unwrap_or_default())?;
    websocket.conversation().update(|conversation| conversation.close_sent = true);
    websocket.send(&Frame::close(arguments.code, &reason).encode());
    websocket.wait_ended(Deadline::after_ms(step.timeout_ms(STEP_MS)));
    Ok(websocket.observe_end(&world.normaliser))
}

pub(super) fn closed(
    world: &World<'_>,
    step: &Step,
    arguments: &WsClosed,
) -> anyhow::Result<Value> {
    let websocket = world.websocket(&arguments.conn)?;
    websocket.wait_ended(Deadline::after_ms(step.timeout_ms(STEP_MS)));
    let mut observed = websocket.observe_end(&world.normaliser);
    let messages =
        websocket.conversation().with(|conversation| observe_messages(world, conversation));
    if !arguments.discard {
        observed["messages"] = messages;
    }
    Ok(observed)
}

pub(super) fn abort(world: &mut World<'_>, arguments: &WsAbort) -> anyhow::Result<Value> {
    world.websocket(&arguments.conn)?;
    if let Some(Ok(mut websocket)) = world.websockets.remove(&arguments.conn) {
        websocket.abort(arguments.how);
    }
    Ok(Value::Null)
}

pub(super) fn pause(world: &World<'_>, arguments: &OfConnection) -> anyhow::Result<Value> {
    let conversation = world.websocket(&arguments.conn)?.conversation();
    conversation.update(|conversation| conversation.paused = true);
    Ok(Value::Null)
}

pub(super) fn resume(world: &World<'_>, arguments: &WsResume) -> anyhow::Result<Value> {
    let conversation = world.websocket(&arguments.conn)?.conversation();
    conversation.update(|conversation| {
        conversation.discard |= arguments.discard;
        conversation.paused = false;
    });
    Ok(Value::Null)
}

pub(super) fn ping(world: &World<'_>, step: &Step, arguments: &WsPing) -> anyhow::Result<Value> {
    let websocket = world.websocket(&arguments.conn)?;
    let payload = world.expand(&arguments.payload)?;
    let conversation = websocket.conversation();
    // Only an answer to this ping counts.
    conversation.update(|conversation| conversation.pongs.clear());
    websocket.send(&Frame::from_client(OPCODE_PING, payload).encode());
    let pong = conversation.wait(Deadline::after_ms(step.timeout_ms(STEP_MS)), |conversation| {
        let pong = conversation.pongs.first().cloned();
        if pong.is_none() && conversation.ended { Some(None) } else { pong.map(Some) }
    });
    let pong = pong.flatten().map(|payload| world.observe(&String::from_utf8_lossy(&payload)));
    Ok(json!({"pong": pong}))
}

pub(super) fn pings(world: &World<'_>, step: &Step, arguments: &WsPings) -> anyhow::Result<Value> {
    let conversation = world.websocket(&arguments.conn)?.conversation();
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let reached = conversation.wait(deadline, |conversation| {
        let reached = conversation.pings >= arguments.min;
        (reached || conversation.ended).then_some(reached)
    });
    Ok(json!({"atLeast": reached.unwrap_or(false)}))
}

fn opening(world: &World<'_>, port: u16, arguments: &WsOpen) -> anyhow::Result<Opening> {
    let token = arguments.token.as_ref().map(|name| {
        let text = world.expand(&format!("{{{{token:{name}}}}}"))?;
        Ok::<_, anyhow::Error>((arguments.auth, text))
    });
    let expand_all = |texts: &[String]| -> anyhow::Result<Vec<String>> {
        texts.iter().map(|text| world.expand(text)).collect()
    };
    let headers = arguments.headers.iter().map(|(name, value)| {
        let value = value.as_ref().map(|value| world.expand(value)).transpose()?;
        Ok((name.clone(), value))
    });
    Ok(Opening {
        port,
        method: arguments.method.clone().unwrap_or_else(|| "GET".to_owned()),
        target: world.expand(&arguments.target)?,
        token: token.transpose()?,
        protocols: expand_all(&arguments.protocols)?,
        headers: headers.collect::<anyhow::Result<_>>()?,
        early: expand_all(&arguments.early)?,
    })
}

fn observe_opened(world: &World<'_>, step: &Step, conn: &str) -> anyhow::Result<Value> {
    let opened = world.websockets.get(conn).with_context(|| format!("no connection {conn}"))?;
    Ok(match opened {
        Ok(websocket) => {
            let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
            websocket.opened(deadline, &world.normaliser)
        }
        Err(error) => json!({"error": error}),
    })
}

fn observe_messages(world: &World<'_>, conversation: &mut Conversation) -> Value {
    let messages = conversation.messages.drain(..);
    messages.map(|message| message.observe(&world.normaliser)).collect()
}

fn observe_closed(world: &World<'_>, conversation: &Conversation) -> Value {
    match &conversation.close {
        Some(close) => close.observe(&world.normaliser),
        None if conversation.ended => json!("eof"),
        None => json!(false),
    }
}

fn encode(world: &World<'_>, spec: &FrameSpec) -> anyhow::Result<Vec<u8>> {
    let payload = match (&spec.text, &spec.hex) {
        (Some(text), _) => world.expand(text)?.into_bytes(),
        (None, Some(hex)) => hexadecimal::decode(&world.expand(hex)?)?,
        (None, None) => Vec::new(),
    };
    let rsv = u8::from(spec.rsv1) << 2 | u8::from(spec.rsv2) << 1 | u8::from(spec.rsv3);
    let length = spec.declared_length.unwrap_or(payload.len() as u64);
    let frame = Frame { fin: spec.fin, rsv, opcode: spec.opcode, masked: spec.masked, payload };
    Ok(frame.encode_declaring(length))
}

/// How long nothing is expected to happen.
const QUIET_MS: u64 = 150;
