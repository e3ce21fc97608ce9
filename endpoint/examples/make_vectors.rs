//! Prints the crate's own handshake vectors: `cargo run -p relay-endpoint --example make_vectors`.
//!
//! Every key is the hash of a label and public; nothing else may ever use them. The output is
//! `vectors/noise-v3.json`, which the tests check; it changes only when the wire does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_endpoint::frame::Frame;
use relay_endpoint::handshake::{HandshakeError, Initiator, Responder};
use relay_endpoint::{ClientProfile, KeyPair, PairingSecret, Session};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const TEXT: &str = "{\"say\":\"grüß dich\"}";

fn bytes(label: &str) -> [u8; 32] {
    Sha256::digest(format!("relay endpoint vector: {label}")).into()
}

fn key(label: &str) -> KeyPair {
    KeyPair::from_private_bytes(&bytes(label)).expect("the hashes of our labels are scalars")
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn vector(
    id: &str,
    paired: bool,
    session: &str,
    epoch: u64,
    previous: Option<&str>,
) -> Result<Value, HandshakeError> {
    let secret = bytes("pairing secret");
    let profile = if paired {
        let secret = PairingSecret::new(secret);
        ClientProfile::NoiseIkpsk2 { peer_id: "peer".into(), secret }
    } else {
        ClientProfile::NoiseIk
    };
    let daemon = key("daemon static");
    let (initiator, init) = Initiator::start(
        &key("client static"),
        key("client ephemeral"),
        daemon.public(),
        profile.clone(),
        "kex-0123456789abcdef",
        previous.map(Into::into).as_ref(),
    );
    let responder = Responder::read(&daemon, profile.profile(), &init)?;
    let pairing = paired.then(|| PairingSecret::new(secret));
    let ephemeral = key("daemon ephemeral");
    let (established, response) =
        responder.respond(&ephemeral, pairing.as_ref(), session.into(), epoch)?;
    let session_key = text(established.key.expose());
    initiator.finish(&response)?;
    let mut at_daemon = Session::new(established);
    let mut rng = StdRng::from_seed(bytes("nonces"));
    let envelope = at_daemon.seal(TEXT, &mut rng).expect("a fresh key");
    let envelope: Value = serde_json::from_str(&Frame::Envelope(envelope).to_text())
        .expect("our own frames are JSON");
    Ok(json!({
        "id": id,
        "profile": profile.profile().name(),
        "requestId": init.request_id,
        "sessionId": session,
        "epoch": epoch,
        "pairingSecret": paired.then(|| text(&secret)),
        "init": {
            "clientEphemeralPublicKey": init.client_ephemeral_public_key,
            "encryptedClientStatic": init.encrypted_client_static,
        },
        "response": {
            "daemonEphemeralPublicKey": response.daemon_ephemeral_public_key,
            "encryptedMetadata": response.encrypted_metadata,
            "proof": response.proof,
        },
        "sessionKey": session_key,
        "plaintext": TEXT,
        "envelope": envelope,
    }))
}

fn main() -> Result<(), HandshakeError> {
    let private = |label: &str| text(key(label).private_bytes().as_ref());
    let file = json!({
        "notice": "Public test keys, made by examples/make_vectors.rs. Use them for nothing else.",
        "daemonIdentity": {
            "publicKey": key("daemon static").public().to_text(),
            "privateKey": private("daemon static"),
        },
        "clientDeterministicKeys": {
            "staticPrivateKey": private("client static"),
            "ephemeralPrivateKey": private("client ephemeral"),
        },
        "daemonDeterministicEphemeralPrivateKey": private("daemon ephemeral"),
        "vectors": [
            vector("ik-first", false, "rs_000000000000000000000001", 1, None)?,
            vector("ik-rotated", false, "rs_000000000000000000000002", 2, Some("rs_old"))?,
            vector("ikpsk2-first", true, "rs_000000000000000000000003", 1, None)?,
            vector("ikpsk2-late-epoch", true, "rs_\"quoted\"", 9_007_199_254_740_991, None)?,
        ],
    });
    println!("{file:#}");
    Ok(())
}
