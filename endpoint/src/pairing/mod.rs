//! Pairing over the relay, the daemon's side: an encrypted channel, an offer, one redemption.
//!
//! The relay carries both requests and can read neither. What a proof is worth and where secrets
//! are kept is the business of [`PairingPeers`]; this file keeps channels, their bounds, and their
//! one use.

mod content;
mod peers;

pub(crate) use content::{offer_failed, redeem_failed};
pub use peers::{Paired, PairingIdentity, PairingPeers, Redemption};

use content::{Offer, OfferResponse, RedeemContent, open, redeemed, seal};
use indexmap::IndexMap;
use rand::CryptoRng;
use relay_contract::Tick;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Fault;
use crate::aead::{self, Cipher};
use crate::frame::{self, PAIRING_OFFER_RESPONSE, PairingOfferRequest, PairingRedeemRequest};
use crate::ids::hex_name;
use crate::keys::{KeyPair, PublicKey};
use crate::limits::Limits;
use crate::moment::Moment;

/// Why a pairing request failed. The client is told that it failed, not why.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum PairingError {
    /// This daemon makes no offers.
    #[error("this daemon does not pair")]
    Disabled,
    /// The request is not well formed.
    #[error("pairing request is malformed")]
    Malformed,
    /// There is no such offer: never was, redeemed, expired, or pushed out.
    #[error("no such offer")]
    NoOffer,
    /// The sealed content does not open.
    #[error("pairing request is not authentic")]
    NotAuthentic,
    /// Secret or trust anchor differ from the offer's.
    #[error("redemption does not match the offer")]
    Mismatch,
    /// The peers' keeper refused the proof.
    #[error("client proof was refused")]
    Refused,
}

impl PairingError {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Disabled => Fault::Us,
            _ => Fault::Peer,
        }
    }
}

/// The open channels of one daemon.
pub(crate) struct PairingDesk {
    channels: IndexMap<String, Channel>,
    limits: Limits,
}

struct Channel {
    cipher: Cipher,
    redeem_secret: Zeroizing<String>,
    created_ms: u64,
    expires_ms: u64,
    expires_at: Tick,
    failures: u32,
}

impl PairingDesk {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { channels: IndexMap::new(), limits }
    }

    /// Opens a channel and returns the answer's frame.
    pub(crate) fn offer(
        &mut self,
        now: Moment,
        request: &PairingOfferRequest<'_>,
        identity: Option<&PairingIdentity>,
        rng: &mut impl CryptoRng,
    ) -> Result<String, PairingError> {
        let identity = identity.ok_or(PairingError::Disabled)?;
        let ttl_s = request.ttl_seconds.unwrap_or(TTL_SECONDS.1);
        if !(TTL_SECONDS.0..=TTL_SECONDS.1).contains(&ttl_s) {
            return Err(PairingError::Malformed);
        }
        let client = PublicKey::from_text(&request.client_channel_public_key)
            .map_err(|_| PairingError::Malformed)?;
        let ours = KeyPair::generate(rng);
        let label = format!("offer:{}", request.request_id);
        let salt = Sha256::digest(&label);
        let key = aead::derive(&salt, ours.agree(&client).as_ref(), CHANNEL_LABEL);
        let lifetime = std::time::Duration::from_secs(ttl_s).min(self.limits.pairing_ttl);
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let channel = Channel {
            cipher: Cipher::new(&key),
            redeem_secret: Zeroizing::new(hex_name::<16>("", rng)),
            created_ms: now.unix_ms,
            expires_ms: now.unix_ms.saturating_add(lifetime_ms),
            expires_at: now.tick.after(lifetime),
            failures: 0,
        };
        let offer_id = hex_name::<16>("offer_", rng);
        let offer = Offer::of(&offer_id, &channel, identity);
        let offer = Zeroizing::new(serde_json::to_vec(&offer).expect("an offer is plain text"));
        let answer = OfferResponse {
            request_id: &request.request_id,
            ok: true,
            daemon_channel_public_key: ours.public().to_text(),
            sealed: seal(&channel.cipher, &label, &offer, rng),
        };
        let answer = frame::write(PAIRING_OFFER_RESPONSE, &answer);
        self.admit(now.tick, offer_id, channel);
        Ok(answer)
    }

    /// Uses a channel up and returns the answer's frame.
    pub(crate) fn redeem(
        &mut self,
        now: Moment,
        request: &PairingRedeemRequest<'_>,
        peers: &mut dyn PairingPeers,
    ) -> Result<String, PairingError> {
        let offer_id: &str = &request.offer_id;
        let identity = peers.identity().cloned().ok_or(PairingError::Disabled)?;
        let channel = self.channels.get_mut(offer_id).ok_or(PairingError::NoOffer)?;
        if channel.expires_at <= now.tick {
            self.channels.shift_remove(offer_id);
            return Err(PairingError::NoOffer);
        }
        let result = channel.judge(request, &identity, peers);
        match result {
            Ok(paired) => {
                let channel = self.channels.shift_remove(offer_id).ok_or(PairingError::NoOffer)?;
                Ok(redeemed(request, &channel, &identity, paired))
            }
            Err(error) => {
                channel.failures += 1;
                if channel.failures >= FAILURES_MAX {
                    self.channels.shift_remove(offer_id);
                }
                Err(error)
            }
        }
    }

    fn admit(&mut self, now: Tick, offer_id: String, channel: Channel) {
        self.channels.retain(|_, channel| channel.expires_at > now);
        while self.channels.len() >= self.limits.pairing_channels_max.max(1) {
            self.channels.shift_remove_index(0);
        }
        self.channels.insert(offer_id, channel);
    }
}

impl Channel {
    fn judge(
        &self,
        request: &PairingRedeemRequest<'_>,
        identity: &PairingIdentity,
        peers: &mut dyn PairingPeers,
    ) -> Result<Paired, PairingError> {
        let label = format!("redeem:{}:{}", request.request_id, request.offer_id);
        let text = open(&self.cipher, &label, &request.sealed)?;
        let content: RedeemContent<'_> =
            serde_json::from_slice(&text).map_err(|_| PairingError::Malformed)?;
        let secret = content.redeem_secret.as_bytes();
        let anchor = content.trust_anchor.as_bytes();
        let same = secret.ct_eq(self.redeem_secret.as_bytes())
            & anchor.ct_eq(identity.trust_anchor.as_bytes());
        if !bool::from(same) {
            return Err(PairingError::Mismatch);
        }
        if content.client_public_key.trim().is_empty() || content.client_proof.trim().is_empty() {
            return Err(PairingError::Malformed);
        }
        let redemption = Redemption {
            offer_id: &request.offer_id,
            client_public_key: &content.client_public_key,
            client_proof: &content.client_proof,
            redeem_secret: &content.redeem_secret,
            identity,
        };
        peers.redeem(&redemption).ok_or(PairingError::Refused)
    }
}

const CHANNEL_LABEL: &[u8] = b"viewport-relay-pairing-channel-v1";
/// How long an offer may be asked to stand; without a wish the longest, cut by
/// [`Limits::pairing_ttl`].
const TTL_SECONDS: (u64, u64) = (30, 3600);
/// Failed redemptions that close a channel.
const FAILURES_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Sealed;
    use crate::keys::PairingSecret;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::{Value, json};

    struct Peers {
        identity: PairingIdentity,
        kept: Vec<(String, PairingSecret)>,
    }

    impl PairingPeers for Peers {
        fn secret(&self, peer_id: &str) -> Option<PairingSecret> {
            let found = self.kept.iter().find(|(id, _)| id == peer_id);
            found.map(|(_, secret)| secret.clone())
        }

        fn identity(&self) -> Option<&PairingIdentity> {
            Some(&self.identity)
        }

        fn redeem(&mut self, redemption: &Redemption<'_>) -> Option<Paired> {
            let signed = redemption.signed_text();
            if redemption.client_proof != format!("signed {}", signed.lines().count()) {
                return None;
            }
            let peer_id = redemption.peer_id();
            self.kept.push((peer_id.clone(), redemption.pairing_secret()));
            let server_signature = String::new();
            Some(Paired { peer_id, server_signature })
        }
    }

    /// A client that went through the offer, and the desk that made it.
    struct Table {
        desk: PairingDesk,
        peers: Peers,
        rng: StdRng,
        cipher: Cipher,
        offer: Value,
    }

    fn at(seconds: u64) -> Moment {
        Moment {
            tick: Tick::from_millis(seconds * 1000),
            unix_ms: 1_700_000_000_000 + seconds * 1000,
        }
    }

    fn table() -> Table {
        let identity = PairingIdentity {
            trust_anchor: "anchor".into(),
            daemon_device_id: "device".into(),
            daemon_public_key: "pem".into(),
        };
        let mut rng = StdRng::seed_from_u64(1);
        let mut desk = PairingDesk::new(Limits::default());
        let ours = KeyPair::generate(&mut rng);
        let request = PairingOfferRequest {
            request_id: "p-1".into(),
            client_channel_public_key: ours.public().to_text().into(),
            ttl_seconds: Some(600),
        };
        let answer = desk.offer(at(0), &request, Some(&identity), &mut rng).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["type"], "relay_pairing_offer_response");
        assert_eq!(answer["ok"], true);
        let theirs = answer["daemonChannelPublicKey"].as_str().unwrap();
        let theirs = PublicKey::from_text(theirs).unwrap();
        let salt = Sha256::digest("offer:p-1");
        let key = aead::derive(&salt, ours.agree(&theirs).as_ref(), CHANNEL_LABEL);
        let cipher = Cipher::new(&key);
        let text = answer.to_string();
        let sealed: Sealed<'_> = serde_json::from_str(&text).unwrap();
        let offer = open(&cipher, "offer:p-1", &sealed).unwrap();
        let offer = serde_json::from_slice(&offer).unwrap();
        let peers = Peers { identity, kept: Vec::new() };
        Table { desk, peers, rng, cipher, offer }
    }

    impl Table {
        fn content(&self) -> Value {
            json!({
                "redeemSecret": self.offer["redeemSecret"], "trustAnchor": "anchor",
                "clientPublicKey": "client", "clientProof": "signed 5",
            })
        }

        fn redeem(&mut self, seconds: u64, content: &Value) -> Result<Value, PairingError> {
            let offer_id = self.offer["offerId"].as_str().unwrap().to_owned();
            let label = format!("redeem:p-2:{offer_id}");
            let content = content.to_string();
            let request = PairingRedeemRequest {
                request_id: "p-2".into(),
                offer_id: offer_id.into(),
                sealed: seal(&self.cipher, &label, content.as_bytes(), &mut self.rng),
            };
            let answer = self.desk.redeem(at(seconds), &request, &mut self.peers)?;
            Ok(serde_json::from_str(&answer).unwrap())
        }
    }

    #[test]
    fn an_offer_says_what_the_specification_lists() {
        let offer = table().offer;
        assert_eq!(offer["createdAt"], 1_700_000_000_000_u64);
        assert_eq!(offer["expiresAt"], 1_700_000_600_000_u64);
        assert_eq!(offer["trustAnchor"], "anchor");
        assert_eq!(offer["daemonDeviceId"], "device");
        assert_eq!(offer["daemonPublicKey"], "pem");
        assert_eq!(offer["redeemSecret"].as_str().map(str::len), Some(32));
    }

    #[test]
    fn a_redemption_keeps_the_peer_once() {
        let mut table = table();
        let content = table.content();
        let answer = table.redeem(1, &content).unwrap();
        assert_eq!(answer["type"], "relay_pairing_redeem_response");
        assert_eq!(answer["ok"], true);
        let peer_id = answer["redeemed"]["relayPairingPeerId"].as_str().unwrap();
        assert!(table.peers.secret(peer_id).is_some());
        assert_eq!(table.redeem(2, &content), Err(PairingError::NoOffer));
    }

    #[test]
    fn an_offer_ends_after_ten_minutes() {
        let mut table = table();
        let content = table.content();
        assert_eq!(table.redeem(600, &content), Err(PairingError::NoOffer));
    }

    #[test]
    fn what_differs_from_the_offer_is_refused_and_five_failures_close_it() {
        let mut table = table();
        for (member, value, error) in [
            ("redeemSecret", json!("00"), PairingError::Mismatch),
            ("trustAnchor", json!("other"), PairingError::Mismatch),
            ("clientPublicKey", json!(" "), PairingError::Malformed),
            ("clientProof", json!("forged"), PairingError::Refused),
            ("clientProof", json!(1), PairingError::Malformed),
        ] {
            let mut content = table.content();
            content[member] = value;
            assert_eq!(table.redeem(1, &content), Err(error), "{member}");
        }
        let content = table.content();
        assert_eq!(table.redeem(1, &content), Err(PairingError::NoOffer));
    }

    #[test]
    fn the_number_of_channels_is_bounded_and_the_oldest_goes() {
        let mut table = table();
        table.desk.limits.pairing_channels_max = 2;
        let key = KeyPair::generate(&mut table.rng).public().to_text();
        for round in 0..2 {
            let request = PairingOfferRequest {
                request_id: format!("p-{round}").into(),
                client_channel_public_key: key.as_str().into(),
                ttl_seconds: None,
            };
            let identity = Some(&table.peers.identity);
            table.desk.offer(at(1), &request, identity, &mut table.rng).unwrap();
        }
        let content = table.content();
        assert_eq!(table.redeem(1, &content), Err(PairingError::NoOffer));
    }
}
