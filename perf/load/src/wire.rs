//! One connection of the load: bytes in both directions, plain or under TLS.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustls::ClientConnection;

/// A connected socket. Blocking through [`Read`] and [`Write`] while it is opened; afterwards its
/// own methods never wait.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<Secured>),
}

/// A socket under TLS.
pub(crate) struct Secured {
    socket: TcpStream,
    session: ClientConnection,
}

impl Wire {
    /// TLS over a connected socket; the handshake comes with the first bytes.
    pub(crate) fn secured(socket: TcpStream, session: ClientConnection) -> Self {
        Self::Tls(Box::new(Secured { socket, session }))
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(secured) => &secured.socket,
        }
    }

    /// The socket of a plain connection.
    pub(crate) fn into_plain(self) -> Result<TcpStream> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(_) => bail!("not a plain connection"),
        }
    }

    /// Writes as much as goes without waiting. Errors: `AGAIN` when nothing goes at the moment.
    pub(crate) fn write_some(&mut self, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        match self {
            Self::Plain(socket) => rustix::io::writev(socket, slices),
            Self::Tls(secured) => secured.write_some(slices),
        }
    }

    /// Sends what lies sealed and unsent. True when nothing is left.
    pub(crate) fn flush_some(&mut self) -> Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(secured) => match secured.send() {
                Ok(()) => Ok(true),
                Err(Errno::AGAIN) => Ok(false),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads what has arrived, zero at the end. Errors: `AGAIN` when there is nothing at the
    /// moment.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Plain(socket) => rustix::io::read(socket, buffer),
            Self::Tls(secured) => secured.read_some(buffer),
        }
    }
}

impl Secured {
    fn write_some(&mut self, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        self.send()?;
        let taken = self.session.writer().write_vectored(slices).map_err(|_| Errno::IO)?;
        match self.send() {
            // What was taken goes with the next call.
            Ok(()) | Err(Errno::AGAIN) => Ok(taken),
            Err(error) => Err(error),
        }
    }

    /// Sends sealed records until none is left.
    fn send(&mut self) -> rustix::io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket).map_err(|error| errno(&error))?;
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(len) => return Ok(len),
                Err(error) => return Err(errno(&error)),
            }
            if self.session.read_tls(&mut self.socket).map_err(|error| errno(&error))? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(|_| Errno::PROTO)?;
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(secured) => {
                rustls::Stream::new(&mut secured.session, &mut secured.socket).read(buffer)
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(secured) => {
                rustls::Stream::new(&mut secured.session, &mut secured.socket).write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(secured) => {
                rustls::Stream::new(&mut secured.session, &mut secured.socket).flush()
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(match error.kind() {
        ErrorKind::WouldBlock => Errno::AGAIN,
        _ => Errno::IO,
    })
}
