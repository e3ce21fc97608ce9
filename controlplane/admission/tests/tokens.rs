//! Real signatures: what is proven bad, what is verified, what stays undecided.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use relay_admission::{Checker, Doubt, KeySet, Proof, Verdict};
use serde_json::{Value, json};

struct Signer {
    id: &'static str,
    key: EncodingKey,
    algorithm: Algorithm,
    /// The public key as rcgen writes it.
    public: Vec<u8>,
}

impl Signer {
    fn new(id: &'static str, kind: &'static SignatureAlgorithm, algorithm: Algorithm) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        Self { id, key: key.unwrap(), algorithm, public: pair.der_bytes().to_vec() }
    }

    fn p256(id: &'static str) -> Self {
        Self::new(id, &PKCS_ECDSA_P256_SHA256, Algorithm::ES256)
    }

    fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(&self.public);
            return json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x});
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some(self.id), claims)
    }

    fn sign_as(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = id.map(str::to_owned);
        encode(&header, claims, &self.key).unwrap()
    }
}

fn set(signers: &[&Signer]) -> KeySet {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    let document = json!({ "keys": keys }).to_string();
    KeySet::parse(document.as_bytes()).unwrap().0
}

fn checker() -> Checker {
    Checker {
        issuer: Some("viewport-server".into()),
        audience: Some("viewport-relay".into()),
        leeway_secs: 5,
    }
}

fn claims() -> Value {
    json!({"iss": "viewport-server", "aud": ["other", "viewport-relay"], "exp": 1000, "nbf": 900})
}

fn proof(verdict: Verdict) -> Option<Proof> {
    match verdict {
        Verdict::Bad(proof) => Some(proof),
        Verdict::Verified(_) => None,
        Verdict::Undecided(doubt) => panic!("undecided: {doubt:?}"),
    }
}

fn doubt(verdict: Verdict) -> Doubt {
    match verdict {
        Verdict::Undecided(doubt) => doubt,
        other => panic!("decided: {other:?}"),
    }
}

#[test]
fn each_algorithm_verifies_with_its_own_key() {
    let signers = [
        Signer::new("rsa", &PKCS_RSA_SHA256, Algorithm::RS256),
        Signer::p256("ec"),
        Signer::new("ed", &PKCS_ED25519, Algorithm::EdDSA),
    ];
    let keys = set(&signers.iter().collect::<Vec<_>>());
    for signer in &signers {
        let token = signer.sign(&claims());
        assert_eq!(proof(checker().check(&token, &keys, 950)), None);
        let anonymous = signer.sign_as(None, &claims());
        assert_eq!(proof(checker().check(&anonymous, &keys, 950)), None);
    }
}

#[test]
fn a_forged_signature_under_a_known_key_is_proven_bad() {
    let (ours, theirs) = (Signer::p256("k"), Signer::p256("k"));
    let verdict = checker().check(&theirs.sign(&claims()), &set(&[&ours]), 950);
    assert_eq!(proof(verdict), Some(Proof::BadSignature));
}

#[test]
fn a_changed_payload_is_proven_bad() {
    let signer = Signer::p256("k");
    let token = signer.sign(&claims());
    let other = signer.sign(&json!({"exp": 5000}));
    let parts: Vec<_> = token.split('.').collect();
    let payload = other.split('.').nth(1).unwrap();
    let mixed = format!("{}.{payload}.{}", parts[0], parts[2]);
    let verdict = checker().check(&mixed, &set(&[&signer]), 950);
    assert_eq!(proof(verdict), Some(Proof::BadSignature));
}

#[test]
fn times_count_with_their_leeway() {
    let signer = Signer::p256("k");
    let keys = set(&[&signer]);
    let token = signer.sign(&claims());
    let at = |now_secs| proof(checker().check(&token, &keys, now_secs));
    assert_eq!(at(894), Some(Proof::NotYetValid));
    assert_eq!(at(895), None);
    assert_eq!(at(1004), None);
    assert_eq!(at(1005), Some(Proof::Expired));
}

#[test]
fn issuer_and_audience_are_demanded_only_where_named() {
    let signer = Signer::p256("k");
    let keys = set(&[&signer]);
    let check = |claims: &Value| proof(checker().check(&signer.sign(claims), &keys, 1));
    assert_eq!(check(&json!({"aud": "viewport-relay"})), Some(Proof::WrongIssuer));
    assert_eq!(check(&json!({"iss": "viewport-server", "aud": "x"})), Some(Proof::WrongAudience));
    let bare = signer.sign(&json!({}));
    assert_eq!(proof(Checker::default().check(&bare, &keys, 1)), None);
}

#[test]
fn what_cannot_be_decided_is_not_refused() {
    let (known, unknown) = (Signer::p256("a"), Signer::p256("b"));
    let keys = set(&[&known]);
    let check = |token: &str| doubt(checker().check(token, &keys, 950));
    assert_eq!(check("opaque-token-0123456789"), Doubt::Opaque);
    assert_eq!(check("a.b.c"), Doubt::Opaque);
    assert_eq!(check("a.b.c.d"), Doubt::Opaque);
    let list = URL_SAFE_NO_PAD.encode(r#"["ES256","a",null]"#);
    assert_eq!(check(&format!("{list}.e30.AA")), Doubt::Opaque);
    let no_text = URL_SAFE_NO_PAD.encode(b"{\"alg\":\"ES256\",\"kid\":\"a\",\"x\":\"\xff\"}");
    assert_eq!(check(&format!("{no_text}.e30.AA")), Doubt::Opaque);
    assert_eq!(check(&unknown.sign(&claims())), Doubt::UnknownKey);
    assert_eq!(check(&unknown.sign_as(None, &claims())), Doubt::UnknownKey);
    let secret = EncodingKey::from_secret(b"public key as text");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".into());
    let confused = encode(&header, &claims(), &secret).unwrap();
    assert_eq!(check(&confused), Doubt::UnknownAlgorithm);
}

#[test]
fn the_key_decides_the_algorithm() {
    let ec = Signer::p256("k");
    let ed = Signer::new("k", &PKCS_ED25519, Algorithm::EdDSA);
    let verdict = checker().check(&ed.sign(&claims()), &set(&[&ec]), 950);
    assert_eq!(doubt(verdict), Doubt::UnknownAlgorithm);
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(token in "[A-Za-z0-9._-]{0,200}", garbage in ".{0,80}") {
        let signer_free = KeySet::default();
        for text in [token.as_str(), garbage.as_str()] {
            let verdict = checker().check(text, &signer_free, 0);
            prop_assert!(matches!(verdict, Verdict::Undecided(_)));
        }
    }

    #[test]
    fn no_answer_makes_the_judge_panic(
        status in 0u16..1000,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = relay_admission::judge_answer(status, &body);
    }
}
