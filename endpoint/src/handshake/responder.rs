//! The daemon's side of the handshake.

use std::borrow::Cow;

use relay_contract::Profile;

use super::symmetric::Symmetric;
use super::{HandshakeError, Member, begin, establish, public_key};
use crate::base64url;
use crate::frame::{KEY_EXCHANGE_VERSION, KeyExchangeInit, KeyExchangeResponse, Metadata};
use crate::ids::SessionId;
use crate::keys::{KeyPair, PairingSecret, PublicKey};
use crate::session::Established;

/// A daemon that has read message 1 and knows who asks.
pub struct Responder {
    state: Symmetric,
    profile: Profile,
    request_id: Box<str>,
    client: PublicKey,
    client_ephemeral: PublicKey,
    daemon: PublicKey,
    pairing_peer_id: Option<Box<str>>,
}

impl Responder {
    /// Takes message 1. `required` is the weakest profile the daemon's policy lets pass.
    ///
    /// Cost: two scalar multiplications. Errors: the name of the failed check; the peer is told
    /// nothing.
    pub fn read(
        statics: &KeyPair,
        required: Profile,
        init: &KeyExchangeInit<'_>,
    ) -> Result<Self, HandshakeError> {
        if init.version != KEY_EXCHANGE_VERSION {
            return Err(HandshakeError::Version);
        }
        if init.profile < required {
            return Err(HandshakeError::Profile);
        }
        let pairing_peer_id = match (init.profile, &init.pairing_peer_id) {
            (Profile::NoiseIk, _) => None,
            (Profile::NoiseIkpsk2, Some(id)) if !id.trim().is_empty() => Some((**id).into()),
            (Profile::NoiseIkpsk2, _) => return Err(HandshakeError::PairingUnknown),
        };
        let client_ephemeral =
            public_key(&init.client_ephemeral_public_key, Member::ClientEphemeralPublicKey)?;
        let mut state = begin(init.profile, statics.public());
        state.mix_hash(client_ephemeral.as_bytes());
        state.mix_key(statics.agree(&client_ephemeral).as_ref());
        let client = read_static(&mut state, &init.encrypted_client_static)?;
        state.mix_key(statics.agree(&client).as_ref());
        Ok(Self {
            state,
            profile: init.profile,
            request_id: (*init.request_id).into(),
            client,
            client_ephemeral,
            daemon: *statics.public(),
            pairing_peer_id,
        })
    }

    /// The static key of who asks. Authenticated once the first message under the session decrypts.
    pub fn client(&self) -> &PublicKey {
        &self.client
    }

    /// The client's key of this attempt alone.
    pub fn client_ephemeral(&self) -> &PublicKey {
        &self.client_ephemeral
    }

    /// Whose pairing secret [`Responder::respond`] needs; `Some` for `noise-ikpsk2` alone.
    pub fn pairing_peer_id(&self) -> Option<&str> {
        self.pairing_peer_id.as_deref()
    }

    /// Makes message 2 and gives the session. `ephemeral` is fresh for each call.
    ///
    /// Cost: two scalar multiplications. Errors: `noise-ikpsk2` without its secret.
    pub fn respond(
        mut self,
        ephemeral: &KeyPair,
        secret: Option<&PairingSecret>,
        session_id: SessionId,
        epoch: u64,
    ) -> Result<(Established, KeyExchangeResponse<'static>), HandshakeError> {
        self.state.mix_hash(ephemeral.public().as_bytes());
        self.state.mix_key(ephemeral.agree(&self.client_ephemeral).as_ref());
        self.state.mix_key(ephemeral.agree(&self.client).as_ref());
        if self.profile == Profile::NoiseIkpsk2 {
            let secret = secret.ok_or(HandshakeError::PairingUnknown)?;
            self.state.mix_key_and_hash(secret.expose());
        }
        let metadata = Metadata { session_id: session_id.clone(), epoch };
        let metadata = serde_json::to_vec(&metadata).expect("a name and a number always serialise");
        let encrypted_metadata = self.state.encrypt_and_hash(&metadata);
        let response = KeyExchangeResponse {
            version: KEY_EXCHANGE_VERSION,
            profile: self.profile,
            request_id: Cow::Owned(self.request_id.into_string()),
            daemon_public_key: Cow::Owned(self.daemon.to_text()),
            daemon_ephemeral_public_key: Cow::Owned(ephemeral.public().to_text()),
            encrypted_metadata: Cow::Owned(base64url::encode(&encrypted_metadata)),
            session_id: session_id.clone(),
            epoch,
            proof: Cow::Owned(base64url::encode(self.state.hash())),
        };
        let established = establish(&self.state, self.profile, session_id, epoch);
        Ok((established, response))
    }
}

fn read_static(state: &mut Symmetric, text: &str) -> Result<PublicKey, HandshakeError> {
    let member = Member::EncryptedClientStatic;
    let sealed = base64url::decode(text).map_err(|_| HandshakeError::Encoding(member))?;
    let bytes =
        state.decrypt_and_hash(&sealed).map_err(|_| HandshakeError::NotAuthentic(member))?;
    PublicKey::from_bytes(&bytes).map_err(|_| HandshakeError::Key(member))
}
