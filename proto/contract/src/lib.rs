//! What the planes say to each other: plain types, no behaviour beyond their own invariants.
//!
//! Both planes import this crate and nothing of each other. It does no I/O, reads no clock and
//! starts no thread. Start with [`Event`] (what a shard tells the control plane) and [`Command`]
//! (what the control plane tells a shard).
#![forbid(unsafe_code)]

mod claims;
mod close;
mod command;
mod counter;
mod credential;
mod event;
mod grant;
mod histogram;
mod ids;
mod limits;
mod load;
mod log;
mod renewal;
mod routes;
mod secret;
mod site;
mod tick;
mod upgrade;

pub use claims::{Claims, Profile, Scope};
pub use close::{CloseCode, CloseReason};
pub use command::{Command, Detail};
pub use counter::{Counter, Counters};
pub use credential::Credential;
pub use event::{
    ControlRequest, Event, MoveFailure, ScopeReport, ScopeTraffic, ShardReport, WorkerRequest,
    WorkerResponse,
};
pub use grant::Grant;
pub use histogram::{Bucket, Histogram, Histograms, Measure, Unit};
pub use ids::{AdmissionId, ConnectionId, QueryId, RelayId, ShardId, TargetId, WorkspaceId};
pub use limits::{Heartbeat, Limits};
pub use load::{ShardLoad, TurnCost};
pub use log::{Level, LogEntry, Value};
pub use renewal::{Renewal, RenewalRefusal};
pub use routes::{Routes, TenantLimits, Versioned};
pub use secret::Secret;
pub use site::Site;
pub use tick::Tick;
pub use upgrade::{AdmissionRequest, Preflight, Refusal, Role, UpgradeRequest};
