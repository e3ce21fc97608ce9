//! The heart of a shard: who is connected, who owns a session, where a frame goes, who must go.
//!
//! It takes inputs and time and returns effects; the shard performs them. It does no I/O, reads no
//! clock, starts no thread and never sees plaintext of an end-to-end session. Start with
//! [`Switchboard::handle`].
#![forbid(unsafe_code)]
// A new state, frame or input must be looked at wherever one is told from another.
#![deny(clippy::wildcard_enum_match_arm)]

mod arrival;
#[cfg(test)]
mod board;
mod bucket;
mod client;
mod connection;
mod daemon;
mod deadline;
mod departure;
mod directory;
mod drain;
mod effect;
mod empty_scopes;
mod events;
mod household;
mod input;
mod key;
mod limiter;
mod liveness;
mod queue;
mod recency;
mod renewal;
mod subtree;
mod switchboard;
mod tenants;
mod traffic;
mod wheel;
mod worker;
mod written;

pub use effect::{Effect, Effects, FreshToken};
pub use household::Household;
pub use input::{Input, Message};
pub use limiter::limiters_bytes_max;
pub use queue::framed_bytes;
pub use switchboard::Switchboard;
pub use wheel::{TimerId, Wheel};
pub use written::RestoreError;
