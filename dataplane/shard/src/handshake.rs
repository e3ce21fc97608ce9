//! The beginning of a TLS session, by rustls, up to where our record layer takes over.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use relay_wire::tls::{Aead, Direction, RecordCut, Session};
use rustls::{
    ConnectionTrafficSecrets, KeyLog, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use zeroize::Zeroizing;

use crate::tls::TlsFailure;

/// A handshake in progress.
///
/// rustls sees one record at a time, so that it never holds bytes that come after the handshake:
/// whatever a peer sends behind its Finished, in the same flight even, is left for [`Session`].
pub(crate) struct Handshake {
    connection: ServerConnection,
    secrets: Arc<Overheard>,
    cut: RecordCut,
    /// Bytes received so far.
    bytes: usize,
    first: Option<u8>,
}

/// Bytes a peer may send before its handshake is done. Protects memory and time from handshakes
/// that never end. Reached: the connection ends, with a count. Source: rustls takes messages of up
/// to 64 KiB; hellos are a few hundred bytes, chains of client certificates a few thousand.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// What a handshake takes in rustls, whatever the peer sends: its buffers and its copy of the
/// configuration. Source: as for [`relay_contract::Limits::tls_handshakes_max`].
const HANDSHAKE_BYTES: usize = 20 << 10;

/// What whoever speaks HTTP to a port that speaks TLS is told, in the clear.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 22\r\nConnection: close\r\n\r\nthis port speaks TLS\r\n";

impl Handshake {
    /// Waits for a ClientHello.
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, TlsFailure> {
        let secrets = Arc::<Overheard>::default();
        let mut config = config.clone();
        config.enable_secret_extraction = true;
        config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
        let connection = ServerConnection::new(Arc::new(config))?;
        Ok(Self { connection, secrets, cut: RecordCut::default(), bytes: 0, first: None })
    }

    /// Memory of its own: what rustls takes for any handshake, and what it may keep of this one.
    pub(crate) fn held_bytes(&self) -> usize {
        HANDSHAKE_BYTES + self.bytes
    }

    /// Takes bytes up to the end of a record. Returns how many.
    ///
    /// Errors: the handshake failed; what the peer is told waits in [`Self::take_output`].
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<usize, TlsFailure> {
        self.first = self.first.or(input.first().copied());
        let used = self.cut.advance(input);
        self.bytes += used;
        if self.bytes > HANDSHAKE_BYTES_MAX {
            return Err(TlsFailure::TooLong);
        }
        let mut record = &input[..used];
        while !record.is_empty() {
            let taken = self.connection.read_tls(&mut record).map_err(|_| TlsFailure::TooLong)?;
            self.connection.process_new_packets()?;
            if taken == 0 {
                break;
            }
        }
        Ok(used)
    }

    /// Whether the peer has proved what it had to.
    pub(crate) fn is_done(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Adds the messages to send to `out`.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut Sink(out)).is_err() {
                break;
            }
        }
    }

    /// What a peer is told whose handshake failed or took too long.
    pub(crate) fn last_words(&mut self, out: &mut Vec<u8>) {
        if self.first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            return out.extend_from_slice(SPEAK_TLS);
        }
        self.connection.send_close_notify();
        self.take_output(out);
    }

    /// The session that begins behind the handshake. Its output has to be taken first.
    ///
    /// Errors: the peers agreed on something our record layer does not know, which the
    /// configuration excludes.
    pub(crate) fn establish(self) -> Result<Session, TlsFailure> {
        let suite = self.connection.negotiated_cipher_suite();
        let version = suite.as_ref().map(|suite: &SupportedCipherSuite| suite.version().version);
        let secrets = self.connection.dangerous_extract_secrets()?;
        let direction = |(sequence, keys), traffic: &OnceLock<TrafficSecret>| {
            let (aead, key, iv) = parts(&keys)?;
            match version? {
                ProtocolVersion::TLSv1_2 => Direction::tls12(aead, key, iv, sequence),
                ProtocolVersion::TLSv1_3 => Direction::tls13(aead, traffic.get()?, sequence)
                    // The secret was overheard; the keys say whether it is the one in use.
                    .filter(|direction| direction.is_under(key, iv)),
                _ => None,
            }
        };
        let inbound = direction(secrets.rx, &self.secrets.client);
        let outbound = direction(secrets.tx, &self.secrets.server);
        match (inbound, outbound) {
            (Some(inbound), Some(outbound)) => Ok(Session::new(inbound, outbound)),
            _ => Err(TlsFailure::UnknownSuite),
        }
    }
}

fn parts(keys: &ConnectionTrafficSecrets) -> Option<(Aead, &[u8], &[u8; 12])> {
    let (aead, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Aead::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Aead::Chacha20Poly1305, key, iv),
        _ => return None,
    };
    Some((aead, key.as_ref(), iv.as_ref().first_chunk()?))
}

/// What rustls says of the traffic secrets of one session. It gives out keys, but those cannot
/// follow a KeyUpdate; the secrets can, and they are plain data.
#[derive(Default)]
struct Overheard {
    client: OnceLock<TrafficSecret>,
    server: OnceLock<TrafficSecret>,
}

type TrafficSecret = Zeroizing<Vec<u8>>;

impl Overheard {
    fn place(&self, label: &str) -> Option<&OnceLock<TrafficSecret>> {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => Some(&self.client),
            "SERVER_TRAFFIC_SECRET_0" => Some(&self.server),
            _ => None,
        }
    }
}

impl KeyLog for Overheard {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if let Some(place) = self.place(label) {
            // A second one would be refused below: it is not under the keys in use.
            let _first_stays = place.set(Zeroizing::new(secret.to_vec()));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.place(label).is_some()
    }
}

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overheard(..)")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_overheard_secrets_shows_nothing() {
        let secrets = Overheard::default();
        secrets.log("CLIENT_TRAFFIC_SECRET_0", b"", b"hush");
        assert_eq!(format!("{secrets:?}"), "Overheard(..)");
    }
}
