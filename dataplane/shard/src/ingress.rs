//! Bytes in, frames out of them, and what the switchboard makes of each.

use std::borrow::Cow;
use std::cell::Cell;

use relay_contract::{CloseCode, ConnectionId, Counter, Tick};
use relay_driver::{Chunk, Driver, Key, Lease};
use relay_switchboard::{Effects, Input, Message, Switchboard};
use relay_wire::envelope::{CallReader, Invalid, Scanner};
use relay_wire::websocket::{self, ControlFrame, FrameError, Opcode, Piece, Step};

use crate::backlog::{FRAME_WORK, REREAD_WORK, STEP_WORK};
use crate::connection::{CloseHandshake, Phase, Reading};
use crate::received::Received;
use crate::shard::Shard;
use crate::walk::Walk;

impl<D: Driver> Shard<D> {
    /// The driver received something.
    pub(crate) fn on_received(&mut self, key: Key, lease: Lease) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        if connection.reading == Reading::Once {
            connection.reading = Reading::Idle;
        }
        let is_stranger = connection.stranger().is_some();
        let is_quiet = connection.is_open() && connection.backlog.is_none();
        let goes_on = connection.is_inside_frame();
        if is_stranger {
            return self.set_bytes_aside(key, &lease);
        }
        if is_quiet {
            if !goes_on {
                self.company.hear(self.now, &lease);
            }
            if self.is_bulk(&lease) {
                self.begin_backlog(key);
            }
        }
        if let Some(lease) = self.put_aside(key, lease) {
            self.serve(key, Received::Leased(lease));
        }
    }

    /// Gives received bytes to whom they are for.
    pub(crate) fn serve(&mut self, key: Key, mut received: Received) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        if let Phase::Fronted(_) = connection.phase {
            return self.on_fronted_bytes(key, received.bytes_mut());
        }
        if connection.tls.is_some() {
            return self.on_records(key, received);
        }
        let settled = connection.settled;
        match connection.phase {
            Phase::Guest(_) => self.on_guest_bytes(key, received.bytes_mut()),
            Phase::Open(_) => {
                self.on_open_bytes(key, received);
                if !settled {
                    // Its receives do not repeat by themselves.
                    self.arm(key);
                }
            }
            Phase::Leaving(_) => self.arm(key),
            Phase::Fronted(_) | Phase::Waiting(_) | Phase::Closed => {}
        }
    }

    /// Walks the frames in what arrived on an open connection.
    pub(crate) fn on_open_bytes(&mut self, key: Key, input: Received) {
        self.walk_frames(key, input);
        if let Some(Phase::Open(open)) = self.phase_mut(key)
            && open.decoder.is_inside_payload()
        {
            let from = self.table.id(key);
            self.consult(Input::Progress { from });
        }
    }

    fn walk_frames(&mut self, key: Key, input: Received) {
        let frame_bytes_max = self.limits.frame_bytes_max;
        let share = self.pace().work;
        let mut input = Walk::new(input);
        let mut work = 0;
        loop {
            let (mut steps, mut reread) = (0, 0);
            let left = input.left();
            let Some(connection) = self.table.get_mut(key) else {
                return;
            };
            let is_over = connection.spent.add(self.turn_number, work, share);
            // Whatever follows the end of a WebSocket is nothing.
            let Phase::Open(open) = &mut connection.phase else {
                return;
            };
            let rereads = open.assembly.as_ref().is_some_and(|found| found.reread.is_some());
            if left == 0 && !rereads {
                return;
            }
            if is_over {
                // Where nothing is left, no buffer waits with it.
                let rest = if left == 0 { Vec::new().into() } else { input.into_rest() };
                return self.defer(key, rest);
            }
            if rereads {
                work = self.reread_some(key);
                continue;
            }
            let scanner = match &mut open.assembly {
                Some(assembly) => &mut assembly.scanner,
                None => &mut self.scanner,
            };
            match input.next(&mut open.decoder, frame_bytes_max, scanner) {
                Ok(Step::NeedMore) => return,
                Ok(Step::Piece(piece)) => {
                    steps = piece.steps as usize;
                    if piece.small_fragment {
                        self.note_small_frame(key);
                    }
                    reread = self.on_piece(key, &mut input, &piece);
                }
                Ok(Step::Ping { payload, at }) => {
                    self.note_small_frame(key);
                    self.answer_ping(key, payload.bytes(input.bytes()));
                    input.pass(at);
                }
                Ok(Step::Pong { at, .. }) => {
                    input.pass(at);
                    let from = self.table.id(key);
                    self.consult(Input::Pong { from });
                }
                Ok(Step::Close { payload, .. }) => {
                    return self.on_close_frame(key, payload.bytes(input.bytes()));
                }
                Err(error) => return self.on_violation(key, error),
            }
            let read = left - input.left() + reread.saturating_mul(REREAD_WORK);
            work = FRAME_WORK.max(steps * STEP_WORK).saturating_add(read);
        }
    }

    /// A frame came that carries little. Too many of them and the switchboard ends the connection.
    fn note_small_frame(&mut self, key: Key) {
        let from = self.table.id(key);
        self.consult(Input::SmallFrame { from });
    }

    /// A piece of a message lies at the front of the input. Returns the bytes of text that were
    /// read once more, as whole messages.
    fn on_piece(&mut self, key: Key, input: &mut Walk, piece: &Piece) -> usize {
        let mut bytes = input.take(piece);
        let Some(Phase::Open(open)) = self.phase_mut(key) else {
            return 0;
        };
        if open.close == CloseHandshake::Sent {
            return 0;
        }
        // Bytes of a binary message are text to the reference; where they are UTF-8 they can stay.
        let whole = piece.first && piece.last && piece.utf8;
        if !whole {
            return self.on_partial(key, bytes, piece);
        }
        let len = piece.payload.len();
        let start = piece.payload.start;
        let place =
            websocket::place_header(bytes.bytes_mut(), start, piece.header_room, Opcode::Text, len);
        self.message.clear();
        let payload_at = match place {
            Some(place) => {
                self.message.push(bytes.into_chunk(place..piece.payload.end));
                start - place
            }
            None => {
                self.message.push(header_chunk(len));
                self.message.push(bytes.into_chunk(piece.payload.clone()));
                0
            }
        };
        let payload = self.message.last().map(|chunk| &chunk.as_bytes()[payload_at..]);
        let text = || Cow::Borrowed(payload.unwrap_or_default());
        let whole = Whole { bytes: len, scanner: &self.scanner, text: &text, call: None };
        let from = self.table.id(key);
        let reread = whole.show(from, self.now, &mut self.board, &mut self.effects);
        self.deliver();
        reread
    }

    /// Part of a message, or one that needs its bytes changed: it is gathered first. Returns the
    /// bytes that were read once more; of a message that has to wait, as many as end the
    /// connection's share of this turn.
    fn on_partial(&mut self, key: Key, bytes: Received, piece: &Piece) -> usize {
        let chunk = bytes.into_chunk(piece.payload.clone());
        self.gather(key, chunk);
        if !piece.last {
            return 0;
        }
        if self.begin_reread(key, piece.utf8) {
            return self.pace().work.div_ceil(REREAD_WORK);
        }
        if piece.utf8 { self.on_assembled(key) } else { self.on_binary(key) }
    }

    /// A text message that came in several pieces is complete: they are sent as they lie, behind a
    /// new header.
    pub(crate) fn on_assembled(&mut self, key: Key) -> usize {
        let Some(mut assembly) = self.take_assembly(key) else {
            return 0;
        };
        let len = assembly.len();
        if assembly.copied {
            self.counters.count(Counter::CopiedFrames);
        }
        self.message.clear();
        self.message.push(header_chunk(len));
        let call = assembly.take_call_reader().map(Some).map(Cell::new);
        let text = || Cow::Owned(assembly.text());
        let whole = Whole { bytes: len, scanner: &assembly.scanner, text: &text, call };
        let from = self.table.id(key);
        let reread = whole.show(from, self.now, &mut self.board, &mut self.effects);
        assembly.drain_into(&mut self.message);
        self.perform();
        self.blocks.reclaim(self.message.drain(..));
        self.spare_assembly(assembly);
        reread
    }

    /// A binary message that is no UTF-8 is complete: its text is what decoding with replacement
    /// makes of it, as the reference does.
    pub(crate) fn on_binary(&mut self, key: Key) -> usize {
        let Some(assembly) = self.take_assembly(key) else {
            return 0;
        };
        let assembly_bytes = assembly.len();
        let text = String::from_utf8_lossy(&assembly.text()).into_owned();
        self.counters.count(Counter::CopiedFrames);
        let lazy = || Cow::Borrowed(text.as_bytes());
        // Replacement may have made it longer than a message may be: the switchboard judges that.
        let whole =
            Whole { bytes: text.len(), scanner: &assembly.scanner, text: &lazy, call: None };
        let from = self.table.id(key);
        let reread = whole.show(from, self.now, &mut self.board, &mut self.effects);
        self.message.clear();
        self.message.push(header_chunk(text.len()));
        self.message.push(Chunk::Owned { bytes: text.into_bytes(), start: 0 });
        self.deliver();
        self.spare_assembly(assembly);
        assembly_bytes + reread
    }

    /// Does what the switchboard said of the message that lies ready to be sent.
    fn deliver(&mut self) {
        self.perform();
        self.message.clear();
    }

    /// Answers a ping, unless the connection is closing. Where answers enough wait already, this
    /// one takes the place of the last of them.
    fn answer_ping(&mut self, key: Key, payload: &[u8]) {
        let Some(Phase::Open(open)) = self.phase_mut(key) else { return };
        if open.close == CloseHandshake::Sent {
            return;
        }
        self.push_pong(key, &websocket::pong_frame(payload));
    }

    /// The peer began the close handshake, or answered ours. Either way nothing more will come.
    fn on_close_frame(&mut self, key: Key, payload: &[u8]) {
        let Some(Phase::Open(open)) = self.phase_mut(key) else {
            return;
        };
        if open.close == CloseHandshake::NotBegun {
            // Code and reason, as they came.
            let code = payload.first_chunk().map(|code| CloseCode(u16::from_be_bytes(*code)));
            let reason = payload.get(2..).unwrap_or_default();
            self.push_control(key, &websocket::close_frame(code, reason));
        }
        self.leave(key);
    }

    /// The peer broke the protocol: it is told how and not listened to any more.
    fn on_violation(&mut self, key: Key, error: FrameError) {
        let from = self.table.id(key);
        let (input, counter) = match error {
            FrameError::TooLong { .. } => (Input::TooLarge { from }, Counter::MessagesTooLarge),
            _ => (Input::ProtocolError { from }, Counter::ProtocolViolations),
        };
        self.counters.count(counter);
        self.consult(input);
        let Some(Phase::Open(open)) = self.phase_mut(key) else {
            return;
        };
        if open.close == CloseHandshake::NotBegun {
            self.push_control(key, &websocket::close_frame(Some(error.close_code()), b""));
        }
        self.leave(key);
    }

    /// Queues one control frame.
    pub(crate) fn push_control(&mut self, key: Key, frame: &ControlFrame) {
        self.push(key, Chunk::Owned { bytes: frame.to_vec(), start: 0 });
    }
}

/// A whole message, and the scanner that has read all of it.
struct Whole<'m> {
    bytes: usize,
    scanner: &'m Scanner,
    text: &'m dyn Fn() -> Cow<'m, [u8]>,
    /// Who has read it before, where it is a worker's call and long.
    call: Option<Cell<Option<Box<CallReader>>>>,
}

impl Whole<'_> {
    /// Asks the switchboard what follows from it. Returns the bytes that were read once more: rare
    /// kinds are, from their whole text, and presence is copied for each viewer but the first.
    fn show(
        self,
        from: ConnectionId,
        now: Tick,
        board: &mut Switchboard,
        effects: &mut Effects,
    ) -> usize {
        let envelope = self.scanner.finish();
        let envelope = envelope.as_ref().map_err(|invalid| *invalid);
        let reread = Cell::new(0);
        let text = || {
            reread.set(reread.get() + self.bytes);
            (self.text)()
        };
        let call = self.call.as_ref().map(|reader| {
            || {
                let reader = reader.take().ok_or(Invalid::Member)?;
                reread.set(reread.get() + reader.bytes_to_judge());
                reader.finish()
            }
        });
        let call = call.as_ref().map(|call| call as &dyn Fn() -> _);
        let message = Message { bytes: self.bytes, envelope, text: &text, call };
        board.handle(now, Input::Message { from, message }, effects);
        reread.get()
    }
}

/// The header of a forwarded message that could not be written in place.
pub(crate) fn header_chunk(len: usize) -> Chunk {
    let (header, header_len) = websocket::header(Opcode::Text, len);
    let mut bytes = [0; 14];
    bytes[..header_len].copy_from_slice(&header[..header_len]);
    Chunk::Inline { bytes, len: header_len as u8 }
}
