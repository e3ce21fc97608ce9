//! HTTP/1 as far as a relay speaks it: request heads, refusals, the handshake, small answers.
//!
//! [`parse_head`] turns a connection's first bytes into a [`Head`]. An upgrade then goes through
//! [`preflight`] (may it be asked for at all) and [`handshake`] (is it a WebSocket); anything else
//! is answered with a [`Response`], its body skipped by a [`BodySkipper`].

mod address;
mod body;
mod date;
mod handshake;
mod head;
mod origin;
mod preflight;
mod response;

pub use address::{InvalidProxy, Peer, TrustedProxies, client_address};
pub use body::{Body, BodySkipper, Skipped};
pub use date::HttpDate;
pub use handshake::handshake;
pub use head::{Head, HeadError, RequestTarget, parse_head};
pub use origin::{AllowedOrigins, InvalidOrigin, Origin};
pub use preflight::{UpgradeRules, preflight};
pub use response::{Response, refusal_bytes};
