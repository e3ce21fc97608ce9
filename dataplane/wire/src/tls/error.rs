//! Why a peer's bytes are not records we accept.

use super::{Alert, FRUITLESS_RECORDS_MAX};

/// Why a peer's bytes are not records we accept. Always the peer's fault, and the end of the
/// session. Nothing of the peer's bytes is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// A record of a kind that has no place in an established session.
    #[error("record of type {0} has no place here")]
    UnexpectedType(u8),
    /// The header's version is none that sealed records carry.
    #[error("record of version {0:#06x}")]
    Version(u16),
    /// The record, or what is in it, is larger than allowed.
    #[error("record is too long")]
    TooLong,
    /// The record has no room for what every sealed record has.
    #[error("record is too short")]
    TooShort,
    /// The record is not what the peer sealed, or not in its place.
    #[error("record is not authentic")]
    NotAuthentic,
    /// Too many records in a row brought nothing.
    #[error("more than {FRUITLESS_RECORDS_MAX} records without content")]
    Fruitless,
    /// A handshake message that has no place after the handshake.
    #[error("handshake message {0} after the handshake")]
    UnexpectedHandshake(u8),
    /// The peer wants to shake hands again, which TLS 1.2 allows and we do not.
    #[error("renegotiation is refused")]
    Renegotiation,
    /// A KeyUpdate or an alert that cannot be read.
    #[error("malformed message")]
    Malformed,
    /// A KeyUpdate whose only value has no meaning.
    #[error("key update of unknown kind {0}")]
    UnknownKeyUpdate(u8),
    /// The peer ended the session with an alert of its own.
    #[error("peer sent alert {0}")]
    PeerAlert(u8),
}

impl RecordError {
    /// What the peer is told. Nothing when it was the peer who ended the session.
    pub const fn alert(self) -> Option<Alert> {
        match self {
            Self::UnexpectedType(_) | Self::Fruitless | Self::UnexpectedHandshake(_) => {
                Some(Alert::UNEXPECTED_MESSAGE)
            }
            Self::Version(_) => Some(Alert::PROTOCOL_VERSION),
            Self::TooLong => Some(Alert::RECORD_OVERFLOW),
            Self::TooShort | Self::Malformed => Some(Alert::DECODE_ERROR),
            Self::NotAuthentic => Some(Alert::BAD_RECORD_MAC),
            Self::Renegotiation => Some(Alert::NO_RENEGOTIATION),
            Self::UnknownKeyUpdate(_) => Some(Alert::ILLEGAL_PARAMETER),
            Self::PeerAlert(_) => None,
        }
    }
}
