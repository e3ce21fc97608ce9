//! An admitted upgrade.

use std::net::IpAddr;

use crate::{AdmissionId, Claims, UpgradeRequest};

/// Leave to open a connection. Made by admission alone, so whoever holds one was admitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The ledger entry to release when the connection ends.
    pub admission: AdmissionId,
    /// What was asked for.
    pub request: UpgradeRequest,
    /// What the token says.
    pub claims: Claims,
    /// The client's address, for limiter keys and log entries.
    pub address: IpAddr,
}
