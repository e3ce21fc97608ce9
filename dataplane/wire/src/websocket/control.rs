//! Control frames as the server reads them: what they carry, and whether it may be said.

use std::fmt;
use std::ops::Range;

use relay_contract::CloseCode;
use serde::{Deserialize, Serialize};

use super::decoder::Step;
use super::error::FrameError;
use super::message::{PING, PONG};

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

/// A control payload on its way.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Gathering {
    pub(super) opcode: u8,
    pub(super) key: [u8; 4],
    pub(super) payload_len: u8,
    /// Still masked.
    pub(super) bytes: Vec<u8>,
}

/// A control frame whose payload passed every check.
pub(super) enum Control {
    Close(Option<CloseCode>),
    Ping,
    Pong,
}

impl Control {
    pub(super) fn step(self, payload: ControlPayload, at: usize) -> Step {
        match self {
            Self::Close(code) => Step::Close { code, payload, at },
            Self::Ping => Step::Ping { payload, at },
            Self::Pong => Step::Pong { payload, at },
        }
    }
}

/// Judges the unmasked payload of a control frame.
pub(super) fn judge_control(opcode: u8, payload: &[u8]) -> Result<Control, FrameError> {
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
