//! TLS records in, and what they carry handed on.

use relay_contract::Counter;
use relay_driver::{Driver, Key};
use relay_wire::tls::Content;

use crate::backlog::FRAME_WORK;
use crate::complaint::Complaint;
use crate::connection::{Phase, Reading};
use crate::received::Received;
use crate::shard::Shard;
use crate::tls::{TlsFailure, TlsSession};

impl<D: Driver> Shard<D> {
    /// Begins to listen to a fresh guest: to its TLS handshake where TLS ends here, else to its
    /// request. `first` is what of it came already.
    pub(crate) fn greet(&mut self, key: Key, first: Vec<u8>) {
        self.begin_handshake(key);
        match (self.shakes_hands(key), first.is_empty()) {
            (true, true) => self.arm(key),
            (true, false) => self.on_records(key, first.into()),
            (false, true) => self.advance_guest(key),
            (false, false) => self.on_guest_bytes(key, &first),
        }
    }

    /// Gives a guest that is to speak TLS a session and a deadline, or closes it.
    fn begin_handshake(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let Some(config) = self.tls.as_ref().filter(|_| !connection.is_local) else { return };
        let Some(address) = connection.stranger() else { return };
        if !self.strangers.begin_handshake(address, &self.limits) {
            self.counters.count(Counter::TlsHandshakesRefused);
            return self.close(key);
        }
        connection.shakes_hands = true;
        let Ok(session) = TlsSession::new(config) else {
            self.counters.count(Counter::TlsHandshakeFailures);
            return self.close(key);
        };
        connection.tls = Some(Box::new(session));
        self.charge(key);
        self.set_deadline(key, self.limits.tls_handshake_timeout);
    }

    /// Whether the connection's TLS handshake is going on.
    pub(crate) fn shakes_hands(&mut self, key: Key) -> bool {
        self.table.get_mut(key).is_some_and(|connection| connection.shakes_hands)
    }

    /// Takes the connection out of those that shake hands. Whoever leaves the strangers is taken
    /// out there.
    pub(crate) fn end_handshake(&mut self, key: Key) -> bool {
        let Some(connection) = self.table.get_mut(key) else { return false };
        let Some(address) = connection.stranger() else { return false };
        let shook = std::mem::take(&mut connection.shakes_hands);
        if shook {
            self.strangers.end_handshake(address);
        }
        shook
    }

    /// TLS records arrived: they are opened where they lie, one after the other.
    pub(crate) fn on_records(&mut self, key: Key, input: Received) {
        let Some(connection) = self.table.get_mut(key) else { return };
        // Nothing is read before all of this is used: the head that ends the reading may be in it.
        let is_guest = !connection.settled;
        if is_guest {
            connection.reading = Reading::Once;
        }
        self.walk_records(key, input);
        self.charge(key);
        let Some(connection) = self.table.get_mut(key) else { return };
        if is_guest {
            connection.reading = Reading::Idle;
        }
        match connection.phase {
            Phase::Guest(_) if !connection.shakes_hands => self.advance_guest(key),
            Phase::Guest(_) | Phase::Leaving(_) => self.arm(key),
            // One that is no resident: its receives do not repeat by themselves.
            Phase::Open(_) if is_guest => self.arm(key),
            Phase::Fronted(_) | Phase::Waiting(_) | Phase::Open(_) | Phase::Closed => {}
        }
    }

    fn walk_records(&mut self, key: Key, mut input: Received) {
        let share = self.pace().work;
        let mut is_over = false;
        while !input.bytes_mut().is_empty() {
            let Some(connection) = self.table.get_mut(key) else { return };
            if matches!(connection.phase, Phase::Leaving(_)) {
                // It is read so that it sees our last words. Nobody needs to open that.
                return;
            }
            if connection.backlog.as_ref().is_some_and(|backlog| backlog.has_rest()) {
                return self.defer_records(key, input);
            }
            if is_over {
                self.begin_backlog(key);
                self.defer_records(key, input);
                return self.line_up(key);
            }
            let Some(session) = &mut connection.tls else { return };
            let gave_up = session.is_handshaking() && !connection.shakes_hands;
            if gave_up {
                return;
            }
            let taken = match session.next(input.bytes_mut()) {
                Ok(taken) => taken,
                Err(failure) => return self.on_tls_failure(key, &failure),
            };
            let was_handshaking = connection.shakes_hands;
            let established = was_handshaking && !session.is_handshaking();
            let is_nothing = matches!(taken.content, Content::Nothing);
            match connection.phase {
                Phase::Open(_) => {
                    let work = if is_nothing { FRAME_WORK } else { RECORD_WORK };
                    is_over = connection.spent.add(self.turn_number, work, share);
                }
                Phase::Guest(_) if is_nothing && !was_handshaking => {
                    if let Err(failure) = session.note_fruitless() {
                        return self.on_tls_failure(key, &failure);
                    }
                }
                _ => {}
            }
            let owes_output = session.owes_output();
            let answered_hello = owes_output && session.is_handshaking();
            if owes_output {
                self.touch(key);
            }
            if answered_hello {
                self.errands.note_hello();
            }
            if established {
                self.end_handshake(key);
                self.counters.count(Counter::TlsHandshakes);
            }
            match taken.content {
                Content::NeedMore | Content::Nothing => input.skip(taken.used),
                Content::Here(plain) => {
                    let mut received = input.split_to(plain.end);
                    received.skip(plain.start);
                    input.skip(taken.used - plain.end);
                    self.on_plain(key, received);
                }
                Content::Apart(mut block, plain) => {
                    input.skip(taken.used);
                    block.truncate(plain.end);
                    let mut received = Received::from(block);
                    received.skip(plain.start);
                    self.on_plain(key, received);
                }
                Content::CloseNotify => {
                    if let Some(Phase::Guest(_)) = self.phase_mut(key) {
                        self.advance_guest(key);
                    }
                    // Whatever follows is nothing.
                    return self.on_peer_ended(key);
                }
            }
        }
    }

    /// Application bytes, wherever the connection is in its life.
    fn on_plain(&mut self, key: Key, mut plain: Received) {
        match self.phase_mut(key) {
            // They are looked at together: records may be as short as a byte.
            Some(Phase::Guest(guest)) => guest.keep(plain.bytes_mut()),
            // Nothing is received meanwhile; should something come all the same, it is not lost.
            Some(Phase::Waiting(waiting)) => waiting.early.extend_from_slice(plain.bytes_mut()),
            Some(Phase::Open(_)) => self.on_open_bytes(key, plain),
            None | Some(Phase::Fronted(_) | Phase::Leaving(_) | Phase::Closed) => {}
        }
    }

    /// The peer broke TLS: it is told how, and not listened to any more.
    fn on_tls_failure(&mut self, key: Key, failure: &TlsFailure) {
        let complaint = match failure {
            TlsFailure::Record(_) | TlsFailure::Fruitless => Complaint::TlsRecord,
            TlsFailure::Handshake(_) | TlsFailure::TooLong | TlsFailure::UnknownSuite => {
                Complaint::TlsHandshake
            }
        };
        self.complain(Some(key), complaint, &failure.to_string());
        self.end_handshake(key);
        self.touch(key);
        self.leave(key);
    }
}

/// What opening a record costs on top of its content, in bytes, as frames are counted: a quarter of
/// a small frame. One without content (a new key, a ticket) counts as a frame.
const RECORD_WORK: usize = FRAME_WORK / 4;
