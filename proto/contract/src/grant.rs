//! An admitted upgrade.

use std::net::IpAddr;

use crate::{AdmissionId, Claims, Credential, UpgradeRequest};

/// Leave to open a connection. Made by admission alone, so whoever holds one was admitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The ledger entry to release when the connection ends.
    pub admission: AdmissionId,
    /// What was asked for.
    pub request: UpgradeRequest,
    /// What the token says.
    pub claims: Claims,
    /// Stands for all of them that decide what the connection may do. The shard keeps it and shows
    /// it with a fresh token, which must have the same. The control plane alone makes one.
    pub claims_digest: u64,
    /// The token behind it.
    pub credential: Credential,
    /// The client's address, for limiter keys and log entries.
    pub address: IpAddr,
}
