//! The heart of a shard: who is connected, who owns a session, where a frame goes, who must go.
//!
//! It takes inputs and time and returns effects; the shard performs them. It does no I/O, reads no
//! clock, starts no thread and never sees plaintext of an end-to-end session. Start with
//! [`Switchboard::handle`].
#![forbid(unsafe_code)]

mod effect;
mod frame;
mod input;
mod switchboard;
mod wheel;

pub use effect::{Effect, Effects};
pub use frame::{Envelope, Frame, Invalid};
pub use input::{Input, Message};
pub use switchboard::{RestoreError, Switchboard};
pub use wheel::{TimerId, Wheel};
