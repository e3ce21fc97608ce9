//! From the claims of a verified token to the claims of a grant, where the platform is not asked.

use std::fmt;

use relay_contract::{Claims, Credential, Role};
use serde_json::{Map, Value};

use crate::claims::{ClaimsError, Members, is_channel, parse_profile, parse_scope};
use crate::denial::Denial;
use crate::jwt::{UNAUTHORIZED, credential, expiry};
use crate::keys::KeyPrint;

/// The claims of a token whose signature, times, issuer and audience were checked. Its `Debug`
/// shows how many there are: what they say is between the bearer and the issuer.
#[derive(Clone)]
pub struct VerifiedToken {
    claims: Map<String, Value>,
    key: KeyPrint,
    key_id: Option<Box<str>>,
}

/// Why a verified token grants nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unmapped {
    /// `role` is missing or not the one asked for. Without the platform nobody else compares them.
    #[error("the token is for another role")]
    Role,
    /// A token that never ends cannot be withdrawn by rotating keys alone.
    #[error("the token has no expiry")]
    NoExpiry,
    /// A claim we act on has no valid value.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

impl Unmapped {
    /// The denial for the log.
    pub fn denial(&self) -> Denial {
        let reason = match self {
            Self::Role => "TOKEN_ROLE_MISMATCH",
            Self::NoExpiry => "TOKEN_WITHOUT_EXPIRY",
            Self::Claims(_) => "INVALID_CLAIMS",
        };
        Denial::new(reason, UNAUTHORIZED)
    }
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claim_count = self.claims.len();
        f.debug_struct("VerifiedToken").field("claim_count", &claim_count).finish_non_exhaustive()
    }
}

impl VerifiedToken {
    pub(crate) fn new(claims: Map<String, Value>, key: KeyPrint, key_id: Option<Box<str>>) -> Self {
        Self { claims, key, key_id }
    }

    /// The key that signed it.
    pub fn key(&self) -> KeyPrint {
        self.key
    }

    /// What the token calls that key.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What identifies it.
    pub fn credential(&self) -> Credential {
        credential(&self.claims, self.key_id())
    }

    /// Claims for a connection of this role. Unknown claims are ignored: tokens are made for others
    /// too.
    ///
    /// # Errors
    /// [`Unmapped`]. The table is in `docs/admission.md`.
    pub fn claims_for(&self, role: Role) -> Result<Claims, Unmapped> {
        let members = Members(&self.claims);
        if members.parsed("role", Role::parse)? != Some(role) {
            return Err(Unmapped::Role);
        }
        let expires_at_secs = expiry(&self.claims).ok_or(Unmapped::NoExpiry)?;
        let subject = match role {
            Role::Client => members.text("sub", 1, 128)?,
            Role::Daemon | Role::Worker => None,
        };
        Ok(Claims {
            client_id: members.text("clientId", 1, 128)?.or(subject),
            workspace_id: members.text("workspaceId", 1, 128)?,
            runtime_target_id: members.text("runtimeTargetId", 1, 128)?,
            machine_id: members.text("machineId", 0, 255)?,
            managed_executor_id: members.text("managedExecutorId", 1, 128)?,
            scope: members.parsed("scope", parse_scope)?,
            session_channels: members.list("sessionChannels", is_channel)?,
            e2ee_profile: members.parsed("e2eeProfile", parse_profile)?,
            daemon_issue_generation: members.generation()?,
            token_id: members.text("jti", 1, 255)?,
            expires_at_secs: Some(expires_at_secs),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: Value) -> VerifiedToken {
        VerifiedToken::new(claims.as_object().unwrap().clone(), KeyPrint::default(), None)
    }

    #[test]
    fn debug_shows_no_claim() {
        let shown = format!("{:?}", token(json!({"sub": "user-1", "email": "a@example.org"})));
        assert!(!shown.contains("user-1") && !shown.contains("email"), "{shown}");
        assert!(shown.contains("claim_count: 2"), "{shown}");
    }

    #[test]
    fn known_claims_are_mapped_and_unknown_ones_ignored() {
        let token = token(json!({
            "role": "client", "exp": 100.5, "workspaceId": "ws1", "scope": "runtime",
            "sub": "user-1", "email": "a@example.org", "extra": {"deep": [1]},
        }));
        let claims = token.claims_for(Role::Client).unwrap();
        assert_eq!(claims.workspace_id.as_deref(), Some("ws1"));
        assert_eq!(claims.client_id.as_deref(), Some("user-1"));
        assert_eq!(claims.expires_at_secs, Some(100));
    }

    #[test]
    fn client_id_goes_before_the_subject() {
        let token = token(json!({"role": "client", "exp": 1, "sub": "s", "clientId": "c"}));
        let claims = token.claims_for(Role::Client).unwrap();
        assert_eq!(claims.client_id.as_deref(), Some("c"));
    }

    #[test]
    fn a_client_token_opens_no_daemon_connection() {
        let client = token(json!({"role": "client", "exp": 1}));
        assert_eq!(client.claims_for(Role::Daemon), Err(Unmapped::Role));
        let nobody = token(json!({"exp": 1}));
        assert_eq!(nobody.claims_for(Role::Client), Err(Unmapped::Role));
    }

    #[test]
    fn a_token_without_end_grants_nothing() {
        for claims in [json!({"role": "client"}), json!({"role": "client", "exp": "soon"})] {
            let claims = token(claims).claims_for(Role::Client);
            assert_eq!(claims, Err(Unmapped::NoExpiry));
        }
    }

    #[test]
    fn a_known_claim_must_be_valid() {
        let token = token(json!({"role": "client", "exp": 1, "workspaceId": 7}));
        let error = token.claims_for(Role::Client).unwrap_err();
        assert_eq!(error.denial().reason, "INVALID_CLAIMS");
    }
}
