//! What the drivers share about accepting.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{set_tcp_nodelay, socket_domain};

use crate::Remote;

/// How long accepting pauses after a failure of ours. Descriptors come back when connections close;
/// trying again at once would only burn the core that has to close them.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Switches Nagle's delay off for all connections of a listener: Linux copies the option to what it
/// accepts, which saves a system call per connection. Unix sockets have no such delay.
pub(crate) fn without_delay(listener: impl AsFd) -> io::Result<()> {
    if socket_domain(&listener)? == AddressFamily::UNIX {
        return Ok(());
    }
    Ok(set_tcp_nodelay(listener, true)?)
}

/// Who is at the other end; `None` when it is gone already, or of no family we listen on.
pub(crate) fn remote_of(socket: impl AsFd) -> Option<Remote> {
    Remote::read(rustix::net::getpeername(socket).ok()??)
}

/// Whether accepting failed because of the one connection at hand, so that the next may do better.
pub(crate) fn is_of_the_peer(errno: i32) -> bool {
    // accept(2) passes on the network's errors of the new connection.
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EAGAIN
    )
}
