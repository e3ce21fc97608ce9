//! TLS for one connection: rustls in memory, between the driver's bytes and ours.
//!
//! The session is moved with the socket when it changes shards. Records are decrypted into owned
//! memory, so TLS connections are outside the zero-copy claim.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

/// One server-side TLS session.
pub(crate) struct TlsSession(ServerConnection);

/// The peer's bytes are not TLS as we accept it. What it should be told waits in `take_output`.
#[derive(Debug, thiserror::Error)]
#[error("TLS failed: {0}")]
pub(crate) struct TlsFailure(#[from] rustls::Error);

/// What a batch of received records contained.
#[derive(Debug, Default)]
pub(crate) struct Decrypted {
    /// Application bytes, in order.
    pub(crate) plain: Vec<u8>,
    /// Whether the peer said that no more will come (close_notify).
    pub(crate) ended: bool,
}

impl TlsSession {
    /// A session that waits for its ClientHello.
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        connection.set_buffer_limit(None);
        Ok(Self(connection))
    }

    /// Takes received bytes in and returns the application bytes they contained.
    ///
    /// Errors: the session is dead; send what `take_output` returns (an alert) and close.
    /// Cost: copies; allocates the plaintext.
    pub(crate) fn decrypt(&mut self, mut records: &[u8]) -> Result<Decrypted, TlsFailure> {
        let mut decrypted = Decrypted::default();
        while !records.is_empty() {
            let taken = match self.0.read_tls(&mut records) {
                Ok(taken) => taken,
                // The plaintext buffer is emptied below after each step, so this is a session that
                // ended.
                Err(_) => {
                    return Ok(Decrypted { ended: true, ..decrypted });
                }
            };
            let state = self.0.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                let start = decrypted.plain.len();
                decrypted.plain.resize(start + state.plaintext_bytes_to_read(), 0);
                let read = self.0.reader().read(&mut decrypted.plain[start..]).unwrap_or(0);
                decrypted.plain.truncate(start + read);
            }
            if state.peer_has_closed() {
                decrypted.ended = true;
            }
            if taken == 0 {
                break;
            }
        }
        Ok(decrypted)
    }

    /// Queues application bytes for `take_output`.
    pub(crate) fn encrypt(&mut self, plain: &[u8]) {
        // The buffer limit is off and the writer is memory. A session that has failed takes
        // nothing, and its connection is on its way out.
        let _all = self.0.writer().write_all(plain);
    }

    /// Whether `take_output` would give anything.
    pub(crate) fn wants_output(&self) -> bool {
        self.0.wants_write()
    }

    /// Announces that nothing more will be sent.
    pub(crate) fn close_notify(&mut self) {
        self.0.send_close_notify();
    }

    /// Records to send: handshake messages, alerts, encrypted bytes. Empty when there are none.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.0.wants_write() {
            if self.0.write_tls(&mut Sink(&mut output)).is_err() {
                break;
            }
        }
        output
    }
}

/// Collects records; never fails.
struct Sink<'a>(&'a mut Vec<u8>);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
