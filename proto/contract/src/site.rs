//! Whom the limits per address count.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Addresses that one party has to itself: an IPv4 address, or the /64 network of an IPv6 address.
///
/// Whoever has an IPv6 address has all of its /64 and could otherwise be somebody else with every
/// connection. Logs and answers keep the whole address. Source: RFC 6177, RFC 7421.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Site(IpAddr);

/// Bits of an IPv6 address that name its network.
const NETWORK_BITS: u32 = 64;

impl From<IpAddr> for Site {
    /// IPv4-mapped addresses are unmapped.
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let host_bits = Ipv6Addr::BITS - NETWORK_BITS;
                Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for Site {
    /// The first address of the network.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(address: &str) -> Site {
        Site::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn ipv4_addresses_stand_alone() {
        assert_ne!(site("192.0.2.1"), site("192.0.2.2"));
    }

    #[test]
    fn ipv4_mapped_addresses_are_the_addresses_they_map() {
        assert_eq!(site("::ffff:192.0.2.1"), site("192.0.2.1"));
        assert_ne!(site("::ffff:192.0.2.1"), site("::ffff:192.0.2.2"));
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_are_one() {
        assert_eq!(site("2001:db8::1"), site("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(site("2001:db8::1"), site("2001:db8:0:1::1"));
    }
}
