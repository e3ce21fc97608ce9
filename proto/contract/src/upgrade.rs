//! A request to become a WebSocket, as far as the shard can judge it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Secret, TargetId, WorkspaceId};

/// What the peer says it is. Source: relay specification, section 3.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Serves a target.
    #[serde(rename = "workspace-daemon")]
    Daemon,
    /// Talks to a target.
    Client,
    /// Calls the platform through the relay.
    Worker,
}

impl Role {
    /// The name in the query and in the validate call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "workspace-daemon",
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }

    /// The role of that exact name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "workspace-daemon" => Some(Self::Daemon),
            "client" => Some(Self::Client),
            "worker" => Some(Self::Worker),
            _ => None,
        }
    }
}

/// The query of an upgrade, valid by construction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpgradeRequest {
    /// What the peer says it is.
    pub role: Role,
    /// The workspace asked for.
    pub workspace_id: WorkspaceId,
    /// The target asked for, if any.
    pub target_id: Option<TargetId>,
}

/// What the shard found in steps 5 to 8 of the upgrade order. The control plane judges 2 to 4 first
/// and then acts on this.
#[derive(Clone, Debug)]
pub enum Preflight {
    /// Target and Host do not make a URL: the socket is dropped without a byte and `upgrade_error`
    /// is logged.
    UnparsableUrl,
    /// Not `/ws`: the socket is dropped without a byte.
    OtherPath,
    /// A page of an origin that the operator does not allow: 403.
    ForeignOrigin {
        /// Which, as browsers write it; `None` when the header states none.
        origin: Option<Box<str>>,
    },
    /// The query does not fit its schema: 400.
    InvalidQuery,
    /// No usable token: 401.
    MissingToken,
    /// Ask whether this token may do this.
    Ask {
        /// The query.
        request: UpgradeRequest,
        /// The token, 10 to 4096 UTF-16 units.
        token: Secret,
    },
}

/// One upgrade on its way to a decision.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// The client's address after trusted proxies, IPv4-mapped addresses unmapped.
    pub address: IpAddr,
    /// What the shard found.
    pub preflight: Preflight,
}

impl AdmissionRequest {
    /// Memory of what the peer wrote.
    pub fn held_bytes(&self) -> usize {
        match &self.preflight {
            Preflight::Ask { request, token } => {
                let target = request.target_id.as_ref().map_or(0, |target| target.as_str().len());
                token.expose().len() + request.workspace_id.as_str().len() + target
            }
            Preflight::ForeignOrigin { origin } => origin.as_ref().map_or(0, |origin| origin.len()),
            Preflight::UnparsableUrl
            | Preflight::OtherPath
            | Preflight::InvalidQuery
            | Preflight::MissingToken => 0,
        }
    }
}

/// The answer to a refused upgrade. Source: relay specification, section 3 and 0b.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// Close the socket without a byte.
    Drop,
    /// `400 Bad Request`
    BadRequest,
    /// `401 Unauthorized`
    Unauthorized,
    /// `403 Forbidden`
    Forbidden,
    /// `429 Too Many Requests`
    TooManyRequests,
    /// `503 Service Unavailable`, bare: the total limit is reached.
    Full,
    /// `503 Service Unavailable` with `Retry-After`: the relay could not ask.
    Unavailable {
        /// Seconds after which a retry makes sense.
        retry_after_secs: u16,
    },
}
