//! The whole controller between shards that are played by the test and a platform that speaks real
//! HTTP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod api;
mod api_changes;
mod api_connections;
mod api_watch;
mod credentials;
mod door;
mod hostile_keys;
mod hostile_platform;
mod key_sets;
mod live;
mod live_keys;
mod moves;
mod operator;
mod platform;
mod relay;
mod renewal;
mod rotation;
mod shutdown;
mod storm;
mod tls;
mod tokens;
mod worker;
