//! The sockets the relay accepts from.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::config::Listen;
use crate::unix_socket::{self, SocketFile};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// A bound, listening socket and its place.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket. Shards share it by duplicates: a second socket on the same port would also let a
    /// second relay share the port unnoticed.
    pub(crate) socket: OwnedFd,
    /// Where it listens.
    pub(crate) place: Place,
}

/// Where a socket listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Over TCP; the port is the real one when 0 was asked for.
    Internet(SocketAddr),
    /// At a file of this host.
    Unix(PathBuf),
}

/// All of them: one at least.
#[derive(Debug)]
pub(crate) struct Listeners {
    all: Vec<Listener>,
    /// Removed with the listeners.
    files: Vec<SocketFile>,
}

impl Listeners {
    /// Takes the sockets that were handed over, and binds what else is configured: HOST unless
    /// there are such sockets, and the Unix socket.
    ///
    /// Errors: names what cannot be bound. Nothing is left behind.
    pub(crate) fn bind(listen: &Listen, handed: Vec<Listener>) -> Result<Self> {
        let mut listeners = Self { all: handed, files: Vec::new() };
        if listen.over_tcp && listeners.all.is_empty() {
            listeners.all.push(Listener::bind(&listen.host, listen.port)?);
        }
        if let Some(unix) = &listen.unix {
            let (socket, file) = unix_socket::bind(&unix.path, unix.mode)
                .with_context(|| format!("RELAY_LISTEN_UNIX={}", unix.path.display()))?;
            listeners.all.push(Listener { socket, place: Place::Unix(unix.path.clone()) });
            listeners.files.push(file);
        }
        Ok(listeners)
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Listener> {
        self.all.iter()
    }

    /// The first TCP address, if there is any.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.all.iter().find_map(|listener| listener.place.address())
    }

    /// Lets go of the sockets, which others hold duplicates of, and keeps the files.
    pub(crate) fn into_files(self) -> Vec<SocketFile> {
        self.files
    }
}

impl Listener {
    /// Binds the first address the name stands for that can be bound. The unspecified IPv6 address
    /// takes IPv4 as well.
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

    /// A socket that somebody else bound and made listen.
    ///
    /// Errors: it is no listening stream socket of TCP or the Unix family.
    pub(crate) fn handed(socket: OwnedFd) -> Result<Self> {
        let is_stream = sockopt::socket_type(&socket)? == SocketType::STREAM;
        if !is_stream || !sockopt::socket_acceptconn(&socket)? {
            bail!("it does not listen for connections");
        }
        let place = place_of(&socket)?;
        Ok(Self { socket, place })
    }
}

impl Place {
    /// Its address, where it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Internet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn place_of(socket: impl AsFd) -> Result<Place> {
    let address = rustix::net::getsockname(socket)?;
    if address.address_family() == AddressFamily::UNIX {
        let address = SocketAddrUnix::try_from(address)?;
        let path = address.path_bytes().unwrap_or_default();
        return Ok(Place::Unix(String::from_utf8_lossy(path).into_owned().into()));
    }
    let address = SocketAddr::try_from(address).context("it is of no family we know")?;
    Ok(Place::Internet(address))
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
    if address.is_ipv6() {
        // Otherwise `net.ipv6.bindv6only` decides whether `::` takes IPv4 too.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let address = rustix::net::getsockname(&socket)?.try_into()?;
    Ok(Listener { socket, place: Place::Internet(address) })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::config::{Listen, UnixSocket};

    fn address(listener: &Listener) -> SocketAddr {
        match &listener.place {
            Place::Internet(address) => *address,
            Place::Unix(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn a_free_port_is_chosen_and_reported() {
        let listener = Listener::bind("127.0.0.1", 0).expect("bound");
        assert_ne!(address(&listener).port(), 0);
        TcpStream::connect(address(&listener)).expect("somebody listens");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = address(&Listener::bind("127.0.0.1", 0).expect("bound"));
        let listener = Listener::bind("127.0.0.1", first.port()).expect("free again");
        let error = Listener::bind("127.0.0.1", first.port()).expect_err("in use");
        assert!(format!("{error:#}").contains(&address(&listener).to_string()));
    }

    #[test]
    fn a_name_nobody_knows_is_named() {
        let error = Listener::bind("no such host", 1).expect_err("no address");
        assert!(format!("{error:#}").contains("HOST=no such host"));
    }

    #[test]
    fn dual_stack_takes_both_families() {
        let listener = Listener::bind("::", 0).expect("bound");
        let port = address(&listener).port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("IPv4");
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("IPv6");
        let only = Listener::bind("::1", 0).expect("bound");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, address(&only).port())).is_err());
    }

    #[test]
    fn a_unix_socket_stands_beside_tcp_or_alone() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("relay.sock");
        for over_tcp in [true, false] {
            let unix = Some(UnixSocket { path: path.clone(), mode: 0o600 });
            let listen = Listen { port: 0, over_tcp, unix, ..Listen::sample() };
            let listeners = Listeners::bind(&listen, Vec::new()).expect("bound");
            UnixStream::connect(&path).expect("somebody listens");
            assert_eq!(listeners.address().is_some(), over_tcp);
        }
        assert!(!path.exists(), "it goes with the listeners");
    }

    #[test]
    fn sockets_handed_over_take_the_place_of_host() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("handed.sock");
        let socket = UnixListener::bind(&path).expect("bound");
        let handed = Listener::handed(socket.into()).expect("it listens");
        assert_eq!(handed.place, Place::Unix(path.clone()));
        let listeners = Listeners::bind(&Listen::sample(), vec![handed]).expect("bound");
        assert_eq!((listeners.iter().count(), listeners.address()), (1, None));
        drop(listeners);
        assert!(path.exists(), "whoever made it removes it");
    }

    #[test]
    fn what_does_not_listen_is_not_taken() {
        let flags = SocketFlags::CLOEXEC;
        for kind in [SocketType::STREAM, SocketType::DGRAM] {
            let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None);
            assert!(Listener::handed(socket.expect("a socket")).is_err());
        }
        assert!(Listener::handed(std::fs::File::open("/dev/null").expect("there").into()).is_err());
    }
}
