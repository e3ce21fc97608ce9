//! One WebSocket to the relay, never blocking once it is being opened.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_contract::Role;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::Request;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket, client};

use super::address::{AddressError, RelayAddress};
use super::bell::{Bell, Interest};
use crate::Fault;

/// Why there is no connection to the relay, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address or the token cannot be used.
    #[error("address: {0}")]
    Address(#[from] AddressError),
    /// The token holds bytes no header can carry.
    #[error("the token cannot be sent in a header")]
    Token,
    /// The network refused.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// The relay's certificate or TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The relay answered the upgrade with this status.
    #[error("the relay answered {0}")]
    Refused(u16),
    /// The connection did not open in time.
    #[error("no connection before the deadline")]
    Deadline,
    /// The relay closed the connection.
    #[error("closed by the relay: {code} {reason}")]
    Closed {
        /// WebSocket close code; 1006 when TCP ended without one.
        code: u16,
        /// The relay's text.
        reason: String,
    },
    /// The relay broke the WebSocket protocol.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// We go to another relay.
    #[error("redirected")]
    Redirected,
    /// The end was stopped.
    #[error("stopped")]
    Stopped,
}

impl LinkError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Address(_) | Self::Token | Self::Stopped => Fault::Us,
            _ => Fault::Upstream,
        }
    }

    /// Whether trying again, unchanged, may help.
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Upstream
    }
}

impl From<Error> for LinkError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Http(response) => Self::Refused(response.status().as_u16()),
            Error::ConnectionClosed | Error::AlreadyClosed => Self::dropped(),
            Error::Capacity(_) => Self::Protocol("message is larger than the limit"),
            Error::Utf8(_) => Self::Protocol("text is not UTF-8"),
            _ => Self::Protocol("not a valid WebSocket"),
        }
    }
}

impl LinkError {
    fn dropped() -> Self {
        Self::Closed { code: 1006, reason: String::new() }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// How a socket is to be opened.
pub(super) struct Opening<'a> {
    pub(super) address: &'a RelayAddress,
    pub(super) role: Role,
    pub(super) time: Duration,
    pub(super) frame_bytes_max: usize,
    pub(super) stop: &'a Arc<AtomicBool>,
}

/// An open WebSocket.
pub(super) struct Socket {
    web: WebSocket<Stream>,
    /// What the relay's close frame said, until the connection has ended.
    closing: Option<LinkError>,
}

impl Socket {
    /// Connects, in clear or by TLS, and upgrades. Name resolution and TCP block, each within the
    /// deadline where the system keeps to one; the rest ends at the deadline exactly, and when
    /// stopped.
    pub(super) fn open(opening: &Opening<'_>, bell: &mut Bell) -> Result<Self, LinkError> {
        let deadline = Instant::now() + opening.time;
        let tls = opening.address.tls()?;
        let request = request(opening)?;
        let tcp = connect(opening.address, deadline)?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let waker = tcp.try_clone()?;
        let stream = match tls {
            None => Stream::Plain(tcp),
            Some(trust) => {
                let host = opening.address.bare_host().to_owned();
                let name = ServerName::try_from(host).map_err(|_| AddressError::Url)?;
                let connection = ClientConnection::new(trust.config(), name)?;
                Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(opening.frame_bytes_max))
            .max_frame_size(Some(opening.frame_bytes_max));
        let mut attempt = client::client_with_config(request, stream, Some(config));
        loop {
            match attempt {
                Ok((web, _)) => return Ok(Self { web, closing: None }),
                Err(HandshakeError::Failure(error)) => return Err(error.into()),
                Err(HandshakeError::Interrupted(middle)) => {
                    wait(&waker, deadline, bell, opening.stop)?;
                    attempt = middle.handshake();
                }
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.web.get_ref().tcp().as_fd()
    }

    /// Puts a text message behind those that wait.
    pub(super) fn send(&mut self, text: String) -> Result<(), LinkError> {
        match self.web.write(Message::text(text)) {
            Ok(()) => Ok(()),
            Err(error) => self.judge(error).map(|_: Option<()>| ()),
        }
    }

    /// Whether the system has taken all that waited.
    pub(super) fn flush(&mut self) -> Result<bool, LinkError> {
        match self.web.flush() {
            Ok(()) => Ok(true),
            Err(error) => Ok(self.judge(error)?.unwrap_or(false)),
        }
    }

    /// The next text message; `None` when nothing is there now.
    pub(super) fn read(&mut self) -> Result<Option<String>, LinkError> {
        loop {
            match self.web.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.as_str().to_owned())),
                Ok(Message::Close(frame)) => {
                    self.closing = frame.map(|frame| LinkError::Closed {
                        code: frame.code.into(),
                        reason: frame.reason.as_str().to_owned(),
                    });
                }
                // Pings answer themselves; the relay sends no binary messages.
                Ok(_) => {}
                Err(error) => return self.judge(error),
            }
        }
    }

    /// Says goodbye, as far as the system takes it now.
    pub(super) fn close(mut self) {
        let _ = self.web.close(None);
        let _ = self.web.flush();
    }

    fn judge<T>(&mut self, error: Error) -> Result<Option<T>, LinkError> {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(self.closing.take().unwrap_or_else(|| error.into())),
        }
    }
}

fn request(opening: &Opening<'_>) -> Result<Request, LinkError> {
    let url = opening.address.request_url(opening.role);
    let mut request = url.as_str().into_client_request()?;
    let token = opening.address.token();
    let bearer = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&bearer).map_err(|_| LinkError::Token)?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(request)
}

fn connect(address: &RelayAddress, deadline: Instant) -> Result<TcpStream, LinkError> {
    let mut last = None;
    for target in (address.bare_host(), address.port()).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LinkError::Deadline);
        }
        match TcpStream::connect_timeout(&target, left) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(LinkError::Deadline, LinkError::Io))
}

fn wait(
    tcp: &TcpStream,
    deadline: Instant,
    bell: &mut Bell,
    stop: &AtomicBool,
) -> Result<(), LinkError> {
    if stop.load(Ordering::SeqCst) {
        return Err(LinkError::Stopped);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(LinkError::Deadline);
    }
    // The request is small: what blocks is the answer, or a TLS flight.
    let interest = Interest { read: true, write: false };
    bell.wait(Some((tcp.as_fd(), interest)), Some(left))?;
    Ok(())
}

const READ_BUFFER_BYTES: usize = 16 << 10;
/// What one turn writes goes out together, up to this.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
