//! What relays say to each other, so that a client of one reaches a daemon of another.
//!
//! Nothing carries frames between relays yet; what is here is what every carrier needs: who signed
//! a frame, and when. Start with [`KeyRing`].
#![forbid(unsafe_code)]

mod signature;

pub use signature::{KeyRing, SignError, Signed, is_fresh};
