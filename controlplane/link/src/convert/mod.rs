//! The contract as protobuf, and back.
//!
//! What comes in is judged: whatever is missing, unknown or too large is a [`BadMessage`], never a
//! panic. Shard ids are local to a data plane on the wire; [`Frame`] says where they lie here.

mod command;
mod event;
mod inventory;
mod limits;
mod names;
mod report;
mod routes;
mod upgrade;

use std::net::IpAddr;

use relay_contract::{ConnectionId, ShardId, Tick};
use relay_grpc::plane::v1;

pub(crate) use names::kept;

pub use inventory::{DrainInForce, Drained, Holding, InForce};
pub use names::names_refused;
pub(crate) use report::parts;

/// Why a message is none that can be acted on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadMessage {
    /// Something that every such message has is not there.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A value that nobody knows.
    #[error("its {0} is unknown")]
    Unknown(&'static str),
    /// A value beyond what it may be.
    #[error("its {0} is out of range")]
    OutOfRange(&'static str),
}

/// Where the shards of a data plane lie among those of whoever speaks, and what time it is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The id here of the data plane's shard 0.
    pub first: u16,
    /// How many there are.
    pub count: u16,
    /// The clock here.
    pub now: Tick,
    /// The date of `now`, milliseconds since 1970.
    pub unix_ms: i64,
}

impl Frame {
    fn shard_in(&self, shard: u32, what: &'static str) -> Result<ShardId, BadMessage> {
        let shard = u16::try_from(shard).ok().filter(|&shard| shard < self.count);
        let shard = shard.and_then(|shard| shard.checked_add(self.first));
        shard.map(ShardId).ok_or(BadMessage::OutOfRange(what))
    }

    /// Ids are this side's own, so they lie within the frame.
    fn shard_out(&self, shard: ShardId) -> u32 {
        u32::from(shard.0.saturating_sub(self.first))
    }

    fn connection_in(&self, id: Option<v1::ConnectionId>) -> Result<ConnectionId, BadMessage> {
        let v1::ConnectionId { shard, slot, generation } =
            id.ok_or(BadMessage::Missing("connection"))?;
        let shard = self.shard_in(shard, "connection's shard")?;
        Ok(ConnectionId { shard, slot, generation })
    }

    fn connection_out(&self, id: ConnectionId) -> Option<v1::ConnectionId> {
        let ConnectionId { shard, slot, generation } = id;
        Some(v1::ConnectionId { shard: self.shard_out(shard), slot, generation })
    }

    fn date_of(&self, at: Tick) -> i64 {
        let age = i64::try_from(self.now.since(at).as_millis()).unwrap_or(i64::MAX);
        self.unix_ms.saturating_sub(age)
    }

    fn tick_of(&self, unix_ms: i64) -> Tick {
        let age = u64::try_from(self.unix_ms.saturating_sub(unix_ms)).unwrap_or(0);
        Tick(self.now.0.saturating_sub(age.saturating_mul(1_000_000)))
    }
}

fn address_in(bytes: &[u8]) -> Result<IpAddr, BadMessage> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    let octets: [u8; 16] = bytes.try_into().map_err(|_| BadMessage::OutOfRange("address"))?;
    Ok(octets.into())
}

fn address_out(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn status_in(status: u32) -> Result<u16, BadMessage> {
    u16::try_from(status).map_err(|_| BadMessage::OutOfRange("status"))
}

fn size_in(size: u64, what: &'static str) -> Result<usize, BadMessage> {
    usize::try_from(size).map_err(|_| BadMessage::OutOfRange(what))
}

fn size_out(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
