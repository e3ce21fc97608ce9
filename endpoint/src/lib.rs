//! The two ends of the encrypted wire: a client and a daemon that talk through a relay they need
//! not trust.
//!
//! Programs start with [`Client::connect`] and [`Daemon::serve`]. Whoever brings their own sockets
//! drives the machines below them, [`ClientEnd`] and [`DaemonEnd`]: frames, time and randomness in,
//! actions out, no I/O. [`handshake`] and [`Session`] are the cryptography alone.
//!
//! What this crate does not do: it fetches no tokens, keeps no messages over a restart, and speaks
//! version 3 of the key exchange only.
#![forbid(unsafe_code)]

mod aead;
mod backoff;
mod base64url;
mod client;
mod daemon;
mod debug;
mod fault;
pub mod frame;
pub mod handshake;
mod ids;
mod keys;
mod limits;
mod moment;
mod observer;
mod outbox;
pub mod pairing;
mod refusal;
mod rotation;
mod session;
mod transport;
mod window;

pub use client::{ClientAction, ClientEnd, ClientInput, ClientSettings};
pub use daemon::{Caller, DaemonAction, DaemonEnd, DaemonInput, DaemonSettings, EndReason};
pub use fault::Fault;
pub use handshake::ClientProfile;
pub use ids::{ConversationId, MessageId, SessionId};
pub use keys::{
    KeyError, KeyFileError, KeyPair, PUBLIC_KEY_BYTES, PairingSecret, PublicKey, SECRET_BYTES,
};
pub use limits::{Limits, Retry};
pub use moment::Moment;
pub use observer::{Observation, Observer};
pub use outbox::Undelivered;
pub use refusal::Refusal;
pub use relay_contract::{Profile, Secret, TargetId, Tick, WorkspaceId};
pub use session::{Established, MESSAGES_PER_KEY_MAX, OpenError, SealError, Session, SessionKey};
pub use transport::{
    AddressError, Client, ClientConfig, Daemon, DaemonConfig, DaemonSender, Handler, LinkError,
    Received, RecvError, RelayAddress, Replies, SendError, StartError, Trust,
};
pub use window::WINDOW;
