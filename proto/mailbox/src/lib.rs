//! How threads hand values to each other: bounded lanes and a doorbell.
//!
//! A [`lane`] carries values in order from any number of senders to one receiver and never blocks
//! either side; a lane that is full gives the value back. A [`Bell`] belongs to the receiving
//! thread and is shared by all lanes into it: it costs a sender one load while that thread is
//! awake, and one system call when it sleeps. What ringing means is the receiver's choice
//! ([`Ring`]); [`EventFd`] is the usual one.
//!
//! There is no unbounded lane, no blocking receive and no future here. The sleeping side is three
//! steps, in this order: [`Bell::rest`], look at every lane again, sleep. `tests/doorbell.rs` walks
//! all interleavings of them with loom.
#![forbid(unsafe_code)]

mod bell;
mod eventfd;
mod lane;

pub use bell::{Bell, Ring};
pub use eventfd::EventFd;
pub use lane::{Full, Receiver, Sender, lane};
