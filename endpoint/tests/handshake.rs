//! The handshake against an active attacker: nothing that is altered on the way yields a session.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_endpoint::frame::Frame;
use relay_endpoint::handshake::{HandshakeError, Initiator, Responder};
use relay_endpoint::{ClientProfile, KeyPair, PairingSecret, Profile, Session};

const PEER: &str = "peer";

fn profile(paired: bool, secret: u8) -> ClientProfile {
    if paired {
        let secret = PairingSecret::new([secret; 32]);
        ClientProfile::NoiseIkpsk2 { peer_id: PEER.into(), secret }
    } else {
        ClientProfile::NoiseIk
    }
}

/// Runs a handshake over the wire, with both frames passing through `alter`.
fn run(
    paired: bool,
    daemon_secret: u8,
    seed: u64,
    mut alter: impl FnMut(String) -> String,
) -> Option<(Session, Session)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let daemon = KeyPair::generate(&mut rng);
    let client = KeyPair::generate(&mut rng);
    let profile = profile(paired, 7);
    let name = profile.profile();
    let ephemeral = KeyPair::generate(&mut rng);
    let (initiator, init) =
        Initiator::start(&client, ephemeral, daemon.public(), profile, "kex-1", None);
    let wire = alter(Frame::KeyExchangeInit(init).to_text());
    let Ok(Frame::KeyExchangeInit(init)) = Frame::parse(&wire) else {
        return None;
    };
    let responder = Responder::read(&daemon, name, &init).ok()?;
    let secret = match responder.pairing_peer_id() {
        Some(PEER) => Some(PairingSecret::new([daemon_secret; 32])),
        _ => None,
    };
    let ephemeral = KeyPair::generate(&mut rng);
    let answer = responder.respond(&ephemeral, secret.as_ref(), "rs_1".into(), 1);
    let (at_daemon, response) = answer.ok()?;
    let wire = alter(Frame::KeyExchangeResponse(response).to_text());
    let Ok(Frame::KeyExchangeResponse(response)) = Frame::parse(&wire) else {
        return None;
    };
    let at_client = initiator.finish(&response).ok()?;
    Some((Session::new(at_client), Session::new(at_daemon)))
}

/// Changes one member of a frame: a byte of binary members, something else of the others.
fn alter(frame: &str, member: &str, at: usize) -> String {
    let mut frame: serde_json::Value = serde_json::from_str(frame).unwrap();
    let Some(value) = frame.get_mut(member) else {
        return frame.to_string();
    };
    *value = match member {
        "version" => 2.into(),
        "epoch" => 2.into(),
        "profile" if *value == "noise-ik" => "noise-ikpsk2".into(),
        "profile" => "noise-ik".into(),
        "requestId" | "sessionId" | "pairingPeerId" => "other".into(),
        _ => {
            let mut bytes = URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1;
            URL_SAFE_NO_PAD.encode(bytes).into()
        }
    };
    frame.to_string()
}

const INIT: [&str; 6] = [
    "version",
    "profile",
    "requestId",
    "clientEphemeralPublicKey",
    "encryptedClientStatic",
    "pairingPeerId",
];
const RESPONSE: [&str; 9] = [
    "version",
    "profile",
    "requestId",
    "daemonPublicKey",
    "daemonEphemeralPublicKey",
    "encryptedMetadata",
    "sessionId",
    "epoch",
    "proof",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_ends_get_the_same_session(paired: bool, seed: u64, text in ".{0,80}") {
        let (mut client, mut daemon) = run(paired, 7, seed, |frame| frame).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let up = client.seal(&text, &mut rng).unwrap();
        prop_assert_eq!(daemon.open(&up), Ok(text.clone()));
        let down = daemon.seal(&text, &mut rng).unwrap();
        prop_assert_eq!(client.open(&down), Ok(text));
    }

    #[test]
    fn no_altered_member_yields_a_session(paired: bool, seed: u64, at: usize) {
        let cases = INIT.map(|member| (0, member)).into_iter();
        for (message, member) in cases.chain(RESPONSE.map(|member| (1, member))) {
            if member == "pairingPeerId" && !paired {
                continue;
            }
            let mut sent = 0;
            let session = run(paired, 7, seed, |frame| {
                sent += 1;
                if sent - 1 == message { alter(&frame, member, at) } else { frame }
            });
            prop_assert!(session.is_none(), "message {} {member}", message + 1);
        }
    }
}

#[test]
fn another_pairing_secret_yields_no_session() {
    assert!(run(true, 7, 1, |frame| frame).is_some());
    assert!(run(true, 8, 1, |frame| frame).is_none());
}

#[test]
fn a_stronger_profile_satisfies_a_weaker_policy_and_not_the_other_way_round() {
    let mut rng = StdRng::seed_from_u64(1);
    let daemon = KeyPair::generate(&mut rng);
    for (paired, required, passes) in [
        (false, Profile::NoiseIk, true),
        (true, Profile::NoiseIk, true),
        (false, Profile::NoiseIkpsk2, false),
        (true, Profile::NoiseIkpsk2, true),
    ] {
        let client = KeyPair::generate(&mut rng);
        let ephemeral = KeyPair::generate(&mut rng);
        let profile = profile(paired, 1);
        let (_, init) = Initiator::start(&client, ephemeral, daemon.public(), profile, "r", None);
        let read = Responder::read(&daemon, required, &init);
        assert_eq!(read.is_ok(), passes);
        if let Err(error) = read {
            assert_eq!(error, HandshakeError::Profile);
        }
    }
}
