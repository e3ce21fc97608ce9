//! Frames between relays: making them, signing them, checking signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Number, Value, json};
use sha2::Sha256;

use crate::members::Members;

/// How a scenario makes a frame.
#[derive(Clone, Debug)]
pub(crate) struct FrameRecipe<'a> {
    /// Placeholders expanded.
    pub(crate) members: Members<Value>,
    pub(crate) issued_at_offset_ms: Option<i64>,
    pub(crate) sign_key: Option<&'a str>,
    /// Replaced after signing.
    pub(crate) overrides: Members<Value>,
}

impl FrameRecipe<'_> {
    /// The frame: members in the order given, then `issuedAtMs`, then `signature`.
    pub(crate) fn make(self) -> Members<Value> {
        let mut frame = self.members;
        if let Some(offset) = self.issued_at_offset_ms {
            frame.set("issuedAtMs", json!(now_ms() + offset));
        }
        if let Some(key) = self.sign_key {
            let signature = sign(key, |name| frame.get(name));
            frame.set("signature", json!(signature));
        }
        for (name, value) in self.overrides.iter() {
            frame.set(name, value.clone());
        }
        frame
    }
}

/// The JSON text of a frame, members in their order.
pub(crate) fn text(frame: &Members<Value>) -> String {
    let members = frame.iter().map(|(name, value)| format!("{}:{}", json!(name), written(value)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// `"valid"` or `"invalid"` for a JSON text that is signed; `None` when it is not.
///
/// Valid: signed with `key`, and `issuedAtMs` is within ten seconds of now.
pub(crate) fn check(text: &str, key: &str) -> Option<&'static str> {
    let frame: Value = serde_json::from_str(text).ok()?;
    let signature = frame.get("signature")?.as_str()?;
    let issued_at = frame.get("issuedAtMs")?.as_f64()?;
    let fresh = (now_ms() as f64 - issued_at).abs() <= FRESH_MS;
    let right = signature == sign(key, |name| frame.get(name));
    Some(if fresh && right { "valid" } else { "invalid" })
}

fn sign<'a>(key: &str, member: impl Fn(&str) -> Option<&'a Value>) -> String {
    let parts = SIGNED_MEMBERS.map(|name| match member(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => javascript_number(number),
        _ => String::new(),
    });
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(parts.join("\n").as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// A value as JavaScript writes it; they differ for whole numbers written as fractions.
fn written(value: &Value) -> String {
    match value {
        Value::Number(number) => javascript_number(number),
        _ => value.to_string(),
    }
}

/// `Number.prototype.toString` in decimal, for the numbers that occur in frames.
fn javascript_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => {
            // The addition turns the negative zero, which JavaScript writes without a sign.
            format!("{:.0}", float + 0.0)
        }
        _ => number.to_string(),
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(now.as_millis()).expect("milliseconds fit for the next ages")
}

const SIGNED_MEMBERS: [&str; 8] = [
    "workspaceId",
    "runtimeTargetId",
    "machineId",
    "sourceRelayId",
    "targetRelayId",
    "direction",
    "issuedAtMs",
    "payload",
];

/// How old or early a valid frame may be.
const FRESH_MS: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe<'a>(offset: i64, sign_key: Option<&'a str>) -> FrameRecipe<'a> {
        let members = serde_json::from_str(r#"{"workspaceId":"w","direction":"d","payload":"p"}"#);
        FrameRecipe {
            members: members.unwrap(),
            issued_at_offset_ms: Some(offset),
            sign_key,
            overrides: Members::default(),
        }
    }

    #[test]
    fn a_signature_is_the_hmac_of_the_joined_members() {
        let frame = json!({
            "workspaceId": "ws1", "runtimeTargetId": "rt1", "machineId": null,
            "sourceRelayId": "relay-a", "direction": "client_to_daemon",
            "issuedAtMs": 1700000000000_u64, "payload": "{}",
        });
        let base = "ws1\nrt1\n\nrelay-a\n\nclient_to_daemon\n1700000000000\n{}";
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
        mac.update(base.as_bytes());
        let expected = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        assert_eq!(sign("key", |name| frame.get(name)), expected);
        assert_eq!(expected.len(), 43);
    }

    #[test]
    fn a_fresh_frame_under_the_right_key_is_valid() {
        let frame = text(&recipe(0, Some("key")).make());
        assert_eq!(check(&frame, "key"), Some("valid"));
        assert_eq!(check(&frame, "other"), Some("invalid"));
        assert_eq!(check(&text(&recipe(-11_000, Some("key")).make()), "key"), Some("invalid"));
        assert_eq!(check(&text(&recipe(0, None).make()), "key"), None);
    }

    #[test]
    fn overrides_come_after_the_signature() {
        let mut recipe = recipe(0, Some("key"));
        recipe.overrides.set("payload", json!("other"));
        let frame = recipe.make();
        let names: Vec<_> = frame.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["workspaceId", "direction", "payload", "issuedAtMs", "signature"]);
        assert_eq!(check(&text(&frame), "key"), Some("invalid"));
    }

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        for (number, expected) in [("2.0", "2"), ("-0.0", "0"), ("1.5", "1.5"), ("7", "7")] {
            let number: Number = serde_json::from_str(number).unwrap();
            assert_eq!(javascript_number(&number), expected);
        }
    }
}
