//! Carrying out the steps.

mod http;
mod platform;
mod redis;
mod relay;
mod tcp;
mod websocket;

use serde_json::Value;

use crate::difference::Difference;
use crate::step::{Action, Step};
use crate::watched::{Deadline, pause_ms};
use crate::world::World;

/// Carries out a step and gives back what was observed; null where there is nothing to observe.
///
/// Errors: the step could not be carried out at all.
pub(crate) fn perform(world: &mut World<'_>, step: &Step) -> anyhow::Result<Value> {
    match &step.action {
        Action::WsOpen(arguments) => websocket::open(world, step, arguments),
        Action::WsOpened(arguments) => websocket::opened(world, step, arguments),
        Action::WsSend(arguments) => websocket::send(world, arguments),
        Action::WsRecv(arguments) => websocket::receive(world, step, arguments),
        Action::WsQuiet(arguments) => websocket::quiet(world, arguments),
        Action::WsClose(arguments) => websocket::close(world, step, arguments),
        Action::WsClosed(arguments) => websocket::closed(world, step, arguments),
        Action::WsAbort(arguments) => websocket::abort(world, arguments),
        Action::WsPause(arguments) => websocket::pause(world, arguments),
        Action::WsResume(arguments) => websocket::resume(world, arguments),
        Action::WsPing(arguments) => websocket::ping(world, step, arguments),
        Action::WsPings(arguments) => websocket::pings(world, step, arguments),
        Action::TcpOpen(arguments) => tcp::open(world, step, arguments),
        Action::TcpSend(arguments) => tcp::send(world, arguments),
        Action::TcpRecv(arguments) => tcp::receive(world, step, arguments),
        Action::TcpClose(arguments) => tcp::close(world, arguments),
        Action::Http(arguments) => http::request(world, step, arguments),
        Action::Metrics(_) => http::metrics(world, step),
        Action::PlatformSet(arguments) => platform::set(world, arguments),
        Action::PlatformRequests(arguments) => platform::requests(world, step, arguments),
        Action::PlatformBodyContains(arguments) => platform::body_contains(world, step, arguments),
        Action::BusInject(arguments) => platform::inject(world, arguments),
        Action::BusReplay(_) => world.platform.replay().map(|()| Value::Null),
        Action::Redis(arguments) => redis::command(world, step, arguments),
        Action::RedisPush(arguments) => redis::push(world, arguments),
        Action::RedisRestart(arguments) => redis::restart(world, arguments),
        Action::RelayRun(arguments) => relay::run(world, step, arguments),
        Action::RelayStart(_) => relay::start(world, step),
        Action::RelaySignal(arguments) => relay::signal(world, step, arguments),
        Action::RelayExited(_) => relay::exited(world, step),
        Action::RelayAlive(arguments) => relay::alive(world, step, arguments),
        Action::RelayStdout(arguments) => relay::stdout(world, step, arguments),
        Action::Sleep(arguments) => {
            pause_ms(arguments.ms);
            Ok(Value::Null)
        }
    }
}

/// Observes again and again until the observation is what the step expects.
fn poll(step: &Step, mut observe: impl FnMut() -> anyhow::Result<Value>) -> anyhow::Result<Value> {
    let deadline = Deadline::after_ms(step.timeout_ms(POLL_MS));
    loop {
        let observed = observe()?;
        let expected = step.expect.as_ref();
        let settled = expected.is_none_or(|e| Difference::first(e, &observed).is_none());
        if settled || deadline.passed() {
            return Ok(observed);
        }
        pause_ms(POLL_PAUSE_MS);
    }
}

/// How long a step waits for what it is about.
const STEP_MS: u64 = 8_000;

/// How long a polled observation may take to become right.
const POLL_MS: u64 = 15_000;
const POLL_PAUSE_MS: u64 = 10;
