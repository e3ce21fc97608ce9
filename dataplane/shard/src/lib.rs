//! One data-plane thread: driver, wire and switchboard joined into a loop.
//!
//! A shard owns its sockets, its memory and its switchboard; nothing is shared but bounded lanes.
//! It submits operations and receives completions as plain values: there are no futures here, no
//! locks, and no allocation per forwarded frame in the steady state. Tokio, the platform and the
//! token check live on the other side of the lanes.
//!
//! Start with [`Shard`]: its `turn` is the whole loop. A socket's life is a walk through the files
//! `fronted` (who is behind a proxy), `guest` (request head, plain HTTP), `upgrade` (waiting for
//! admission, moving home), `ingress` (frames in), `perform` (what the switchboard decided),
//! `egress` (frames out), `farewell` (how it ends) and `drain` (when everybody has to). `moves`,
//! `landing`, `whereabouts` and `mail` are about workspaces that change shards. Who waits for whom
//! is in `backlog` (loud connections), `errand` (what is no message) and `company` (how long a turn
//! may be).
#![forbid(unsafe_code)]

mod arrivals;
mod assembly;
mod audit;
mod backlog;
mod blocks;
mod budget;
mod company;
mod complaint;
mod config;
mod connection;
mod deadline;
mod discarded;
mod door;
mod drain;
mod egress;
mod errand;
mod farewell;
mod flush;
mod fronted;
mod gather;
mod guest;
mod handshake;
mod held_back;
mod histograms;
mod ingress;
mod landing;
mod mail;
mod moves;
mod offer;
mod parcel;
mod perform;
mod ports;
mod received;
mod records;
mod report;
mod reread;
mod rewrite;
mod shard;
mod spare_records;
mod strangers;
mod table;
mod tls;
mod upgrade;
mod walk;
mod whereabouts;

pub use audit::Audit;
pub use budget::{IDLE_CONNECTION_BYTES, base_bytes};
pub use config::{HealthFacts, ShardConfig, VerboseHealth};
pub use door::{DoorNews, DoorRules};
pub use parcel::Parcel;
pub use ports::Ports;
pub use rewrite::RewriteError;
pub use shard::{Shard, Turn};
