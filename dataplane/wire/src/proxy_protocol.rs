//! What a proxy says in front of a connection about who is behind it: the PROXY protocol, both
//! versions. Source: "The PROXY protocol, versions 1 & 2", HAProxy Technologies.
//!
//! The header is believed word for word, so it may be asked for only where every peer is a trusted
//! proxy; nothing here tries to find out whether there is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A whole header at the front of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyHeader {
    /// Bytes it takes; what follows is the connection's own.
    pub len: usize,
    /// Who is behind the proxy, IPv4-mapped addresses unmapped. `None` when the proxy speaks for
    /// itself, as in its health checks, or names nobody with an internet address.
    pub source: Option<IpAddr>,
}

/// Why bytes are not the front of a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// Neither version begins like this.
    #[error("no PROXY header")]
    Absent,
    /// A line of version 1 that means nothing.
    #[error("malformed PROXY line")]
    MalformedLine,
    /// A version, command, family or transport that version 2 does not define.
    #[error("undefined PROXY header field")]
    UndefinedField,
    /// The addresses do not fit into the length stated.
    #[error("PROXY header too short for its addresses")]
    Short,
    /// More than [`PROXY_HEADER_BYTES_MAX`], or a line beyond what version 1 allows.
    #[error("PROXY header too long")]
    Long,
}

/// Reads the header at the front of a connection's first bytes; `None` while more are needed.
///
/// The answer depends on the bytes alone, not on the pieces they came in: once it is an error or a
/// header, more bytes do not change it. Of version 2 the values after the addresses are skipped.
/// Cost: version 1 looks at its at most 107 bytes again each time, version 2 at the first 16.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        return parse_binary(bytes, rest);
    }
    if bytes.starts_with(LINE_START) {
        return parse_line(bytes);
    }
    if SIGNATURE.starts_with(bytes) || LINE_START.starts_with(bytes) {
        return Ok(None);
    }
    Err(ProxyHeaderError::Absent)
}

/// Version 1: `PROXY TCP4 <source> <destination> <source port> <destination port>\r\n`.
fn parse_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if within.len() == LINE_BYTES_MAX { Err(ProxyHeaderError::Long) } else { Ok(None) };
    };
    let text = within[LINE_START.len()..end].strip_suffix(b"\r");
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let source = text.and_then(line_source).ok_or(ProxyHeaderError::MalformedLine)?;
    Ok(Some(ProxyHeader { len: end + 1, source }))
}

/// What a line says behind its first word; the outer `None` when that is nothing.
fn line_source(text: &str) -> Option<Option<IpAddr>> {
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = address()?;
    address()?;
    let ports = [words.next()?, words.next()?];
    let is_whole = ports.into_iter().all(is_port) && words.next().is_none();
    is_whole.then(|| Some(source.to_canonical()))
}

fn is_port(word: &str) -> bool {
    let is_plain = word == "0" || !word.starts_with(['0', '+']);
    is_plain && word.parse::<u16>().is_ok()
}

/// Version 2: the signature, four bytes that say what follows, and that many bytes.
fn parse_binary(bytes: &[u8], rest: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let is_proxied = match rest.first() {
        None => return Ok(None),
        Some(0x20) => false,
        Some(0x21) => true,
        Some(_) => return Err(ProxyHeaderError::UndefinedField),
    };
    let addresses_bytes = match rest.get(1) {
        None => return Ok(None),
        // The real ends hold, whatever else is said.
        Some(_) if !is_proxied => 0,
        Some(0x00) => 0,
        Some(0x11 | 0x12) => INET_BYTES,
        Some(0x21 | 0x22) => INET6_BYTES,
        Some(0x31 | 0x32) => UNIX_BYTES,
        Some(_) => return Err(ProxyHeaderError::UndefinedField),
    };
    let Some(&[high, low]) = rest.get(2..4) else {
        return Ok(None);
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    let len = SIGNATURE.len() + 4 + body_len;
    if body_len < addresses_bytes {
        return Err(ProxyHeaderError::Short);
    }
    if len > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::Long);
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let source: Option<IpAddr> = match addresses_bytes {
        INET_BYTES => rest[4..].first_chunk::<4>().map(|&bytes| bytes.into()),
        INET6_BYTES => rest[4..].first_chunk::<16>().map(|&bytes| bytes.into()),
        _ => None,
    };
    Ok(Some(ProxyHeader { len, source: source.map(|address| address.to_canonical()) }))
}

/// Bytes of a header that are accepted: addresses, and values such as a certificate's. Protects
/// memory from a proxy that has lost its way. Reached: the connection is closed, with a count.
/// Ours: the protocol allows 64 KiB, and proxies send a few hundred bytes.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// The longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

// What the addresses of each family take: two addresses and two ports, or two names.
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
