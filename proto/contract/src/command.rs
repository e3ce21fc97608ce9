//! What the control plane tells a shard.

use std::sync::Arc;

use crate::{ConnectionId, Grant, Limits, QueryId, Refusal, ShardId, WorkerResponse};

/// One order to a shard. Lanes carry them in order; each names at most one connection, and an order
/// for a connection that is gone is ignored.
#[derive(Debug)]
pub enum Command {
    /// Open the connection on its workspace's home shard.
    Admit {
        /// The upgrade that waited.
        connection: ConnectionId,
        /// What it may do.
        grant: Box<Grant>,
        /// Where its workspace lives.
        home: ShardId,
    },
    /// Refuse the upgrade.
    Refuse {
        /// The upgrade that waited.
        connection: ConnectionId,
        /// How.
        refusal: Refusal,
    },
    /// Answer a plain HTTP request that the shard passed on.
    Respond {
        /// The connection that asked.
        connection: ConnectionId,
        /// HTTP status.
        status: u16,
        /// `Content-Type` of the body.
        content_type: &'static str,
        /// The body.
        body: Box<[u8]>,
    },
    /// Send a worker its answer.
    WorkerReply {
        /// The worker's connection.
        connection: ConnectionId,
        /// The answer.
        response: Box<WorkerResponse>,
    },
    /// Replace the limits from now on. Older versions than the one in force are refused.
    SetLimits(Arc<Limits>),
    /// Answer with a [`crate::ShardReport`].
    Report {
        /// Comes back with the answer.
        query: QueryId,
        /// Whether to list the scopes, not the counters alone.
        scopes: bool,
    },
    /// Stop accepting, close everybody with 1001, then end the thread by `deadline_ms` from now.
    Stop {
        /// Milliseconds until what is left is cut.
        deadline_ms: u64,
    },
}
