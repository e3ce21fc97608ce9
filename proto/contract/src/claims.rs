//! What a token says about its bearer, already validated.

use serde::{Deserialize, Serialize};

/// What a client connection is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Key exchange and encrypted frames.
    Runtime,
    /// Pairing frames only.
    Pairing,
    /// Subscriptions to session event channels.
    SessionEvents,
}

/// The end-to-end handshake two ends use. The order is strength: `NoiseIk < NoiseIkpsk2`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Profile {
    /// `noise-ik`
    #[serde(rename = "noise-ik")]
    NoiseIk,
    /// `noise-ikpsk2`
    #[serde(rename = "noise-ikpsk2")]
    NoiseIkpsk2,
}

impl Profile {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoiseIk => "noise-ik",
            Self::NoiseIkpsk2 => "noise-ikpsk2",
        }
    }

    /// The profile of that exact name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b"noise-ik" => Some(Self::NoiseIk),
            b"noise-ikpsk2" => Some(Self::NoiseIkpsk2),
            _ => None,
        }
    }
}

/// The claims the relay acts on, as they stood in the token (untrimmed).
///
/// Only a validated answer of the platform or a verified token becomes one. Source: relay
/// specification, section 4.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Names one client across its connections.
    pub client_id: Option<Box<str>>,
    /// The workspace the token is for.
    pub workspace_id: Option<Box<str>>,
    /// The target the token is for.
    pub runtime_target_id: Option<Box<str>>,
    /// The machine behind the target; echoed in `DAEMON_UNAVAILABLE`.
    pub machine_id: Option<Box<str>>,
    /// Names the executor a worker may call for.
    pub managed_executor_id: Option<Box<str>>,
    /// What a client connection is for.
    pub scope: Option<Scope>,
    /// Event channels the client may subscribe to.
    pub session_channels: Option<Box<[Box<str>]>>,
    /// The handshake the bearer is bound to.
    pub e2ee_profile: Option<Profile>,
    /// Grows each time a daemon's credential is issued anew.
    pub daemon_issue_generation: Option<u64>,
    /// Token id (`jti`), for revocation.
    pub token_id: Option<Box<str>>,
    /// Expiry (`exp`), seconds since 1970. The relay reports it and does not enforce it by default.
    pub expires_at_secs: Option<i64>,
}
