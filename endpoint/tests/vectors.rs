//! Golden vectors of the handshake: the published ones when they are at hand, and our own always.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use relay_endpoint::frame::{Frame, KeyExchangeResponse};
use relay_endpoint::handshake::{ClientProfile, HandshakeError, Initiator, Responder};
use relay_endpoint::{KeyPair, PairingSecret, Profile, PublicKey, Session};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path}"))
}

fn bytes(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn key(value: &Value, path: &str) -> KeyPair {
    KeyPair::from_private_bytes(&bytes(text(value, path))).unwrap()
}

fn profile(vector: &Value) -> ClientProfile {
    match Profile::parse(text(vector, "/profile").as_bytes()).unwrap() {
        Profile::NoiseIk => ClientProfile::NoiseIk,
        Profile::NoiseIkpsk2 => ClientProfile::NoiseIkpsk2 {
            peer_id: "peer".into(),
            secret: PairingSecret::from_text(text(vector, "/pairingSecret")).unwrap(),
        },
    }
}

/// Runs one vector with its keys injected and compares every member it gives.
fn check(file: &Value, vector: &Value) {
    let daemon = key(file, "/daemonIdentity/privateKey");
    assert_eq!(daemon.public().to_text(), text(file, "/daemonIdentity/publicKey"));
    let profile = profile(vector);
    let start = || {
        Initiator::start(
            &key(file, "/clientDeterministicKeys/staticPrivateKey"),
            key(file, "/clientDeterministicKeys/ephemeralPrivateKey"),
            &PublicKey::from_text(text(file, "/daemonIdentity/publicKey")).unwrap(),
            profile.clone(),
            text(vector, "/requestId"),
            None,
        )
    };
    let (initiator, init) = start();
    assert_eq!(init.client_ephemeral_public_key, text(vector, "/init/clientEphemeralPublicKey"));
    assert_eq!(init.encrypted_client_static, text(vector, "/init/encryptedClientStatic"));

    let secret = match &profile {
        ClientProfile::NoiseIk => None,
        ClientProfile::NoiseIkpsk2 { secret, .. } => Some(secret),
    };
    let responder = Responder::read(&daemon, profile.profile(), &init).unwrap();
    let ephemeral = key(file, "/daemonDeterministicEphemeralPrivateKey");
    let epoch = vector["epoch"].as_u64().unwrap();
    let session_id = text(vector, "/sessionId").into();
    let (at_daemon, response) = responder.respond(&ephemeral, secret, session_id, epoch).unwrap();
    let given = "/response/daemonEphemeralPublicKey";
    assert_eq!(response.daemon_ephemeral_public_key, text(vector, given));
    assert_eq!(response.encrypted_metadata, text(vector, "/response/encryptedMetadata"));
    assert_eq!(response.proof, text(vector, "/response/proof"));
    let session_key = bytes(text(vector, "/sessionKey"));
    assert_eq!(at_daemon.key.expose()[..], session_key);
    assert_eq!(initiator.finish(&response).ok().unwrap().key.expose()[..], session_key);

    if let Some(envelope) = vector.get("envelope") {
        let envelope = envelope.to_string();
        let Ok(Frame::Envelope(envelope)) = Frame::parse(&envelope) else {
            panic!("not an envelope: {envelope}");
        };
        let mut session = Session::new(at_daemon);
        assert_eq!(session.open(&envelope).unwrap(), text(vector, "/plaintext"));
    }

    use base64::Engine;
    let forged = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([0x5a; 32]);
    let forged = KeyExchangeResponse { proof: forged.into(), ..response };
    assert_eq!(start().0.finish(&forged).err(), Some(HandshakeError::Proof));
}

fn check_file(path: &Path) -> usize {
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        check(&file, vector);
    }
    vectors.len()
}

#[test]
fn the_published_vectors_match_where_they_are_at_hand() {
    let path = root().join("../shared/corpus/noise/relay-noise-v3.json");
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return;
    }
    assert_eq!(check_file(&path), 2);
}

#[test]
fn our_own_vectors_match() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/noise-v3.json");
    assert_eq!(check_file(&path), 4);
}
