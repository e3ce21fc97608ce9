//! Messages of daemons.

use relay_contract::{CloseReason, ConnectionId, Counter, Level, LogEntry, Tick};
use relay_wire::envelope::cold::{self, ColdFrame};
use relay_wire::envelope::{ColdKind, Envelope, Invalid, lossy, trim_js};

use crate::connection::Part;
use crate::directory::Table;
use crate::input::Message;
use crate::switchboard::Switchboard;
use crate::{Effect, Effects};

/// A frame that a daemon may send.
enum DaemonFrame<'m> {
    /// Belongs to a session: goes to its owner.
    Session { session_id: &'m [u8] },
    /// Goes to the client that asked, and makes it the session's owner.
    KeyExchange { request_id: &'m [u8], session_id: &'m [u8] },
    /// Goes to the client that asked.
    Pairing { request_id: &'m [u8] },
    /// Goes to subscribers, but only the backplane brings it.
    Event,
}

impl<'m> DaemonFrame<'m> {
    fn of(message: Message<'m>) -> Result<Self, Invalid> {
        match *message.envelope? {
            Envelope::E2ee { session_id, .. } | Envelope::KeyUpdate { session_id, .. } => {
                Ok(Self::Session { session_id })
            }
            Envelope::KeyExchangeResponse { request_id, session_id, .. } => {
                Ok(Self::KeyExchange { request_id, session_id })
            }
            Envelope::PairingOfferResponse { request_id, .. }
            | Envelope::PairingRedeemResponse { request_id, .. } => {
                Ok(Self::Pairing { request_id })
            }
            Envelope::Cold { kind: ColdKind::SessionEvent, .. } => {
                match cold::parse(ColdKind::SessionEvent, &(message.text)())? {
                    ColdFrame::SessionEvent { .. } => Ok(Self::Event),
                    ColdFrame::Worker(_)
                    | ColdFrame::Subscribe { .. }
                    | ColdFrame::Unsubscribe { .. }
                    | ColdFrame::Presence { .. }
                    | ColdFrame::Renewal { .. } => Err(Invalid::Type),
                }
            }
            Envelope::Cold { .. }
            | Envelope::KeyExchangeInit { .. }
            | Envelope::PairingOfferRequest { .. }
            | Envelope::PairingRedeemRequest { .. } => Err(Invalid::Type),
        }
    }
}

impl Switchboard {
    /// Judges a daemon's message and routes it. The order of the checks can be observed.
    /// Source: relay specification, sections 6 and 7.
    pub(crate) fn on_daemon_message(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member(from) else {
            return;
        };
        let Part::Daemon { profile: claimed, .. } = member.part else {
            return;
        };
        let at = member.scope;
        let scope = self.core.directory.scope(at);
        let limits = scope.limits(&self.limits);
        if !self.core.limiters.daemon(scope.workspace_key, now, limits) {
            self.counters.count(Counter::FramesDaemonRateLimited);
            self.log_daemon_frame(from, "daemon_frame_rate_limited", None, effects);
            return self.close(now, from, CloseReason::DaemonRateLimited, effects);
        }
        let Ok(frame) = DaemonFrame::of(message) else {
            if message.is_renewal() {
                return self.on_renewal(now, from, message, effects);
            }
            self.counters.count(Counter::FramesDaemonRejected);
            if self.may_log_frame(now, from) {
                let reason = Some("invalid_daemon_frame");
                self.log_daemon_frame(from, "daemon_frame_rejected", reason, effects);
            }
            return;
        };
        if claimed.is_some_and(|floor| !message.profile_fits(|profile| profile >= floor)) {
            self.counters.count(Counter::FramesDaemonRejectedProfileMismatch);
            let reason = Some("profile_mismatch");
            self.log_daemon_frame(from, "daemon_frame_rejected", reason, effects);
            return self.close(now, from, CloseReason::DaemonProfileMismatch, effects);
        }
        self.counters.count(Counter::FramesDaemonToClients);
        self.counters.add(Counter::BytesDaemonToClients, message.bytes as u64);
        self.core.directory.scope_mut(at).traffic.count(now, message.bytes);
        match frame {
            DaemonFrame::Session { session_id } => {
                self.route_to_owner(now, at, session_id, message.bytes, effects);
            }
            DaemonFrame::KeyExchange { request_id, session_id } => {
                let answer = Answer { request_id, bytes: message.bytes };
                self.route_key_exchange(now, from, answer, session_id, effects);
            }
            DaemonFrame::Pairing { request_id } => {
                let answer = Answer { request_id, bytes: message.bytes };
                self.route_pairing(now, from, answer, effects);
            }
            DaemonFrame::Event if !self.may_log_frame(now, from) => {}
            DaemonFrame::Event => {
                let reason = Some("unroutable_daemon_frame");
                self.log_daemon_frame(from, "daemon_frame_rejected", reason, effects);
            }
        }
    }

    /// The session id is looked up as it stands, untrimmed.
    fn route_to_owner(
        &mut self,
        now: Tick,
        at: u32,
        session_id: &[u8],
        bytes: usize,
        effects: &mut Effects,
    ) {
        let session = self.core.keyer.text(session_id);
        let owner = self.core.directory.scope_mut(at).session_owner(session, now, &self.limits);
        match owner.filter(|&owner| self.core.connections.member(owner).is_some()) {
            Some(owner) => {
                self.counters.count(Counter::SessionFrameRoutedLocal);
                self.forward(now, owner, bytes, effects);
            }
            None => self.counters.count(Counter::SessionFrameDropped),
        }
    }

    /// A blank session id cannot be owned: such an answer is dropped and the request stays open.
    fn route_key_exchange(
        &mut self,
        now: Tick,
        from: ConnectionId,
        answer: Answer<'_>,
        session_id: &[u8],
        effects: &mut Effects,
    ) {
        let Some(at) = self.core.connections.member(from).map(|member| member.scope) else {
            return;
        };
        let core = &mut self.core;
        let session_id = trim_js(session_id);
        let scope = core.directory.scope_mut(at);
        let request = core.keyer.text(trim_js(answer.request_id));
        let client = match session_id {
            [] => None,
            _ => scope.exchanges.take(request, now, &self.limits),
        };
        if let Some(client) = client.filter(|&client| core.connections.member(client).is_some()) {
            let session = core.keyer.text(session_id);
            self.remember(now, at, Table::Sessions, (session, client));
            self.counters.count(Counter::KeyExchangeResponseRoutedLocal);
            return self.forward(now, client, answer.bytes, effects);
        }
        self.counters.count(Counter::KeyExchangeResponseDropped);
        let event = "key_exchange_response_owner_missing";
        self.log_owner_missing(now, from, event, answer.request_id, effects);
    }

    fn route_pairing(
        &mut self,
        now: Tick,
        from: ConnectionId,
        answer: Answer<'_>,
        effects: &mut Effects,
    ) {
        let Some(at) = self.core.connections.member(from).map(|member| member.scope) else {
            return;
        };
        let core = &mut self.core;
        let request = core.keyer.text(trim_js(answer.request_id));
        let client = core.directory.scope_mut(at).pairings.take(request, now, &self.limits);
        if let Some(client) = client.filter(|&client| core.connections.member(client).is_some()) {
            self.counters.count(Counter::PairingResponseRoutedLocal);
            return self.forward(now, client, answer.bytes, effects);
        }
        self.counters.count(Counter::PairingResponseDropped);
        let event = "pairing_response_owner_missing";
        self.log_owner_missing(now, from, event, answer.request_id, effects);
    }

    fn log_owner_missing(
        &mut self,
        now: Tick,
        from: ConnectionId,
        event: &'static str,
        request_id: &[u8],
        effects: &mut Effects,
    ) {
        if !self.may_log_frame(now, from) {
            return;
        }
        let request_id = trim_js(request_id);
        let shown = &request_id[..request_id.len().min(LOGGED_REQUEST_ID_BYTES_MAX)];
        let entry = LogEntry::new(Level::Warn, event)
            .about(from)
            .with("workspaceId", self.workspace_of(from).to_owned())
            .with("requestId", lossy(shown));
        effects.push(Effect::Log(Box::new(entry)));
    }

    fn log_daemon_frame(
        &self,
        from: ConnectionId,
        event: &'static str,
        reason: Option<&'static str>,
        effects: &mut Effects,
    ) {
        let entry = LogEntry::new(Level::Warn, event)
            .about(from)
            .with("workspaceId", self.workspace_of(from).to_owned());
        let entry = match reason {
            Some(reason) => entry.with("reason", reason),
            None => entry,
        };
        effects.push(Effect::Log(Box::new(entry)));
    }
}

/// The answer to a client's request.
#[derive(Clone, Copy)]
struct Answer<'m> {
    request_id: &'m [u8],
    bytes: usize,
}

/// Bytes of a request id that a log entry shows. Protects the log from ids as long as a frame.
const LOGGED_REQUEST_ID_BYTES_MAX: usize = 128;

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
