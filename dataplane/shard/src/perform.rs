//! What the switchboard decided, done.

use relay_contract::{CloseReason, Counter, Event};
use relay_driver::{Chunk, Driver, Key};
use relay_switchboard::{Effect, FreshToken, Input};
use relay_wire::tls::LAST_BYTES;
use relay_wire::websocket::{self, ControlFrame};

use crate::connection::{CloseHandshake, Phase};
use crate::flush::queue_of;
use crate::ingress::header_chunk;
use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    /// Asks the switchboard about anything but a message, and does what it says.
    pub(crate) fn consult(&mut self, input: Input<'_>) {
        self.board.handle(self.now, input, &mut self.effects);
        // What follows from an effect waits until those before it are done.
        if !self.performing {
            self.perform();
        }
    }

    /// Performs effects in order until there are none. `self.message` is what `Forward` forwards.
    pub(crate) fn perform(&mut self) {
        self.performing = true;
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain() {
                self.perform_one(effect);
            }
            // Performing may have led to more effects; keep the larger memory for the next time.
            if self.effects.is_empty() {
                self.effects = effects;
            }
        }
        self.performing = false;
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Forward { to } => self.forward(to),
            Effect::Send { to, text } => {
                if let Some(key) = self.table.key(to) {
                    self.push_text(key, text.into());
                }
            }
            Effect::Ping { to } => {
                if let Some(key) = self.table.key(to) {
                    self.push_urgent(key, &websocket::ping_frame(b""));
                }
            }
            Effect::Close { connection, reason } => {
                if let Some(key) = self.table.key(connection) {
                    self.begin_close(key, reason);
                }
            }
            Effect::Terminate { connection } => {
                if let Some(key) = self.table.key(connection) {
                    self.cut(key);
                }
            }
            Effect::CallPlatform { from, admission, request } => {
                self.emit(Event::WorkerAsked { connection: from, admission, request });
            }
            Effect::AskRenewal(fresh) => {
                let FreshToken { from: connection, admission, claims_digest, token } = *fresh;
                self.emit(Event::RenewalAsked { connection, admission, claims_digest, token });
            }
            Effect::Release { admission } => self.emit(Event::Released { admission }),
            Effect::Log(entry) => self.emit(Event::Logged { at: self.now, entry }),
        }
    }

    fn forward(&mut self, to: relay_contract::ConnectionId) {
        let Some(key) = self.table.key(to) else {
            return;
        };
        let mut frame = std::mem::take(&mut self.message);
        // A message goes to one connection; the switchboard never fans it out.
        self.push_frame(key, &mut frame);
        self.message = frame;
    }

    /// Queues text of our own as one frame.
    fn push_text(&mut self, key: Key, text: Vec<u8>) {
        let mut frame = vec![header_chunk(text.len()), Chunk::Owned { bytes: text, start: 0 }];
        self.push_frame(key, &mut frame);
    }

    /// Queues our close frame and waits for the answer; the switchboard keeps the deadline.
    fn begin_close(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        if open.close == CloseHandshake::Sent {
            return;
        }
        open.close = CloseHandshake::Sent;
        if let Some(egress) = &mut connection.egress
            && (reason == CloseReason::BufferOverflow
                || (reason == CloseReason::TlsKeySpent && egress.queued_bytes() > LAST_BYTES))
        {
            let before = self.discarded.held_bytes();
            let dropped = egress.drop_waiting_frames(&mut self.discarded);
            self.budget.hold(self.discarded.held_bytes() - before);
            egress.arrivals.forget();
            self.counters.add(Counter::SlowReaderDroppedFrames, dropped);
        }
        self.charge(key);
        self.forget_assembly(key);
        let frame = websocket::close_frame(Some(reason.code()), reason.text().as_bytes());
        self.push_control(key, &frame);
    }

    /// Queues one frame.
    pub(crate) fn push_frame(&mut self, key: Key, frame: &mut Vec<Chunk>) {
        let before = self.egress_bytes(key);
        let connection = self.table.get_mut(key);
        let egress = connection.and_then(|found| queue_of(found, || self.spare_egress.pop()));
        let Some(egress) = egress else {
            return frame.clear();
        };
        egress.arrivals.note();
        let copied = egress.push(frame, &mut self.blocks);
        let is_news = !std::mem::replace(&mut egress.dirty, true);
        // Most frames lie in receive buffers and change nothing but the length of the queue.
        let is_heavier = egress.held_bytes() != before;
        if is_news {
            self.dirty.push(key);
        }
        if is_heavier {
            self.charge(key);
        }
        if copied > 0 {
            self.counters.count(Counter::CopiedFrames);
            self.counters.add(Counter::CopiedBytes, copied as u64);
        }
        self.offer(key);
    }

    /// Queues one frame of our own, or a piece of HTTP, of a single chunk.
    pub(crate) fn push(&mut self, key: Key, chunk: Chunk) {
        let Some(egress) = self.egress_mut(key) else {
            return;
        };
        egress.push_own(chunk);
        self.charge(key);
        self.touch(key);
    }

    /// Queues one control frame before the messages that wait.
    pub(crate) fn push_urgent(&mut self, key: Key, frame: &ControlFrame) {
        let Some(egress) = self.egress_mut(key) else { return };
        egress.push_urgent(small_chunk(frame));
        self.charge(key);
        self.touch(key);
    }

    /// Queues the answer to a ping before the messages that wait.
    pub(crate) fn push_pong(&mut self, key: Key, frame: &ControlFrame) {
        let Some(egress) = self.egress_mut(key) else { return };
        if egress.push_pong(small_chunk(frame)) {
            self.counters.count(Counter::PongsMerged);
        }
        self.charge(key);
        self.touch(key);
    }

    /// Makes sure that the connection is looked at when this turn's sends are started.
    pub(crate) fn touch(&mut self, key: Key) {
        let Some(egress) = self.egress_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut egress.dirty, true) {
            self.dirty.push(key);
            self.charge(key);
        }
    }
}

/// A few bytes in place where they fit, else in memory of their own.
fn small_chunk(bytes: &[u8]) -> Chunk {
    Chunk::inline(bytes).unwrap_or_else(|| bytes.to_vec().into())
}
