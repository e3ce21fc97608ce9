//! Frames as the scanner finds them.

use relay_contract::Profile;

/// Why a text is not a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Invalid;

/// A valid frame's members that routing needs. Strings are WTF-8, escapes decoded.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'s> {
    /// The top-level `profile` member, whatever the frame.
    pub profile: Option<Profile>,
    /// The frame.
    pub frame: Frame<'s>,
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'s> {
    /// An encrypted frame.
    E2ee {
        /// The session.
        session_id: &'s [u8],
    },
    /// The first message of a handshake.
    KeyExchangeInit {
        /// Pairs it with its answer.
        request_id: &'s [u8],
    },
    /// The second message of a handshake.
    KeyExchangeResponse {
        /// From the first.
        request_id: &'s [u8],
        /// The session it founds.
        session_id: &'s [u8],
    },
    /// A session needs new keys.
    KeyUpdate {
        /// The session.
        session_id: &'s [u8],
    },
    /// A pairing offer or its redemption.
    PairingRequest {
        /// Pairs it with its answer.
        request_id: &'s [u8],
    },
    /// The answer to either.
    PairingResponse {
        /// From the request.
        request_id: &'s [u8],
    },
}
