//! What a data plane holds.

use std::net::IpAddr;

use relay_contract::{
    AdmissionId, ConnectionId, Credential, ShardId, TargetId, UpgradeRequest, Versioned,
};
use relay_grpc::plane::v1;

use super::upgrade::{request_in, request_out, target_in};
use super::{BadMessage, Frame, address_in, address_out, upgrade};

/// An admitted connection, as far as whoever counts it needs to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holding {
    /// Its number between these two planes.
    pub admission: AdmissionId,
    /// The shard its workspace lives on.
    pub home: ShardId,
    /// What was asked for.
    pub request: UpgradeRequest,
    /// The target its token names, if it names one.
    pub claimed_target: Option<TargetId>,
    /// The client's address.
    pub address: IpAddr,
    /// Where it lives, once it is open.
    pub connection: Option<ConnectionId>,
    /// The token behind it.
    pub credential: Credential,
    /// Names one client across its connections.
    pub client_id: Option<Box<str>>,
}

/// Which version of a value a shard keeps to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InForce {
    /// The shard.
    pub shard: ShardId,
    /// Of what.
    pub value: Versioned,
    /// The version.
    pub version: u64,
}

/// Whether a data plane's shards are drained: the newest order it has heard of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DrainInForce {
    /// Of the order.
    pub version: u64,
    /// What was ordered; nothing where that was to admit again.
    pub drained: Option<Drained>,
    /// The shards that keep to it. Others have not heard of it yet.
    pub shards: Vec<ShardId>,
}

/// An order to let everybody go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drained {
    /// From the first to the last who is told.
    pub window_ms: u64,
    /// Where clients are sent.
    pub redirect: Option<Box<str>>,
}

impl Frame {
    /// A connection for the inventory.
    pub fn holding_out(&self, holding: Holding) -> v1::Holding {
        let connection = holding.connection;
        v1::Holding {
            admission: holding.admission.0,
            home: self.shard_out(holding.home),
            request: request_out(holding.request),
            claimed_target_id: holding.claimed_target.map(Into::into),
            address: address_out(holding.address),
            connection: connection.and_then(|connection| self.connection_out(connection)),
            credential: Some(upgrade::credential_out(holding.credential)),
            client_id: holding.client_id.map(Into::into),
        }
    }

    /// A connection from an inventory.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn holding_in(&self, holding: v1::Holding) -> Result<Holding, BadMessage> {
        let connection = holding.connection.map(|id| self.connection_in(Some(id))).transpose()?;
        Ok(Holding {
            admission: AdmissionId(holding.admission),
            home: self.shard_in(holding.home, "home")?,
            request: request_in(holding.request)?,
            claimed_target: target_in(holding.claimed_target_id)?,
            address: address_in(&holding.address)?,
            connection,
            credential: upgrade::credential_in(holding.credential),
            client_id: holding.client_id.map(Into::into),
        })
    }

    /// A version for the wire.
    pub(crate) fn in_force_out(&self, in_force: InForce) -> v1::InForce {
        let InForce { shard, value, version } = in_force;
        let value = match value {
            Versioned::Limits => v1::Versioned::Limits,
            Versioned::Routes => v1::Versioned::Routes,
            Versioned::Drain => v1::Versioned::Drain,
        };
        v1::InForce { shard: self.shard_out(shard), value: value.into(), version }
    }

    /// A version from the wire.
    pub(crate) fn in_force_in(&self, in_force: v1::InForce) -> Result<InForce, BadMessage> {
        let v1::InForce { shard, value, version } = in_force;
        let value = match v1::Versioned::try_from(value) {
            Ok(v1::Versioned::Limits) => Versioned::Limits,
            Ok(v1::Versioned::Routes) => Versioned::Routes,
            Ok(v1::Versioned::Drain) => Versioned::Drain,
            Ok(v1::Versioned::Unspecified) | Err(_) => return Err(BadMessage::Unknown("value")),
        };
        Ok(InForce { shard: self.shard_in(shard, "shard")?, value, version })
    }

    /// Whether the shards are drained, for the inventory.
    pub(crate) fn drain_out(&self, drain: DrainInForce) -> v1::DrainInForce {
        let DrainInForce { version, drained, shards } = drain;
        let order = |Drained { window_ms, redirect }| v1::Drain {
            window_ms,
            redirect: redirect.map(Into::into),
            version,
        };
        v1::DrainInForce {
            version,
            drain: drained.map(order),
            shards: shards.into_iter().map(|shard| self.shard_out(shard)).collect(),
        }
    }

    /// Whether the shards are drained, from an inventory.
    pub(crate) fn drain_in(&self, drain: v1::DrainInForce) -> Result<DrainInForce, BadMessage> {
        let v1::DrainInForce { version, drain, shards } = drain;
        let order = |v1::Drain { window_ms, redirect, .. }| Drained {
            window_ms,
            redirect: redirect.map(Into::into),
        };
        let shards = shards.into_iter().map(|shard| self.shard_in(shard, "shard"));
        Ok(DrainInForce {
            version,
            drained: drain.map(order),
            shards: shards.collect::<Result<_, _>>()?,
        })
    }
}
