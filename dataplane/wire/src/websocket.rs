//! RFC 6455, the server's side, without extensions.
//!
//! [`Decoder`] walks received buffers in place: it unmasks, checks UTF-8 and feeds the envelope
//! scanner in one pass while the bytes are in the first-level cache, and says where the payload
//! lies. [`header`] and [`place_header`] write what goes in front of a payload that is forwarded
//! from the same bytes.

mod control;
mod decoder;
mod error;
mod frame;
pub(crate) mod mask;
mod message;
mod utf8;

pub use control::ControlPayload;
pub use decoder::{DataOpcode, Decoder, Piece, SMALL_FRAGMENT_BYTES, Step};
pub use error::FrameError;
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, ControlFrame, HEADER_BYTES_MAX, Opcode, close_frame, header,
    ping_frame, place_header, pong_frame,
};
pub use mask::unmask;
pub use message::FRAGMENT_COUNT_MAX;
