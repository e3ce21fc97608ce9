//! Tokens checked against a key set.

use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use relay_contract::{AdmissionId, Command, Event, Refusal};
use relay_controller::{
    Admission, Ending, IssuerSettings, JwksSettings, KeySchedule, Settings, UnknownKeys,
};
use serde_json::{Value, json};
use url::Url;

use crate::platform::{Behaviour, Platform};
use crate::relay::{NOW_SECS, Relay, TOKEN, VALIDATE, settings};

pub(crate) const JWKS: &str = "/.well-known/jwks.json";

pub(crate) struct Signer {
    id: &'static str,
    pub(crate) key: EncodingKey,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { id, key }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    pub(crate) fn client(&self, expires_in_secs: i64) -> String {
        self.client_of("viewport-server", expires_in_secs)
    }

    /// The same in the name of this issuer.
    pub(crate) fn client_of(&self, issuer: &str, expires_in_secs: i64) -> String {
        self.signed(json!({
            "iss": issuer, "aud": "viewport-relay", "role": "client", "scope": "runtime",
            "workspaceId": "ws1", "runtimeTargetId": "rt1", "clientId": "cl1",
            "exp": NOW_SECS + expires_in_secs, "ignored": true,
        }))
    }

    /// A token that says this.
    pub(crate) fn signed(&self, claims: Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.to_owned());
        encode(&header, &claims, &self.key).unwrap()
    }
}

pub(crate) fn publish(platform: &Platform, signers: &[&Signer]) {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    let body = json!({ "keys": keys }).to_string();
    platform.on(JWKS, Behaviour::Answer(200, body));
}

pub(crate) fn checked(platform: &Platform, admission: Admission) -> Settings {
    Settings {
        admission,
        jwks: Some(JwksSettings {
            issuers: vec![IssuerSettings {
                issuer: Some("viewport-server".into()),
                url: Url::parse(&platform.url()).unwrap().join(JWKS).unwrap(),
            }],
            audience: Some("viewport-relay".into()),
            leeway: Duration::from_secs(5),
            schedule: KeySchedule::default(),
            unknown_keys: UnknownKeys::Ask,
            withdrawn: Ending::Ignore,
        }),
        ..settings(&platform.url())
    }
}

pub(crate) fn asked(platform: &Platform, path: &str) -> usize {
    let requests = platform.requests();
    requests.iter().filter(|request| request.path() == path).count()
}

pub(crate) fn validates(platform: &Platform) {
    let body = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
    platform.on(VALIDATE, Behaviour::Answer(200, body.into()));
}

#[tokio::test]
async fn a_token_proven_bad_is_refused_without_asking_the_platform() {
    let platform = Platform::start(None).await;
    let (signer, forger) = (Signer::new("k"), Signer::new("k"));
    publish(&platform, &[&signer]);
    validates(&platform);
    let (relay, mut shard) = Relay::one(checked(&platform, Admission::Both));
    for token in [forger.client(60), signer.client(-60)] {
        shard.client(&token);
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    assert_eq!(asked(&platform, VALIDATE), 0);
    let reasons: Vec<_> = relay
        .logged(shard, "admission_denied")
        .await
        .into_iter()
        .map(|line| line["details"]["reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(reasons, ["TOKEN_BAD_SIGNATURE", "TOKEN_EXPIRED"]);
}

#[tokio::test]
async fn what_is_not_proven_bad_is_the_platforms_to_decide() {
    let platform = Platform::start(None).await;
    let (signer, stranger) = (Signer::new("k"), Signer::new("unknown"));
    publish(&platform, &[&signer]);
    validates(&platform);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Both));
    for token in [signer.client(60), stranger.client(60), TOKEN.to_owned()] {
        shard.client(&token);
        shard.admitted().await;
    }
    assert_eq!(asked(&platform, VALIDATE), 3);
}

#[tokio::test]
async fn both_works_while_the_key_set_cannot_be_fetched() {
    let platform = Platform::start(None).await;
    validates(&platform);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Both));
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_good_token_admits_with_the_platform_down() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    shard.client(&signer.client(60));
    let grant = shard.admitted().await;
    assert_eq!(grant.claims.client_id.as_deref(), Some("cl1"));
    assert_eq!(grant.claims.expires_at_secs, Some(NOW_SECS + 60));
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    assert_eq!(asked(&platform, VALIDATE), 0);
}

#[tokio::test]
async fn without_any_key_set_the_relay_could_not_ask() {
    let platform = Platform::start(None).await;
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    shard.client(&Signer::new("k").client(60));
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 503);
}

#[tokio::test]
async fn invented_key_ids_do_not_become_requests() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    shard.client(&signer.client(60));
    shard.admitted().await;
    for id in ["a", "b", "c"] {
        shard.client(&Signer::new(id).client(60));
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    assert_eq!(asked(&platform, JWKS), 1, "the first fetch was a moment ago");
}

#[tokio::test]
async fn a_lane_that_never_empties_holds_up_no_token() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    shard.client(&signer.client(60));
    shard.admitted().await;
    shard.client(&signer.client(60));
    for _ in 0..4000 {
        shard.tell(Event::Released { admission: AdmissionId(u64::MAX) });
    }
    // The answer to the last event shows when the lane was empty.
    shard.ask_as("/health", None);
    shard.admitted().await;
    assert!(matches!(shard.command().await, Command::Respond { .. }));
}
