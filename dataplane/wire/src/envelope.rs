//! What the relay may know of a frame: that it is JSON, and a few of its top-level members.
//!
//! [`Scanner`] reads a frame once, in whatever pieces it arrives, and answers with an [`Envelope`]:
//! a frame that is valid for its type. Rare frames come out as [`Envelope::Cold`] and are read by
//! [`cold::parse`] from their whole text, long calls of workers by a [`CallReader`] from pieces.
//! [`emit`] writes the frames that the relay itself sends.
//!
//! JSON is what `JSON.parse` takes, because the peers of the reference relay are held to that: any
//! depth, lone surrogates, numbers of any size (read as doubles), the last of several equal names.
//! Strings are compared and handed out as WTF-8: UTF-8 that may also hold lone surrogates.

mod call;
mod call_reader;
pub mod cold;
pub mod emit;
mod judge;
mod member;
mod nesting;
mod number;
mod object;
mod opening;
mod scanner;
mod string;
mod text;

use relay_contract::Profile;

pub use call_reader::CallReader;
pub use scanner::Scanner;
pub use text::{is_blank, lossy, trim_js, utf16_len};

/// A frame that is valid for its type. Strings are decoded WTF-8, untrimmed, and live in the
/// scanner.
///
/// Numbers are doubles because that is what both ends and the reference see; where an integer is
/// asked for, they are integers. Source: relay specification, section 6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Envelope<'s> {
    /// `e2ee`: ciphertext of a session.
    E2ee {
        /// The session's handshake.
        profile: Profile,
        /// Not blank.
        session_id: &'s [u8],
        /// Integer, at least 1.
        epoch: f64,
        /// Integer, at least 1.
        seq: f64,
    },
    /// `relay_key_exchange_init`, version 2 or 3.
    KeyExchangeInit {
        /// The handshake asked for.
        profile: Profile,
        /// May be blank.
        request_id: &'s [u8],
        /// When it is a string; not blank with [`Profile::NoiseIkpsk2`].
        pairing_peer_id: Option<&'s [u8]>,
    },
    /// `relay_key_exchange_response`, version 2 or 3.
    KeyExchangeResponse {
        /// The handshake done.
        profile: Profile,
        /// May be blank.
        request_id: &'s [u8],
        /// May be blank.
        session_id: &'s [u8],
    },
    /// `relay_key_update_required`
    KeyUpdate {
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
        /// May be blank.
        session_id: &'s [u8],
    },
    /// `relay_pairing_offer_request`
    PairingOfferRequest {
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
        /// May be blank.
        request_id: &'s [u8],
    },
    /// `relay_pairing_redeem_request`
    PairingRedeemRequest {
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
        /// May be blank.
        request_id: &'s [u8],
    },
    /// `relay_pairing_offer_response`
    PairingOfferResponse {
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
        /// May be blank.
        request_id: &'s [u8],
    },
    /// `relay_pairing_redeem_response`
    PairingRedeemResponse {
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
        /// May be blank.
        request_id: &'s [u8],
    },
    /// A rare frame: valid JSON of that type, its members not judged yet.
    Cold {
        /// Which.
        kind: ColdKind,
        /// Not part of the frame's form, judged when present.
        profile: ProfileMember,
    },
}

impl Envelope<'_> {
    /// The frame's `profile` member, which the profile rule judges in every kind of frame.
    pub const fn profile(&self) -> ProfileMember {
        match *self {
            Self::E2ee { profile, .. }
            | Self::KeyExchangeInit { profile, .. }
            | Self::KeyExchangeResponse { profile, .. } => ProfileMember::Known(profile),
            Self::KeyUpdate { profile, .. }
            | Self::PairingOfferRequest { profile, .. }
            | Self::PairingRedeemRequest { profile, .. }
            | Self::PairingOfferResponse { profile, .. }
            | Self::PairingRedeemResponse { profile, .. }
            | Self::Cold { profile, .. } => profile,
        }
    }
}

/// The top-level `profile` of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProfileMember {
    /// No such member, or null.
    Absent,
    /// A profile we know.
    Known(Profile),
    /// Anything else. It satisfies no claim.
    Unknown,
}

impl ProfileMember {
    /// The profile, if it is one we know.
    pub const fn known(self) -> Option<Profile> {
        match self {
            Self::Known(profile) => Some(profile),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// The rare kinds of frames.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ColdKind {
    /// `viewport.worker_transport.request/v1`
    Worker,
    /// `viewport.session_events.subscribe/v1`
    Subscribe,
    /// `viewport.session_events.unsubscribe/v1`
    Unsubscribe,
    /// `viewport.session_viewer_presence/v1`
    Presence,
    /// `viewport.session_event_relay_frame/v1`, which is named by `schema` instead of `type`.
    SessionEvent,
    /// `relay.renew_token/v1`, which is for the relay and ours.
    Renewal,
}

/// Why a text is not a frame. Always the peer's fault; nothing of the text is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Not JSON, or not an object.
    #[error("frame is not a JSON object")]
    Json,
    /// No type we know.
    #[error("frame type is unknown")]
    Type,
    /// A member is missing or has the wrong form for the frame's type.
    #[error("frame member is missing or has the wrong form")]
    Member,
}
