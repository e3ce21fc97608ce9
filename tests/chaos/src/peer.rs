//! An attacker's socket: anything can be written, and what comes back is told apart.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::frame::{self, Frame};

/// A connection to the relay. Closed when dropped.
#[derive(Debug)]
pub struct Peer {
    socket: TcpStream,
    /// Bytes received and not looked at yet.
    received: Vec<u8>,
}

/// How a stream ends without another word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The relay sent FIN.
    Fin,
    /// The relay reset the connection, or it had before we wrote.
    Reset,
    /// It is still open and nothing came within the patience.
    Silence,
}

/// What an HTTP request led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// An answer of this status.
    Status(u16),
    /// No answer.
    End(End),
}

/// How a WebSocket ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Goodbye {
    /// A close frame of this code and reason.
    Close(u16, String),
    /// None.
    End(End),
}

impl Peer {
    /// Connects, from an address of loopback if one is named.
    ///
    /// Errors: what the kernel says; a relay that has no room may refuse.
    pub fn connect(relay: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(relay), Type::STREAM, None)?;
        if let (Some(from), IpAddr::V4(_)) = (from, relay.ip()) {
            // The port is chosen at connect, so that each address has its own 28,000.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&relay.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, received: Vec::new() })
    }

    /// How long an answer, or room for what is sent, is waited for.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))?;
        self.socket.set_write_timeout(Some(patience))
    }

    /// Sends as much as the relay takes; false when it has closed or does not read.
    ///
    /// That is no failure of an attack: what the relay made of it is read afterwards.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The status of the next answer. What follows its head stays for [`Self::frame`].
    pub fn answer(&mut self) -> Answer {
        loop {
            let end = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 4);
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return Answer::Status(status.unwrap_or(0));
            }
            if let Err(end) = self.fill() {
                return Answer::End(end);
            }
        }
    }

    /// The next frame, whatever it is. Pings are not answered.
    pub fn frame(&mut self) -> Result<Frame, End> {
        loop {
            if let Some((frame, used)) = frame::decode(&self.received) {
                self.received.drain(..used);
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// The next text message; pings and pongs are passed over.
    pub fn text(&mut self) -> Result<String, Goodbye> {
        loop {
            let frame = self.frame().map_err(Goodbye::End)?;
            match frame.first {
                frame::TEXT => return Ok(String::from_utf8_lossy(&frame.payload).into_owned()),
                frame::CLOSE => return Err(closing(&frame.payload)),
                _ => {}
            }
        }
    }

    /// Reads until the relay ends it. Everything but a close frame is passed over.
    pub fn goodbye(&mut self) -> Goodbye {
        loop {
            if let Err(goodbye) = self.text() {
                return goodbye;
            }
        }
    }

    /// Reads what is there until the relay has sent FIN or reset.
    pub fn end(&mut self) -> End {
        loop {
            self.received.clear();
            if let Err(end) = self.fill() {
                return end;
            }
        }
    }

    /// Ends our direction alone.
    pub fn half_close(&self) {
        // A relay that has closed already has ended it too.
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        let socket = Socket::from(self.socket);
        // Without it the drop sends FIN, which is an ending too.
        drop(socket.set_linger(Some(Duration::ZERO)));
    }

    /// The socket itself, to be read or written by another thread.
    pub fn into_socket(self) -> (TcpStream, Vec<u8>) {
        (self.socket, self.received)
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => Err(End::Fin),
            Ok(len) => {
                self.received.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(End::Silence),
                _ => Err(End::Reset),
            },
        }
    }
}

fn closing(payload: &[u8]) -> Goodbye {
    match payload.split_first_chunk() {
        Some((code, reason)) => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            Goodbye::Close(u16::from_be_bytes(*code), reason)
        }
        None => Goodbye::Close(NO_CODE, String::new()),
    }
}

/// What RFC 6455 §7.4.1 calls a close frame without a code.
const NO_CODE: u16 = 1005;

/// How long the relay may take for anything it must answer at once.
const PATIENCE: Duration = Duration::from_secs(5);
