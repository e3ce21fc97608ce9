//! A simulated kernel and network: everything random comes from one seed, and time is a number.
//!
//! [`World`] holds the clock and the streams. Shards get their side as a [`SimDriver`]; the test
//! plays the peers through [`Peer`]. One thread runs all of them in turn, so a run is a function of
//! its seed. What the network does to the shards is chosen in [`Faults`].

mod driver;
mod peer;
mod seed;
mod stream;
mod world;

pub use driver::SimDriver;
pub use peer::{Peer, PeerState};
pub use seed::Seed;
pub use world::{Faults, Injected, Socket, World};
