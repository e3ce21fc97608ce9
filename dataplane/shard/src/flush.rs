//! Queues to sockets: at the end of a turn, one send for each connection that has something new.

use relay_contract::{CloseReason, Counter, Measure};
use relay_driver::{Batch, Chunk, Driver, Key, SendError, SendMode};
use relay_switchboard::Input;

use crate::connection::{CloseHandshake, Connection, Phase};
use crate::egress::Egress;
use crate::shard::{SPARES_MAX, Shard};

/// Bytes of a send that everybody has in every turn.
const LITTLE_BYTES: usize = 8 << 10;

impl<D: Driver> Shard<D> {
    /// Starts a send on every connection that has a little to send and none in flight, then on
    /// those that have more, as many as this turn may take; the others keep their place.
    pub(crate) fn flush(&mut self) {
        let mut left = self.pace().bulk_bytes;
        while let Some(key) = self.dirty.pop() {
            if left == usize::MAX || !self.wait_in_bulk(key) {
                self.start_send(key);
            }
        }
        while left > 0
            && let Some(key) = self.bulk.pop_front()
        {
            left = left.saturating_sub(self.start_send(key));
        }
    }

    /// Lines a connection up behind others that have much to send too, once. False when it has
    /// little, and need not wait.
    fn wait_in_bulk(&mut self, key: Key) -> bool {
        let depth = self.board.queued_bytes(self.table.id(key));
        let egress = self.table.get_mut(key).and_then(|found| found.egress.as_mut());
        let Some(egress) = egress.filter(|egress| !egress.is_small(LITTLE_BYTES)) else {
            return false;
        };
        // The wait begins now, and what comes later is news again.
        egress.dirty = false;
        egress.arrivals.close_run(self.now, depth);
        if !std::mem::replace(&mut egress.waits_in_bulk, true) {
            self.bulk.push_back(key);
        }
        self.charge(key);
        true
    }

    /// Starts a send, if there is something to send and none is in flight. Returns its bytes.
    pub(crate) fn start_send(&mut self, key: Key) -> usize {
        let bytes_max = self.pace().send_bytes;
        let to = self.table.id(key);
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        let Some(egress) = &mut connection.egress else { return 0 };
        egress.dirty = false;
        egress.waits_in_bulk = false;
        let depth = self.board.queued_bytes(to);
        egress.arrivals.close_run(self.now, depth);
        if egress.is_in_flight() || connection.stay.is_halted() {
            self.charge(key);
            return 0;
        }
        egress.arrivals.begin_send(self.now);
        let mut batch = self.driver.batch();
        let mut wears_out = false;
        let mode = match &mut connection.tls {
            Some(session) if egress.is_ready() || session.owes_output() => {
                let spare = self.spare_records.take(depth.min(bytes_max));
                let sealed = session.seal(egress, bytes_max, spare, &mut self.blocks);
                egress.note_sealed(sealed.records.capacity());
                if sealed.key_spent {
                    self.counters.count(Counter::TlsKeysSpent);
                }
                wears_out = sealed.wears_out;
                batch.push(sealed.records).expect("a batch from the shelf is empty");
                SendMode::All
            }
            None if egress.is_ready() => egress.fill(&mut batch, bytes_max),
            _ => {
                self.driver.recycle(batch);
                self.shelve_egress(key);
                return 0;
            }
        };
        let ended = connection.tls.as_ref().is_some_and(|session| session.is_ended());
        let bytes = batch.len();
        if bytes > 0 {
            self.driver.send(key, batch, mode);
            self.measures.record(Measure::EgressDepth, depth as u64);
            self.charge(key);
            if ended {
                // The records were the last there are.
                self.leave(key);
            } else if wears_out {
                self.retire(key);
            }
            return bytes;
        }
        // A TLS session that has ended makes no records any more: what waits is dropped, send by
        // send.
        let progress = egress.sent(&mut batch, 0, &mut self.blocks);
        let idle = egress.is_idle();
        self.driver.recycle(batch);
        self.charge(key);
        self.note_left(key, progress.left);
        if idle {
            self.on_flushed(key);
        } else {
            self.touch(key);
        }
        0
    }

    /// Closes a connection whose TLS key seals little more and has no successor, while there are
    /// records for saying so.
    #[cold]
    fn retire(&mut self, key: Key) {
        let Some(Phase::Open(open)) = self.phase_mut(key) else { return };
        if open.close == CloseHandshake::NotBegun {
            self.counters.count(Counter::TlsKeysSpent);
            self.close_for(key, CloseReason::TlsKeySpent);
        }
    }

    /// A send finished.
    pub(crate) fn on_sent(
        &mut self,
        key: Key,
        mut batch: Box<Batch>,
        outcome: Result<usize, SendError>,
    ) {
        let connection = self.table.get_mut(key);
        let parts = connection.and_then(|c| Some((c.egress.as_mut()?, c.tls.as_mut())));
        let Some((egress, mut tls)) = parts else {
            self.driver.recycle(batch);
            return self.on_send_failed(key);
        };
        let mut sent = match outcome {
            Ok(sent) => sent,
            // That is what was asked for.
            Err(SendError::Cancelled) if egress.is_recalled() => 0,
            Err(_) => {
                self.driver.recycle(batch);
                return self.on_send_failed(key);
            }
        };
        if let Some(session) = &mut tls {
            if sent < batch.len() {
                // What was sealed stays sealed, and goes first.
                session.owe(&batch, sent);
                batch.clear();
                sent = 0;
            } else if let Some(Chunk::Owned { bytes, .. }) = batch.drain().next() {
                self.spare_records.put(bytes);
            }
        }
        let progress = egress.sent(&mut batch, sent, &mut self.blocks);
        egress.arrivals.depart(progress.left, self.now, &mut self.measures);
        let idle = egress.is_idle() && !tls.is_some_and(|session| session.owes_output());
        self.driver.recycle(batch);
        self.charge(key);
        if progress.copied > 0 {
            self.counters.count(Counter::CopiedFrames);
            self.counters.add(Counter::CopiedBytes, progress.copied as u64);
        }
        self.note_left(key, progress.left);
        if idle {
            self.on_flushed(key);
        } else {
            self.touch(key);
        }
    }

    /// The peer will not take any more.
    fn on_send_failed(&mut self, key: Key) {
        match self.phase_mut(key) {
            None | Some(Phase::Closed) => {}
            Some(_) => self.cut(key),
        }
    }

    fn on_flushed(&mut self, key: Key) {
        self.shelve_egress(key);
        let shakes_hands = self.shakes_hands(key);
        match self.phase_mut(key) {
            // A handshake's flight has left; the guest has not said anything yet.
            Some(Phase::Guest(_)) if shakes_hands => {}
            Some(Phase::Guest(_)) => self.advance_guest(key),
            Some(Phase::Leaving(_)) => self.say_farewell(key),
            _ => {}
        }
    }

    /// Puts an idle queue aside for another connection.
    fn shelve_egress(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let idle = connection.egress.take_if(|egress| egress.is_idle() && !egress.dirty);
        self.budget.settle(connection, &mut self.strangers);
        if let Some(mut egress) = idle
            && self.spare_egress.len() < SPARES_MAX
        {
            egress.renew();
            self.spare_egress.push(egress);
        }
    }

    fn note_left(&mut self, key: Key, bytes: usize) {
        let is_open = self.table.get_mut(key).is_some_and(|connection| connection.is_open());
        if is_open && bytes > 0 {
            let to = self.table.id(key);
            self.consult(Input::Sent { to, bytes });
        }
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_flushed(&mut self, key: Key) -> bool {
        let Some(connection) = self.table.get_mut(key) else { return true };
        let owes = connection.tls.as_ref().is_some_and(|session| session.owes_output());
        !owes && connection.egress.as_ref().is_none_or(|egress| egress.is_idle())
    }

    /// Memory of the connection's queue; nothing while it has none.
    pub(crate) fn egress_bytes(&mut self, key: Key) -> usize {
        let egress = self.table.get_mut(key).and_then(|connection| connection.egress.as_ref());
        egress.map_or(0, |egress| egress.held_bytes())
    }

    /// The connection's queue, made from a spare one when it has none. `None` when nothing can be
    /// sent any more.
    pub(crate) fn egress_mut(&mut self, key: Key) -> Option<&mut Egress> {
        queue_of(self.table.get_mut(key)?, || self.spare_egress.pop())
    }
}

/// The same of a connection that was found.
pub(crate) fn queue_of(
    connection: &mut Connection,
    spare: impl FnOnce() -> Option<Box<Egress>>,
) -> Option<&mut Egress> {
    if matches!(connection.phase, Phase::Closed) {
        return None;
    }
    Some(connection.egress.get_or_insert_with(|| spare().unwrap_or_default()))
}
