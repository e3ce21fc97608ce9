//! Messages of clients.

use relay_contract::{CloseReason, ConnectionId, Counter, Level, LogEntry, Scope, Tick};
use relay_wire::envelope::cold::{self, ColdFrame};
use relay_wire::envelope::{ColdKind, Envelope, Invalid, emit, trim_js};

use crate::connection::{Client, Member, Part};
use crate::directory::Table;
use crate::input::Message;
use crate::limiter::RuntimeKeys;
use crate::switchboard::{Switchboard, with_some};
use crate::{Effect, Effects};

/// A frame that a client may send.
enum ClientFrame<'m> {
    Encrypted { session_id: &'m [u8] },
    KeyExchange { request_id: &'m [u8] },
    Pairing { request_id: &'m [u8] },
    Events(ColdFrame),
}

impl<'m> ClientFrame<'m> {
    fn of(message: Message<'m>) -> Result<Self, Invalid> {
        match *message.envelope? {
            Envelope::E2ee { session_id, .. } => Ok(Self::Encrypted { session_id }),
            Envelope::KeyExchangeInit { request_id, .. } => Ok(Self::KeyExchange { request_id }),
            Envelope::PairingOfferRequest { request_id, .. }
            | Envelope::PairingRedeemRequest { request_id, .. } => Ok(Self::Pairing { request_id }),
            Envelope::Cold { kind, .. } => match kind {
                ColdKind::Subscribe | ColdKind::Unsubscribe | ColdKind::Presence => {
                    cold::parse(kind, &(message.text)()).map(Self::Events)
                }
                // A renewal is no frame of a client but the relay's own.
                ColdKind::Worker | ColdKind::SessionEvent | ColdKind::Renewal => Err(Invalid::Type),
            },
            Envelope::KeyExchangeResponse { .. }
            | Envelope::KeyUpdate { .. }
            | Envelope::PairingOfferResponse { .. }
            | Envelope::PairingRedeemResponse { .. } => Err(Invalid::Type),
        }
    }

    /// The close that a frame outside the client's scope leads to.
    fn misplaced_in(&self, scope: Scope) -> Option<CloseReason> {
        match (scope, self) {
            (Scope::SessionEvents, _) | (Scope::Pairing, Self::Pairing { .. }) => None,
            (Scope::Runtime, Self::Encrypted { .. } | Self::KeyExchange { .. }) => None,
            (Scope::Runtime | Scope::Pairing, Self::Events(_)) => {
                Some(CloseReason::SessionEventsScopeRequired)
            }
            (Scope::Pairing, Self::Encrypted { .. } | Self::KeyExchange { .. }) => {
                Some(CloseReason::PairingScopeOnly)
            }
            (Scope::Runtime, Self::Pairing { .. }) => Some(CloseReason::RuntimeScopeOnly),
        }
    }
}

impl Switchboard {
    /// Judges a client's message and routes it. The order of the checks can be observed.
    /// Source: relay specification, section 6.
    pub(crate) fn on_client_message(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let Some((_, client)) = self.client(from) else {
            return;
        };
        let (claimed, scope) = (client.profile, client.scope);
        let Ok(frame) = ClientFrame::of(message) else {
            if message.is_renewal() {
                return self.on_renewal(now, from, message, effects);
            }
            self.counters.count(Counter::FramesClientRejected);
            if !self.pay_unrouted(now, from, effects) {
                return;
            }
            if self.may_log_frame(now, from) {
                self.log_client_frame(from, "client_frame_rejected", "invalid_frame", effects);
            }
            let text = emit::invalid_frame(self.workspace_of(from));
            return self.refuse(now, from, text, effects);
        };
        if let Some(reason) = frame.misplaced_in(scope) {
            self.counters.count(Counter::FramesClientRejectedScope);
            self.log_client_frame(from, "client_frame_rejected", "scope_mismatch", effects);
            return self.close(now, from, reason, effects);
        }
        if scope == Scope::SessionEvents {
            return self.on_events_message(now, from, frame, message, effects);
        }
        if claimed.is_some_and(|claimed| !message.profile_fits(|profile| profile == claimed)) {
            self.counters.count(Counter::FramesClientRejectedProfileMismatch);
            self.log_client_frame(from, "client_frame_rejected", "profile_mismatch", effects);
            return self.close(now, from, CloseReason::ClientProfileMismatch, effects);
        }
        if let Err(reason) = self.meter(now, from, &frame, effects) {
            return self.close(now, from, reason, effects);
        }
        self.route_to_daemon(now, from, message, effects);
    }

    fn on_events_message(
        &mut self,
        now: Tick,
        from: ConnectionId,
        frame: ClientFrame<'_>,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        if let ClientFrame::Events(frame) = frame {
            return self.on_events_frame(now, from, frame, message, effects);
        }
        self.counters.count(Counter::FramesClientRejectedScope);
        if !self.pay_unrouted(now, from, effects) {
            return;
        }
        if self.may_log_frame(now, from) {
            let reason = "session_events_scope_only";
            self.log_client_frame(from, "client_frame_rejected", reason, effects);
        }
        let text = emit::session_events_scope_only(self.workspace_of(from));
        self.refuse(now, from, text, effects);
    }

    /// Counts a frame against the limits of its kind, and remembers who is to get its answer.
    fn meter(
        &mut self,
        now: Tick,
        from: ConnectionId,
        frame: &ClientFrame<'_>,
        effects: &mut Effects,
    ) -> Result<(), CloseReason> {
        let Some((member, client)) = self.client(from) else {
            return Ok(());
        };
        let (at, origin, key) = (member.scope, client.origin, client.key);
        let Self { core, limits, .. } = self;
        let scope = core.directory.scope_mut(at);
        let relay = limits;
        let limits = scope.limits.as_deref().unwrap_or(relay);
        let (counter, reason) = match *frame {
            ClientFrame::KeyExchange { request_id } => {
                if core.limiters.key_exchange(origin, now, limits) {
                    let request = core.keyer.text(trim_js(request_id));
                    self.remember(now, at, Table::Exchanges, (request, from));
                    return Ok(());
                }
                (Counter::FramesClientKexRateLimited, CloseReason::KeyExchangeRateLimited)
            }
            ClientFrame::Encrypted { session_id } => {
                let keys = RuntimeKeys { client: key, workspace: scope.workspace_key };
                if core.limiters.runtime(keys, now, limits) {
                    scope.refresh_session(core.keyer.text(session_id), from, now, relay);
                    return Ok(());
                }
                (Counter::FramesClientRuntimeRateLimited, CloseReason::RuntimeRateLimited)
            }
            ClientFrame::Pairing { request_id } => {
                if core.limiters.pairing(origin, now, limits) {
                    let request = core.keyer.text(trim_js(request_id));
                    self.remember(now, at, Table::Pairings, (request, from));
                    return Ok(());
                }
                (Counter::FramesClientPairingRateLimited, CloseReason::PairingRateLimited)
            }
            ClientFrame::Events(_) => return Ok(()),
        };
        self.counters.count(counter);
        if reason == CloseReason::KeyExchangeRateLimited {
            let event = "client_frame_rate_limited";
            self.log_client_frame(from, event, "key_exchange_rate_limited", effects);
        }
        Err(reason)
    }

    fn route_to_daemon(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let Some((member, _)) = self.client(from) else {
            return;
        };
        let at = member.scope;
        let scope = self.core.directory.scope_mut(at);
        if let Some(daemon) = scope.daemon {
            scope.traffic.count(now, message.bytes);
            self.counters.count(Counter::FramesClientToDaemon);
            self.counters.add(Counter::BytesClientToDaemon, message.bytes as u64);
            return self.forward(now, daemon, message.bytes, effects);
        }
        let Some((_, client)) = self.client(from) else {
            return;
        };
        let scope = self.core.directory.scope(at);
        let workspace = scope.workspace_id.as_str();
        let target = scope.target_id.as_ref().map(|target| target.as_str());
        let (text, reason) = match self.elsewhere(at) {
            Some(url) => (emit::relay_redirect(workspace, target, url), "daemon_elsewhere"),
            None => {
                let machine = client.machine_id.as_deref();
                (emit::daemon_unavailable(workspace, target, machine), "daemon_unavailable")
            }
        };
        if reason == "daemon_elsewhere" {
            self.counters.count(Counter::ClientRedirect);
        }
        self.counters.count(Counter::ClientMessagesDropped);
        if self.may_log_frame(now, from) {
            self.log_dropped(from, reason, effects);
        }
        self.send(now, from, text.into(), effects);
    }

    fn log_dropped(&self, from: ConnectionId, reason: &'static str, effects: &mut Effects) {
        let Some((member, client)) = self.client(from) else {
            return;
        };
        let scope = self.core.directory.scope(member.scope);
        let target = scope.target_id.as_ref().map(ToString::to_string);
        let entry = LogEntry::new(Level::Warn, "client_message_dropped")
            .about(from)
            .with("workspaceId", scope.workspace_id.to_string())
            .with("clientId", client.name().to_owned());
        let entry = with_some(entry, "runtimeTargetId", target);
        let entry = with_some(entry, "machineId", client.machine_id.as_deref().map(str::to_owned));
        effects.push(Effect::Log(Box::new(entry.with("reason", reason))));
    }

    /// Pays for a client's frame that reaches nobody. Who cannot pay is closed: `false`.
    pub(crate) fn pay_unrouted(
        &mut self,
        now: Tick,
        from: ConnectionId,
        effects: &mut Effects,
    ) -> bool {
        let per_minute = self.limits_of(from).unrouted_per_minute;
        let member = self.core.connections.member_mut(from);
        if member.is_some_and(|member| member.unrouted.take(now, per_minute)) {
            return true;
        }
        self.counters.count(Counter::FramesClientUnroutedRateLimited);
        self.close(now, from, CloseReason::UnroutedRateLimited, effects);
        false
    }

    /// Answers a frame that cost its sender nothing. While the client does not read the answers it
    /// has, it gets no more of them, so that a flood is not amplified into our memory.
    pub(crate) fn refuse(
        &mut self,
        now: Tick,
        to: ConnectionId,
        text: Vec<u8>,
        effects: &mut Effects,
    ) {
        let member = self.core.connections.member(to);
        if member.is_some_and(|member| member.queued_bytes <= REFUSAL_BACKLOG_BYTES_MAX) {
            self.send(now, to, text.into(), effects);
        }
    }

    pub(crate) fn client(&self, id: ConnectionId) -> Option<(&Member, &Client)> {
        let member = self.core.connections.member(id)?;
        match &member.part {
            Part::Client(client) => Some((member, client)),
            Part::Daemon { .. } | Part::Worker(_) => None,
        }
    }

    /// The workspace of an open connection.
    pub(crate) fn workspace_of(&self, id: ConnectionId) -> &str {
        self.core
            .connections
            .member(id)
            .map_or("", |member| self.core.directory.scope(member.scope).workspace_id.as_str())
    }

    fn log_client_frame(
        &self,
        from: ConnectionId,
        event: &'static str,
        reason: &'static str,
        effects: &mut Effects,
    ) {
        let Some((_, client)) = self.client(from) else {
            return;
        };
        let entry = LogEntry::new(Level::Warn, event)
            .about(from)
            .with("workspaceId", self.workspace_of(from).to_owned())
            .with("clientId", client.name().to_owned())
            .with("reason", reason);
        effects.push(Effect::Log(Box::new(entry)));
    }
}

/// Bytes that may wait for a client before frames of no use are refused without an answer. Protects
/// memory and the network from amplification. Reached: the frame is only counted. Source: about a
/// hundred answers, several times what the recorded scenarios expect at once.
const REFUSAL_BACKLOG_BYTES_MAX: u32 = 16 << 10;

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
