//! Whose tokens are taken, and what becomes of those who showed them.

use std::time::Duration;

use relay_controller::Ending;

use super::*;
use crate::config::tests::{config, problems};

#[test]
fn local_tokens_need_keys_and_a_named_audience() {
    assert!(problems("RELAY_ADMISSION=jwks")[0].starts_with("RELAY_JWKS_URL"));
    let strict = config("RELAY_ADMISSION=jwks RELAY_JWKS_URL=https://a.corp/k").admission;
    assert_eq!(strict.audience.as_deref(), Some("viewport-relay"));
    let both = config("RELAY_JWKS_URL=https://a.corp/k").admission;
    assert_eq!((both.mode, both.audience), (AdmissionMode::Both, None));
}

#[test]
fn each_issuer_has_its_own_keys() {
    let admission = config(
        "RELAY_JWKS_URL=https://a.corp/k RELAY_JWT_ISSUER=ours \
         RELAY_JWT_ISSUERS=https://b.corp=https://b.corp/keys?a=http://x,c=http://c.corp/k",
    )
    .admission;
    let issuers: Vec<_> = admission
        .issuers
        .iter()
        .map(|issuer| (issuer.issuer.as_deref().unwrap_or("-"), issuer.url.as_str()))
        .collect();
    let expected = [
        ("ours", "https://a.corp/k"),
        ("https://b.corp", "https://b.corp/keys?a=http://x"),
        ("c", "http://c.corp/k"),
    ];
    assert_eq!(issuers, expected);
    let alone = config("RELAY_JWT_ISSUERS=c=http://c.corp/k").admission;
    assert_eq!((alone.mode, alone.issuers.len()), (AdmissionMode::Both, 1));
    for (list, problem) in [
        ("https://b.corp/keys", "not ISSUER=URL"),
        ("=https://b.corp/keys", "not ISSUER=URL"),
        ("b=ftp://b.corp/keys", "not ISSUER=URL"),
        ("b=http://", "not ISSUER=URL"),
        ("b=http://b.corp/1,b=http://b.corp/2", "has two key sets"),
    ] {
        let found = problems(&format!("RELAY_JWT_ISSUERS={list}"));
        assert!(found[0].contains(problem), "{list}: {found:?}");
    }
}

#[test]
fn what_becomes_of_connections_is_chosen_by_a_word_and_a_time() {
    let seconds = Duration::from_secs;
    let default = config("").admission;
    assert_eq!((default.withdrawn, default.expiry), (Ending::Grace(seconds(300)), Ending::Ignore));
    assert_eq!(default.decision_cache, None);
    let chosen = config(
        "RELAY_JWKS_WITHDRAWN=close RELAY_TOKEN_EXPIRY=grace RELAY_TOKEN_EXPIRY_GRACE_SECS=5 \
         RELAY_DECISION_CACHE_MS=1500",
    )
    .admission;
    assert_eq!((chosen.withdrawn, chosen.expiry), (Ending::Close, Ending::Grace(seconds(5))));
    assert_eq!(chosen.decision_cache, Some(Duration::from_millis(1500)));
    assert!(problems("RELAY_TOKEN_EXPIRY=never")[0].contains("is not one of"));
}

#[test]
fn a_shard_outwaits_a_look_for_keys_and_a_validation() {
    let pairs = "RELAY_ADMISSION_TIMEOUT_MS=8000 RELAY_INTERNAL_API_TIMEOUT_MS=9000";
    assert!(config(pairs).limits.admission_timeout > std::time::Duration::from_secs(17));
}
