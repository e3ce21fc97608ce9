//! An attacker's socket: anything can be written, and what comes back is told apart.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::Duration;

use socket2::SockRef;

use crate::door::Door;
use crate::frame::{self, Frame};
use crate::line::{Line, is_patience};

/// A connection to the relay. Closed when dropped.
#[derive(Debug)]
pub struct Peer {
    line: Line,
    /// Bytes received and not looked at yet.
    received: Vec<u8>,
}

/// How a stream ends without another word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The relay sent FIN.
    Fin,
    /// The relay reset the connection, or it had before we wrote; or it broke TLS off.
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
    /// Connects, from an address of loopback if one is named, and says nothing.
    ///
    /// Errors: what the kernel says; a relay that has no room may refuse.
    pub fn connect(door: &Door, from: Option<Ipv4Addr>) -> io::Result<Self> {
        Ok(Self { line: door.connect(from)?, received: Vec::new() })
    }

    /// How long an answer, or room for what is sent, is waited for.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.line.socket().set_read_timeout(Some(patience))?;
        self.line.socket().set_write_timeout(Some(patience))
    }

    /// Sends as much as the relay takes, after a handshake where there is one; false when it has
    /// closed or does not read.
    ///
    /// That is no failure of an attack: what the relay made of it is read afterwards.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.line.write_all(bytes).and_then(|()| self.line.flush()).is_ok()
    }

    /// Sends the same below TLS, whether TLS is spoken or not.
    pub fn send_bare(&mut self, bytes: &[u8]) -> bool {
        self.line.socket().write_all(bytes).is_ok()
    }

    /// Begins a handshake, where there is one, and does not wait for the answer.
    pub fn greet(&mut self) -> bool {
        self.line.greet().is_ok()
    }

    /// What would begin the handshake, where there is one, to be sent with [`Self::send_bare`].
    pub fn take_hello(&mut self) -> io::Result<Vec<u8>> {
        self.line.take_hello()
    }

    /// Says that nothing more will be sent, where TLS has a word for it.
    pub fn say_goodbye(&mut self) -> bool {
        self.line.say_goodbye().is_ok()
    }

    /// Takes the handshake to its end, where there is one.
    pub fn shake_hands(&mut self) -> bool {
        self.line.shake_hands().is_ok()
    }

    /// Tells the relay of a new key, which only TLS 1.3 has.
    pub fn update_keys(&mut self) -> bool {
        self.line.update_keys().is_ok()
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

    /// What comes until the relay ends it or nothing more does, and which of them it was.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.received), end);
            }
        }
    }

    /// Waits for the relay's FIN or reset, whatever it says before, below TLS: an alert is none.
    pub fn end(&mut self) -> End {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.line.socket().read(&mut chunk) {
                Ok(0) => return End::Fin,
                Ok(_) => {}
                Err(error) if is_patience(&error) => return End::Silence,
                Err(_) => return End::Reset,
            }
        }
    }

    /// Whether anything comes, FIN included, below TLS.
    pub fn hears_something(&mut self) -> bool {
        self.line.socket().peek(&mut [0]).is_ok()
    }

    /// Ends our direction alone.
    pub fn half_close(&self) {
        // A relay that has closed already has ended it too.
        drop(self.line.socket().shutdown(Shutdown::Write));
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        // Without it the drop sends FIN, which is an ending too.
        drop(SockRef::from(self.line.socket()).set_linger(Some(Duration::ZERO)));
    }

    /// The line itself, to be read or written by another thread, and what was read and not asked
    /// for.
    pub(crate) fn into_line(self) -> (Line, Vec<u8>) {
        (self.line, self.received)
    }

    fn fill(&mut self) -> Result<(), End> {
        match self.line.receive(&mut self.received) {
            Ok(0) => Err(End::Fin),
            Ok(_) => Ok(()),
            Err(error) if is_patience(&error) => Err(End::Silence),
            Err(_) => Err(End::Reset),
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
