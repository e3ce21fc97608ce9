//! The client's side of the handshake.

use std::borrow::Cow;

use relay_contract::Profile;
use subtle::ConstantTimeEq;

use super::symmetric::{HASH_BYTES, Symmetric};
use super::{HandshakeError, Member, begin, establish, public_key};
use crate::base64url;
use crate::frame::{KEY_EXCHANGE_VERSION, KeyExchangeInit, KeyExchangeResponse, Metadata};
use crate::ids::SessionId;
use crate::keys::{KeyPair, PairingSecret, PublicKey};
use crate::session::Established;

/// Which handshake a client makes, with what it needs for it.
#[derive(Clone)]
pub enum ClientProfile {
    /// Static keys alone.
    NoiseIk,
    /// Static keys and a secret from pairing.
    NoiseIkpsk2 {
        /// Under which name the daemon finds the secret; not blank.
        peer_id: Box<str>,
        /// What was agreed by pairing.
        secret: PairingSecret,
    },
}

impl ClientProfile {
    /// Its name.
    pub fn profile(&self) -> Profile {
        match self {
            Self::NoiseIk => Profile::NoiseIk,
            Self::NoiseIkpsk2 { .. } => Profile::NoiseIkpsk2,
        }
    }
}

/// A client that has sent message 1 and waits for message 2.
pub struct Initiator {
    state: Symmetric,
    statics: KeyPair,
    ephemeral: KeyPair,
    daemon: PublicKey,
    profile: ClientProfile,
    request_id: Box<str>,
}

impl Initiator {
    /// Makes message 1. `ephemeral` is fresh for each call; `previous` names the session to
    /// replace.
    ///
    /// Cost: two scalar multiplications.
    pub fn start<'a>(
        statics: &KeyPair,
        ephemeral: KeyPair,
        daemon: &PublicKey,
        profile: ClientProfile,
        request_id: &'a str,
        previous: Option<&SessionId>,
    ) -> (Self, KeyExchangeInit<'a>) {
        let mut state = begin(profile.profile(), daemon);
        state.mix_hash(ephemeral.public().as_bytes());
        state.mix_key(ephemeral.agree(daemon).as_ref());
        let encrypted_static = state.encrypt_and_hash(statics.public().as_bytes());
        state.mix_key(statics.agree(daemon).as_ref());
        let pairing_peer_id = match &profile {
            ClientProfile::NoiseIk => None,
            ClientProfile::NoiseIkpsk2 { peer_id, .. } => Some(Cow::Owned(peer_id.to_string())),
        };
        let init = KeyExchangeInit {
            version: KEY_EXCHANGE_VERSION,
            profile: profile.profile(),
            request_id: Cow::Borrowed(request_id),
            client_ephemeral_public_key: Cow::Owned(ephemeral.public().to_text()),
            encrypted_client_static: Cow::Owned(base64url::encode(&encrypted_static)),
            pairing_peer_id,
            previous_session_id: previous.cloned(),
        };
        let initiator = Self {
            state,
            statics: statics.clone(),
            ephemeral,
            daemon: *daemon,
            profile,
            request_id: request_id.into(),
        };
        (initiator, init)
    }

    /// The request this waits for an answer to.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Takes message 2 and gives the session.
    ///
    /// Errors: the name of the failed check; there is no session then, and the attempt is over.
    pub fn finish(
        mut self,
        response: &KeyExchangeResponse<'_>,
    ) -> Result<Established, HandshakeError> {
        if response.version != KEY_EXCHANGE_VERSION {
            return Err(HandshakeError::Version);
        }
        if *response.request_id != *self.request_id {
            return Err(HandshakeError::RequestId);
        }
        if response.profile != self.profile.profile() {
            return Err(HandshakeError::Profile);
        }
        if *response.daemon_public_key != *self.daemon.to_text() {
            return Err(HandshakeError::DaemonKey);
        }
        if response.epoch == 0 {
            return Err(HandshakeError::Epoch);
        }
        self.mix_answer(response)?;
        self.read_metadata(response)?;
        self.check_proof(response)?;
        Ok(establish(&self.state, response.profile, response.session_id.clone(), response.epoch))
    }

    fn mix_answer(&mut self, response: &KeyExchangeResponse<'_>) -> Result<(), HandshakeError> {
        let ephemeral =
            public_key(&response.daemon_ephemeral_public_key, Member::DaemonEphemeralPublicKey)?;
        self.state.mix_hash(ephemeral.as_bytes());
        self.state.mix_key(self.ephemeral.agree(&ephemeral).as_ref());
        self.state.mix_key(self.statics.agree(&ephemeral).as_ref());
        if let ClientProfile::NoiseIkpsk2 { secret, .. } = &self.profile {
            self.state.mix_key_and_hash(secret.expose());
        }
        Ok(())
    }

    fn read_metadata(&mut self, response: &KeyExchangeResponse<'_>) -> Result<(), HandshakeError> {
        let member = Member::EncryptedMetadata;
        let sealed = base64url::decode(&response.encrypted_metadata)
            .map_err(|_| HandshakeError::Encoding(member))?;
        let text = self
            .state
            .decrypt_and_hash(&sealed)
            .map_err(|_| HandshakeError::NotAuthentic(member))?;
        let metadata: Metadata =
            serde_json::from_slice(&text).map_err(|_| HandshakeError::Metadata)?;
        if metadata.session_id != response.session_id || metadata.epoch != response.epoch {
            return Err(HandshakeError::Metadata);
        }
        Ok(())
    }

    fn check_proof(&self, response: &KeyExchangeResponse<'_>) -> Result<(), HandshakeError> {
        let proof = base64url::decode_array::<HASH_BYTES>(&response.proof)
            .map_err(|_| HandshakeError::Encoding(Member::Proof))?;
        if bool::from(proof.ct_eq(self.state.hash())) { Ok(()) } else { Err(HandshakeError::Proof) }
    }
}
