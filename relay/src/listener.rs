//! The listening socket.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// A bound, listening socket and its address.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket. Shards share it by duplicates: a second socket on the same port would also let a
    /// second relay share the port unnoticed.
    pub(crate) socket: OwnedFd,
    /// Where it listens; the port is the real one when 0 was asked for.
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Binds the first address the name stands for that can be bound.
    pub(crate) fn bind(host: &str, port: u16) -> Result<Self> {
        let addresses = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("HOST={host} is no address and no known name"))?;
        let mut refused = None;
        for address in addresses {
            match listen(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => refused = Some((address, error)),
            }
        }
        match refused {
            Some((address, error)) => {
                Err(error).with_context(|| format!("cannot listen on {address}"))
            }
            None => bail!("HOST={host} stands for no address"),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for connections of the process before to fade away.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let address = rustix::net::getsockname(&socket)?.try_into()?;
    Ok(Listener { socket, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_chosen_and_reported() {
        let listener = Listener::bind("127.0.0.1", 0).expect("bound");
        assert_ne!(listener.address.port(), 0);
        std::net::TcpStream::connect(listener.address).expect("somebody listens");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = Listener::bind("127.0.0.1", 0).expect("bound");
        let error = Listener::bind("127.0.0.1", first.address.port()).expect_err("in use");
        assert!(format!("{error:#}").contains(&first.address.to_string()));
    }

    #[test]
    fn a_name_nobody_knows_is_named() {
        let error = Listener::bind("no such host", 1).expect_err("no address");
        assert!(format!("{error:#}").contains("HOST=no such host"));
    }
}
