//! A second opinion: the state machine of the `snow` crate, on primitives given here.
//!
//! With honest primitives snow shows where this wire leaves the Noise specification. With
//! primitives bent in exactly those places it reaches the same bytes, which confirms everything in
//! between: order of tokens, choice of keys, HKDF, the final hash. See
//! `docs/adr/0003-noise-and-snow.md`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point;
use relay_endpoint::handshake::{Initiator, Responder};
use relay_endpoint::{ClientProfile, KeyPair, PairingSecret};
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error};

const PROLOGUE: &[u8] = b"viewport-relay-noise-v3";
const SECRET: [u8; 32] = [0x5e; 32];
const POINT_BYTES: usize = 65;
const TAG_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq)]
enum Primitives {
    /// What their names say.
    Honest,
    /// MixKey ignores public keys, MixHash ignores nothing, and nothing encrypts to nothing.
    Bent,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(NoRandom))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(P256 { secret: [0; 32], public: [0; POINT_BYTES] }))
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(Box::new(Parts { primitives: *self, parts: Vec::new() }))
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(LittleEndianGcm { primitives: *self, key: [0; 32] }))
    }
}

/// The tests fix the ephemeral keys.
struct NoRandom;

impl Random for NoRandom {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Rng)
    }
}

struct P256 {
    secret: [u8; 32],
    public: [u8; POINT_BYTES],
}

impl Dh for P256 {
    fn name(&self) -> &'static str {
        "P256"
    }

    fn pub_len(&self) -> usize {
        POINT_BYTES
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn dh_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        let secret = p256::SecretKey::from_slice(secret).unwrap();
        let point = secret.public_key().to_sec1_point(false);
        self.public.copy_from_slice(point.as_bytes());
    }

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        Err(Error::Rng)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let secret = p256::SecretKey::from_slice(&self.secret).map_err(|_| Error::Dh)?;
        let public = &public[..POINT_BYTES];
        let public = p256::PublicKey::from_sec1_bytes(public).map_err(|_| Error::Dh)?;
        out[..32].copy_from_slice(secret.diffie_hellman(&public).raw_secret_bytes());
        Ok(())
    }
}

struct LittleEndianGcm {
    primitives: Primitives,
    key: [u8; 32],
}

fn nonce(n: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&n.to_le_bytes());
    nonce
}

impl Cipher for LittleEndianGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = *key;
    }

    fn encrypt(&self, n: u64, associated: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        if self.primitives == Primitives::Bent && text.is_empty() {
            return 0;
        }
        let (body, rest) = out.split_at_mut(text.len());
        body.copy_from_slice(text);
        let cipher = Aes256Gcm::new(&self.key.into());
        let tag = cipher.encrypt_inout_detached(&nonce(n).into(), associated, body.into());
        rest[..TAG_BYTES].copy_from_slice(&tag.unwrap());
        text.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        n: u64,
        associated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Error::Decrypt)?;
        let out = &mut out[..text.len()];
        out.copy_from_slice(text);
        let cipher = Aes256Gcm::new(&self.key.into());
        cipher
            .decrypt_inout_detached(&nonce(n).into(), associated, out.into(), tag.into())
            .map_err(|_| Error::Decrypt)?;
        Ok(text.len())
    }
}

/// SHA-256 that remembers how its input was cut, so that it can be bent.
struct Parts {
    primitives: Primitives,
    parts: Vec<Vec<u8>>,
}

impl Hash for Parts {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.parts.clear();
    }

    fn input(&mut self, data: &[u8]) {
        self.parts.push(data.to_vec());
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest: [u8; 32] = match &self.parts[..] {
            // MixHash of nothing, which only the absent payload of message 1 asks for.
            [hash, nothing] if self.bends() && hash.len() == 32 && nothing.is_empty() => {
                hash[..].try_into().unwrap()
            }
            parts => Sha256::digest(parts.concat()).into(),
        };
        out[..32].copy_from_slice(&digest);
    }

    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        secret: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        out3: &mut [u8],
    ) {
        if self.bends() && secret.len() == POINT_BYTES {
            // MixKey of an ephemeral key, which snow does for every psk pattern.
            out1[..32].copy_from_slice(chaining_key);
            return;
        }
        let mut all = [0; 96];
        let hkdf = hkdf::Hkdf::<Sha256>::new(Some(chaining_key), secret);
        hkdf.expand(&[], &mut all).unwrap();
        for (at, out) in [out1, out2, out3].into_iter().take(outputs).enumerate() {
            out[..32].copy_from_slice(&all[32 * at..32 * (at + 1)]);
        }
    }
}

impl Parts {
    fn bends(&self) -> bool {
        self.primitives == Primitives::Bent
    }
}

fn key(scalar: u8) -> KeyPair {
    KeyPair::from_private_bytes(&[scalar; 32]).unwrap()
}

const CLIENT: u8 = 1;
const CLIENT_EPHEMERAL: u8 = 2;
const DAEMON: u8 = 3;
const DAEMON_EPHEMERAL: u8 = 4;

struct Ours {
    message_1: Vec<u8>,
    message_2: Vec<u8>,
    proof: Vec<u8>,
    session_key: Vec<u8>,
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Our handshake, its binary members joined as Noise would.
fn ours(profile: ClientProfile) -> Ours {
    let name = profile.profile();
    let (initiator, init) = Initiator::start(
        &key(CLIENT),
        key(CLIENT_EPHEMERAL),
        key(DAEMON).public(),
        profile,
        "r",
        None,
    );
    let responder = Responder::read(&key(DAEMON), name, &init).unwrap();
    let secret = Some(&PairingSecret::new(SECRET)).cloned();
    let (_, response) =
        responder.respond(&key(DAEMON_EPHEMERAL), secret.as_ref(), "s".into(), 1).unwrap();
    let mut message_1 = decode(&init.client_ephemeral_public_key);
    message_1.extend(decode(&init.encrypted_client_static));
    let mut message_2 = decode(&response.daemon_ephemeral_public_key);
    message_2.extend(decode(&response.encrypted_metadata));
    let established = initiator.finish(&response).ok().unwrap();
    Ours {
        message_1,
        message_2,
        proof: decode(&response.proof),
        session_key: established.key.expose().to_vec(),
    }
}

fn paired() -> ClientProfile {
    let secret = PairingSecret::new(SECRET);
    ClientProfile::NoiseIkpsk2 { peer_id: "p".into(), secret }
}

/// Snow's initiator after message 1, and that message.
fn snow(name: &str, primitives: Primitives) -> (snow::HandshakeState, Vec<u8>) {
    let (client, ephemeral) = ([CLIENT; 32], [CLIENT_EPHEMERAL; 32]);
    let daemon = *key(DAEMON).public().as_bytes();
    let mut builder = Builder::with_resolver(name.parse().unwrap(), Box::new(primitives))
        .local_private_key(&client)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(&ephemeral)
        .remote_public_key(&daemon)
        .unwrap()
        .prologue(PROLOGUE)
        .unwrap();
    if name.contains("psk2") {
        builder = builder.psk(2, &SECRET).unwrap();
    }
    let mut state = builder.build_initiator().unwrap();
    let mut message = [0; 512];
    let len = state.write_message(&[], &mut message).unwrap();
    (state, message[..len].to_vec())
}

const IK: &str = "Noise_IK_P256_AESGCM_SHA256";
const IKPSK2: &str = "Noise_IKpsk2_P256_AESGCM_SHA256";

#[test]
fn the_noise_specification_appends_a_tag_to_message_1_that_this_wire_lacks() {
    let (_, message) = snow(IK, Primitives::Honest);
    let ours = ours(ClientProfile::NoiseIk).message_1;
    assert_eq!(message.len(), ours.len() + TAG_BYTES);
    assert_eq!(message[..ours.len()], ours);
}

#[test]
fn the_noise_specification_cannot_read_message_2_of_this_wire() {
    let (mut state, _) = snow(IK, Primitives::Honest);
    let message = ours(ClientProfile::NoiseIk).message_2;
    assert_eq!(state.read_message(&message, &mut [0; 512]), Err(Error::Decrypt));
}

#[test]
fn the_noise_specification_mixes_the_ephemeral_key_in_psk_patterns_and_this_wire_does_not() {
    let (_, message) = snow(IKPSK2, Primitives::Honest);
    let ours = ours(paired()).message_1;
    assert_eq!(message[..POINT_BYTES], ours[..POINT_BYTES]);
    assert_ne!(message[POINT_BYTES..ours.len()], ours[POINT_BYTES..]);
}

#[test]
fn bent_where_the_wire_differs_snow_reaches_the_same_bytes() {
    for (name, profile) in [(IK, ClientProfile::NoiseIk), (IKPSK2, paired())] {
        let label = format!("viewport-relay-session-v3|{}|s|1", profile.profile().name());
        let ours = ours(profile);
        let (mut state, message_1) = snow(name, Primitives::Bent);
        assert_eq!(message_1, ours.message_1, "{name}");
        let mut payload = [0; 512];
        let len = state.read_message(&ours.message_2, &mut payload).unwrap();
        assert_eq!(&payload[..len], br#"{"sessionId":"s","epoch":1}"#);
        assert_eq!(state.get_handshake_hash(), ours.proof);
        let (k1, k2) = state.dangerously_get_raw_split();
        let mut session_key = [0; 32];
        hkdf::Hkdf::<Sha256>::new(Some(&ours.proof), &[k1, k2].concat())
            .expand(label.as_bytes(), &mut session_key)
            .unwrap();
        assert_eq!(session_key[..], ours.session_key);
    }
}
