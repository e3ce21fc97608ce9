//! The names the scanner knows: members, frame types, and what is kept of each member.

use super::ColdKind;

/// A top-level member some frame type has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Member {
    Type,
    Schema,
    Profile,
    SessionId,
    RequestId,
    PairingPeerId,
    Version,
    Epoch,
    Seq,
    TtlSeconds,
    NextEpoch,
    Iv,
    Tag,
    Ciphertext,
    ClientEphemeralPublicKey,
    EncryptedClientStatic,
    ClientPublicKey,
    ClientNonce,
    ClientProof,
    DaemonPublicKey,
    DaemonEphemeralPublicKey,
    EncryptedMetadata,
    Proof,
    DaemonNonce,
    ClientChannelPublicKey,
    DaemonChannelPublicKey,
    OfferId,
    EncIv,
    EncTag,
    EncCiphertext,
    Ok,
    ErrorCode,
    /// Any other name.
    Other,
}

impl Member {
    /// The member of that exact name.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"type" => Self::Type,
            b"schema" => Self::Schema,
            b"profile" => Self::Profile,
            b"sessionId" => Self::SessionId,
            b"requestId" => Self::RequestId,
            b"pairingPeerId" => Self::PairingPeerId,
            b"version" => Self::Version,
            b"epoch" => Self::Epoch,
            b"seq" => Self::Seq,
            b"ttlSeconds" => Self::TtlSeconds,
            b"nextEpoch" => Self::NextEpoch,
            b"iv" => Self::Iv,
            b"tag" => Self::Tag,
            b"ciphertext" => Self::Ciphertext,
            b"clientEphemeralPublicKey" => Self::ClientEphemeralPublicKey,
            b"encryptedClientStatic" => Self::EncryptedClientStatic,
            b"clientPublicKey" => Self::ClientPublicKey,
            b"clientNonce" => Self::ClientNonce,
            b"clientProof" => Self::ClientProof,
            b"daemonPublicKey" => Self::DaemonPublicKey,
            b"daemonEphemeralPublicKey" => Self::DaemonEphemeralPublicKey,
            b"encryptedMetadata" => Self::EncryptedMetadata,
            b"proof" => Self::Proof,
            b"daemonNonce" => Self::DaemonNonce,
            b"clientChannelPublicKey" => Self::ClientChannelPublicKey,
            b"daemonChannelPublicKey" => Self::DaemonChannelPublicKey,
            b"offerId" => Self::OfferId,
            b"encIv" => Self::EncIv,
            b"encTag" => Self::EncTag,
            b"encCiphertext" => Self::EncCiphertext,
            b"ok" => Self::Ok,
            b"errorCode" => Self::ErrorCode,
            _ => Self::Other,
        }
    }

    /// Where the member's text is kept, for those whose text matters.
    pub(super) const fn text_slot(self) -> Option<usize> {
        let slot = self as usize;
        if slot < TEXT_COUNT { Some(slot) } else { None }
    }

    /// Where the member's value is kept, for those whose number matters.
    pub(super) const fn number_slot(self) -> Option<usize> {
        match (self as usize).checked_sub(TEXT_COUNT) {
            Some(slot) if slot < NUMBER_COUNT => Some(slot),
            _ => None,
        }
    }

    /// Whether all that matters of the member's text is that it is not blank.
    pub(super) const fn must_not_be_blank(self) -> bool {
        matches!(self, Self::Iv | Self::Tag | Self::Ciphertext)
    }
}

/// Members from [`Member::Type`] on whose text is kept.
pub(super) const TEXT_COUNT: usize = Member::PairingPeerId as usize + 1;

/// Members from [`Member::Version`] on whose number is kept.
pub(super) const NUMBER_COUNT: usize = Member::TtlSeconds as usize + 1 - TEXT_COUNT;

/// Members that have a place of their own; [`Member::Other`] has none.
pub(super) const MEMBER_COUNT: usize = Member::Other as usize;

/// Bytes of the longest known name.
pub(super) const NAME_BYTES_MAX: usize = 24;

/// What a member's value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    Absent,
    Null,
    True,
    False,
    Number,
    /// A string; not a blank one where that matters.
    Text,
    /// A blank string, told apart for members that must not be blank.
    Blank,
    /// An object or array.
    Container,
}

/// The types of frames, by their `type` member; [`FrameType::Cold`] also by `schema`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FrameType {
    E2ee,
    KeyExchangeInit,
    KeyExchangeResponse,
    KeyUpdate,
    PairingOfferRequest,
    PairingRedeemRequest,
    PairingOfferResponse,
    PairingRedeemResponse,
    Cold(ColdKind),
}

impl FrameType {
    /// The type of that exact name.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"e2ee" => Self::E2ee,
            b"relay_key_exchange_init" => Self::KeyExchangeInit,
            b"relay_key_exchange_response" => Self::KeyExchangeResponse,
            b"relay_key_update_required" => Self::KeyUpdate,
            b"relay_pairing_offer_request" => Self::PairingOfferRequest,
            b"relay_pairing_redeem_request" => Self::PairingRedeemRequest,
            b"relay_pairing_offer_response" => Self::PairingOfferResponse,
            b"relay_pairing_redeem_response" => Self::PairingRedeemResponse,
            b"viewport.worker_transport.request/v1" => Self::Cold(ColdKind::Worker),
            b"viewport.session_events.subscribe/v1" => Self::Cold(ColdKind::Subscribe),
            b"viewport.session_events.unsubscribe/v1" => Self::Cold(ColdKind::Unsubscribe),
            b"viewport.session_viewer_presence/v1" => Self::Cold(ColdKind::Presence),
            b"relay.renew_token/v1" => Self::Cold(ColdKind::Renewal),
            _ => return None,
        })
    }
}

/// The `schema` of a session event frame, which has no `type`.
pub(super) const SESSION_EVENT_SCHEMA: &[u8] = b"viewport.session_event_relay_frame/v1";

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name a frame's `type` may have.
    const FRAME_TYPES: [&str; 13] = [
        "e2ee",
        "relay_key_exchange_init",
        "relay_key_exchange_response",
        "relay_key_update_required",
        "relay_pairing_offer_request",
        "relay_pairing_redeem_request",
        "relay_pairing_offer_response",
        "relay_pairing_redeem_response",
        "viewport.worker_transport.request/v1",
        "viewport.session_events.subscribe/v1",
        "viewport.session_events.unsubscribe/v1",
        "viewport.session_viewer_presence/v1",
        "relay.renew_token/v1",
    ];

    #[test]
    fn every_listed_type_is_known_and_no_other() {
        for name in FRAME_TYPES {
            assert!(FrameType::of(name.as_bytes()).is_some(), "{name}");
            assert_eq!(FrameType::of(name.to_uppercase().as_bytes()), None, "{name}");
        }
        assert_eq!(FrameType::of(SESSION_EVENT_SCHEMA), None);
    }

    #[test]
    fn the_longest_known_name_fits_the_name_buffer() {
        assert_eq!(b"clientEphemeralPublicKey".len(), NAME_BYTES_MAX);
        assert_eq!(b"daemonEphemeralPublicKey".len(), NAME_BYTES_MAX);
    }

    #[test]
    fn texts_and_numbers_have_separate_slots() {
        assert_eq!(Member::PairingPeerId.text_slot(), Some(5));
        assert_eq!(Member::Version.text_slot(), None);
        assert_eq!(Member::Version.number_slot(), Some(0));
        assert_eq!(Member::TtlSeconds.number_slot(), Some(3));
        assert_eq!(Member::NextEpoch.number_slot(), None);
        assert_eq!(Member::Type.number_slot(), None);
    }
}
