//! How a connection ends: who ends it, what is said, and what it leaves behind.

use relay_contract::{AdmissionId, CloseReason, ConnectionId, Counter, Level, LogEntry, Tick};

use crate::connection::{Leaver, Part, State};
use crate::deadline::Timer;
use crate::directory::Subscription;
use crate::switchboard::{Switchboard, with_some};
use crate::{Effect, Effects};

impl Switchboard {
    /// The shard found a fault below the level of messages and closes with the code that goes with
    /// it.
    pub(crate) fn on_fault(
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

    pub(crate) fn on_closing(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        effects: &mut Effects,
    ) {
        if self.core.connections.member(connection).is_some() {
            self.await_end(now, connection, effects);
        }
    }

    pub(crate) fn on_evicted(
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

    pub(crate) fn on_dismissed(
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

    pub(crate) fn on_stop(&mut self, now: Tick, effects: &mut Effects) {
        self.core.stopping = true;
        for slot in 0..self.core.connections.slot_count() {
            if let Some(id) = self.core.connections.id_at(slot) {
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

    /// An open connection becomes a closing one.
    fn await_end(&mut self, now: Tick, connection: ConnectionId, effects: &mut Effects) {
        if let Some(leaver) = self.leave(now, connection, effects) {
            self.seat_closing(now, connection, leaver);
        }
    }

    /// Takes an open connection out of its scope and says so in the log.
    pub(crate) fn leave(
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
        let admission = member.admission;
        self.core.directory.part(member.scope, now);
        self.settle_empty_scopes(now, effects);
        Some(Leaver { admission, registered: true })
    }

    /// Seats a connection that has `close_timeout` to end.
    pub(crate) fn seat_closing(&mut self, now: Tick, connection: ConnectionId, leaver: Leaver) {
        let timer = Timer::connection(connection.slot);
        let timer = self.arm(now, now.after(self.limits.close_timeout), timer);
        self.core.connections.seat(connection, State::Closing { leaver, timer });
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
}
