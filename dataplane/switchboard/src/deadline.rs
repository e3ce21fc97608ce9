//! What is due: heartbeats, ends that nobody answered, cleaning up.

use std::time::Duration;

use relay_contract::{ConnectionId, Counter, Level, LogEntry, Tick};
use serde::{Deserialize, Serialize};

use crate::connection::State;
use crate::liveness::Verdict;
use crate::switchboard::Switchboard;
use crate::wheel::{TimerId, Wheel};
use crate::{Effect, Effects};

/// Whose deadline it is: that of the connection in a slot, or [`Timer::CLEANUP`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timer(u32);

/// Every idle connection has one.
const _: () = assert!(Wheel::<Timer>::ENTRY_BYTES <= 24, "half a million idle connections");

impl Timer {
    /// Empty scopes and unused limiter entries are looked for. No slot has this number.
    pub(crate) const CLEANUP: Self = Self(u32::MAX);

    /// The heartbeat of the connection in a slot while it is open, its end while it closes.
    pub(crate) fn connection(slot: u32) -> Self {
        Self(slot)
    }

    /// The slot of the connection whose deadline it is, if it is one's.
    pub(crate) fn slot(self) -> Option<u32> {
        (self != Self::CLEANUP).then_some(self.0)
    }
}

impl Switchboard {
    pub(crate) fn on_elapsed(&mut self, now: Tick, effects: &mut Effects) {
        self.note_stall(now, effects);
        for _ in 0..EXPIRED_MAX {
            let Some(timer) = self.wheel.expire(now) else { break };
            match timer.slot() {
                Some(slot) => self.on_connection_timer(now, slot, effects),
                None => self.on_cleanup(now, effects),
            }
        }
    }

    /// Takes note when nobody looked at the time for long: the process was stopped, or the machine
    /// was. Peers are then asked before they are judged, so that they do not all end at once.
    fn note_stall(&mut self, now: Tick, effects: &mut Effects) {
        let looked = std::mem::replace(&mut self.core.looked, now);
        let due = self.wheel.next_deadline();
        // What is due and waits for its turn among many was looked at all the same.
        let late = due.map_or(Duration::ZERO, |due| now.since(due.max(looked)));
        if late > self.limits.heartbeat.pong_timeout.clamp(STALL_MIN, STALL_MAX) {
            self.core.resumed = now;
            self.counters.count(Counter::ShardStalls);
            let late_ms = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
            let entry = LogEntry::new(Level::Warn, "shard_stalled").ours();
            effects.push(Effect::Log(Box::new(entry.with("lateMs", late_ms))));
        }
    }

    fn on_connection_timer(&mut self, now: Tick, slot: u32, effects: &mut Effects) {
        let Some(id) = self.core.connections.id_at(slot) else { return };
        let Some(connection) = self.core.connections.at_mut(slot) else { return };
        match &mut connection.state {
            State::Open(member) => {
                let resumed = self.core.resumed;
                let verdict = member.liveness.on_timer(now, resumed, &self.limits.heartbeat);
                let next = member.liveness.deadline(&self.limits.heartbeat);
                self.on_verdict(now, id, verdict, effects);
                if let Some(member) = self.core.connections.member_mut(id) {
                    member.timer = self.wheel.insert(next, Timer::connection(slot));
                }
            }
            State::Closing { leaver, .. } => {
                connection.state = State::Cut { leaver: *leaver };
                effects.push(Effect::Terminate { connection: id });
            }
            State::Cut { .. } => {}
        }
    }

    fn on_verdict(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        verdict: Verdict,
        effects: &mut Effects,
    ) {
        let (counter, reason) = match verdict {
            Verdict::Well => return,
            Verdict::Ping => {
                self.counters.count(Counter::PingsSent);
                return effects.push(Effect::Ping { to: connection });
            }
            Verdict::Stale => (Counter::WsStaleTerminated, "heartbeat timeout"),
            Verdict::Idle => (Counter::WsIdleTerminated, "idle timeout"),
        };
        self.counters.count(counter);
        let entry = LogEntry::new(Level::Warn, "ws_terminated").about(connection);
        effects.push(Effect::Log(Box::new(entry.with("reason", reason))));
        effects.push(Effect::Terminate { connection });
        if let Some(leaver) = self.leave(now, connection, effects) {
            self.core.connections.seat(connection, State::Cut { leaver });
        }
    }

    fn on_cleanup(&mut self, now: Tick, effects: &mut Effects) {
        self.core.cleanup_armed = false;
        let swept = self.core.limiters.sweep(now, SWEPT_MAX);
        let more_are_due = self.forget_due_scopes(now, effects);
        if swept == SWEPT_MAX || more_are_due {
            self.arm(now, now.after(CLEANUP_PAUSE), Timer::CLEANUP);
            self.core.cleanup_armed = true;
        }
    }

    /// Cleaning up is due as long as there is something that may have to go.
    pub(crate) fn arm_cleanup(&mut self, now: Tick) {
        let core = &mut self.core;
        if !core.cleanup_armed && (core.directory.has_empty() || !core.limiters.is_empty()) {
            let interval = self.limits.cleanup_interval.max(Duration::from_millis(1));
            self.arm(now, now.after(interval), Timer::CLEANUP);
            self.core.cleanup_armed = true;
        }
    }

    /// Adds a deadline. While there are none the wheel is brought to the present for free.
    pub(crate) fn arm(&mut self, now: Tick, at: Tick, timer: Timer) -> TimerId {
        if self.wheel.is_empty() {
            self.wheel.expire(now);
        }
        self.wheel.insert(at, timer)
    }
}

/// Deadlines acted on by one input. Protects the latency of messages from thousands of pings that
/// are due at one moment, as after everybody reconnected. Reached: the others follow with the next
/// [`Elapsed`](crate::Input::Elapsed). Source: a ping with its part of the send costs one or two
/// microseconds.
pub(crate) const EXPIRED_MAX: usize = 32;

/// Entries of limiters forgotten by one input. Protects the latency of messages from what thousands
/// have left behind who went at one moment. Reached: the others follow after a pause. Source: an
/// entry takes a tenth of a microsecond.
const SWEPT_MAX: usize = 512;

/// Between two portions of cleaning up, for whoever has something to say.
const CLEANUP_PAUSE: Duration = Duration::from_millis(1);

/// How late a deadline is looked at before the shard counts as having been stopped, at least and at
/// most; between them it is the time a pong may take. Protects peers from being judged by answers
/// that wait unread. Source: a busy shard's turn takes far less than the lower one.
const STALL_MIN: Duration = Duration::from_millis(100);
const STALL_MAX: Duration = Duration::from_secs(1);
