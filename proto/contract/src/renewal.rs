//! A fresh token for a connection that is open.

/// What a peer hears that sent a fresh token over its open connection. Either way the connection
/// goes on as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// From now on the connection stands on the fresh token.
    Renewed {
        /// When that expires, milliseconds since 1970.
        expires_at_ms: Option<i64>,
    },
    /// It still stands on the one it has.
    Refused(RenewalRefusal),
}

/// Why a fresh token changes nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RenewalRefusal {
    /// The frame holds no token of a length that a token can have.
    Malformed,
    /// The token is not good, or not for this workspace, target and role.
    Denied,
    /// It is good for something else than the connection is open for.
    ClaimsDiffer,
    /// The relay could not ask. Worth another attempt.
    Unavailable,
}

impl RenewalRefusal {
    /// Every refusal.
    pub const ALL: [Self; 4] =
        [Self::Malformed, Self::Denied, Self::ClaimsDiffer, Self::Unavailable];

    /// The reason in the answer's frame.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "malformed token",
            Self::Denied => "token denied",
            Self::ClaimsDiffer => "claims differ",
            Self::Unavailable => "try again later",
        }
    }
}
