//! From a request head to an open WebSocket: ask the control plane, move home, answer.

use std::net::IpAddr;

use relay_contract::{
    AdmissionId, AdmissionRequest, ConnectionId, Counter, Event, Grant, Measure, Refusal, ShardId,
};
use relay_driver::{Chunk, Driver, Key};
use relay_mailbox::Full;
use relay_switchboard::Input;
use relay_wire::http1::{self, Peer};
use relay_wire::websocket::Decoder;

use crate::connection::{CloseHandshake, Connection, Leaving, Open, Phase, Waiting};
use crate::parcel::{Content, Parcel, Upgrade};
use crate::shard::Shard;

/// What an upgrade is told that we could not ask about, or have no room for at the moment.
pub(crate) const UNAVAILABLE: Refusal = Refusal::Unavailable { retry_after_secs: 2 };

impl<D: Driver> Shard<D> {
    /// The guest's buffer begins with a complete upgrade request: judges what can be judged here
    /// and asks the rest.
    ///
    /// Nothing is read until the answer comes, so bytes sent early wait in the kernel. The time it
    /// was held back counts as time in which the control plane did not answer.
    pub(crate) fn ask_admission(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let is_local = connection.is_local;
        let Phase::Guest(guest) = &mut connection.phase else { return };
        let peer = self.config.trusted_proxies.peer_again(guest.peer, is_local);
        let held_back_since = guest.held_back_since();
        let buffer = guest.take_buffer();
        let is_tight = self.budget.is_tight(&self.limits);
        let is_drained = self.drain.is_some();
        if is_tight || is_drained {
            self.counters.count(Counter::AdmissionUnavailable);
            self.counters.add(Counter::DrainRefused, u64::from(is_drained));
            self.counters.add(Counter::BudgetRefused, u64::from(is_tight));
            self.push(key, http1::refusal_bytes(UNAVAILABLE).into_owned().into());
            return self.leave(key);
        }
        let Ok(Some(head)) = http1::parse_head(&buffer, self.limits.head_bytes_max) else {
            return;
        };
        let address = self.client_address(peer, &head);
        let preflight = http1::preflight(&head, &self.config.upgrade_rules);
        let handshake = http1::handshake(&head);
        let early = buffer[head.len()..].to_vec();
        let request = Box::new(AdmissionRequest { address, preflight });
        let asked_bytes = request.held_bytes();
        let (peer, asked) = (peer.address, held_back_since.unwrap_or(self.now));
        let waiting = Waiting { peer, asked, asked_bytes, handshake, early, is_held: false };
        self.enter(key, Phase::Waiting(Box::new(waiting)));
        if held_back_since.is_none() {
            self.set_deadline(key, self.limits.admission_timeout);
        }
        let connection = self.table.id(key);
        self.emit(Event::AdmissionAsked { connection, request });
    }

    fn client_address(&self, peer: Peer, head: &http1::Head<'_>) -> IpAddr {
        let hops = head.all("x-forwarded-for");
        http1::client_address(peer, hops, &self.config.trusted_proxies)
    }

    /// The control plane refused.
    pub(crate) fn on_refuse(&mut self, key: Key, refusal: Refusal) {
        let Some(Phase::Waiting(waiting)) = self.phase_mut(key) else {
            return;
        };
        let asked = waiting.asked;
        self.measure_admission(Measure::Refused, asked);
        self.refuse(key, refusal);
    }

    fn refuse(&mut self, key: Key, refusal: Refusal) {
        let response = http1::refusal_bytes(refusal);
        if !response.is_empty() {
            self.push(key, response.into_owned().into());
        }
        self.leave(key);
    }

    /// Nobody answered in time.
    pub(crate) fn on_waiting_expired(&mut self, key: Key) {
        self.counters.count(Counter::AdmissionExpired);
        self.counters.count(Counter::AdmissionUnavailable);
        self.withdraw(key);
        if let Some(Phase::Waiting(waiting)) = self.phase_mut(key) {
            let asked = waiting.asked;
            self.measure_admission(Measure::Unanswered, asked);
            self.refuse(key, UNAVAILABLE);
        }
    }

    /// Nobody waits for the control plane's answer any more, unless it has given it.
    pub(crate) fn withdraw(&mut self, key: Key) {
        if let Some(Phase::Waiting(waiting)) = self.phase_mut(key)
            && !waiting.is_held
        {
            let connection = self.table.id(key);
            self.emit(Event::Abandoned { connection });
        }
    }

    /// Whether the connection is admitted and waits for its workspace, which is about to leave.
    pub(crate) fn is_held(&mut self, key: Key) -> bool {
        matches!(self.phase_mut(key), Some(Phase::Waiting(waiting)) if waiting.is_held)
    }

    /// The control plane admitted the connection: open it here, or send it home.
    pub(crate) fn on_admit(&mut self, id: ConnectionId, grant: Box<Grant>, home: ShardId) {
        let admission = grant.admission;
        let waiting = self.table.key(id).and_then(|key| {
            let phase = self.phase_mut(key)?;
            match phase {
                Phase::Waiting(waiting) if !waiting.is_held => Some((key, waiting.asked)),
                _ => None,
            }
        });
        let Some((key, asked)) = waiting else {
            return self.emit(Event::Released { admission });
        };
        if self.drain.is_some() {
            // It was admitted before the control plane knew, or came while it decided to drain.
            self.counters.count(Counter::AdmissionUnavailable);
            self.counters.count(Counter::DrainRefused);
            self.emit(Event::Released { admission });
            return self.on_refuse(key, UNAVAILABLE);
        }
        let Some((grant, home)) = (match home == self.config.shard {
            true => self.redirect_admitted(id, grant),
            false => Some((grant, home)),
        }) else {
            return;
        };
        self.measure_admission(Measure::Admitted, asked);
        if home != self.config.shard {
            return self.send_home(key, grant, home);
        }
        self.clear_deadline(key);
        if let Some(Phase::Waiting(waiting)) = self.enter(key, Phase::Leaving(Leaving::default())) {
            self.open(key, grant, waiting.handshake, waiting.early);
        }
    }

    /// Hands the socket to its workspace's shard. When that shard cannot take it, the upgrade is
    /// refused.
    fn send_home(&mut self, key: Key, grant: Box<Grant>, home: ShardId) {
        let admission = grant.admission;
        let is_known = usize::from(home.0) < self.ports.homes.len();
        let socket = is_known.then(|| self.driver.release(key)).flatten();
        let Some(socket) = socket else {
            self.counters.count(Counter::AdmissionUnavailable);
            self.emit(Event::Released { admission });
            return self.refuse(key, UNAVAILABLE);
        };
        self.clear_deadline(key);
        let waiting = self.enter(key, Phase::Leaving(Leaving::default()));
        let (Some(Phase::Waiting(waiting)), Some(connection)) = (waiting, self.table.get_mut(key))
        else {
            return;
        };
        let Waiting { handshake, early, .. } = *waiting;
        let tls = connection.tls.take();
        let upgrade = Upgrade { socket, grant, handshake, early, tls };
        match self.dispatch(home, Parcel(Content::Upgrade(upgrade))) {
            Ok(()) => {
                self.forget(key);
                self.counters.count(Counter::HandedOver);
            }
            Err(Full(Parcel(content))) => {
                let Content::Upgrade(upgrade) = content else { return };
                if let Some(connection) = self.table.get_mut(key) {
                    connection.tls = upgrade.tls;
                }
                self.driver.adopt(key, upgrade.socket);
                self.counters.count(Counter::HandOversRefused);
                self.counters.count(Counter::AdmissionUnavailable);
                self.turn_away(key, admission, http1::refusal_bytes(UNAVAILABLE).into_owned());
            }
        }
    }

    /// A socket whose workspace lives here arrives from the shard that accepted it.
    pub(crate) fn on_upgrade_arrived(&mut self, upgrade: Upgrade<D::Socket>) {
        let Upgrade { socket, grant, handshake, early, tls } = upgrade;
        if self.stop_deadline.is_some() {
            // The peer finds the socket closed, as it would a moment later anyway.
            return self.emit(Event::Released { admission: grant.admission });
        }
        let key = self.table.insert(Connection::arriving(tls));
        self.driver.adopt(key, socket);
        let is_drained = self.drain.is_some();
        if is_drained || self.budget.is_tight(&self.limits) {
            self.counters.count(Counter::AdmissionUnavailable);
            self.counters.count(match is_drained {
                true => Counter::DrainRefused,
                false => Counter::BudgetRefused,
            });
            let refusal = http1::refusal_bytes(UNAVAILABLE).into_owned();
            return self.turn_away(key, grant.admission, refusal);
        }
        self.open(key, grant, handshake, early);
    }

    /// Answers the upgrade and lets the switchboard judge the claims on the open socket.
    fn open(
        &mut self,
        key: Key,
        grant: Box<Grant>,
        handshake: Result<Vec<u8>, Vec<u8>>,
        early: Vec<u8>,
    ) {
        let admission = grant.admission;
        let response = match handshake {
            Ok(response) => response,
            Err(refusal) => return self.turn_away(key, admission, refusal),
        };
        if self.driver.settle(key).is_err() {
            self.counters.count(Counter::AdmissionUnavailable);
            let full = http1::refusal_bytes(UNAVAILABLE);
            return self.turn_away(key, admission, full.into_owned());
        }
        let open =
            Open { decoder: Decoder::new(), assembly: None, close: CloseHandshake::NotBegun };
        self.enter(key, Phase::Open(open));
        if let Some(connection) = self.table.get_mut(key) {
            connection.settled = true;
        }
        self.push(key, Chunk::Owned { bytes: response, start: 0 });
        let connection = self.table.id(key);
        self.emit(Event::Opened { admission, connection });
        self.consult(Input::Opened { connection, grant });
        if !early.is_empty() {
            self.on_open_bytes(key, early.into());
        }
        self.arm(key);
    }

    /// Ends an upgrade that was admitted and cannot be opened.
    pub(crate) fn turn_away(&mut self, key: Key, admission: AdmissionId, answer: Vec<u8>) {
        self.emit(Event::Released { admission });
        self.push(key, answer.into());
        self.begin_farewell(key);
    }
}
