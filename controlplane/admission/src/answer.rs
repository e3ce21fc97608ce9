//! The platform's answer to a validate call.

use relay_contract::Claims;
use serde_json::Value;

use crate::claims::parse_claims;
use crate::denial::Denial;

/// Reads the answer to a validate call: claims only for 2xx, `ok` exactly `true`, and valid claims.
///
/// # Errors
/// A [`Denial`] with the reason the reference relay logs: the platform's own `reason` or `error`,
/// else `INVALID_JSON` (also for `null`), `INVALID_CLAIMS` or `VALIDATION_FAILED`.
///
/// Source: relay specification, section 4.
pub fn judge_answer(status: u16, body: &[u8]) -> Result<Claims, Denial> {
    let deny = |reason: &str| Denial::new(reason, status);
    let answer: Value =
        serde_json::from_str(&String::from_utf8_lossy(body)).map_err(|_| deny(INVALID_JSON))?;
    if answer.is_null() {
        return Err(deny(INVALID_JSON));
    }
    let admitted = (200..300).contains(&status) && answer.get("ok") == Some(&Value::Bool(true));
    if !admitted {
        let reason = ["reason", "error"]
            .iter()
            .filter_map(|member| answer.get(member)?.as_str())
            .find(|text| !text.is_empty());
        return Err(deny(reason.unwrap_or(VALIDATION_FAILED)));
    }
    answer
        .get("claims")
        .and_then(|claims| parse_claims(claims).ok())
        .ok_or_else(|| deny(INVALID_CLAIMS))
}

const INVALID_JSON: &str = "INVALID_JSON";
const INVALID_CLAIMS: &str = "INVALID_CLAIMS";
const VALIDATION_FAILED: &str = "VALIDATION_FAILED";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn denied(status: u16, body: &str, reason: &str) {
        assert_eq!(
            judge_answer(status, body.as_bytes()),
            Err(Denial::new(reason, status)),
            "{body}"
        );
    }

    #[test]
    fn valid_claims_under_a_true_ok_admit() {
        let body = br#"{"ok":true,"more":1,"claims":{"workspaceId":"ws1"}}"#;
        let claims = judge_answer(200, body).unwrap();
        assert_eq!(claims.workspace_id.as_deref(), Some("ws1"));
    }

    #[test]
    fn what_is_not_json_is_named_so() {
        denied(200, "hello", "INVALID_JSON");
        denied(200, "", "INVALID_JSON");
        denied(502, "<html>", "INVALID_JSON");
        denied(200, "null", "INVALID_JSON");
        denied(200, "\u{feff}{\"ok\":true,\"claims\":{}}", "INVALID_JSON");
    }

    #[test]
    fn ok_must_be_true_itself() {
        for ok in ["false", "\"true\"", "1", "null", "{}"] {
            denied(200, &format!(r#"{{"ok":{ok},"claims":{{}}}}"#), "VALIDATION_FAILED");
        }
        denied(200, "[]", "VALIDATION_FAILED");
        denied(200, "7", "VALIDATION_FAILED");
    }

    #[test]
    fn a_status_outside_2xx_denies_whatever_the_body_says() {
        for status in [199, 302, 401, 500] {
            denied(status, r#"{"ok":true,"claims":{}}"#, "VALIDATION_FAILED");
        }
    }

    #[test]
    fn the_platform_gives_the_reason() {
        denied(403, r#"{"ok":false,"reason":"TOKEN_REVOKED"}"#, "TOKEN_REVOKED");
        denied(403, r#"{"error":"nope"}"#, "nope");
        denied(403, r#"{"reason":"","error":"nope"}"#, "nope");
        denied(403, r#"{"reason":{"a":1}}"#, "VALIDATION_FAILED");
    }

    #[test]
    fn claims_must_be_there_and_valid() {
        denied(200, r#"{"ok":true}"#, "INVALID_CLAIMS");
        denied(200, r#"{"ok":true,"claims":null}"#, "INVALID_CLAIMS");
        denied(200, r#"{"ok":true,"claims":{"extra":1}}"#, "INVALID_CLAIMS");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let body = format!(r#"{{"reason":"{}"}}"#, "é".repeat(5000));
        let denial = judge_answer(400, body.as_bytes()).unwrap_err();
        assert_eq!(denial.reason.chars().count(), Denial::REASON_CHARS_MAX);
    }
}
