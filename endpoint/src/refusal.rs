//! Why a received frame came to nothing.

use crate::Fault;
use crate::frame::FrameError;
use crate::handshake::HandshakeError;
use crate::pairing::PairingError;
use crate::session::OpenError;

/// A frame an end dropped. Nobody is answered; owners count these by [`Refusal::reason`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A handshake that failed a check.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A message that does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A pairing request that failed; this one is answered.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// A wish for new keys that does not fit the session.
    #[error("a wish for new keys does not fit the session")]
    Notice,
    /// A frame that is not for this end.
    #[error("frame is not for this end")]
    Unexpected,
}

impl Refusal {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Frame(error) => error.fault(),
            Self::Handshake(error) => error.fault(),
            Self::Open(error) => error.fault(),
            Self::Pairing(error) => error.fault(),
            Self::Notice | Self::Unexpected => Fault::Peer,
        }
    }

    /// A label from a closed set, for counters.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Frame(_) => "frame",
            Self::Handshake(_) => "handshake",
            Self::Open(OpenError::Replayed) => "replayed",
            Self::Open(OpenError::TooOld | OpenError::TooFarAhead) => "window",
            Self::Open(OpenError::Session) => "unknown_session",
            Self::Open(_) => "not_authentic",
            Self::Pairing(_) => "pairing",
            Self::Notice => "notice",
            Self::Unexpected => "unexpected",
        }
    }
}
