//! Where the load goes, and from which addresses.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::flow::Between;
use crate::secured::Trust;
use crate::subject::Subject;
use crate::upgrade::Upgrade;
use crate::wire::Wire;

/// A process under test as the load sees it.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) between: Between,
    /// Whose certificate to trust, where it speaks TLS.
    pub(crate) trust: Option<Trust>,
    /// Loopback addresses to connect from; none in particular when zero.
    pub(crate) sources: usize,
}

impl Target {
    /// A subject that is connected to plainly and from one address.
    pub(crate) fn of(subject: &Subject) -> Self {
        Self { address: subject.address, between: subject.between, trust: None, sources: 0 }
    }

    /// Connects; `index` chooses the address to connect from.
    pub(crate) fn connect(&self, index: usize) -> Result<Wire> {
        let socket = match self.sources {
            0 => TcpStream::connect(self.address).context("connecting")?,
            sources => connect_from(source(index % sources), self.address)?,
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(match &self.trust {
            None => Wire::Plain(socket),
            Some(trust) => Wire::secured(socket, trust.connection()?),
        })
    }

    /// Connects and, where a relay listens, asks for the WebSocket.
    pub(crate) fn open(&self, index: usize, upgrade: &Upgrade<'_>) -> Result<Wire> {
        let mut wire = self.connect(index)?;
        if self.between == Between::Relay {
            upgrade.perform(&mut wire)?;
        }
        Ok(wire)
    }
}

/// The loopback address of a number: three bytes that are neither first nor last of their range.
fn source(number: usize) -> Ipv4Addr {
    let digit = |place: usize| (number / PER_BYTE.pow(place as u32) % PER_BYTE) as u8 + 1;
    Ipv4Addr::new(127, digit(2), digit(1), digit(0))
}

fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &to).with_context(|| format!("connecting from {source}"))?;
    Ok(TcpStream::from(socket))
}

/// Values of one byte of an address.
const PER_BYTE: usize = 250;
/// How long an answer may take while connections are opened.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_stay_on_loopback() {
        let addresses: std::collections::HashSet<_> = (0..100_000).map(source).collect();
        assert_eq!(addresses.len(), 100_000);
        assert!(addresses.iter().all(Ipv4Addr::is_loopback));
        assert_eq!(source(0), Ipv4Addr::new(127, 1, 1, 1));
        assert_eq!(source(250), Ipv4Addr::new(127, 1, 2, 1));
    }
}
