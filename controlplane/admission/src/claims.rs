//! The claims of a validate answer, checked strictly.

use relay_contract::{Claims, Profile, Role, Scope};
use serde_json::{Map, Value};

/// Why claims are not claims we accept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClaimsError {
    /// The claims are no JSON object.
    #[error("claims are not an object")]
    NotAnObject,
    /// A claim this relay does not know. Strict, as the reference is: a platform that says more
    /// than we understand is not obeyed by half.
    #[error("an unknown claim")]
    Unknown,
    /// A claim of the wrong type, length or form.
    #[error("claim {0} has no valid value")]
    Invalid(&'static str),
}

/// Checks every claim and keeps those the relay acts on.
///
/// Shape: lengths are UTF-16 units, as the reference measures them. All claims are optional; `null`
/// stands only for those that say so. `exp`, `nbf`, `iss`, `aud` and `role` are checked for form
/// and not judged: the platform did that. Source: relay specification, section 4.
///
/// # Errors
/// [`ClaimsError`]; the first one found.
pub fn parse_claims(claims: &Value) -> Result<Claims, ClaimsError> {
    let claims = Members(claims.as_object().ok_or(ClaimsError::NotAnObject)?);
    if claims.0.keys().any(|key| !KNOWN.contains(&key.as_str())) {
        return Err(ClaimsError::Unknown);
    }
    for (name, units_max) in
        [("userId", 128), ("installId", 128), ("policyMode", 128), ("iss", 255)]
    {
        claims.text(name, 1, units_max)?;
    }
    for (name, units_max) in
        [("daemonPublicKey", 512), ("pairingSecret", 1024), ("relayWsBaseUrl", 512)]
    {
        claims.nullable_text(name, units_max)?;
    }
    for name in ["iat", "nbf", "ver"] {
        claims.integer(name)?;
    }
    claims.parsed("role", Role::parse)?;
    claims.list("sessionIds", |id| has_units(id, 1, 128))?;
    claims.audience()?;
    Ok(Claims {
        client_id: claims.text("clientId", 1, 128)?,
        workspace_id: claims.text("workspaceId", 1, 128)?,
        runtime_target_id: claims.text("runtimeTargetId", 1, 128)?,
        machine_id: claims.text("machineId", 0, 255)?,
        managed_executor_id: claims.text("managedExecutorId", 1, 128)?,
        scope: claims.parsed("scope", parse_scope)?,
        session_channels: claims.list("sessionChannels", is_channel)?,
        e2ee_profile: claims.parsed("e2eeProfile", parse_profile)?,
        daemon_issue_generation: claims.generation()?,
        token_id: claims.text("jti", 1, 255)?,
        expires_at_secs: claims.integer("exp")?,
    })
}

/// Named members of an object, each read with its rule. An absent member is no error.
pub(crate) struct Members<'a>(pub(crate) &'a Map<String, Value>);

impl Members<'_> {
    /// Text of `min..=max` UTF-16 units.
    pub(crate) fn text(
        &self,
        name: &'static str,
        units_min: usize,
        units_max: usize,
    ) -> Result<Option<Box<str>>, ClaimsError> {
        self.parsed(name, |text| has_units(text, units_min, units_max).then(|| text.into()))
    }

    fn nullable_text(&self, name: &'static str, units_max: usize) -> Result<(), ClaimsError> {
        match self.0.get(name) {
            Some(Value::Null) => Ok(()),
            _ => self.text(name, 0, units_max).map(drop),
        }
    }

    /// Text that `parse` understands.
    pub(crate) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ClaimsError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let parsed = value.as_str().and_then(parse);
        parsed.map(Some).ok_or(ClaimsError::Invalid(name))
    }

    /// A list of at most [`LIST_ITEMS_MAX`] texts that all are valid.
    pub(crate) fn list(
        &self,
        name: &'static str,
        is_valid: impl Fn(&str) -> bool,
    ) -> Result<Option<Box<[Box<str>]>>, ClaimsError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let texts =
            value.as_array().filter(|items| items.len() <= LIST_ITEMS_MAX).and_then(|items| {
                let texts = items.iter().map(Value::as_str);
                texts.map(|text| text.filter(|text| is_valid(text)).map(Into::into)).collect()
            });
        texts.map(Some).ok_or(ClaimsError::Invalid(name))
    }

    /// An integer both sides can hold exactly.
    pub(crate) fn integer(&self, name: &'static str) -> Result<Option<i64>, ClaimsError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let integer = safe_integer(value);
        integer.map(Some).ok_or(ClaimsError::Invalid(name))
    }

    /// `daemonIssueGeneration`: an integer from zero.
    pub(crate) fn generation(&self) -> Result<Option<u64>, ClaimsError> {
        let name = "daemonIssueGeneration";
        self.integer(name)?
            .map(|integer| u64::try_from(integer).map_err(|_| ClaimsError::Invalid(name)))
            .transpose()
    }

    fn audience(&self) -> Result<(), ClaimsError> {
        match self.0.get("aud") {
            None | Some(Value::String(_)) => Ok(()),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(ClaimsError::Invalid("aud")),
        }
    }
}

pub(crate) fn parse_scope(name: &str) -> Option<Scope> {
    match name {
        "runtime" => Some(Scope::Runtime),
        "pairing" => Some(Scope::Pairing),
        "session-events" => Some(Scope::SessionEvents),
        _ => None,
    }
}

pub(crate) fn parse_profile(name: &str) -> Option<Profile> {
    Profile::parse(name.as_bytes())
}

/// `^agent-session:.+$` as JavaScript reads it: the dot matches no line end.
pub(crate) fn is_channel(text: &str) -> bool {
    let is_line_end = |c| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
    has_units(text, 1, 255)
        && text
            .strip_prefix("agent-session:")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(is_line_end))
}

fn has_units(text: &str, units_min: usize, units_max: usize) -> bool {
    // A UTF-16 unit is at most three bytes of UTF-8: no need to count what cannot fit.
    text.len() <= units_max * 3 && (units_min..=units_max).contains(&text.encode_utf16().count())
}

/// The value as `Number.isSafeInteger` sees it: `1.0` and `1e3` are integers.
fn safe_integer(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    let is_safe = number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX;
    #[expect(clippy::cast_possible_truncation, reason = "exact within the safe range")]
    is_safe.then_some(number as i64)
}

/// Items of a list claim. Source: relay specification, section 4.
pub(crate) const LIST_ITEMS_MAX: usize = 64;

/// `Number.MAX_SAFE_INTEGER`
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

const KNOWN: [&str; 24] = [
    "aud",
    "clientId",
    "daemonIssueGeneration",
    "daemonPublicKey",
    "e2eeProfile",
    "exp",
    "iat",
    "installId",
    "iss",
    "jti",
    "machineId",
    "managedExecutorId",
    "nbf",
    "pairingSecret",
    "policyMode",
    "relayWsBaseUrl",
    "role",
    "runtimeTargetId",
    "scope",
    "sessionChannels",
    "sessionIds",
    "userId",
    "ver",
    "workspaceId",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn valid(claims: Value) -> Claims {
        parse_claims(&claims).unwrap_or_else(|error| panic!("{claims}: {error}"))
    }

    #[track_caller]
    fn invalid(claims: Value) {
        assert!(parse_claims(&claims).is_err(), "{claims}");
    }

    #[test]
    fn every_claim_is_optional() {
        assert_eq!(valid(json!({})), Claims::default());
    }

    #[test]
    fn what_the_relay_acts_on_is_kept_untrimmed() {
        let claims = valid(json!({
            "clientId": " cl1 ", "workspaceId": "ws1", "runtimeTargetId": "rt1", "machineId": "",
            "managedExecutorId": "ex1", "scope": "session-events",
            "sessionChannels": ["agent-session:a"], "e2eeProfile": "noise-ikpsk2",
            "daemonIssueGeneration": 3.0, "jti": "j", "exp": 1,
        }));
        assert_eq!(claims.client_id.as_deref(), Some(" cl1 "));
        assert_eq!(claims.scope, Some(Scope::SessionEvents));
        assert_eq!(claims.e2ee_profile, Some(Profile::NoiseIkpsk2));
        assert_eq!(claims.daemon_issue_generation, Some(3));
        assert_eq!(claims.session_channels.unwrap().len(), 1);
        assert_eq!(claims.expires_at_secs, Some(1));
    }

    #[test]
    fn an_unknown_claim_is_refused() {
        assert_eq!(parse_claims(&json!({"extra": 1})), Err(ClaimsError::Unknown));
    }

    #[test]
    fn lengths_are_utf16_units() {
        valid(json!({"clientId": "😀".repeat(64)}));
        invalid(json!({"clientId": "😀".repeat(65)}));
        valid(json!({"clientId": "\u{ffff}".repeat(128)}));
        invalid(json!({"clientId": "c".repeat(129)}));
        invalid(json!({"clientId": ""}));
    }

    #[test]
    fn null_stands_for_three_claims_only() {
        for name in ["daemonPublicKey", "pairingSecret", "relayWsBaseUrl"] {
            valid(json!({ name: null }));
        }
        for name in KNOWN {
            if !["daemonPublicKey", "pairingSecret", "relayWsBaseUrl"].contains(&name) {
                invalid(json!({ name: null }));
            }
        }
    }

    #[test]
    fn numbers_are_safe_integers() {
        for good in [json!(0), json!(-5), json!(1.0), json!(9_007_199_254_740_991_i64)] {
            valid(json!({"iat": good}));
        }
        for bad in [json!(1.5), json!("1"), json!(9_007_199_254_740_992_i64), json!(1e300)] {
            invalid(json!({"iat": bad}));
        }
        invalid(json!({"daemonIssueGeneration": -1}));
    }

    #[test]
    fn a_channel_is_an_agent_session_on_one_line() {
        valid(json!({"sessionChannels": []}));
        valid(json!({"sessionChannels": ["agent-session: x"]}));
        for bad in ["foo", "agent-session:", " agent-session:x", "agent-session:a\nb"] {
            invalid(json!({"sessionChannels": [bad]}));
        }
        invalid(json!({"sessionChannels": [format!("agent-session:{}", "x".repeat(242))]}));
        invalid(json!({"sessionChannels": "agent-session:x"}));
    }

    #[test]
    fn lists_end_at_64() {
        valid(json!({"sessionIds": vec!["s"; 64]}));
        invalid(json!({"sessionIds": vec!["s"; 65]}));
        invalid(json!({"sessionIds": [""]}));
        invalid(json!({"sessionIds": [1]}));
    }

    #[test]
    fn enums_take_their_exact_names() {
        for role in ["workspace-daemon", "client", "worker"] {
            valid(json!({"role": role}));
        }
        invalid(json!({"role": "Client"}));
        invalid(json!({"scope": "admin"}));
        invalid(json!({"e2eeProfile": "noise-xx"}));
    }

    #[test]
    fn audience_is_a_text_or_a_list_of_texts() {
        valid(json!({"aud": "a"}));
        valid(json!({"aud": ["a", "b"]}));
        invalid(json!({"aud": [1]}));
        invalid(json!({"aud": 1}));
    }

    #[test]
    fn claims_are_an_object() {
        for bad in [json!([]), json!("x"), json!(1), Value::Null] {
            assert_eq!(parse_claims(&bad), Err(ClaimsError::NotAnObject));
        }
    }

    #[test]
    fn no_error_repeats_a_value() {
        let error = parse_claims(&json!({"pairingSecret": 12345})).unwrap_err();
        assert!(!error.to_string().contains("12345"));
    }
}
