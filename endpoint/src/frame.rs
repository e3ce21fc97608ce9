//! The JSON frames both ends speak, as they stand on the wire.
//!
//! Reading: members in any order, unknown members and unknown frame types are ignored. Writing:
//! `type` first, then the members in the order of the specification.

use std::borrow::Cow;

use relay_contract::Profile;
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::ids::SessionId;

/// Version of the key exchange frames.
pub const KEY_EXCHANGE_VERSION: u64 = 3;
/// Version of the encrypted envelope.
pub const ENVELOPE_VERSION: u64 = 2;

/// Any frame an end may get. Text members borrow from the frame where it has no escapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// Message 1 of the handshake.
    KeyExchangeInit(KeyExchangeInit<'a>),
    /// Message 2 of the handshake.
    KeyExchangeResponse(KeyExchangeResponse<'a>),
    /// One encrypted text.
    Envelope(Envelope<'a>),
    /// A wish for new keys.
    KeyUpdateRequired(KeyUpdateRequired<'a>),
    /// The relay says something.
    Status(Status<'a>),
    /// A client asks for a pairing offer.
    PairingOfferRequest(PairingOfferRequest<'a>),
    /// A client redeems a pairing offer.
    PairingRedeemRequest(PairingRedeemRequest<'a>),
    /// A frame of another type, not for us.
    Other,
}

/// Message 1, client to daemon.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyExchangeInit<'a> {
    /// [`KEY_EXCHANGE_VERSION`].
    pub version: u64,
    /// Which handshake.
    pub profile: Profile,
    /// Pairs the answer with the question.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    /// SEC1 point, base64url.
    #[serde(borrow)]
    pub client_ephemeral_public_key: Cow<'a, str>,
    /// 65 encrypted bytes and their tag, base64url.
    #[serde(borrow)]
    pub encrypted_client_static: Cow<'a, str>,
    /// Under which name the daemon finds the pairing secret. Required for `noise-ikpsk2`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pairing_peer_id: Option<Cow<'a, str>>,
    /// The session this exchange replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_session_id: Option<SessionId>,
}

/// Message 2, daemon to client.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyExchangeResponse<'a> {
    /// [`KEY_EXCHANGE_VERSION`].
    pub version: u64,
    /// Which handshake.
    pub profile: Profile,
    /// As in message 1.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    /// The daemon's static SEC1 point, base64url. Informative: the client knows it from elsewhere.
    #[serde(borrow)]
    pub daemon_public_key: Cow<'a, str>,
    /// SEC1 point, base64url.
    #[serde(borrow)]
    pub daemon_ephemeral_public_key: Cow<'a, str>,
    /// The encrypted session id and epoch as JSON, and their tag, base64url.
    #[serde(borrow)]
    pub encrypted_metadata: Cow<'a, str>,
    /// The new session.
    pub session_id: SessionId,
    /// Its epoch, from 1.
    pub epoch: u64,
    /// The handshake's final hash, base64url.
    #[serde(borrow)]
    pub proof: Cow<'a, str>,
}

/// What message 2 carries encrypted. The order of members is part of the wire.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
}

/// One encrypted text, either direction.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// [`ENVELOPE_VERSION`].
    pub version: u64,
    /// The session's handshake.
    pub profile: Profile,
    /// The session.
    pub session_id: SessionId,
    /// The session's epoch.
    pub epoch: u64,
    /// Number of this message in its direction, from 1.
    pub seq: u64,
    /// 12 bytes, base64url.
    #[serde(borrow)]
    pub iv: Cow<'a, str>,
    /// 16 bytes, base64url.
    #[serde(borrow)]
    pub tag: Cow<'a, str>,
    /// As many bytes as the text, base64url.
    #[serde(borrow)]
    pub ciphertext: Cow<'a, str>,
}

/// A wish for new keys, in clear; it may cost a handshake and nothing more.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUpdateRequired<'a> {
    /// The session that shall be replaced.
    pub session_id: SessionId,
    /// Its epoch and one.
    pub next_epoch: u64,
    /// Why.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
}

/// What the relay tells an end.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status<'a> {
    /// `DAEMON_UNAVAILABLE`, `RELAY_REDIRECT`, and others.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// For people.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Whether trying again later makes sense.
    #[serde(default)]
    pub retryable: Option<bool>,
    /// Where to go, in `RELAY_REDIRECT`.
    #[serde(borrow, default)]
    pub relay_ws_base_url: Option<Cow<'a, str>>,
}

/// A client asks for a pairing offer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingOfferRequest<'a> {
    /// Pairs the answer with the question.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    /// SEC1 point of this channel, base64url.
    #[serde(borrow)]
    pub client_channel_public_key: Cow<'a, str>,
    /// How long the offer shall stand, 30 to 3,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A client redeems a pairing offer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingRedeemRequest<'a> {
    /// Pairs the answer with the question.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    /// The offer.
    #[serde(borrow)]
    pub offer_id: Cow<'a, str>,
    /// What is sealed under the channel's key.
    #[serde(borrow, flatten)]
    pub sealed: Sealed<'a>,
}

/// Bytes sealed under a pairing channel's key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed<'a> {
    /// 12 bytes, base64url.
    #[serde(borrow)]
    pub enc_iv: Cow<'a, str>,
    /// 16 bytes, base64url.
    #[serde(borrow)]
    pub enc_tag: Cow<'a, str>,
    /// As many bytes as the text, base64url.
    #[serde(borrow)]
    pub enc_ciphertext: Cow<'a, str>,
}

impl<'a> Frame<'a> {
    /// Reads a frame. Cost: two passes over the text, no copy of members without escapes.
    ///
    /// Errors: not JSON, no `type`, a member missing or of the wrong kind. Versions are judged by
    /// whoever acts on the frame.
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        // Derived readers also take a list of members in their order.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(FrameError::NotAFrame);
        }
        let kind: Kind<'_> = serde_json::from_str(text).map_err(|_| FrameError::NotAFrame)?;
        Ok(match &*kind.kind {
            KEY_EXCHANGE_INIT => Self::KeyExchangeInit(read(text)?),
            KEY_EXCHANGE_RESPONSE => Self::KeyExchangeResponse(read(text)?),
            ENVELOPE => Self::Envelope(read(text)?),
            KEY_UPDATE_REQUIRED => Self::KeyUpdateRequired(read(text)?),
            STATUS => Self::Status(read(text)?),
            PAIRING_OFFER_REQUEST => Self::PairingOfferRequest(read(text)?),
            PAIRING_REDEEM_REQUEST => Self::PairingRedeemRequest(read(text)?),
            _ => Self::Other,
        })
    }

    /// Writes the frame. [`Frame::Other`] is an empty object: nobody sends it.
    pub fn to_text(&self) -> String {
        match self {
            Self::KeyExchangeInit(frame) => write(KEY_EXCHANGE_INIT, frame),
            Self::KeyExchangeResponse(frame) => write(KEY_EXCHANGE_RESPONSE, frame),
            Self::Envelope(frame) => write(ENVELOPE, frame),
            Self::KeyUpdateRequired(frame) => write(KEY_UPDATE_REQUIRED, frame),
            Self::Status(frame) => write(STATUS, frame),
            Self::PairingOfferRequest(frame) => write(PAIRING_OFFER_REQUEST, frame),
            Self::PairingRedeemRequest(frame) => write(PAIRING_REDEEM_REQUEST, frame),
            Self::Other => "{}".to_owned(),
        }
    }
}

/// Puts `type` in front of a frame's own members.
pub(crate) fn write(kind: &str, frame: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Typed<'t, T> {
        r#type: &'t str,
        #[serde(flatten)]
        frame: &'t T,
    }
    let typed = Typed { r#type: kind, frame };
    serde_json::to_string(&typed).expect("frames have text keys and plain values only")
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FrameError> {
    serde_json::from_str(text).map_err(|_| FrameError::BadMember)
}

/// Why a text is not a frame. Says nothing of the text: it may hold anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Not a JSON object with a `type`.
    #[error("not a JSON object with a type")]
    NotAFrame,
    /// A member is missing, doubled, or of the wrong kind.
    #[error("a member is missing or of the wrong kind")]
    BadMember,
}

impl FrameError {
    /// The relay checks the outer form, so it is whoever sent it.
    pub fn fault(self) -> Fault {
        Fault::Peer
    }
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

const KEY_EXCHANGE_INIT: &str = "relay_key_exchange_init";
const KEY_EXCHANGE_RESPONSE: &str = "relay_key_exchange_response";
const ENVELOPE: &str = "e2ee";
const KEY_UPDATE_REQUIRED: &str = "relay_key_update_required";
const STATUS: &str = "relay_status";
const PAIRING_OFFER_REQUEST: &str = "relay_pairing_offer_request";
const PAIRING_REDEEM_REQUEST: &str = "relay_pairing_redeem_request";
pub(crate) const PAIRING_OFFER_RESPONSE: &str = "relay_pairing_offer_response";
pub(crate) const PAIRING_REDEEM_RESPONSE: &str = "relay_pairing_redeem_response";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_any_order_and_unknown_ones_are_ignored() {
        let text =
            r#"{"nextEpoch":2,"x":[[{}]],"sessionId":"s","type":"relay_key_update_required"}"#;
        let expected = KeyUpdateRequired { session_id: "s".into(), next_epoch: 2, reason: None };
        assert_eq!(Frame::parse(text), Ok(Frame::KeyUpdateRequired(expected)));
    }

    #[test]
    fn an_envelope_is_written_in_the_order_of_the_specification() {
        let envelope = Envelope {
            version: 2,
            profile: Profile::NoiseIk,
            session_id: "s".into(),
            epoch: 1,
            seq: 3,
            iv: "i".into(),
            tag: "t".into(),
            ciphertext: "c".into(),
        };
        assert_eq!(
            Frame::Envelope(envelope).to_text(),
            concat!(
                r#"{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","#,
                r#""epoch":1,"seq":3,"iv":"i","tag":"t","ciphertext":"c"}"#
            )
        );
    }

    #[test]
    fn other_types_are_not_errors() {
        let text = r#"{"type":"viewport.session_viewer_presence/v1"}"#;
        assert_eq!(Frame::parse(text), Ok(Frame::Other));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let list = r#"["relay_status"]"#;
        for text in ["", "null", "[]", list, "{}", r#"{"type":1}"#, "{\"type\":\"e2ee\""] {
            assert_eq!(Frame::parse(text), Err(FrameError::NotAFrame), "{text}");
        }
        for text in [
            r#"{"type":"e2ee"}"#,
            r#"{"type":"relay_key_update_required","sessionId":1,"nextEpoch":2}"#,
            r#"{"type":"relay_key_update_required","sessionId":"s","nextEpoch":-2}"#,
        ] {
            assert_eq!(Frame::parse(text), Err(FrameError::BadMember), "{text}");
        }
    }

    #[test]
    fn the_metadata_has_no_spaces_and_its_own_order() {
        let metadata = Metadata { session_id: "rs_1".into(), epoch: 1 };
        assert_eq!(serde_json::to_string(&metadata).unwrap(), r#"{"sessionId":"rs_1","epoch":1}"#);
    }
}
