//! A socket on its way to its workspace's home shard.

use relay_contract::Grant;

use crate::tls::TlsSession;

/// An admitted socket with everything that was read from it but not yet used.
///
/// No operation is in flight on it: the shard that accepted it stopped reading when the request
/// head was complete.
pub struct Parcel<S> {
    /// The socket.
    pub(crate) socket: S,
    /// What it may do.
    pub(crate) grant: Box<Grant>,
    /// The answer to the upgrade: 101, or the refusal of its WebSocket headers.
    pub(crate) handshake: Result<Vec<u8>, Vec<u8>>,
    /// Plain bytes after the request head: frames sent before the answer.
    pub(crate) early: Vec<u8>,
    /// The TLS session, where TLS ends here.
    pub(crate) tls: Option<Box<TlsSession>>,
}
