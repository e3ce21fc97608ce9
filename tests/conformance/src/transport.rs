//! A TCP or TLS connection that one thread reads and another writes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::SockRef;

use crate::step::Abort;

/// A connection to a relay. It closes when its last owner drops it.
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Mutex<ClientConnection>>,
    /// Held from taking records out of `tls` until they are written: records must not overtake
    /// each other.
    write_order: Mutex<()>,
}

impl Transport {
    /// Connects to a port of this machine; with `tls` as a TLS client.
    pub(crate) fn connect(port: u16, tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let tls = tls.map(|config| {
            let name = ServerName::IpAddress(address.ip().into());
            let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
            // What is written before the handshake is over must wait there, however much it is.
            connection.set_buffer_limit(None);
            Ok::<_, io::Error>(Mutex::new(connection))
        });
        let transport = Self { socket, tls: tls.transpose()?, write_order: Mutex::new(()) };
        transport.flush_tls()?;
        Ok(transport)
    }

    /// Writes all of `bytes`; over TLS they may wait for the handshake, which reading drives.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.tls {
            None => {
                let _order = self.write_order.lock().expect("no writer panics");
                (&self.socket).write_all(bytes)
            }
            Some(tls) => {
                tls.lock().expect("no TLS user panics").writer().write_all(bytes)?;
                self.flush_tls()
            }
        }
    }

    /// Appends what arrives next to `received`. `Ok(false)`: the peer has ended the connection.
    pub(crate) fn receive(&self, received: &mut Vec<u8>) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = (&self.socket).read(&mut chunk)?;
        let Some(tls) = &self.tls else {
            received.extend_from_slice(&chunk[..length]);
            return Ok(length > 0);
        };
        let mut records = &chunk[..length];
        let mut open = length > 0;
        {
            let mut tls = tls.lock().expect("no TLS user panics");
            while !records.is_empty() {
                if tls.read_tls(&mut records)? == 0 {
                    break; // Behind a close_notify nothing is read.
                }
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                let before = received.len();
                received.resize(before + state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut received[before..])?;
                open &= !state.peer_has_closed();
            }
        }
        self.flush_tls()?;
        Ok(open)
    }

    /// Gives the connection up, so that its reader wakes: with a FIN now, or with a RST when the
    /// last owner has dropped it. Errors mean that the connection is gone already.
    pub(crate) fn abort(&self, how: Abort) {
        let shutdown = match how {
            Abort::Fin => Shutdown::Both,
            Abort::Rst => {
                let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
                Shutdown::Read
            }
        };
        let _ = self.socket.shutdown(shutdown);
    }

    fn flush_tls(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let _order = self.write_order.lock().expect("no writer panics");
        let mut records = Vec::new();
        {
            // The lock is not held while writing: the reader needs it to make room at the peer.
            let mut tls = tls.lock().expect("no TLS user panics");
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }
}

/// The name scenarios use for a failure to connect or to talk.
pub(crate) fn error_name(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "ECONNREFUSED".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => "ECONNRESET".to_owned(),
        io::ErrorKind::BrokenPipe => "EPIPE".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "ETIMEDOUT".to_owned(),
        _ => error.to_string(),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A relay that stops reading must not stop the runner.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const CHUNK_BYTES: usize = 64 * 1024;
