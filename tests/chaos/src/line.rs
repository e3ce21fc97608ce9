//! A connection that one thread writes and another reads, in TLS records or without.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConnection;

/// Two directions, which say the same whether TLS lies between or not. Nothing is sent before the
/// first write: a handshake that nobody begins is an attack as well.
#[derive(Debug)]
pub(crate) struct Line {
    socket: TcpStream,
    session: Option<Arc<Session>>,
}

/// The TLS of one connection, for the thread that writes and the one that reads.
#[derive(Debug)]
struct Session {
    connection: Mutex<ClientConnection>,
    /// Records that the socket has not taken. Who locks both locks this first.
    unsent: Mutex<Vec<u8>>,
}

impl Line {
    pub(crate) fn plain(socket: TcpStream) -> Self {
        Self { socket, session: None }
    }

    pub(crate) fn tls(socket: TcpStream, connection: ClientConnection) -> Self {
        let (connection, unsent) = (Mutex::new(connection), Mutex::default());
        Self { socket, session: Some(Arc::new(Session { connection, unsent })) }
    }

    /// The same line for another thread: one writes, the other reads.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, session: self.session.clone() })
    }

    /// The socket, below whatever TLS there is.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Says hello where that is how one begins, and waits for nothing.
    pub(crate) fn greet(&self) -> io::Result<()> {
        self.session.as_ref().map_or(Ok(()), |session| session.flush(&self.socket))
    }

    /// What would begin the handshake, for whoever sends it in another way; nothing without TLS.
    pub(crate) fn take_hello(&self) -> io::Result<Vec<u8>> {
        let mut hello = Vec::new();
        if let Some(session) = &self.session {
            session.connection().write_tls(&mut hello)?;
        }
        Ok(hello)
    }

    /// Takes the handshake to its end where there is one.
    pub(crate) fn shake_hands(&self) -> io::Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let mut connection = session.connection();
        while connection.is_handshaking() {
            connection.complete_io(&mut &self.socket)?;
        }
        Ok(())
    }

    /// Has what is sent from now on sealed with another key, and the relay told so. Nothing without
    /// TLS, and only 1.3 has it.
    pub(crate) fn update_keys(&self) -> io::Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        session.connection().refresh_traffic_keys().map_err(io::Error::other)?;
        session.flush(&self.socket)
    }

    /// Says that nothing more will be sent, as TLS has it; nothing without TLS.
    pub(crate) fn say_goodbye(&self) -> io::Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        session.connection().send_close_notify();
        session.flush(&self.socket)
    }

    /// Appends what has come, and returns how much that was on the wire: zero at the end of all.
    ///
    /// Errors: what the kernel says; what the relay says by breaking TLS off.
    pub(crate) fn receive(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut wire = [0; 16 << 10];
        let len = (&self.socket).read(&mut wire)?;
        self.open(&wire[..len], into)?;
        Ok(len)
    }

    /// Appends what these bytes of the wire say.
    ///
    /// Errors: they are no records of this session, or an alert; what came before it is appended.
    pub(crate) fn open(&self, wire: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        match &self.session {
            None => into.extend_from_slice(wire),
            Some(session) => session.open(&self.socket, wire, into)?,
        }
        Ok(())
    }
}

/// With TLS, a write that is counted as done may be in part with us still; [`Write::flush`] says
/// so.
impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &self.session else {
            return self.socket.write(bytes);
        };
        self.shake_hands()?;
        session.flush(&self.socket)?;
        let mut written = 0;
        for part in bytes.chunks(RECORD_BYTES) {
            session.connection().writer().write_all(part)?;
            written += part.len();
            match session.flush(&self.socket) {
                Ok(()) => {}
                Err(error) if is_patience(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.greet()
    }
}

impl Session {
    /// Writes what is due, or as much of it as there is room for.
    fn flush(&self, mut socket: &TcpStream) -> io::Result<()> {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.connection();
        while connection.wants_write() {
            connection.write_tls(&mut *unsent)?;
        }
        drop(connection);
        while !unsent.is_empty() {
            let len = socket.write(&unsent)?;
            unsent.drain(..len);
        }
        Ok(())
    }

    fn open(&self, socket: &TcpStream, mut wire: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        let mut connection = self.connection();
        // Whoever has not said hello does not begin to because of what came.
        let had_more_to_say = connection.wants_write();
        while !wire.is_empty() {
            if connection.read_tls(&mut wire)? == 0 {
                break; // Behind a close_notify nothing is read.
            }
            let state = connection.process_new_packets();
            match connection.reader().read_to_end(into) {
                Err(error) if !is_patience(&error) => return Err(error),
                _ => state.map_err(io::Error::other)?,
            };
        }
        let has_an_answer = !had_more_to_say && connection.wants_write();
        drop(connection);
        if has_an_answer { self.flush(socket) } else { Ok(()) }
    }

    /// A panic while it was held has already failed the run.
    fn connection(&self) -> MutexGuard<'_, ClientConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody did not come in time, and may yet.
pub(crate) fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What one record carries at most. Source: RFC 8446 §5.1.
const RECORD_BYTES: usize = 16 << 10;
