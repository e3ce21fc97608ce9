//! Whose connection it is, behind proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies(Vec<Network>);

/// The other end of a connection, and what its word is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Where it is. An IPv4-mapped address is unmapped.
    pub address: IpAddr,
    /// Whether it is a trusted proxy: what it says of its own peers is believed.
    pub is_proxy: bool,
}

impl Peer {
    /// A process of this host that came through a Unix socket: whoever may open that is trusted.
    /// It has no address; loopback stands for it.
    pub const LOCAL: Self = Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_proxy: true };
}

/// An entry that is neither an address nor a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{entry:?} is neither an IP address nor a network in CIDR form")]
pub struct InvalidProxy {
    /// The entry, as configured.
    pub entry: String,
}

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl TrustedProxies {
    /// Parses a comma-separated list of addresses and CIDR networks; empty entries do not count.
    ///
    /// Errors: names the first entry that is neither.
    pub fn parse(csv: &str) -> Result<Self, InvalidProxy> {
        let entries = csv.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                Network::parse(entry).ok_or_else(|| InvalidProxy { entry: entry.to_owned() })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a connection from that address is worth.
    pub fn peer(&self, address: IpAddr) -> Peer {
        let address = address.to_canonical();
        Peer { address, is_proxy: self.contains(address) }
    }

    /// What a connection is worth by this list that came while another may have been in force. One
    /// through a Unix socket is worth what it was.
    pub fn peer_again(&self, before: Peer, is_local: bool) -> Peer {
        match is_local && before == Peer::LOCAL {
            true => before,
            false => self.peer(before.address),
        }
    }

    /// Whether the address is one of them. IPv4-mapped addresses count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(entry: &str) -> Option<Self> {
        let (address, prefix) = match entry.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits: u8 = match prefix {
            None => bits_max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        if prefix_bits > bits_max {
            return None;
        }
        // A network of mapped addresses is a network of IPv4 addresses.
        match (address.to_canonical(), prefix_bits.checked_sub(96)) {
            (mapped @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => {
                Some(Self { address: mapped, prefix_bits: bits })
            }
            _ => Some(Self { address, prefix_bits }),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = Ipv4Addr::to_bits(network) ^ Ipv4Addr::to_bits(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = Ipv6Addr::to_bits(network) ^ Ipv6Addr::to_bits(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The client's address: the right-most hop that is not a trusted proxy.
///
/// Only a trusted peer's `X-Forwarded-For` counts; `forwarded_for` are its lines in the order sent.
/// A hop that is no address ends the walk at the hop before it, since nothing to its left can be
/// believed. When all are trusted, the left-most counts. IPv4-mapped addresses come out as IPv4. A
/// hop may carry a port.
pub fn client_address<'h>(
    peer: Peer,
    forwarded_for: impl Iterator<Item = &'h [u8]>,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut client = peer.address;
    if !peer.is_proxy {
        return client;
    }
    let lines: Vec<&[u8]> = forwarded_for.collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    for hop in hops {
        let Some(address) = parse_hop(hop) else {
            return client;
        };
        client = address;
        if !trusted.contains(client) {
            return client;
        }
    }
    client
}

fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str], trusted: &str) -> String {
        let trusted = TrustedProxies::parse(trusted).unwrap();
        let lines = lines.iter().map(|line| line.as_bytes());
        let peer = trusted.peer(peer.parse().unwrap());
        client_address(peer, lines, &trusted).to_string()
    }

    #[test]
    fn an_untrusted_peer_cannot_claim_an_address() {
        assert_eq!(client("9.9.9.9", &["1.2.3.4"], "10.0.0.0/8"), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &["1.2.3.4"], ""), "9.9.9.9");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let trusted = "10.0.0.0/8,2001:db8::/32";
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4"], trusted), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4,10.9.9.9"], trusted), "1.2.3.4");
        assert_eq!(client("2001:db8::1", &["2001:db9::7, 2001:db8::2"], trusted), "2001:db9::7");
    }

    #[test]
    fn when_every_hop_is_trusted_the_left_most_counts() {
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.0/8"), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
    }

    #[test]
    fn a_hop_that_is_no_address_hides_what_is_left_of_it() {
        assert_eq!(client("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.0/8"), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["1.2.3.4,"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4\u{e9}"], "10.0.0.0/8"), "10.0.0.1");
    }

    #[test]
    fn mapped_addresses_are_unmapped() {
        assert_eq!(client("::ffff:9.9.9.9", &[], ""), "9.9.9.9");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.2.3.4"], "10.0.0.1"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["1.2.3.4"], "::ffff:10.0.0.0/104"), "1.2.3.4");
    }

    #[test]
    fn a_local_proxy_is_believed_without_being_listed() {
        let trusted = TrustedProxies::parse("10.0.0.0/8").unwrap();
        let named = |line: &'static [u8]| {
            client_address(Peer::LOCAL, [line].into_iter(), &trusted).to_string()
        };
        assert_eq!(named(b"6.6.6.6, 1.2.3.4"), "1.2.3.4");
        assert_eq!(named(b"6.6.6.6, 10.0.0.2"), "6.6.6.6");
        assert_eq!(named(b""), "127.0.0.1");
    }

    #[test]
    fn forged_forwarded_addresses_end_at_the_last_trusted_hop() {
        let trusted = "10.0.0.0/8";
        for forged in [
            "",
            ",",
            ", ,\t,",
            "unknown",
            "_hidden",
            "for=1.2.3.4",
            "1.2.3.4:99999",
            "1.2.3.4:",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]x",
            "01.2.3.4",
            "1.2.3.4/8",
            "fe80::1%eth0",
            "'; drop table",
        ] {
            let lines = ["9.9.9.9", &format!("{forged}, 10.0.0.2")];
            assert_eq!(client("10.0.0.1", &lines, trusted), "10.0.0.2", "{forged:?}");
            assert_eq!(client("9.9.9.8", &[forged], trusted), "9.9.9.8", "{forged:?}");
        }
        let hops = "1.1.1.1, ".repeat(1500) + "1.2.3.4";
        assert_eq!(client("10.0.0.1", &[&hops], trusted), "1.2.3.4");
        let lines = vec!["10.0.0.7"; 1500];
        assert_eq!(client("10.0.0.1", &lines, trusted), "10.0.0.7");
    }

    #[test]
    fn hops_may_carry_ports() {
        assert_eq!(client("10.0.0.1", &["1.2.3.4:80"], "10.0.0.1"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"], "10.0.0.1"), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"], "10.0.0.1"), "2001:db8::1");
    }

    #[test]
    fn a_bad_entry_is_named() {
        for entry in ["10.0.0.0/33", "x", "1.2.3", "::/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/+8"]
        {
            let error = TrustedProxies::parse(&format!(" 127.0.0.1 , {entry}")).unwrap_err();
            assert_eq!(error, InvalidProxy { entry: entry.to_owned() });
        }
    }

    #[test]
    fn prefixes_of_all_lengths_match_by_bits() {
        let all = TrustedProxies::parse("0.0.0.0/0").unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
        let one = TrustedProxies::parse("192.168.1.128/25").unwrap();
        assert!(one.contains("192.168.1.200".parse().unwrap()));
        assert!(!one.contains("192.168.1.100".parse().unwrap()));
    }
}
