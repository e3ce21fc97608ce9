//! What the pairing channel carries, sealed and in clear.

use std::borrow::Cow;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Channel, Paired, PairingError, PairingIdentity};
use crate::aead::{Cipher, NONCE_BYTES};
use crate::base64url;
use crate::frame::{
    self, PAIRING_OFFER_RESPONSE, PAIRING_REDEEM_RESPONSE, PairingRedeemRequest, Sealed,
};

/// The answer to an offer request that failed.
pub(crate) fn offer_failed(request_id: &str) -> String {
    frame::write(PAIRING_OFFER_RESPONSE, &Failed::new(request_id, "PAIRING_OFFER_FAILED"))
}

/// The answer to a redemption that failed.
pub(crate) fn redeem_failed(request_id: &str) -> String {
    frame::write(PAIRING_REDEEM_RESPONSE, &Failed::new(request_id, "PAIRING_REDEEM_FAILED"))
}

pub(super) fn redeemed(
    request: &PairingRedeemRequest<'_>,
    channel: &Channel,
    identity: &PairingIdentity,
    paired: Paired,
) -> String {
    let answer = RedeemResponse {
        request_id: &request.request_id,
        ok: true,
        redeemed: Redeemed {
            offer_id: &request.offer_id,
            created_at: channel.created_ms,
            expires_at: channel.expires_ms,
            peer_id: &paired.peer_id,
            daemon_device_id: &identity.daemon_device_id,
            daemon_public_key: &identity.daemon_public_key,
            relay_pairing_peer_id: &paired.peer_id,
            server_signature: &paired.server_signature,
        },
    };
    frame::write(PAIRING_REDEEM_RESPONSE, &answer)
}

pub(super) fn seal(
    cipher: &Cipher,
    label: &str,
    text: &[u8],
    rng: &mut impl CryptoRng,
) -> Sealed<'static> {
    let mut iv = [0; NONCE_BYTES];
    rng.fill_bytes(&mut iv);
    let mut bytes = text.to_vec();
    let tag = cipher.seal(&iv, label.as_bytes(), &mut bytes);
    Sealed {
        enc_iv: Cow::Owned(base64url::encode(&iv)),
        enc_tag: Cow::Owned(base64url::encode(&tag)),
        enc_ciphertext: Cow::Owned(base64url::encode(&bytes)),
    }
}

pub(super) fn open(
    cipher: &Cipher,
    label: &str,
    sealed: &Sealed<'_>,
) -> Result<Zeroizing<Vec<u8>>, PairingError> {
    let malformed = |_| PairingError::Malformed;
    let iv = base64url::decode_array(&sealed.enc_iv).map_err(malformed)?;
    let tag = base64url::decode_array(&sealed.enc_tag).map_err(malformed)?;
    let mut bytes = Zeroizing::new(base64url::decode(&sealed.enc_ciphertext).map_err(malformed)?);
    cipher.open(&iv, label.as_bytes(), &mut bytes, &tag).map_err(|_| PairingError::NotAuthentic)?;
    Ok(bytes)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Offer<'a> {
    offer_id: &'a str,
    created_at: u64,
    expires_at: u64,
    redeem_secret: &'a str,
    trust_anchor: &'a str,
    daemon_device_id: &'a str,
    daemon_public_key: &'a str,
}

impl<'a> Offer<'a> {
    pub(super) fn of(
        offer_id: &'a str,
        channel: &'a Channel,
        identity: &'a PairingIdentity,
    ) -> Self {
        Self {
            offer_id,
            created_at: channel.created_ms,
            expires_at: channel.expires_ms,
            redeem_secret: &channel.redeem_secret,
            trust_anchor: &identity.trust_anchor,
            daemon_device_id: &identity.daemon_device_id,
            daemon_public_key: &identity.daemon_public_key,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedeemContent<'a> {
    #[serde(borrow)]
    pub(super) redeem_secret: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) trust_anchor: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) client_public_key: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) client_proof: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfferResponse<'a> {
    pub(super) request_id: &'a str,
    pub(super) ok: bool,
    pub(super) daemon_channel_public_key: String,
    #[serde(flatten)]
    pub(super) sealed: Sealed<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RedeemResponse<'a> {
    request_id: &'a str,
    ok: bool,
    redeemed: Redeemed<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redeemed<'a> {
    offer_id: &'a str,
    created_at: u64,
    expires_at: u64,
    peer_id: &'a str,
    daemon_device_id: &'a str,
    daemon_public_key: &'a str,
    relay_pairing_peer_id: &'a str,
    server_signature: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    request_id: &'a str,
    ok: bool,
    error_code: &'static str,
}

impl<'a> Failed<'a> {
    fn new(request_id: &'a str, error_code: &'static str) -> Self {
        Self { request_id, ok: false, error_code }
    }
}
