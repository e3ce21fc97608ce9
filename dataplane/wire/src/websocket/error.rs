//! Why a peer's bytes are not a frame we accept.

use relay_contract::CloseCode;

/// Why a peer's bytes are not a frame we accept. Always the peer's fault; retrying the same bytes
/// is no use.
///
/// Nothing of the peer's bytes is kept. Source: RFC 6455 §5 and §7.4, with the close codes the
/// reference relay's library chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The mask bit is clear.
    #[error("client frame is not masked")]
    Unmasked,
    /// A reserved bit is set though no extension was agreed.
    #[error("reserved bit is set")]
    ReservedBit,
    /// An opcode RFC 6455 does not define.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// A continuation frame though no message is open.
    #[error("continuation without a message")]
    UnexpectedContinuation,
    /// A text or binary frame though a fragmented message is open.
    #[error("new message inside a fragmented one")]
    UnfinishedMessage,
    /// A control frame without the final bit.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame is too long")]
    ControlTooLong,
    /// A close frame of one byte.
    #[error("close frame has half a code")]
    CloseTooShort,
    /// A close code that must not appear on the wire.
    #[error("close code {0} is not allowed on the wire")]
    CloseCode(u16),
    /// A close reason that is not UTF-8.
    #[error("close reason is not UTF-8")]
    CloseReason,
    /// A text message that is not UTF-8.
    #[error("text message is not UTF-8")]
    Utf8,
    /// The message is, or would become, larger than the limit.
    #[error("message is {len} bytes, limit is {limit}")]
    TooLong {
        /// Payload bytes the message would have with the announced frame.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// The message has more fragments than [`super::FRAGMENT_COUNT_MAX`].
    #[error("message has too many fragments")]
    TooManyFragments,
}

impl FrameError {
    /// What the peer is told. The close frame carries no reason.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::CloseReason | Self::Utf8 => CloseCode::INVALID_DATA,
            Self::TooLong { .. } => CloseCode::TOO_BIG,
            Self::TooManyFragments => POLICY_VIOLATION,
            Self::Unmasked
            | Self::ReservedBit
            | Self::UnknownOpcode(_)
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::CloseTooShort
            | Self::CloseCode(_) => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// RFC 6455 §7.4.1: a message violates the endpoint's policy.
const POLICY_VIOLATION: CloseCode = CloseCode(1008);
