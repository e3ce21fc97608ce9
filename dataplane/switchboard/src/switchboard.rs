//! The switchboard itself: one entry point, and what its parts share.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, CloseReason, ConnectionId, Counter, Counters, Level, Limits, LogEntry,
    ScopeReport, ScopeTraffic, ShardId, ShardReport, Tick,
};
use serde::{Deserialize, Serialize};

use crate::connection::{Connections, Leaver, Member, Part, State};
use crate::directory::{Directory, Subscription};
use crate::input::{Input, Message};
use crate::key::Keyer;
use crate::limiter::Limiters;
use crate::liveness::Verdict;
use crate::tenants::Tenants;
use crate::wheel::{TimerId, Wheel};
use crate::{Effect, Effects};

/// Who is connected on one shard, and what follows from what they do.
///
/// Cost: an idle client takes 296 bytes of heap at most, its client id included.
#[derive(Debug)]
pub struct Switchboard {
    pub(crate) core: Core,
    pub(crate) counters: Counters,
    pub(crate) limits: Arc<Limits>,
    pub(crate) tenants: Tenants,
    pub(crate) wheel: Wheel<Timer>,
}

/// The part of the state that is written down as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Core {
    pub(crate) shard: ShardId,
    pub(crate) keyer: Keyer,
    pub(crate) connections: Connections,
    pub(crate) directory: Directory,
    pub(crate) limiters: Limiters,
    /// The next opened connection's place in the order.
    pub(crate) sequence: u64,
    /// Open daemons and clients.
    pub(crate) peer_count: u64,
    /// Whether [`Timer::Cleanup`] is pending.
    pub(crate) cleanup_armed: bool,
    pub(crate) stopping: bool,
    /// When the shard last went on after it had been stopped: silence before counts against nobody.
    pub(crate) resumed: Tick,
    /// When deadlines were last looked at.
    pub(crate) looked: Tick,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// Of the connection in a slot: its heartbeat while open, its end while closing.
    Connection(u32),
    /// Empty scopes and unused limiter entries are looked for.
    Cleanup,
}

impl Switchboard {
    /// A switchboard without connections. Identifiers that peers choose are stored under a keyed
    /// hash; `hash_key` must be unpredictable for them.
    pub fn new(shard: ShardId, hash_key: [u8; 16], limits: Arc<Limits>) -> Self {
        Self {
            core: Core {
                shard,
                keyer: Keyer::new(hash_key),
                connections: Connections::default(),
                directory: Directory::default(),
                limiters: Limiters::default(),
                sequence: 0,
                peer_count: 0,
                cleanup_armed: false,
                stopping: false,
                resumed: Tick(0),
                looked: Tick(0),
            },
            counters: Counters::default(),
            tenants: Tenants::new(Arc::default(), &limits),
            limits,
            wheel: Wheel::new(Tick(0)),
        }
    }

    /// Decides what follows from one input. Push order is the order to perform.
    ///
    /// `now` never goes backwards. Allocates nothing once `effects` and the tables have grown to
    /// their working size, texts of the relay's own and log entries aside.
    pub fn handle(&mut self, now: Tick, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Opened { connection, grant } => self.on_opened(now, connection, *grant, effects),
            Input::Message { from, message } => self.on_message(now, from, message, effects),
            Input::TooLarge { from } => self.on_fault(now, from, "frame_too_large", effects),
            Input::ProtocolError { from } => self.on_fault(now, from, "protocol_error", effects),
            Input::SmallFrame { from } => self.on_small_frame(now, from, effects),
            Input::Pong { from } => self.on_pong(now, from, effects),
            Input::Progress { from } => self.on_progress(now, from),
            Input::Sent { to, bytes } => self.on_sent(to, bytes),
            Input::WorkerReply { to, response } => {
                self.on_worker_reply(now, to, response, effects);
            }
            Input::Renewed { to, outcome } => self.on_renewed(now, to, outcome, effects),
            Input::Closing { connection } => self.on_closing(now, connection, effects),
            Input::Evicted { connection, reason } => {
                self.on_evicted(now, connection, reason, effects);
            }
            Input::Dismissed { connection, reason } => {
                self.on_dismissed(now, connection, reason, effects);
            }
            Input::Drained { connection, redirect } => {
                self.on_drained(now, connection, redirect, effects);
            }
            Input::Closed { connection } => self.on_closed(now, connection, effects),
            Input::Elapsed => self.on_elapsed(now, effects),
            Input::SetLimits(limits) => self.on_limits(limits),
            Input::SetRoutes(routes) => self.on_routes(routes),
            Input::Stop => self.on_stop(now, effects),
        }
        self.arm_cleanup(now);
    }

    /// When [`Input::Elapsed`] is due: at once, while deadlines are left that have passed. It may
    /// come earlier than anything happens.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.wheel.next_deadline()
    }

    /// Bytes that wait for a connection, by which its next message is judged.
    pub fn queued_bytes(&self, connection: ConnectionId) -> usize {
        self.core.connections.member(connection).map_or(0, |member| member.queued_bytes as usize)
    }

    /// What was counted since the start, earlier processes of a hand-over included.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the switchboard holds; the scopes one by one only when asked for. Clock and memory are
    /// the shard's to fill in. Cost with scopes: linear in connections, and sorting them.
    pub fn report(&self, scopes: bool) -> ShardReport {
        let core = &self.core;
        ShardReport {
            shard: core.shard,
            counters: self.counters.clone(),
            connection_count: core.peer_count,
            scope_count: core.directory.len() as u64,
            scopes: if scopes { self.scope_reports() } else { Vec::new() },
            ..ShardReport::default()
        }
    }

    /// The scopes with most traffic lately, at most [`ShardReport::HOTTEST_MAX`]. Cost: linear in
    /// scopes.
    pub fn hottest(&self, now: Tick) -> Vec<ScopeTraffic> {
        self.core.directory.hottest(now)
    }

    fn scope_reports(&self) -> Vec<ScopeReport> {
        let mut members: Vec<(u32, u64, &str)> = Vec::new();
        for (_, connection) in self.core.connections.slots() {
            if let State::Open(Member { scope, sequence, part: Part::Client(client), .. }) =
                &connection.state
            {
                members.push((*scope, *sequence, client.name()));
            }
        }
        members.sort_unstable();
        let mut scopes: Vec<_> = self.core.directory.iter().collect();
        scopes.sort_unstable_by_key(|(_, scope)| scope.sequence);
        let report = |(at, scope): (u32, &crate::directory::Scope)| {
            let first = members.partition_point(|member| member.0 < at);
            let mine = members[first..].iter().take_while(|member| member.0 == at);
            ScopeReport {
                workspace_id: scope.workspace_id.clone(),
                target_id: scope.target_id.clone(),
                daemon_connected: scope.daemon.is_some(),
                client_ids: mine.map(|member| member.2.into()).collect(),
                last_activity: scope.last_activity,
            }
        };
        scopes.into_iter().map(report).collect()
    }

    fn on_message(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member_mut(from) else {
            return;
        };
        member.liveness.on_message(now);
        let scope = self.core.directory.scope_mut(member.scope);
        scope.last_activity = now;
        if message.bytes > scope.limits(&self.limits).frame_bytes_max {
            self.counters.count(Counter::WsFrameTooLarge);
            return self.close(now, from, CloseReason::FrameTooLarge, effects);
        }
        match member.part {
            Part::Daemon { .. } => self.on_daemon_message(now, from, message, effects),
            Part::Client(_) => self.on_client_message(now, from, message, effects),
            Part::Worker(_) => self.on_worker_message(now, from, message, effects),
        }
    }

    /// The shard found a fault below the level of messages and closes with the code that goes with
    /// it.
    fn on_fault(
        &mut self,
        now: Tick,
        from: ConnectionId,
        reason: &'static str,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member(from) else {
            return;
        };
        let scope = self.core.directory.scope(member.scope);
        let (event, client, ours) = match &member.part {
            Part::Daemon { .. } => ("daemon_ws_error", None, false),
            Part::Client(client) => ("client_ws_error", Some(client.name().to_owned()), false),
            Part::Worker(_) => ("worker_ws_error", None, true),
        };
        let mut entry = LogEntry::new(Level::Warn, event)
            .about(from)
            .with("workspaceId", scope.workspace_id.to_string());
        if let Some(client) = client {
            entry = entry.with("clientId", client);
        }
        entry.ours = ours;
        effects.push(Effect::Log(Box::new(entry.with("reason", reason))));
        self.await_end(now, from, effects);
    }

    fn on_pong(&mut self, now: Tick, from: ConnectionId, effects: &mut Effects) {
        if let Some(member) = self.core.connections.member_mut(from) {
            member.liveness.on_pong(now);
            self.on_small_frame(now, from, effects);
        }
    }

    /// Pays for a frame that carries little. Who cannot pay is closed.
    fn on_small_frame(&mut self, now: Tick, from: ConnectionId, effects: &mut Effects) {
        let per_minute = self.limits_of(from).small_frames_per_minute;
        let Some(member) = self.core.connections.member_mut(from) else {
            return;
        };
        if !member.small_frames.take(now, per_minute) {
            self.counters.count(Counter::SmallFramesRateLimited);
            self.close(now, from, CloseReason::SmallFrameRateLimited, effects);
        }
    }

    /// Whether an entry about a connection's frame may still be logged.
    pub(crate) fn may_log_frame(&mut self, now: Tick, from: ConnectionId) -> bool {
        let Some(member) = self.core.connections.member_mut(from) else {
            return false;
        };
        let may = member.frame_logs.take(now, self.limits.frame_logs_per_minute);
        if !may {
            self.counters.count(Counter::FrameLogsSuppressed);
        }
        may
    }

    fn on_progress(&mut self, now: Tick, from: ConnectionId) {
        if let Some(member) = self.core.connections.member_mut(from) {
            member.liveness.on_progress(now);
        }
    }

    fn on_sent(&mut self, to: ConnectionId, bytes: usize) {
        if let Some(member) = self.core.connections.member_mut(to) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            member.queued_bytes = member.queued_bytes.saturating_sub(bytes);
        }
    }

    fn on_closing(&mut self, now: Tick, connection: ConnectionId, effects: &mut Effects) {
        if self.core.connections.member(connection).is_some() {
            self.await_end(now, connection, effects);
        }
    }

    fn on_evicted(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        if reason == CloseReason::BufferOverflow
            && self.core.connections.member(connection).is_some()
        {
            self.counters.count(Counter::WsSlowClientTerminated);
        }
        self.close(now, connection, reason, effects);
    }

    fn on_dismissed(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        if self.core.connections.member(connection).is_some() {
            self.counters.count(Counter::ConnectionsDismissed);
            self.close(now, connection, reason, effects);
        }
    }

    pub(crate) fn on_closed(&mut self, now: Tick, connection: ConnectionId, effects: &mut Effects) {
        let Some(seat) = self.core.connections.get(connection) else {
            return;
        };
        let leaver = match seat.state {
            State::Open(_) => self.leave(now, connection, effects),
            State::Closing { leaver, timer } => {
                self.wheel.cancel(timer);
                Some(leaver)
            }
            State::Cut { leaver } => Some(leaver),
        };
        self.core.connections.remove(connection);
        if let Some(leaver) = leaver {
            if leaver.registered {
                self.counters.count(Counter::WsConnectionsClosed);
            }
            effects.push(Effect::Release { admission: leaver.admission });
        }
    }

    fn on_elapsed(&mut self, now: Tick, effects: &mut Effects) {
        self.note_stall(now, effects);
        for _ in 0..EXPIRED_MAX {
            let Some(timer) = self.wheel.expire(now) else { break };
            match timer {
                Timer::Connection(slot) => self.on_connection_timer(now, slot, effects),
                Timer::Cleanup => self.on_cleanup(now, effects),
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
        let Some(connection) = self.core.connections.at_mut(slot) else {
            return;
        };
        let id = connection.id;
        match &mut connection.state {
            State::Open(member) => {
                let resumed = self.core.resumed;
                let verdict = member.liveness.on_timer(now, resumed, &self.limits.heartbeat);
                let next = member.liveness.deadline(&self.limits.heartbeat);
                self.on_verdict(now, id, verdict, effects);
                if let Some(member) = self.core.connections.member_mut(id) {
                    member.timer = self.wheel.insert(next, Timer::Connection(slot));
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
            Verdict::Ping => return effects.push(Effect::Ping { to: connection }),
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
        self.core.limiters.sweep(now);
        while let Some(scope) = self.core.directory.evict(now, &self.limits) {
            self.counters.count(Counter::WorkspaceEvictions);
            let entry = LogEntry::new(Level::Info, "workspace_evicted");
            effects.push(Effect::Log(Box::new(entry.with("workspaceId", scope.name()))));
        }
    }

    /// Cleaning up is due as long as there is something that may have to go.
    pub(crate) fn arm_cleanup(&mut self, now: Tick) {
        let core = &mut self.core;
        if !core.cleanup_armed && (core.directory.has_empty() || !core.limiters.is_empty()) {
            let interval = self.limits.cleanup_interval.max(Duration::from_millis(1));
            self.arm(now, now.after(interval), Timer::Cleanup);
            self.core.cleanup_armed = true;
        }
    }

    fn on_stop(&mut self, now: Tick, effects: &mut Effects) {
        self.core.stopping = true;
        for slot in 0..self.core.connections.slot_count() {
            if let Some(id) = self.core.connections.at(slot).map(|connection| connection.id) {
                self.close(now, id, CloseReason::ShuttingDown, effects);
            }
        }
    }

    /// Sends a close frame and stops listening. Does nothing unless the connection is open.
    pub(crate) fn close(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        if self.core.connections.member(connection).is_some() {
            effects.push(Effect::Close { connection, reason });
            self.await_end(now, connection, effects);
        }
    }

    /// An open connection becomes a closing one.
    fn await_end(&mut self, now: Tick, connection: ConnectionId, effects: &mut Effects) {
        if let Some(leaver) = self.leave(now, connection, effects) {
            self.seat_closing(now, connection, leaver);
        }
    }

    /// Seats a connection that has `close_timeout` to end.
    pub(crate) fn seat_closing(&mut self, now: Tick, connection: ConnectionId, leaver: Leaver) {
        let timer = Timer::Connection(connection.slot);
        let timer = self.arm(now, now.after(self.limits.close_timeout), timer);
        self.core.connections.seat(connection, State::Closing { leaver, timer });
    }

    /// Takes an open connection out of its scope and says so in the log.
    fn leave(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        effects: &mut Effects,
    ) -> Option<Leaver> {
        let member = self.core.connections.member(connection)?;
        self.wheel.cancel(member.timer);
        let scope = self.core.directory.scope_mut(member.scope);
        let workspace = scope.workspace_id.to_string();
        let entry = |event| {
            LogEntry::new(Level::Info, event).about(connection).with("workspaceId", workspace)
        };
        let entry = match &member.part {
            Part::Daemon { machine_id, .. } => {
                scope.daemon = None;
                scope.exchanges.clear();
                scope.pairings.clear();
                scope.sessions.clear();
                self.core.peer_count -= 1;
                let target = scope.target_id.as_ref().map(ToString::to_string);
                let entry = with_some(entry("daemon_disconnected"), "runtimeTargetId", target);
                with_some(entry, "machineId", machine_id.as_deref().map(str::to_owned))
            }
            Part::Client(client) => {
                for channel in client.channels.iter().flatten().filter(|each| each.subscribed) {
                    scope.subscriptions.remove(&Subscription {
                        channel: channel.key,
                        sequence: member.sequence,
                        subscriber: connection,
                    });
                }
                scope.client_count -= 1;
                self.core.peer_count -= 1;
                entry("client_disconnected").with("clientId", client.name().to_owned())
            }
            Part::Worker(worker) => {
                let executor = worker.executor_id.as_deref().map(str::to_owned);
                with_some(entry("worker_disconnected"), "managedExecutorId", executor)
            }
        };
        effects.push(Effect::Log(Box::new(entry)));
        self.core.directory.part(member.scope, now);
        Some(Leaver { admission: member.admission, registered: true })
    }

    /// Sends a text of the relay's own.
    pub(crate) fn send(
        &mut self,
        now: Tick,
        to: ConnectionId,
        text: Box<[u8]>,
        effects: &mut Effects,
    ) {
        if self.enqueue(now, to, text.len(), effects) {
            effects.push(Effect::Send { to, text });
        }
    }

    /// Sends the message being judged.
    pub(crate) fn forward(
        &mut self,
        now: Tick,
        to: ConnectionId,
        bytes: usize,
        effects: &mut Effects,
    ) {
        if self.enqueue(now, to, bytes, effects) {
            effects.push(Effect::Forward { to });
        }
    }

    /// Counts a message into a connection's queue. One whose queue is above its bound already reads
    /// too slowly and is closed instead.
    fn enqueue(
        &mut self,
        now: Tick,
        to: ConnectionId,
        bytes: usize,
        effects: &mut Effects,
    ) -> bool {
        let Self { core, limits, tenants, .. } = self;
        let Some(member) = core.connections.member_mut(to) else {
            return false;
        };
        let queued_bytes = member.queued_bytes as usize;
        let is_backed_up = queued_bytes > tenants.egress_bytes_min
            && queued_bytes > core.directory.scope(member.scope).limits(limits).egress_bytes_max;
        if is_backed_up {
            self.counters.count(Counter::WsSlowClientTerminated);
            self.close(now, to, CloseReason::BufferOverflow, effects);
            return false;
        }
        let bytes = u32::try_from(framed_bytes(bytes)).unwrap_or(u32::MAX);
        member.queued_bytes = member.queued_bytes.saturating_add(bytes);
        true
    }

    /// Adds a deadline. While there are none the wheel is brought to the present for free.
    pub(crate) fn arm(&mut self, now: Tick, at: Tick, timer: Timer) -> TimerId {
        if self.wheel.is_empty() {
            self.wheel.expire(now);
        }
        self.wheel.insert(at, timer)
    }

    /// Closes a connection that was never registered.
    pub(crate) fn turn_away(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        admission: AdmissionId,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Close { connection, reason });
        self.seat_closing(now, connection, Leaver { admission, registered: false });
    }
}

/// Deadlines acted on by one input. Protects the latency of messages from thousands of pings that
/// are due at one moment, as after everybody reconnected. Reached: the others follow with the next
/// [`Input::Elapsed`]. Source: a ping with its part of the send costs one or two microseconds.
pub(crate) const EXPIRED_MAX: usize = 32;

/// How late a deadline is looked at before the shard counts as having been stopped, at least and at
/// most; between them it is the time a pong may take. Protects peers from being judged by answers
/// that wait unread. Source: a busy shard's turn takes far less than the lower one.
const STALL_MIN: Duration = Duration::from_millis(100);
const STALL_MAX: Duration = Duration::from_secs(1);

/// Bytes a message takes in a queue: its payload and the header of an unmasked frame.
/// Source: RFC 6455 §5.2.
pub fn framed_bytes(payload_bytes: usize) -> usize {
    let header_bytes = match payload_bytes {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    payload_bytes + header_bytes
}

/// Adds a fact that may be missing; the reference leaves such members out.
pub(crate) fn with_some(entry: LogEntry, key: &'static str, value: Option<String>) -> LogEntry {
    match value {
        Some(value) => entry.with(key, value),
        None => entry,
    }
}

#[cfg(test)]
#[path = "switchboard_tests.rs"]
mod tests;
