//! What the control plane tells a shard.

use std::fmt;
use std::sync::Arc;

use crate::{
    CloseReason, ConnectionId, Credential, Grant, Limits, QueryId, Refusal, Renewal, Routes,
    ShardId, WorkerResponse, WorkspaceId,
};

/// One order to a shard. Lanes carry them in order; each names at most one connection, and an order
/// for a connection that is gone is ignored. Its `Debug` shows of a body its length alone.
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
    /// End an open connection with a close handshake. One that waits for its upgrade is not open.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Code and text of the close frame.
        reason: CloseReason,
    },
    /// Answer a peer that sent a fresh token.
    Renewed {
        /// Its connection.
        connection: ConnectionId,
        /// What it is told.
        outcome: Renewal,
        /// The token it stands on from now on, if that is good: for whoever remembers grants.
        credential: Option<Box<Credential>>,
    },
    /// Replace the limits from now on. A version that is not newer than the one in force is
    /// refused. Answered with [`crate::Event::InForce`].
    SetLimits(Arc<Limits>),
    /// Replace the routes from now on, whole. Refused and answered like limits.
    SetRoutes(Arc<Routes>),
    /// Answer with a [`crate::ShardReport`].
    Report {
        /// Comes back with the answer.
        query: QueryId,
        /// What it contains.
        detail: Detail,
    },
    /// Admit nobody and tell everybody who is open to reconnect, evenly over the window. Who has to
    /// answer for the process still does: listeners stay open, plain HTTP is served.
    Drain {
        /// Counts drains and their ends, as versions of one value: an order that is not newer than
        /// the one in force is refused, and answered with [`crate::Event::InForce`]. 0 is for
        /// whoever ends the process: taken always, and not answered.
        version: u64,
        /// Milliseconds from the first to the last who is told. The control plane says how long,
        /// because the pace is that of all shards together.
        window_ms: u64,
        /// Another relay's WebSocket URL, which clients are told before they are closed.
        redirect: Option<Box<str>>,
    },
    /// Admit again. Who was told to go is gone; who was not stays.
    Resume {
        /// As that of [`Command::Drain`].
        version: u64,
    },
    /// Give the workspace's connections, and all that is known of it, to another shard of this data
    /// plane. Answered by [`crate::Event::Moved`] or [`crate::Event::MoveFailed`].
    Move {
        /// The workspace.
        workspace_id: WorkspaceId,
        /// Its home from then on.
        to: ShardId,
    },
    /// Stop accepting, close everybody with 1001, then end the thread by `deadline_ms` from now.
    Stop {
        /// Milliseconds until what is left is cut.
        deadline_ms: u64,
    },
}

/// What a report contains beside counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// Nothing.
    Counts,
    /// Every scope. Cost: linear in connections, and sorting them.
    Scopes,
    /// The scopes with most traffic. Cost: linear in scopes.
    Hottest,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admit { connection, grant, home } => f
                .debug_struct("Admit")
                .field("connection", connection)
                .field("grant", grant)
                .field("home", home)
                .finish(),
            Self::Refuse { connection, refusal } => f
                .debug_struct("Refuse")
                .field("connection", connection)
                .field("refusal", refusal)
                .finish(),
            Self::Respond { connection, status, content_type, body } => f
                .debug_struct("Respond")
                .field("connection", connection)
                .field("status", status)
                .field("content_type", content_type)
                .field("body_bytes", &body.len())
                .finish(),
            Self::WorkerReply { connection, response } => f
                .debug_struct("WorkerReply")
                .field("connection", connection)
                .field("response", response)
                .finish(),
            Self::Close { connection, reason } => f
                .debug_struct("Close")
                .field("connection", connection)
                .field("reason", reason)
                .finish(),
            Self::Renewed { connection, outcome, credential } => f
                .debug_struct("Renewed")
                .field("connection", connection)
                .field("outcome", outcome)
                .field("credential", credential)
                .finish(),
            Self::SetLimits(limits) => f.debug_tuple("SetLimits").field(limits).finish(),
            Self::SetRoutes(routes) => f
                .debug_struct("SetRoutes")
                .field("version", &routes.version)
                .finish_non_exhaustive(),
            Self::Report { query, detail } => {
                f.debug_struct("Report").field("query", query).field("detail", detail).finish()
            }
            Self::Drain { version, window_ms, redirect } => f
                .debug_struct("Drain")
                .field("version", version)
                .field("window_ms", window_ms)
                .field("redirect", redirect)
                .finish(),
            Self::Move { workspace_id, to } => {
                f.debug_struct("Move").field("workspace_id", workspace_id).field("to", to).finish()
            }
            Self::Resume { version } => f.debug_struct("Resume").field("version", version).finish(),
            Self::Stop { deadline_ms } => {
                f.debug_struct("Stop").field("deadline_ms", deadline_ms).finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_of_a_body_its_length_alone() {
        let connection = ConnectionId { shard: ShardId(0), slot: 1, generation: 2 };
        let body: Box<[u8]> = b"hush".as_slice().into();
        let shown = format!("{body:?}");
        let command =
            Command::Respond { connection, status: 200, content_type: "text/plain", body };
        let command = format!("{command:?}");
        assert!(!command.contains("hush") && !command.contains(&shown), "{command}");
        assert!(command.contains("body_bytes: 4"), "{command}");
    }
}
