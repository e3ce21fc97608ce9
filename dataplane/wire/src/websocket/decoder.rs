//! Frames as the server reads them: a resumable walk over received buffers.

use std::fmt;
use std::ops::Range;

use relay_contract::CloseCode;
use serde::{Deserialize, Serialize};

use super::control::{ControlPayload, Gathering, judge_control};
use super::error::FrameError;
use super::frame::{Opcode, header};
use super::mask::{self, BLOCK_BYTES};
use super::message::{CLOSE, CONTINUATION, FrameHead, Message, TEXT};
use crate::envelope::Scanner;

/// What a data message is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum DataOpcode {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
}

/// What one call found. `at` is where the next call continues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The buffer is used up.
    NeedMore,
    /// Payload of a data message.
    Piece(Piece),
    /// A ping; answer it with the same payload.
    Ping {
        /// What it carries.
        payload: ControlPayload,
        /// Where the next call continues.
        at: usize,
    },
    /// A pong.
    Pong {
        /// What it carries.
        payload: ControlPayload,
        /// Where the next call continues.
        at: usize,
    },
    /// The peer closes. What follows it is swallowed.
    Close {
        /// The code, if there is one; allowed on the wire.
        code: Option<CloseCode>,
        /// Code and reason as received, which is what an echo carries. The reason is UTF-8.
        payload: ControlPayload,
        /// Where the frame ends.
        at: usize,
    },
}

/// Contiguous payload of a data message, unmasked in place and fed to the scanner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Where it lies in the buffer. May be empty.
    pub payload: Range<usize>,
    /// Bytes directly before the payload that nobody needs: this frame's own header, and what the
    /// caller said was free before it. Zero when the header began in an earlier buffer, and for
    /// what continues a frame.
    pub header_room: usize,
    /// Whether the message starts here.
    pub first: bool,
    /// Whether the message ends here.
    pub last: bool,
    /// What the message is made of.
    pub opcode: DataOpcode,
    /// Whether the message is UTF-8 so far. Text always is; at the `last` piece of a binary message
    /// this says whether its bytes can be forwarded as text as they stand.
    pub utf8: bool,
    /// Whether it is the first of a small frame that does not make up a message alone: one of fewer
    /// than [`SMALL_FRAGMENT_BYTES`] that a sender has no reason to split off.
    pub small_fragment: bool,
    /// How many [steps](Scanner::steps) it took to read. A few dozen for what the ends send.
    pub steps: u32,
    /// Where the next call continues.
    pub at: usize,
}

/// Where one connection's byte stream stands between two buffers.
///
/// ```text
///          ┌────────────── frame ends ───────────────┐
///          ▼                                         │
///        Header ──data header──▶ Payload ────────────┤
///          │  └──control header, payload cut──▶ Control
///          └──close frame, error──▶ Ended ◀──────────┘ close frame, error
/// ```
///
/// Shape: 32 bytes; a control frame that spans buffers is boxed meanwhile. It can be written down
/// between any two buffers and go on elsewhere, given a scanner that was fed the message's pieces
/// so far. It bounds what it asks the caller to keep: a message is refused by its announced length.
#[derive(Clone, Serialize, Deserialize)]
pub struct Decoder {
    phase: Phase,
    message: Message,
}

#[derive(Clone, Serialize, Deserialize)]
enum Phase {
    /// Before or inside a frame's header; `bytes[..len]` came in earlier buffers.
    Header { bytes: [u8; HEADER_BYTES_MAX], len: u8 },
    /// Inside a data frame's payload. `key[0]` masks the next byte.
    Payload { remaining: u32, key: [u8; 4], fin: bool },
    /// Inside a control frame's payload, at least one byte of which is missing.
    Control(Box<Gathering>),
    /// After a close frame or an error.
    Ended,
}

impl Phase {
    const START: Self = Self::Header { bytes: [0; HEADER_BYTES_MAX], len: 0 };
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// The state of a connection that has sent nothing yet.
    pub fn new() -> Self {
        Self { phase: Phase::START, message: Message::default() }
    }

    /// Finds the next step in `input[at..]`, unmasking payload in place.
    ///
    /// Call again with the `at` of the step until `NeedMore`, then with the next buffer and `at`
    /// zero. A piece may end inside a frame whose rest is there: the next call goes on with it. The
    /// scanner is reset at a message's first piece and must be the same one until its `last` piece;
    /// then it can be asked to finish, a binary message read with what is no UTF-8 replaced.
    /// `frame_bytes_max` bounds the whole message's payload and is judged from the header, before
    /// payload arrives; above 4 GiB it counts as 4 GiB.
    ///
    /// Errors: the peer broke RFC 6455 or a limit. Bytes from `at` on are then unspecified, and
    /// whatever follows is swallowed. Cost: one pass over the payload, no allocation but for a
    /// control frame that spans buffers.
    pub fn next(
        &mut self,
        input: &mut [u8],
        at: usize,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        self.step(input, Start { at, free: None }, frame_bytes_max, scanner)
    }

    /// The same, for frames that are to lie close together: `input[free..at]` are bytes that
    /// nobody needs any more, and a data frame that begins at `at` is moved to the left while it is
    /// unmasked, so that its new header fits exactly between `free` and its payload.
    ///
    /// A frame that goes on from an earlier buffer, and one that is only part of its message, stay
    /// where they are. Cost: that of [`next`](Self::next); each byte is stored once, elsewhere.
    pub fn next_close(
        &mut self,
        input: &mut [u8],
        free: usize,
        at: usize,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let free = Some(free.min(at));
        self.step(input, Start { at, free }, frame_bytes_max, scanner)
    }

    fn step(
        &mut self,
        input: &mut [u8],
        start: Start,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let at = start.at;
        let step = match self.phase {
            Phase::Header { len: 0, .. } => self.on_header(input, start, frame_bytes_max, scanner),
            Phase::Header { .. } => self.on_cut_header(input, at, frame_bytes_max, scanner),
            Phase::Payload { .. } => self.on_payload(input, Place::stay(at, 0), scanner),
            Phase::Control(_) => self.on_control(input, at),
            Phase::Ended => Ok(Step::NeedMore),
        };
        if matches!(step, Err(_) | Ok(Step::Close { .. })) {
            self.phase = Phase::Ended;
        }
        step
    }

    /// Feeds the scanner payload of the message in progress that has come before, as it was fed
    /// when it came.
    pub fn feed_again(&self, payload: &[u8], scanner: &mut Scanner) {
        match self.message.opcode {
            Some(DataOpcode::Binary) => scanner.feed_lossily(payload),
            Some(DataOpcode::Text) | None => scanner.feed(payload),
        }
    }

    /// Payload bytes of the data frame in progress that have not come yet.
    pub fn payload_bytes_ahead(&self) -> usize {
        match self.phase {
            Phase::Payload { remaining, .. } => remaining as usize,
            Phase::Header { .. } | Phase::Control(_) | Phase::Ended => 0,
        }
    }

    /// Whether the payload of a data frame has begun and not ended: until it ends, the peer cannot
    /// say anything else, not even answer a ping.
    pub fn is_inside_payload(&self) -> bool {
        matches!(self.phase, Phase::Payload { .. })
    }

    /// A header that starts in this buffer.
    fn on_header(
        &mut self,
        input: &mut [u8],
        Start { at, free }: Start,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let available = input.get(at..).unwrap_or_default();
        match self.message.judge(available, frame_bytes_max)? {
            Some(head) => self.on_frame(head, input, Place::of(&head, at, free), scanner),
            None => {
                let mut bytes = [0; HEADER_BYTES_MAX];
                bytes[..available.len()].copy_from_slice(available);
                self.phase = Phase::Header { bytes, len: available.len() as u8 };
                Ok(Step::NeedMore)
            }
        }
    }

    /// A header whose first bytes came in an earlier buffer.
    fn on_cut_header(
        &mut self,
        input: &mut [u8],
        at: usize,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let Phase::Header { mut bytes, len } = self.phase else {
            return Ok(Step::NeedMore);
        };
        let mut len = usize::from(len);
        let mut at = at;
        while let Some(&byte) = input.get(at) {
            // A header is judged complete at fourteen bytes at the latest.
            bytes[len] = byte;
            len += 1;
            at += 1;
            if let Some(head) = self.message.judge(&bytes[..len], frame_bytes_max)? {
                return self.on_frame(head, input, Place::stay(at, 0), scanner);
            }
        }
        self.phase = Phase::Header { bytes, len: len as u8 };
        Ok(Step::NeedMore)
    }

    /// A whole header; the payload starts at the place.
    fn on_frame(
        &mut self,
        head: FrameHead,
        input: &mut [u8],
        place: Place,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        if head.opcode >= CLOSE {
            return self.on_control_frame(head, input, place.at);
        }
        if head.opcode != CONTINUATION {
            self.message = Message::default();
            self.message.opcode = Some(match head.opcode {
                TEXT => DataOpcode::Text,
                _ => DataOpcode::Binary,
            });
        }
        self.message.len += head.payload_len;
        self.message.fragment_count += 1;
        self.message.small_fragment = !head.is_alone() && head.payload_len < SMALL_FRAGMENT_BYTES;
        self.phase = Phase::Payload { remaining: head.payload_len, key: head.key, fin: head.fin };
        self.on_payload(input, place, scanner)
    }

    /// Payload of a data frame.
    fn on_payload(
        &mut self,
        input: &mut [u8],
        Place { at, to, header_room }: Place,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let (Phase::Payload { remaining, key, fin }, Some(opcode)) =
            (&mut self.phase, self.message.opcode)
        else {
            return Ok(Step::NeedMore);
        };
        let available = input.len().saturating_sub(at);
        let taken = available.min(*remaining as usize);
        if taken == 0 && *remaining > 0 {
            return Ok(Step::NeedMore);
        }
        if !self.message.begun {
            // Not at the header: until the first piece the caller may lend the scanner to others.
            scanner.reset();
        }
        let mut payload = to..to + taken;
        let shift = at - to;
        let steps_before = scanner.steps();
        let mut steps = 0;
        for start in payload.clone().step_by(BLOCK_BYTES) {
            if steps >= PIECE_STEPS_MAX {
                payload.end = start;
                break;
            }
            let len = BLOCK_BYTES.min(payload.end - start);
            let marks =
                mask::unmask_block_left(&mut input[start..start + shift + len], shift, *key);
            key.rotate_left(len % 4);
            let block = &input[start..start + len];
            if !self.message.not_utf8 && !self.message.utf8.feed(block, marks) {
                self.message.not_utf8 = true;
            }
            match opcode {
                // Bytes are text to the peers of the reference, with what is no UTF-8 replaced.
                DataOpcode::Binary => scanner.feed_lossily(block),
                DataOpcode::Text => scanner.feed_marked(block, marks),
            }
            steps = scanner.steps().wrapping_sub(steps_before);
        }
        let taken = payload.len();
        *remaining -= taken as u32;
        let frame_ends = *remaining == 0;
        let last = frame_ends && *fin;
        if frame_ends {
            self.phase = Phase::START;
        }
        self.message.not_utf8 |= last && !self.message.utf8.is_complete();
        if self.message.not_utf8 && opcode == DataOpcode::Text {
            return Err(FrameError::Utf8);
        }
        let piece = Piece {
            at: at + taken,
            payload,
            header_room,
            first: !self.message.begun,
            last,
            opcode,
            utf8: !self.message.not_utf8,
            small_fragment: std::mem::take(&mut self.message.small_fragment),
            steps,
        };
        self.message.begun = true;
        if last {
            self.message = Message::default();
        }
        Ok(Step::Piece(piece))
    }

    /// The header of a control frame is known; its payload starts at `at`.
    fn on_control_frame(
        &mut self,
        head: FrameHead,
        input: &mut [u8],
        at: usize,
    ) -> Result<Step, FrameError> {
        let end = at + head.payload_len as usize;
        if let Some(payload) = input.get_mut(at..end) {
            mask::unmask_block(payload, head.key);
            self.phase = Phase::START;
            let judged = judge_control(head.opcode, payload)?;
            return Ok(judged.step(ControlPayload::Here(at..end), end));
        }
        self.phase = Phase::Control(Box::new(Gathering {
            opcode: head.opcode,
            key: head.key,
            // Judged to be at most 125.
            payload_len: head.payload_len as u8,
            bytes: input.get(at..).unwrap_or_default().to_vec(),
        }));
        Ok(Step::NeedMore)
    }

    /// More payload of a control frame that was cut.
    fn on_control(&mut self, input: &[u8], at: usize) -> Result<Step, FrameError> {
        let Phase::Control(gathering) = &mut self.phase else {
            return Ok(Step::NeedMore);
        };
        let missing = usize::from(gathering.payload_len) - gathering.bytes.len();
        let available = input.get(at..).unwrap_or_default();
        let taken = missing.min(available.len());
        gathering.bytes.extend_from_slice(&available[..taken]);
        if taken < missing {
            return Ok(Step::NeedMore);
        }
        let mut payload = std::mem::take(&mut gathering.bytes);
        mask::unmask_block(&mut payload, gathering.key);
        let judged = judge_control(gathering.opcode, &payload)?;
        self.phase = Phase::START;
        Ok(judged.step(ControlPayload::Gathered(payload.into()), at + taken))
    }
}

/// Where a step starts.
#[derive(Clone, Copy)]
struct Start {
    at: usize,
    /// Where the bytes before `at` begin that may be moved into.
    free: Option<usize>,
}

/// Where a frame's payload lies and where it is to lie.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    /// At most `at`.
    to: usize,
    /// Bytes before `to` that nobody needs.
    header_room: usize,
}

impl Place {
    /// Where the payload of the frame that starts at `at` goes.
    fn of(head: &FrameHead, at: usize, free: Option<usize>) -> Self {
        let payload_at = at + head.len;
        match free {
            Some(free) if head.is_alone() => {
                let (_, header_len) = header(Opcode::Text, head.payload_len as usize);
                // The header it came with is longer by the key at least, so this is to the left.
                Self { at: payload_at, to: free + header_len, header_room: header_len }
            }
            Some(free) => Self::stay(payload_at, payload_at - free),
            None => Self::stay(payload_at, head.len),
        }
    }

    fn stay(at: usize, header_room: usize) -> Self {
        Self { at, to: at, header_room }
    }
}

/// Payload bytes from which a fragment is worth its header and the work of joining it. Senders that
/// fragment at all do so at kilobytes.
pub const SMALL_FRAGMENT_BYTES: u32 = 128;

/// Steps of a piece after which it ends although more is there. Protects the latency of others
/// from text that takes long to read. Reached: the caller decides whether it goes on. Source: 10 to
/// 20 µs, behind which the block being read may take another 60.
const PIECE_STEPS_MAX: u32 = 1024;

/// Bytes of the longest masked header: two, eight of length, four of key. Source: RFC 6455 §5.2.
const HEADER_BYTES_MAX: usize = 14;

const _: () = assert!(size_of::<Decoder>() <= 40);

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
