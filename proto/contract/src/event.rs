//! What a shard tells the control plane.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::{
    AdmissionId, AdmissionRequest, ConnectionId, Counter, Counters, Histograms, LogEntry, QueryId,
    Secret, ShardId, ShardLoad, TargetId, Tick, Versioned, WorkspaceId,
};

/// One thing that happened on a shard. Lanes carry them in order.
#[derive(Debug)]
pub enum Event {
    /// An upgrade waits for [`crate::Command::Admit`] or [`crate::Command::Refuse`].
    AdmissionAsked {
        /// The waiting connection.
        connection: ConnectionId,
        /// What it asks.
        request: Box<AdmissionRequest>,
    },
    /// An admitted connection lives under this id from now on: its 101 is queued on its home shard,
    /// or it has moved. An admission that comes to nothing is released without it.
    Opened {
        /// The ledger entry.
        admission: AdmissionId,
        /// Where it lives.
        connection: ConnectionId,
    },
    /// A peer sent a fresh token over its open connection and waits for
    /// [`crate::Command::Renewed`].
    RenewalAsked {
        /// The connection.
        connection: ConnectionId,
        /// Its ledger entry.
        admission: AdmissionId,
        /// The digest in its grant.
        claims_digest: u64,
        /// The fresh token, 10 to 4096 UTF-16 units.
        token: Secret,
    },
    /// An admitted connection is gone; its ledger entry can go too.
    Released {
        /// The ledger entry.
        admission: AdmissionId,
    },
    /// A waiting upgrade is gone before it was answered.
    Abandoned {
        /// The connection that waited.
        connection: ConnectionId,
    },
    /// A plain HTTP request that only the control plane can answer.
    HttpAsked {
        /// The waiting connection.
        connection: ConnectionId,
        /// What it asks.
        request: Box<ControlRequest>,
    },
    /// A worker asks for a call to the platform.
    WorkerAsked {
        /// The worker's connection.
        connection: ConnectionId,
        /// Its ledger entry: when that is released, nobody waits for the answer.
        admission: AdmissionId,
        /// What it asks.
        request: Box<WorkerRequest>,
    },
    /// Something an operator may want to read.
    Logged {
        /// When, on the shard's clock.
        at: Tick,
        /// What.
        entry: Box<LogEntry>,
    },
    /// The answer to [`crate::Command::Report`].
    Reported {
        /// The question.
        query: QueryId,
        /// The answer.
        report: Box<ShardReport>,
    },
    /// The answer to [`crate::Command::SetLimits`], [`crate::Command::SetRoutes`] and
    /// [`crate::Command::Drain`] or [`crate::Command::Resume`]: what is in force now. An older
    /// version than was sent means that none of it was taken.
    InForce {
        /// Where.
        shard: ShardId,
        /// Of what.
        value: Versioned,
        /// The version.
        version: u64,
    },
    /// A workspace is at another shard now. [`Event::Opened`] of each of its connections follows,
    /// with what it is called there; whatever else is heard of earlier names is older.
    Moved {
        /// The workspace.
        workspace_id: WorkspaceId,
        /// Its home until now.
        from: ShardId,
        /// Its home from now on.
        to: ShardId,
        /// Connections that moved.
        connections: u32,
        /// How long its connections were not read.
        paused: Duration,
    },
    /// A workspace stays where it was, and its connections with it.
    MoveFailed {
        /// The workspace.
        workspace_id: WorkspaceId,
        /// Its home, as before.
        from: ShardId,
        /// Why.
        reason: MoveFailure,
    },
    /// The shard has closed everything and its thread ends.
    Stopped {
        /// Which.
        shard: ShardId,
    },
}

/// Why a workspace was not moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MoveFailure {
    /// There is no such shard beside this one, or it has ended.
    NoSuchShard,
    /// Its connections could not be taken out of the driver: an old kernel, or no descriptors.
    Driver,
    /// Its connections did not come to rest in time.
    TimedOut,
    /// The shard is about to end.
    Stopping,
    /// The workspace has left already.
    NotHere,
    /// Too many moves wait already, or were made within half a minute.
    TooMany,
    /// The other shard has no place for so many connections, or no memory for what they hold.
    NoRoom,
}

impl MoveFailure {
    /// What logs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchShard => "no_such_shard",
            Self::Driver => "driver",
            Self::TimedOut => "timed_out",
            Self::Stopping => "stopping",
            Self::NotHere => "not_here",
            Self::TooMany => "too_many",
            Self::NoRoom => "no_room",
        }
    }

    /// What counts it, beside [`Counter::WorkspaceMovesFailed`].
    pub const fn counter(self) -> Counter {
        match self {
            Self::NoSuchShard => Counter::MovesFailedNoSuchShard,
            Self::Driver => Counter::MovesFailedDriver,
            Self::TimedOut => Counter::MovesFailedTimedOut,
            Self::Stopping => Counter::MovesFailedStopping,
            Self::NotHere => Counter::MovesFailedNotHere,
            Self::TooMany => Counter::MovesFailedTooMany,
            Self::NoRoom => Counter::MovesFailedNoRoom,
        }
    }
}

/// A plain HTTP request passed on by a shard. `GET` only; the shard answers everything else itself.
/// Its `Debug` shows of a query its length alone: people put tokens there.
#[derive(Clone)]
pub struct ControlRequest {
    /// Path without query: one of those the control plane serves.
    pub path: Box<str>,
    /// Query without the question mark.
    pub query: Option<Box<str>>,
    /// `Authorization`, as sent.
    pub authorization: Option<Secret>,
    /// `x-relay-admin-token`, as sent.
    pub admin_token: Option<Secret>,
    /// `Accept`, as sent, where it is text.
    pub accept: Option<Box<str>>,
    /// The client's address.
    pub address: IpAddr,
}

/// A worker's call to the platform, checked for form and path by the switchboard. Its `Debug` shows
/// no value: headers carry credentials, path and body are the worker's business.
#[derive(Clone)]
pub struct WorkerRequest {
    /// Echoed in the answer: JSON string content, unescaped.
    pub request_id: String,
    /// `GET`, `POST` or `PATCH`.
    pub method: Box<str>,
    /// Path and query on the platform's origin; inside the executor's own subtree.
    pub path: String,
    /// Headers of the allow-list, lower-case names, in the order sent.
    pub headers: Vec<(Box<str>, String)>,
    /// Body, absent for `GET`.
    pub body: Option<String>,
}

/// The platform's answer to a worker's call. Its `Debug` shows the status alone.
#[derive(Clone)]
pub struct WorkerResponse {
    /// From the request.
    pub request_id: String,
    /// HTTP status, or 502 when the call failed.
    pub status: u16,
    /// Response headers, sorted by name.
    pub headers: Vec<(String, String)>,
    /// Response body as text.
    pub body: String,
    /// Whether the platform answered at all.
    pub forwarded: bool,
}

/// What one shard holds, current at the moment it answered.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Which shard.
    pub shard: ShardId,
    /// Its counters since start.
    pub counters: Counters,
    /// Admitted daemons and clients.
    pub connection_count: u64,
    /// Scopes in its directory.
    pub scope_count: u64,
    /// The scopes, in order of creation; empty unless asked for.
    pub scopes: Vec<ScopeReport>,
    /// Those with most frames lately, most first, at most [`ShardReport::HOTTEST_MAX`]; empty
    /// unless asked for.
    pub hottest: Vec<ScopeTraffic>,
    /// The shard's clock when it answered.
    pub now: Tick,
    /// Bytes that peers may make it hold.
    pub memory_bytes_max: u64,
    /// Bytes that they make it hold.
    pub memory_used_bytes: u64,
    /// How busy it is.
    pub load: ShardLoad,
    /// What it measured since start.
    pub histograms: Histograms,
}

impl ShardReport {
    /// Scopes that are named for their traffic.
    pub const HOTTEST_MAX: usize = 16;
}

/// What goes through one scope.
#[derive(Clone, Debug)]
pub struct ScopeTraffic {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The target, if the scope has one.
    pub target_id: Option<TargetId>,
    /// Frames per second, of the last few seconds.
    pub frames_per_s: f64,
    /// Bytes of messages per second, of the last few seconds.
    pub bytes_per_s: f64,
}

/// One scope: a workspace, or one target of it.
#[derive(Clone, Debug)]
pub struct ScopeReport {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The target, if the scope has one.
    pub target_id: Option<TargetId>,
    /// Whether a daemon is connected.
    pub daemon_connected: bool,
    /// The clients' ids in order of connection.
    pub client_ids: Vec<Box<str>>,
    /// Last connect, disconnect or message.
    pub last_activity: Tick,
}

impl fmt::Debug for ControlRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlRequest")
            .field("path", &self.path)
            .field("query_bytes", &self.query.as_ref().map(|query| query.len()))
            .field("authorization", &self.authorization)
            .field("admin_token", &self.admin_token)
            .field("address", &self.address)
            .finish()
    }
}

impl fmt::Debug for WorkerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

impl fmt::Debug for WorkerResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_request_shows_no_secret() {
        let request = ControlRequest {
            path: "/logs".into(),
            query: Some("token=hush".into()),
            authorization: Some("hush".into()),
            admin_token: Some("hush".into()),
            accept: None,
            address: [127, 0, 0, 1].into(),
        };
        let shown = format!("{request:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("query_bytes: Some(10)"), "{shown}");
    }
}
