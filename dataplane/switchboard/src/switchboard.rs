//! The switchboard itself: one entry point, and what its parts share.

use std::sync::Arc;

use relay_contract::{
    CloseReason, ConnectionId, Counter, Counters, Limits, LogEntry, ScopeReport, ScopeTraffic,
    ShardId, ShardReport, Tick,
};
use serde::{Deserialize, Serialize};

use crate::Effects;
use crate::connection::{Connections, Member, Part, State};
use crate::deadline::Timer;
use crate::directory::Directory;
use crate::input::{Input, Message};
use crate::key::Keyer;
use crate::limiter::Limiters;
use crate::tenants::Tenants;
use crate::wheel::Wheel;

/// Who is connected on one shard, and what follows from what they do.
///
/// Cost: an idle client takes 264 bytes of heap at most, its client id included.
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
    /// Whether [`Timer::CLEANUP`] is pending.
    pub(crate) cleanup_armed: bool,
    pub(crate) stopping: bool,
    /// When the shard last went on after it had been stopped: silence before counts against nobody.
    pub(crate) resumed: Tick,
    /// When deadlines were last looked at.
    pub(crate) looked: Tick,
}

impl Switchboard {
    /// A switchboard without connections. Identifiers that peers choose are stored under a keyed
    /// hash; `hash_key` must be unpredictable for them.
    pub fn new(shard: ShardId, hash_key: [u8; 16], limits: Arc<Limits>) -> Self {
        Self {
            core: Core {
                shard,
                keyer: Keyer::new(hash_key),
                connections: Connections::new(shard),
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
            Input::MemoryShort { bytes } => self.on_memory_short(now, bytes, effects),
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

    /// What is kept of a connection, by its slot: the same bytes that its next input looks at
    /// first. Whoever knows that input beforehand can bring them close.
    pub fn seat(&self, connection: ConnectionId) -> Option<&(impl Sized + use<>)> {
        self.core.connections.get_ahead(connection.slot)
    }

    /// What is kept of its scope, likewise. Looks at the connection's own seat.
    pub fn place(&self, connection: ConnectionId) -> Option<&(impl Sized + use<>)> {
        let member = self.core.connections.member(connection)?;
        Some(self.core.directory.scope(member.scope))
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
        for (_, connection) in self.core.connections.iter() {
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
