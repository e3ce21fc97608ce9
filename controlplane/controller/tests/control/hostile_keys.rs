//! Key sets and tokens that are meant to hurt, and clocks that jump.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, crypto};
use relay_contract::Refusal;
use relay_controller::{Admission, Caps, Settings};
use serde_json::json;

use crate::platform::{Behaviour, Platform};
use crate::relay::{NOW_SECS, Relay};
use crate::tokens::{JWKS, Signer, checked, publish};

/// A token with this header and payload, signed properly.
fn signed(signer: &Signer, header: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = crypto::sign(message.as_bytes(), &signer.key, Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test]
async fn a_token_nested_a_million_deep_is_refused() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (_relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    let deep = nested(1_000_000);
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    for (header, payload) in [
        (format!(r#"{{"alg":"ES256","kid":"k","x":{deep}}}"#), "{}".to_owned()),
        (deep.clone(), "{}".to_owned()),
        (header.to_owned(), format!(r#"{{"exp":1,"x":{deep}}}"#)),
        (header.to_owned(), deep.clone()),
    ] {
        shard.client(&signed(&signer, &header, &payload));
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    shard.client(&signer.client(60));
    shard.admitted().await;
}

/// Has a relay fetch this document as its key set; the reason in the log.
async fn not_fetched(document: Behaviour) -> String {
    let platform = Platform::start(None).await;
    platform.on(JWKS, document);
    let settings = Settings {
        internal_timeout: Duration::from_secs(5),
        internal_response_bytes_max: 8 << 20,
        ..checked(&platform, Admission::Jwks)
    };
    let (relay, mut shard) = Relay::one(settings);
    shard.client(&Signer::new("k").client(60));
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    let lines = relay.logged(shard, "jwks_fetch_failed").await;
    lines[0]["details"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_set_nested_a_million_deep_is_not_taken() {
    for body in [nested(1_000_000), format!(r#"{{"keys":[{}]}}"#, nested(1_000_000))] {
        let reason = not_fetched(Behaviour::Answer(200, body)).await;
        assert!(reason.contains("no list of keys"), "{reason}");
    }
}

#[tokio::test]
async fn a_key_set_of_ten_megabytes_is_not_read() {
    let body = format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(10 << 20));
    let reason = not_fetched(Behaviour::Answer(200, body)).await;
    assert!(reason.contains("longer than 8388608 bytes"), "{reason}");
}

#[tokio::test]
async fn a_key_set_without_a_usable_key_is_a_failed_fetch() {
    for keys in ["", "7", r#"{"kty":"oct","k":"c2VjcmV0"}"#, r#"{"kty":"RSA","n":"!","e":"AQAB"}"#]
    {
        let body = format!(r#"{{"keys":[{keys}]}}"#);
        let reason = not_fetched(Behaviour::Answer(200, body)).await;
        assert!(reason.contains("none of the keys"), "{reason}");
    }
}

#[tokio::test]
async fn a_key_set_that_is_elsewhere_is_not_looked_for() {
    let redirect = "HTTP/1.1 302 X\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(not_fetched(Behaviour::Raw(redirect.into())).await, "status 302");
}

#[tokio::test]
async fn of_keys_that_share_an_id_the_first_wins_and_the_others_are_named_once() {
    let platform = Platform::start(None).await;
    let (first, second) = (Signer::new("k"), Signer::new("k"));
    publish(&platform, &[&first, &second]);
    let (relay, mut shard) = Relay::one(checked(&platform, Admission::Jwks));
    shard.client(&first.client(60));
    shard.admitted().await;
    shard.client(&second.client(60));
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    let lines = relay.logged(shard, "jwks_key_skipped").await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["details"]["reason"], "key 1: an earlier key has its id");
}

#[tokio::test]
async fn a_date_that_jumps_decides_about_tokens_and_nothing_else() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (relay, mut shard) = Relay::one(Settings {
        caps: Caps { upgrades_per_minute: 5, ..Caps::default() },
        ..checked(&platform, Admission::Jwks)
    });
    let hour = 3600;
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let claims = json!({
        "iss": "viewport-server", "aud": "viewport-relay", "role": "client", "scope": "runtime",
        "workspaceId": "ws1", "runtimeTargetId": "rt1",
        "nbf": NOW_SECS - 60, "exp": NOW_SECS + 60,
    });
    let token = signed(&signer, header, &claims.to_string());
    for (jump_secs, admitted) in
        [(0, true), (hour, false), (-hour, false), (0, true), (i64::MIN, false)]
    {
        relay.clock.set_date_off_by(jump_secs);
        shard.client(&token);
        let (_, ruling) = shard.ruling().await;
        assert_eq!(ruling.is_ok(), admitted, "{jump_secs}");
    }
    // The window of attempts runs by the other clock: the date neither opens nor prolongs it.
    relay.clock.set_date_off_by(hour);
    shard.client(&token);
    assert_eq!(shard.refused().await, Refusal::TooManyRequests);
    relay.clock.set_date_off_by(0);
    relay.clock.advance(Duration::from_secs(60));
    shard.client(&signer.client(600));
    shard.admitted().await;
}
