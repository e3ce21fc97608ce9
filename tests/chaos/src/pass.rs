//! What opens the relay's door: tokens, and the requests that show them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use relay_contract::{Role, Scope, Secret};
use relay_platform::{Issuer, SigningKey, TokenClaims};

/// Makes tokens that the relay's platform accepts.
#[derive(Clone)]
pub struct Mint {
    issuer: Arc<Issuer>,
}

/// Everything an upgrade needs.
#[derive(Clone)]
pub struct Pass {
    /// The role in the query.
    pub role: Role,
    /// The workspace in the query.
    pub workspace: String,
    /// The target in the query.
    pub target: Option<String>,
    /// The token that is shown.
    pub token: Secret,
}

impl Mint {
    /// A mint with the platform's signing key.
    pub fn new(key: SigningKey) -> Self {
        Self { issuer: Arc::new(Issuer::new(key)) }
    }

    /// What recognises this mint's tokens.
    pub fn issuer(&self) -> Arc<Issuer> {
        Arc::clone(&self.issuer)
    }

    /// A daemon of the workspace's target `rt1`.
    pub fn daemon(&self, workspace: &str) -> Result<Pass> {
        self.pass(workspace, TokenClaims::daemon(workspace, TARGET))
    }

    /// A client of the workspace's target `rt1`.
    pub fn client(&self, workspace: &str, name: &str) -> Result<Pass> {
        self.pass(workspace, TokenClaims::client(workspace, TARGET, name))
    }

    /// A viewer who may subscribe to these session event channels.
    pub fn viewer(&self, workspace: &str, channels: &[&str]) -> Result<Pass> {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        let claims = TokenClaims {
            scope: Some(Scope::SessionEvents),
            session_channels: Some(channels),
            ..TokenClaims::client(workspace, TARGET, "viewer")
        };
        self.pass(workspace, claims)
    }

    /// A worker of the workspace's executor `ex1`.
    pub fn worker(&self, workspace: &str) -> Result<Pass> {
        let claims = TokenClaims {
            role: Some(Role::Worker),
            workspace_id: Some(workspace.to_owned()),
            managed_executor_id: Some(EXECUTOR.to_owned()),
            ..TokenClaims::default()
        };
        self.pass(workspace, claims)
    }

    /// A peer of this role.
    pub fn of_role(&self, role: Role, workspace: &str) -> Result<Pass> {
        match role {
            Role::Daemon => self.daemon(workspace),
            Role::Client => self.client(workspace, "attacker"),
            Role::Worker => self.worker(workspace),
        }
    }

    /// A token that expired an hour ago.
    pub fn expired(&self, workspace: &str) -> Result<Pass> {
        let claims = TokenClaims::client(workspace, TARGET, "attacker");
        self.sign(workspace, claims, SystemTime::now() - 2 * HOUR)
    }

    /// Any claims.
    pub fn pass(&self, workspace: &str, claims: TokenClaims) -> Result<Pass> {
        self.sign(workspace, claims, SystemTime::now())
    }

    fn sign(&self, workspace: &str, claims: TokenClaims, from: SystemTime) -> Result<Pass> {
        let role = claims.role.context("a token has a role")?;
        let target = claims.runtime_target_id.clone();
        let token = self.issuer.issue(claims, from, HOUR).context("signing a token")?;
        Ok(Pass { role, workspace: workspace.to_owned(), target, token })
    }
}

impl Pass {
    /// The whole request head of an upgrade.
    pub fn upgrade(&self) -> String {
        self.upgrade_with("")
    }

    /// The same with more header lines, each with its line end.
    pub fn upgrade_with(&self, headers: &str) -> String {
        let Self { role, workspace, .. } = self;
        let target = self.target.as_ref();
        let target = target.map_or_else(String::new, |id| format!("&runtimeTargetId={id}"));
        format!(
            "GET /ws?role={}&workspaceId={workspace}{target} HTTP/1.1\r\nHost: relay\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {}\r\n{headers}\r\n",
            role.name(),
            self.token.expose(),
        )
    }
}

/// The one target of every workspace here.
pub const TARGET: &str = "rt1";

/// The one executor of every worker here.
pub const EXECUTOR: &str = "ex1";

const HOUR: Duration = Duration::from_secs(3600);
