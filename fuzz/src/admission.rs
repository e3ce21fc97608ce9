//! What the platform, a key server and the bearer of a token can send.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use relay_admission::{
    Checker, Denial, Doubt, KeySet, KeySetError, Verdict, judge_answer, parse_claims,
};
use relay_contract::Role;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{cut_of, seeds};

/// A published key set: every key of it is used or skipped for a reason, and few are kept.
pub fn keys(data: &[u8]) {
    let parsed = KeySet::parse(data);
    let is_object = data.trim_ascii_start().starts_with(b"{");
    let listed = str::from_utf8(data).ok().filter(|_| is_object);
    let listed = listed.and_then(|text| serde_json::from_str::<Listed>(text).ok());
    let is_malformed = matches!(parsed, Err(KeySetError::Malformed));
    assert_eq!(listed.is_none(), is_malformed, "a text that lists keys, or malformed");
    if let (Ok((keys, skipped)), Some(Listed { keys: listed })) = (parsed, listed) {
        assert!(!keys.is_empty() && keys.len() <= KeySet::KEYS_MAX);
        assert_eq!(keys.len() + skipped.len(), listed.len());
        assert!(skipped.iter().all(|key| key.index < listed.len()));
        assert!(skipped.windows(2).all(|pair| pair[0].index < pair[1].index));
        verifies_ours_alone(&keys, &listed);
    }
}

/// What the document lists, read by itself: as a whole it may be deeper, and have larger numbers in
/// members that nobody asks for, than a [`Value`] can hold.
#[derive(Deserialize)]
struct Listed {
    keys: Vec<Value>,
}

/// A set verifies our token with our key alone.
fn verifies_ours_alone(keys: &KeySet, listed: &[Value]) {
    let verdict = checker().check(SIGNED[0], keys, NOW_SECS);
    if matches!(verdict, Verdict::Verified(_)) {
        let is_ours = |key: &Value| key["x"] == OURS["x"] && key["y"] == OURS["y"];
        assert!(listed.iter().any(is_ours), "a stranger's key verifies our token");
    }
}

/// A token: whatever is not, byte for byte, one that was signed is not verified.
///
/// The input is taken twice: as the token itself, and as the JSON of a header and a payload under
/// a signature of something else, so that what stands behind base64 is reached too.
pub fn token(data: &[u8]) {
    let (cut, data) = cut_of(data);
    check(&String::from_utf8_lossy(data));
    let (header, payload) = data.split_at(cut % (data.len() + 1));
    let (_, signature) = SIGNED[0].rsplit_once('.').expect("a token has a signature");
    let parts = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    let token = format!("{}.{}.{signature}", parts[0], parts[1]);
    check(&token);
    if !is_object(header) {
        let verdict = checker().check(&token, &KEYS, NOW_SECS);
        assert!(matches!(verdict, Verdict::Undecided(Doubt::Opaque)), "a header is an object");
    }
}

/// Whether these bytes are a JSON object in UTF-8. Its values are not held: a [`Value`] holds no
/// escaped lone surrogate, no number beyond a double and no more than so many levels, all of which
/// are JSON.
fn is_object(text: &[u8]) -> bool {
    let members =
        str::from_utf8(text).ok().map(serde_json::from_str::<HashMap<String, IgnoredAny>>);
    members.is_some_and(|members| members.is_ok())
}

fn check(token: &str) {
    let denial = match checker().check(token, &KEYS, NOW_SECS) {
        Verdict::Verified(verified) => {
            assert!(SIGNED.contains(&token), "nobody signed this");
            let roles = [Role::Client, Role::Daemon, Role::Worker];
            let granted = roles.iter().filter(|&&role| verified.claims_for(role).is_ok());
            assert!(granted.count() <= 1, "a token is for one role");
            return;
        }
        Verdict::Bad(proof) => proof.denial(),
        Verdict::Undecided(doubt) => doubt.denial(),
    };
    assert_eq!(denial.status, 401);
    let keyless = checker().check(token, &KeySet::default(), NOW_SECS);
    assert!(matches!(keyless, Verdict::Undecided(_)), "without keys nothing is decided");
}

/// The payload of a token that is signed by whom we trust: it grants what it says, to one role.
pub fn claims(data: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    if !payload.is_object() {
        return;
    }
    let header = Header::new(Algorithm::EdDSA);
    let token = jsonwebtoken::encode(&header, &payload, &SIGNER).expect("our key signs");
    let anybody = Checker { issuer: None, audience: None, leeway_secs: 5 };
    let Verdict::Verified(token) = anybody.check(&token, &SIGNER_KEYS, NOW_SECS) else {
        return;
    };
    let mut granted = 0;
    for role in [Role::Client, Role::Daemon, Role::Worker] {
        let Ok(claims) = token.claims_for(role) else {
            continue;
        };
        granted += 1;
        assert_eq!(payload["role"], role.name());
        let expiry = payload["exp"].as_f64().expect("a token that grants something ends");
        let kept = claims.expires_at_secs.expect("the end is kept");
        assert!((kept as f64 - expiry).abs() <= 1.0 || expiry.abs() > 2_f64.powi(53));
        let texts = [
            ("workspaceId", &claims.workspace_id),
            ("runtimeTargetId", &claims.runtime_target_id),
            ("managedExecutorId", &claims.managed_executor_id),
            ("jti", &claims.token_id),
        ];
        for (name, text) in texts {
            assert_eq!(text.as_deref(), payload[name].as_str(), "{name}");
            assert!(text.as_ref().is_none_or(|text| text.encode_utf16().count() <= 255));
        }
    }
    assert!(granted <= 1, "a token is for one role");
}

/// The platform's answer: admitted exactly when status, `ok` and claims say so. The first two
/// bytes are the status.
pub fn answer(data: &[u8]) {
    let (status, body) = cut_of(data);
    let status = u16::try_from(status).expect("two bytes");
    let value = serde_json::from_str::<Value>(&String::from_utf8_lossy(body)).unwrap_or_default();
    let is_ok = value.get("ok").and_then(Value::as_bool) == Some(true);
    let claims = value.get("claims").and_then(|claims| parse_claims(claims).ok());
    let is_admitted = status / 100 == 2 && is_ok && claims.is_some();
    match judge_answer(status, body) {
        Ok(admitted) => {
            assert!(is_admitted);
            assert_eq!(Some(&admitted), claims.as_ref());
            let text = |name| value["claims"].get(name).and_then(Value::as_str);
            assert_eq!(admitted.workspace_id.as_deref(), text("workspaceId"));
            assert_eq!(admitted.client_id.as_deref(), text("clientId"));
        }
        Err(denial) => {
            assert!(!is_admitted);
            assert_eq!(denial.status, status);
            assert!(!denial.reason.is_empty());
            assert!(denial.reason.chars().count() <= Denial::REASON_CHARS_MAX);
            if value.is_null() {
                assert_eq!(denial.reason, "INVALID_JSON");
            }
        }
    }
}

/// The tokens that [`KEYS`] verify.
static SIGNED: LazyLock<Vec<&'static str>> = LazyLock::new(seeds::signed_tokens);

/// Signs whatever [`claims`] is given. Source: RFC 8037, appendix A: a key everybody knows.
static SIGNER: LazyLock<EncodingKey> = LazyLock::new(|| {
    let secret = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    // PKCS #8 around thirty-two bytes of Ed25519.
    let prefix = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let secret = secret.expect("base64url");
    EncodingKey::from_ed_der(&[prefix, secret.as_slice()].concat())
});

static SIGNER_KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let document = br#"{"keys":[{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    KeySet::parse(document).expect("a good key").0
});

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let document = seeds::keys().swap_remove(0);
    KeySet::parse(&document).expect("the first document is good").0
});

/// The key of the first signed token.
static OURS: LazyLock<Value> = LazyLock::new(|| {
    let document: Value =
        serde_json::from_slice(&seeds::keys()[0]).expect("the first document is good");
    let keys = document["keys"].as_array().expect("it lists keys");
    keys.iter().find(|key| key["kid"] == "e").expect("it lists ours").clone()
});

fn checker() -> Checker {
    Checker { issuer: Some("i".into()), audience: Some("a".into()), leeway_secs: 5 }
}

/// Between `nbf` and `exp` of the signed tokens.
const NOW_SECS: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_signed_by_the_known_key_is_verified() {
        let payload: Value = serde_json::from_slice(&seeds::claims()[0]).expect("JSON");
        let header = Header::new(Algorithm::EdDSA);
        let token = jsonwebtoken::encode(&header, &payload, &SIGNER).expect("signed");
        let anybody = Checker { issuer: None, audience: None, leeway_secs: 5 };
        let verdict = anybody.check(&token, &SIGNER_KEYS, NOW_SECS);
        let Verdict::Verified(token) = verdict else { panic!("{verdict:?}") };
        assert!(token.claims_for(Role::Client).is_ok());
    }

    #[test]
    fn the_signed_tokens_are_verified() {
        for token in &*SIGNED {
            let verdict = checker().check(token, &KEYS, NOW_SECS);
            assert!(matches!(verdict, Verdict::Verified(_)), "{token}: {verdict:?}");
        }
    }
}
