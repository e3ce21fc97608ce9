//! What comes back from the kernel.

use std::io;
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketAddrAny};

use crate::{Batch, Key, Lease};

/// One thing that happened. `S` is the driver's [`Socket`](crate::Driver::Socket).
#[derive(Debug)]
pub enum Completion<S> {
    /// Somebody connected.
    Accepted {
        /// In blocking mode, without Nagle's delay.
        socket: S,
        /// The other end.
        remote: Remote,
    },
    /// Accepting failed for a reason of ours, mostly a lack of descriptors; it goes on after a
    /// pause.
    AcceptFailed(io::Error),
    /// Bytes arrived.
    Received {
        /// From whom.
        key: Key,
        /// One byte or more.
        lease: Lease,
    },
    /// No more bytes will come from the receive that was asked for.
    ReceiveEnded {
        /// From whom.
        key: Key,
        /// Why.
        end: End,
    },
    /// A send is done.
    Sent {
        /// To whom.
        key: Key,
        /// The batch, as it was handed in.
        batch: Box<Batch>,
        /// Bytes the kernel took: all of them, or as many as the mode allows.
        outcome: Result<usize, SendError>,
    },
    /// The answer to [`Driver::export`](crate::Driver::export). None for a connection that was
    /// closed meanwhile.
    Exported {
        /// Which.
        key: Key,
        /// In blocking mode. An error leaves the connection with the driver.
        socket: io::Result<S>,
    },
    /// The socket is closed and its slot free again.
    Closed {
        /// Which.
        key: Key,
    },
}

/// Where an accepted connection comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remote {
    /// Another host, or this one over TCP.
    Internet(SocketAddr),
    /// A process of this host, through a Unix socket. Those that connect have no name of their own.
    Local,
}

impl Remote {
    /// Reads what the kernel says of a socket's other end; `None` for families nobody listens on.
    pub(crate) fn read(address: SocketAddrAny) -> Option<Self> {
        if address.address_family() == AddressFamily::UNIX {
            return Some(Self::Local);
        }
        address.try_into().ok().map(Self::Internet)
    }
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The peer finished its side of the stream.
    Eof,
    /// The peer cut the connection.
    Reset,
    /// The kernel says otherwise; the value is its `errno`.
    Failed(i32),
    /// We closed the connection.
    Cancelled,
    /// We paused the receive; another may be asked for.
    Paused,
}

impl End {
    /// Reads an `errno` of a receive.
    pub(crate) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNRESET | libc::EPIPE => Self::Reset,
            libc::ECANCELED => Self::Cancelled,
            other => Self::Failed(other),
        }
    }
}

/// Why a send took nothing and never will.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The peer cut the connection.
    #[error("the peer cut the connection")]
    Reset,
    /// The kernel says otherwise; the value is its `errno`.
    #[error("the kernel failed to send: errno {0}")]
    Failed(i32),
    /// We closed the connection.
    #[error("the connection was closed")]
    Cancelled,
    /// Another send of this connection was in flight: a mistake of the caller.
    #[error("another send is in flight")]
    Busy,
}

impl SendError {
    /// Reads an `errno` of a send.
    pub(crate) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNRESET | libc::EPIPE => Self::Reset,
            libc::ECANCELED => Self::Cancelled,
            other => Self::Failed(other),
        }
    }
}
