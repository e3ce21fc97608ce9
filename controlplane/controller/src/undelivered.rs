//! Connections that are to be told to go, and whose shard takes no more orders at the moment.

use std::collections::{BTreeMap, VecDeque};

use relay_contract::{CloseReason, Command, ConnectionId, ShardId};
use relay_link::{Block, LinkError, Shards};

/// Them, in the order in which they are to be told, by shard.
///
/// Bounded by the seats of the ledger: each is told to go once.
#[derive(Debug, Default)]
pub(crate) struct Undelivered(BTreeMap<ShardId, VecDeque<(ConnectionId, CloseReason)>>);

impl Undelivered {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.0.entry(connection.shard).or_default().push_back((connection, reason));
    }

    /// Tells as many as their shards take now. Cost: an attempt per shard, and one for each told.
    pub(crate) fn tell(&mut self, shards: &mut Shards) {
        self.0.retain(|&shard, waiting| {
            while let Some(&(connection, reason)) = waiting.front() {
                match shards.send(shard, Command::Close { connection, reason }) {
                    Err(LinkError::Overloaded(_)) => return true,
                    // Without its shard a connection is gone.
                    Ok(()) | Err(LinkError::NoSuchShard(_)) => drop(waiting.pop_front()),
                }
            }
            false
        });
    }

    /// A data plane is gone: whoever has its shards' ids next holds other connections.
    pub(crate) fn detach(&mut self, block: Block) {
        self.0.retain(|&shard, _| !block.contains(shard));
    }
}
