//! Steps on plain TCP (or TLS) connections.

use anyhow::Context;
use serde_json::{Value, json};

use super::poll;
use crate::hexadecimal;
use crate::http_message::{Response, latin1, latin1_bytes};
use crate::opening::observe_dated;
use crate::raw_socket::RawSocket;
use crate::step::{Observe, OfConnection, Step, TcpOpen, TcpRecv, TcpSend, Until};
use crate::watched::{Deadline, pause_ms};
use crate::world::World;

pub(super) fn open(
    world: &mut World<'_>,
    step: &Step,
    arguments: &TcpOpen,
) -> anyhow::Result<Value> {
    let relay = world.relay(step.relay.as_deref())?;
    let tls = if arguments.plain { None } else { world.tls_to(relay)? };
    let socket = RawSocket::connect(relay.port, tls).context("connecting to the relay")?;
    world.raw_sockets.insert(arguments.conn.clone(), socket);
    Ok(Value::Null)
}

pub(super) fn send(world: &World<'_>, arguments: &TcpSend) -> anyhow::Result<Value> {
    let socket = world.raw_socket(&arguments.conn)?;
    if let Some(text) = &arguments.text {
        socket.send(&latin1_bytes(&world.expand(text)?));
    }
    if let Some(hex) = &arguments.hex {
        socket.send(&hexadecimal::decode(&world.expand(hex)?)?);
    }
    Ok(Value::Null)
}

pub(super) fn receive(
    world: &World<'_>,
    step: &Step,
    arguments: &TcpRecv,
) -> anyhow::Result<Value> {
    let received = world.raw_socket(&arguments.conn)?.received();
    let look = || {
        let (bytes, eof) = received.with(|received| (received.bytes.clone(), received.ended));
        Ok(observe(world, arguments, &bytes, eof))
    };
    match arguments.until {
        Some(Until::Close) => {
            let deadline = Deadline::after_ms(step.timeout_ms(CLOSE_MS));
            received.wait(deadline, |received| received.ended.then_some(()));
            look()
        }
        None => {
            pause_ms(arguments.ms.unwrap_or(RECEIVE_MS));
            // What is late on a busy machine is waited for.
            poll(step, look)
        }
    }
}

fn observe(world: &World<'_>, arguments: &TcpRecv, bytes: &[u8], eof: bool) -> Value {
    let responses = Response::parse_all(bytes, eof);
    if arguments.observe == Some(Observe::Status) {
        let statuses: Vec<_> = responses.iter().map(|response| response.head.status()).collect();
        return json!({"statuses": statuses, "eof": eof});
    }
    match observe_dated(&responses, &world.normaliser) {
        Some(responses) => json!({"responses": responses, "eof": eof}),
        None => json!({"bytes": world.observe(&latin1(bytes)), "eof": eof}),
    }
}

pub(super) fn close(world: &mut World<'_>, arguments: &OfConnection) -> anyhow::Result<Value> {
    let socket = world.raw_sockets.remove(&arguments.conn);
    drop(socket.with_context(|| format!("no TCP connection {}", arguments.conn))?);
    Ok(Value::Null)
}

/// How long an end is waited for: a relay closes what is idle after five seconds, which is not the
/// end that is meant.
const CLOSE_MS: u64 = 4_000;

/// How long a `tcp.recv` listens that does not wait for the end.
const RECEIVE_MS: u64 = 200;
