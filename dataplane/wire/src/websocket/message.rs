//! The data message that is open, and which frame may come now.

use serde::{Deserialize, Serialize};

use super::decoder::DataOpcode;
use super::error::FrameError;
use super::frame::CONTROL_PAYLOAD_BYTES_MAX;
use super::utf8::Utf8Check;

/// The data message that is open, if any.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) opcode: Option<DataOpcode>,
    /// A piece of it was handed out.
    pub(super) begun: bool,
    /// A small fragment began, and no piece of it was handed out.
    pub(super) small_fragment: bool,
    pub(super) not_utf8: bool,
    pub(super) utf8: Utf8Check,
    pub(super) fragment_count: u32,
    /// Payload bytes announced so far.
    pub(super) len: u32,
}

/// A header that passed every check.
#[derive(Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) fin: bool,
    pub(super) opcode: u8,
    pub(super) key: [u8; 4],
    pub(super) payload_len: u32,
    /// Bytes of the header itself.
    pub(super) len: usize,
}

impl FrameHead {
    /// Whether the frame makes up a message alone.
    pub(super) fn is_alone(&self) -> bool {
        self.fin && self.opcode != CONTINUATION
    }
}

impl Message {
    /// Judges a header as far as it is there; `None` asks for more bytes. The order of checks is
    /// that of the reference, so the same broken header earns the same close code.
    #[inline]
    pub(super) fn judge(
        &self,
        bytes: &[u8],
        frame_bytes_max: usize,
    ) -> Result<Option<FrameHead>, FrameError> {
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

/// Frames one message may have. Protects against endless empty fragments, which no byte limit
/// sees; a frame costs the decoder time, but no memory. Reached: close 1008. Source: the Autobahn
/// suite's case 9.3.1 sends 4 MiB in pieces of 64 bytes: 65,537 frames.
pub const FRAGMENT_COUNT_MAX: u32 = 1 << 17;

pub(super) const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
pub(super) const MASKED: u8 = 0x80;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
