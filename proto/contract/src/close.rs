//! How connections end.

use serde::{Deserialize, Serialize};

/// A WebSocket close code as it goes on the wire. Source: RFC 6455 §7.4; 4008 is the relay's policy
/// code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The relay is going away.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A text message is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// A message is larger than allowed.
    pub const TOO_BIG: Self = Self(1009);
    /// The relay's policy ends the connection; the reason says which rule.
    pub const POLICY: Self = Self(4008);
}

/// Every close the relay starts by itself. The pair of code and text is part of the wire contract.
///
/// Source: relay specification, section 8; those from
/// [`Self::UnroutedRateLimited`] on are ours.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is its text")]
pub enum CloseReason {
    ShuttingDown,
    FrameTooLarge,
    MissingWorkspaceClaim,
    WorkspaceClaimMismatch,
    TargetClaimMismatch,
    InvalidScopeClaim,
    MissingTargetClaim,
    StaleDaemonGeneration,
    DaemonAlreadyConnected,
    DaemonProfileMismatch,
    ClientProfileMismatch,
    DaemonRateLimited,
    WorkerRateLimited,
    RuntimeRateLimited,
    PairingRateLimited,
    KeyExchangeRateLimited,
    PresenceRateLimited,
    PairingScopeOnly,
    RuntimeScopeOnly,
    SessionEventsScopeRequired,
    BufferOverflow,
    UnroutedRateLimited,
    SmallFrameRateLimited,
    MemoryBudget,
    TokenExpired,
    TokenRevoked,
    KeyWithdrawn,
    ClosedByOperator,
    TlsKeySpent,
}

impl CloseReason {
    /// The code that goes with the text.
    pub const fn code(self) -> CloseCode {
        match self {
            Self::ShuttingDown | Self::TlsKeySpent => CloseCode::GOING_AWAY,
            Self::FrameTooLarge => CloseCode::TOO_BIG,
            _ => CloseCode::POLICY,
        }
    }

    /// The reason text of the close frame.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ShuttingDown => "relay shutting down",
            Self::FrameTooLarge => "frame too large",
            Self::MissingWorkspaceClaim => "missing workspace claim",
            Self::WorkspaceClaimMismatch => "workspace claim mismatch",
            Self::TargetClaimMismatch => "runtime target claim mismatch",
            Self::InvalidScopeClaim => "invalid scope claim",
            Self::MissingTargetClaim => "missing runtime target claim",
            Self::StaleDaemonGeneration => "stale daemon generation",
            Self::DaemonAlreadyConnected => "daemon already connected",
            Self::DaemonProfileMismatch => "daemon frame profile mismatch",
            Self::ClientProfileMismatch => "client frame profile mismatch",
            Self::DaemonRateLimited => "daemon rate limit exceeded",
            Self::WorkerRateLimited => "worker rate limit exceeded",
            Self::RuntimeRateLimited => "runtime rate limit exceeded",
            Self::PairingRateLimited => "pairing rate limit exceeded",
            Self::KeyExchangeRateLimited => "key exchange rate limit exceeded",
            Self::PresenceRateLimited => "presence rate limit exceeded",
            Self::PairingScopeOnly => "pairing scope only",
            Self::RuntimeScopeOnly => "runtime scope only",
            Self::SessionEventsScopeRequired => "session-events scope required",
            Self::BufferOverflow => "buffer overflow",
            Self::UnroutedRateLimited => "unrouted frame rate limit exceeded",
            Self::SmallFrameRateLimited => "small frame rate limit exceeded",
            Self::MemoryBudget => "memory budget exceeded",
            Self::TokenExpired => "token expired",
            Self::TokenRevoked => "token revoked",
            Self::KeyWithdrawn => "signing key withdrawn",
            Self::ClosedByOperator => "closed by operator",
            Self::TlsKeySpent => "TLS key spent",
        }
    }
}
