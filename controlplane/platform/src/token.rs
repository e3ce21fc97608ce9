//! What a token says.

use relay_contract::{Profile, Role, Scope};
use serde::{Deserialize, Serialize};

/// Issuer of real relay tokens. Source: endpoint specification, section 7.
pub const ISSUER: &str = "viewport-server";
/// Audience of real relay tokens. Source: endpoint specification, section 7.
pub const AUDIENCE: &str = "viewport-relay";

/// The claims of one token, under the names a relay accepts.
///
/// Source: relay specification, section 4.
/// The issuer fills issuer, audience, times and `jti`; what it is given there does not count.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "each member is the claim of its name")]
pub struct TokenClaims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_target_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_executor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_channels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2ee_profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_issue_generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
}

impl TokenClaims {
    /// A daemon's token: it serves one target of one workspace.
    pub fn daemon(workspace_id: &str, target_id: &str) -> Self {
        Self {
            role: Some(Role::Daemon),
            workspace_id: Some(workspace_id.to_owned()),
            runtime_target_id: Some(target_id.to_owned()),
            ..Self::default()
        }
    }

    /// A client's token: it talks to one target under its own name.
    pub fn client(workspace_id: &str, target_id: &str, client_id: &str) -> Self {
        Self {
            role: Some(Role::Client),
            scope: Some(Scope::Runtime),
            client_id: Some(client_id.to_owned()),
            ..Self::daemon(workspace_id, target_id)
        }
    }
}
