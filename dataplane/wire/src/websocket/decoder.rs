//! Frames as the server reads them: a resumable walk over received buffers.

use std::fmt;
use std::ops::Range;

use relay_contract::CloseCode;
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, Opcode, header};
use super::mask::{self, BLOCK_BYTES};
use super::utf8::Utf8Check;
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
    /// Where the next call continues.
    pub at: usize,
}

/// The payload of a control frame, unmasked.
#[derive(Clone, Eq, PartialEq)]
pub enum ControlPayload {
    /// It lies in the buffer.
    Here(Range<usize>),
    /// It came in several buffers and was gathered.
    Gathered(Box<[u8]>),
}

impl ControlPayload {
    /// The bytes; `input` is the buffer the step was found in.
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Here(range) => input.get(range.clone()).unwrap_or_default(),
            Self::Gathered(bytes) => bytes,
        }
    }
}

impl fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(range) => write!(f, "Here({range:?})"),
            Self::Gathered(bytes) => write!(f, "Gathered({} bytes)", bytes.len()),
        }
    }
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

/// A control payload on its way.
#[derive(Clone, Serialize, Deserialize)]
struct Gathering {
    opcode: u8,
    key: [u8; 4],
    payload_len: u8,
    /// Still masked.
    bytes: Vec<u8>,
}

/// The data message that is open, if any.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Message {
    opcode: Option<DataOpcode>,
    /// A piece of it was handed out.
    begun: bool,
    /// A small fragment began, and no piece of it was handed out.
    small_fragment: bool,
    not_utf8: bool,
    utf8: Utf8Check,
    fragment_count: u32,
    /// Payload bytes announced so far.
    len: u32,
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
    /// zero. The scanner is reset at a message's first piece and must be the same one until its
    /// `last` piece; then it can be asked to finish. `frame_bytes_max` bounds the whole message's
    /// payload and is judged from the header, before payload arrives; above 4 GiB it counts as 4
    /// GiB.
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
            Some(head) => self.on_frame(head, input, head.place(at, free), scanner),
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
        let payload = to..to + taken;
        let shift = at - to;
        for start in payload.clone().step_by(BLOCK_BYTES) {
            let len = BLOCK_BYTES.min(payload.end - start);
            let marks =
                mask::unmask_block_left(&mut input[start..start + shift + len], shift, *key);
            key.rotate_left(len % 4);
            let block = &input[start..start + len];
            if !self.message.not_utf8 && !self.message.utf8.feed(block, marks) {
                self.message.not_utf8 = true;
            }
            scanner.feed_marked(block, marks);
        }
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
    fn stay(at: usize, header_room: usize) -> Self {
        Self { at, to: at, header_room }
    }
}

/// A header that passed every check.
#[derive(Clone, Copy)]
struct FrameHead {
    fin: bool,
    opcode: u8,
    key: [u8; 4],
    payload_len: u32,
    /// Bytes of the header itself.
    len: usize,
}

impl FrameHead {
    /// Whether the frame makes up a message alone.
    fn is_alone(&self) -> bool {
        self.fin && self.opcode != CONTINUATION
    }

    /// Where the payload of the frame that starts at `at` goes.
    fn place(&self, at: usize, free: Option<usize>) -> Place {
        let payload_at = at + self.len;
        match free {
            Some(free) if self.is_alone() => {
                let (_, header_len) = header(Opcode::Text, self.payload_len as usize);
                // The header it came with is longer by the key at least, so this is to the left.
                Place { at: payload_at, to: free + header_len, header_room: header_len }
            }
            Some(free) => Place::stay(payload_at, payload_at - free),
            None => Place::stay(payload_at, self.len),
        }
    }
}

impl Message {
    /// Judges a header as far as it is there; `None` asks for more bytes. The order of checks is
    /// that of the reference, so the same broken header earns the same close code.
    #[inline]
    fn judge(&self, bytes: &[u8], frame_bytes_max: usize) -> Result<Option<FrameHead>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(FrameError::ReservedBit);
        }
        let fin = first & FINAL != 0;
        let opcode = first & OPCODE;
        let short_len = second & !MASKED;
        self.judge_opcode(opcode, fin, short_len)?;
        if second & MASKED == 0 {
            return Err(FrameError::Unmasked);
        }
        let (payload_len, rest) = match short_len {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let payload_len = self.judge_len(opcode, payload_len, frame_bytes_max)?;
        let Some((key, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let len = bytes.len() - rest.len();
        Ok(Some(FrameHead { fin, opcode, key: *key, payload_len, len }))
    }

    /// Whether a frame of that opcode may come now.
    #[inline]
    fn judge_opcode(&self, opcode: u8, fin: bool, short_len: u8) -> Result<(), FrameError> {
        match opcode {
            CONTINUATION if self.opcode.is_none() => Err(FrameError::UnexpectedContinuation),
            CONTINUATION if self.fragment_count >= FRAGMENT_COUNT_MAX => {
                Err(FrameError::TooManyFragments)
            }
            TEXT | BINARY if self.opcode.is_some() => Err(FrameError::UnfinishedMessage),
            CONTINUATION | TEXT | BINARY => Ok(()),
            CLOSE | PING | PONG if !fin => Err(FrameError::FragmentedControl),
            CLOSE | PING | PONG if usize::from(short_len) > CONTROL_PAYLOAD_BYTES_MAX => {
                Err(FrameError::ControlTooLong)
            }
            CLOSE if short_len == 1 => Err(FrameError::CloseTooShort),
            CLOSE | PING | PONG => Ok(()),
            unknown => Err(FrameError::UnknownOpcode(unknown)),
        }
    }

    /// The payload length, if the message may grow by it.
    #[inline]
    fn judge_len(&self, opcode: u8, payload_len: u64, limit: usize) -> Result<u32, FrameError> {
        let before = if opcode == CONTINUATION { self.len } else { 0 };
        let len = payload_len.saturating_add(u64::from(before));
        if opcode < CLOSE && len > limit as u64 {
            return Err(FrameError::TooLong { len, limit });
        }
        u32::try_from(len).map(|len| len - before).map_err(|_| FrameError::TooLong { len, limit })
    }
}

/// A control frame whose payload passed every check.
enum Control {
    Close(Option<CloseCode>),
    Ping,
    Pong,
}

impl Control {
    fn step(self, payload: ControlPayload, at: usize) -> Step {
        match self {
            Self::Close(code) => Step::Close { code, payload, at },
            Self::Ping => Step::Ping { payload, at },
            Self::Pong => Step::Pong { payload, at },
        }
    }
}

/// Judges the unmasked payload of a control frame.
fn judge_control(opcode: u8, payload: &[u8]) -> Result<Control, FrameError> {
    match (opcode, payload) {
        (PING, _) => Ok(Control::Ping),
        (PONG, _) => Ok(Control::Pong),
        (_, []) => Ok(Control::Close(None)),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(FrameError::CloseCode(code));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(FrameError::CloseReason);
            }
            Ok(Control::Close(Some(CloseCode(code))))
        }
        (_, [_]) => Err(FrameError::CloseTooShort),
    }
}

/// Frames one message may have. Protects against endless empty fragments, which no byte limit
/// sees; a frame costs the decoder time, but no memory. Reached: close 1008. Source: the Autobahn
/// suite's case 9.3.1 sends 4 MiB in pieces of 64 bytes: 65,537 frames.
pub const FRAGMENT_COUNT_MAX: u32 = 1 << 17;

/// Payload bytes from which a fragment is worth its header and the work of joining it. Senders that
/// fragment at all do so at kilobytes.
pub const SMALL_FRAGMENT_BYTES: u32 = 128;

/// Bytes of the longest masked header: two, eight of length, four of key. Source: RFC 6455 §5.2.
const HEADER_BYTES_MAX: usize = 14;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const _: () = assert!(size_of::<Decoder>() <= 40);

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
