//! Who may connect: the question for the platform, and what its answer means.

use serde::{Deserialize, Serialize};

/// The query of an upgrade.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Query {
    pub(crate) role: Role,
    pub(crate) workspace_id: String,
    pub(crate) runtime_target_id: Option<String>,
}

/// Which end connects. Workers are a matter of the relay alone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    WorkspaceDaemon,
    Client,
}

/// The body of a validate call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    relay_token: &'a str,
    role: Role,
    workspace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_target_id: Option<&'a str>,
}

/// The answer, as far as it is looked at.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    claims: Option<Claims>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    workspace_id: Option<String>,
    runtime_target_id: Option<String>,
}

impl Query {
    /// What to ask the platform.
    pub(crate) fn question(&self, token: &str) -> Vec<u8> {
        let question = Question {
            relay_token: token,
            role: self.role,
            workspace_id: &self.workspace_id,
            runtime_target_id: self.runtime_target_id.as_deref(),
        };
        serde_json::to_vec(&question).expect("strings are JSON")
    }

    /// Whether the answer admits this query: `ok`, the same workspace, and the same target where
    /// one was asked for.
    pub(crate) fn is_admitted_by(&self, answer: &[u8]) -> bool {
        let Ok(Answer { ok: true, claims: Some(claims) }) = serde_json::from_slice(answer) else {
            return false;
        };
        let target = &self.runtime_target_id;
        claims.workspace_id.as_ref() == Some(&self.workspace_id)
            && (target.is_none() || claims.runtime_target_id == *target)
    }
}

/// The token of an `Authorization` header.
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            role: Role::WorkspaceDaemon,
            workspace_id: "w".to_owned(),
            runtime_target_id: Some("t".to_owned()),
        }
    }

    #[test]
    fn the_question_has_the_keys_that_the_platform_reads() {
        let question = String::from_utf8(query().question("secret")).expect("JSON is text");
        assert_eq!(
            question,
            concat!(
                r#"{"relayToken":"secret","role":"workspace-daemon","#,
                r#""workspaceId":"w","runtimeTargetId":"t"}"#
            )
        );
    }

    #[test]
    fn claims_of_another_workspace_or_target_do_not_admit() {
        let admits = |answer: &str| query().is_admitted_by(answer.as_bytes());
        assert!(admits(r#"{"ok":true,"claims":{"workspaceId":"w","runtimeTargetId":"t"}}"#));
        assert!(!admits(r#"{"ok":true,"claims":{"workspaceId":"v","runtimeTargetId":"t"}}"#));
        assert!(!admits(r#"{"ok":true,"claims":{"workspaceId":"w","runtimeTargetId":"s"}}"#));
        assert!(!admits(r#"{"ok":true,"claims":{"workspaceId":"w"}}"#));
        assert!(!admits(r#"{"ok":false,"reason":"INVALID_RELAY_TOKEN"}"#));
        assert!(!admits("no JSON"));
    }

    #[test]
    fn only_bearer_tokens_are_tokens() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
