//! Who may pair with a daemon, and what comes of it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::aead;
use crate::keys::PairingSecret;

/// What a daemon shows of itself in an offer. All of it is text the daemon's owner chooses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairingIdentity {
    /// What clients pin.
    pub trust_anchor: String,
    /// Names the daemon's device.
    pub daemon_device_id: String,
    /// The key that signs for the device; not the key of the handshake.
    pub daemon_public_key: String,
}

/// Who is paired, who may be, and what they share. Kept by the daemon's owner.
pub trait PairingPeers: Send {
    /// The secret shared with the peer of that name, for `noise-ikpsk2`.
    fn secret(&self, peer_id: &str) -> Option<PairingSecret>;

    /// What offers show. `None`: this daemon makes no offers.
    fn identity(&self) -> Option<&PairingIdentity> {
        None
    }

    /// Judges the client's proof and, if it holds, keeps the peer. `None` refuses.
    ///
    /// Secret and trust anchor were compared already; [`Redemption::signed_text`] is what the proof
    /// signs.
    fn redeem(&mut self, _redemption: &Redemption<'_>) -> Option<Paired> {
        None
    }
}

/// Fixed secrets, no offers.
impl PairingPeers for HashMap<String, PairingSecret> {
    fn secret(&self, peer_id: &str) -> Option<PairingSecret> {
        self.get(peer_id).cloned()
    }
}

/// A client that knows the offer's secret and wants to be kept.
pub struct Redemption<'a> {
    /// The offer.
    pub offer_id: &'a str,
    /// What the client signs with, as it wrote it.
    pub client_public_key: &'a str,
    /// Its signature, as it wrote it.
    pub client_proof: &'a str,
    pub(super) redeem_secret: &'a str,
    pub(super) identity: &'a PairingIdentity,
}

impl Redemption<'_> {
    /// The text the client's proof is a signature of.
    pub fn signed_text(&self) -> Zeroizing<String> {
        Zeroizing::new(
            [
                "viewport-pair-redeem-v1",
                self.offer_id,
                self.redeem_secret,
                &self.identity.trust_anchor,
                self.client_public_key,
            ]
            .join("\n"),
        )
    }

    /// The name the peer uses from now on: the hash of its key's text, in hex.
    pub fn peer_id(&self) -> String {
        use std::fmt::Write;
        let mut name = String::new();
        for byte in Sha256::digest(self.client_public_key) {
            write!(name, "{byte:02x}").expect("writing to a String cannot fail");
        }
        name
    }

    /// The secret both sides derive for `noise-ikpsk2`.
    pub fn pairing_secret(&self) -> PairingSecret {
        let salt = [
            SECRET_LABEL,
            self.offer_id,
            &self.identity.trust_anchor,
            self.client_public_key.trim(),
            self.identity.daemon_public_key.trim(),
        ]
        .join("\n");
        let secret = self.redeem_secret.as_bytes();
        let derived = aead::derive(&Sha256::digest(salt), secret, SECRET_LABEL.as_bytes());
        PairingSecret::new(*derived)
    }
}

/// A peer that was kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paired {
    /// Under which name its secret is found.
    pub peer_id: String,
    /// The device's signature over the redemption, in the form clients check; may be empty.
    pub server_signature: String,
}

const SECRET_LABEL: &str = "viewport-relay-policyc-pair-v1";
