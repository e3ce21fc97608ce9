//! Which pages may open connections from a browser.

use std::fmt;

/// Where a page comes from, as browsers state it. Source: RFC 6454, §4 and §6.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Scheme, host and port, in lower case and without the scheme's default port.
    Tuple {
        /// `https`
        scheme: Box<str>,
        /// A name, an IPv4 address, or an IPv6 address in brackets.
        host: Box<str>,
        /// The port, unless it is the scheme's own.
        port: Option<u16>,
    },
    /// `null`: a page without an origin, such as a local file or a sandboxed frame.
    Opaque,
}

/// The origins an operator allows. The default allows every one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllowedOrigins(Option<Vec<Entry>>);

/// An entry that is no origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{entry:?} is not an origin: scheme://host or scheme://host:port, without a path")]
pub struct InvalidOrigin {
    /// The entry, as configured.
    pub entry: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Entry {
    One(Origin),
    /// Whatever stands for the first label of the host, and the rest of it from its dot on.
    AnyLabel {
        scheme: Box<str>,
        suffix: Box<str>,
        port: Option<u16>,
    },
}

impl AllowedOrigins {
    /// Parses a comma-separated list of origins. The first label of a host may be `*`: exactly one
    /// label. Of no entry at all every origin is allowed.
    ///
    /// Errors: names the first entry that is none.
    pub fn parse(csv: &str) -> Result<Self, InvalidOrigin> {
        let entries = csv.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let entries = entries
            .map(|entry| Entry::parse(entry).ok_or_else(|| InvalidOrigin { entry: entry.into() }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self((!entries.is_empty()).then_some(entries)))
    }

    /// Whether a page of that origin may connect; `None` is an `Origin` header that states none.
    pub fn allow(&self, origin: Option<&Origin>) -> bool {
        let Some(entries) = &self.0 else {
            return true;
        };
        origin.is_some_and(|origin| entries.iter().any(|entry| entry.allows(origin)))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let wildcard = text.split_once("://*.");
        let Some((scheme, rest)) = wildcard else {
            return Origin::parse(text.as_bytes()).map(Self::One);
        };
        if !rest.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return None;
        }
        let one = Origin::parse(format!("{scheme}://any.{rest}").as_bytes())?;
        let Origin::Tuple { scheme, host, port } = one else {
            return None;
        };
        Some(Self::AnyLabel { scheme, suffix: host.strip_prefix("any")?.into(), port })
    }

    fn allows(&self, origin: &Origin) -> bool {
        match (self, origin) {
            (Self::One(one), origin) => one == origin,
            (
                Self::AnyLabel { scheme, suffix, port },
                Origin::Tuple { scheme: of, host, port: at },
            ) => {
                let label = host.strip_suffix(&**suffix);
                let is_label = label.is_some_and(|label| !label.is_empty() && !label.contains('.'));
                scheme == of && port == at && is_label
            }
            (Self::AnyLabel { .. }, Origin::Opaque) => false,
        }
    }
}

impl Origin {
    /// Reads the value of an `Origin` header; `None` when it states no single origin.
    ///
    /// Cost: allocates the parts, at most `ORIGIN_BYTES_MAX`.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value.trim_ascii()).ok()?;
        if text == "null" {
            return Some(Self::Opaque);
        }
        if text.len() > ORIGIN_BYTES_MAX {
            return None;
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority)?;
        let host = host.to_ascii_lowercase();
        if !is_scheme(&scheme) || !is_host(&host) {
            return None;
        }
        let port = port.filter(|&port| Some(port) != default_port(&scheme));
        Some(Self::Tuple { scheme: scheme.into(), host: host.into(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opaque => f.write_str("null"),
            Self::Tuple { scheme, host, port: None } => write!(f, "{scheme}://{host}"),
            Self::Tuple { scheme, host, port: Some(port) } => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

/// Host and port of an authority; `None` when what follows the colon is no port.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[end_of_host..].find(':') else {
        return Some((authority, None));
    };
    let (host, port) = authority.split_at(end_of_host + colon);
    let digits = &port[1..];
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    Some((host, Some(digits.parse().ok().filter(|_| is_plain)?)))
}

fn is_scheme(scheme: &str) -> bool {
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(of_alphabet)
}

/// Names as browsers send them: ASCII, other scripts encoded. No user, path or wildcard.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(of_alphabet)
}

const fn default_port(scheme: &str) -> Option<u16> {
    match scheme.as_bytes() {
        b"http" | b"ws" => Some(80),
        b"https" | b"wss" => Some(443),
        _ => None,
    }
}

/// The longest origin read: a scheme, the longest host name, a port.
const ORIGIN_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str) -> bool {
        let allowed = AllowedOrigins::parse(list).unwrap();
        allowed.allow(Origin::parse(origin.as_bytes()).as_ref())
    }

    #[test]
    fn without_a_list_every_origin_is_allowed() {
        for origin in ["https://evil.example", "null", "", "%%"] {
            assert!(allows("", origin) && allows(" , ", origin), "{origin}");
        }
    }

    #[test]
    fn the_same_origin_may_be_written_in_several_ways() {
        for origin in ["https://app.corp", "https://app.corp:443", "HTTPS://App.CORP"] {
            assert!(allows("https://app.corp", origin), "{origin}");
            assert!(allows(origin, "https://app.corp"), "{origin}");
        }
        assert!(allows("http://app.corp:80", "http://app.corp"));
        assert!(allows("http://[::1]:8080", "http://[::1]:8080"));
    }

    #[test]
    fn other_origins_are_not_allowed() {
        for origin in [
            "http://app.corp",
            "https://app.corp:8443",
            "https://app.corp.evil.example",
            "https://evil-app.corp",
            "https://x.app.corp",
            "https://app.corp.",
            "https://user@app.corp",
            "https://app.corp/",
            "https://app.corp https://app.corp",
            "https://app.corp,https://app.corp",
            "app.corp",
            "https://",
            "null",
            "",
            "https://app.corp:0x1bb",
            "https://app.corp:",
            "https://app.corp\u{0}",
        ] {
            assert!(!allows("https://app.corp", origin), "{origin}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let list = "https://*.corp, https://*.eu.corp:8443";
        assert!(allows(list, "https://app.corp"));
        assert!(allows(list, "https://a-1.eu.corp:8443"));
        for origin in [
            "https://corp",
            "https://.corp",
            "https://a.b.corp",
            "https://acorp",
            "http://app.corp",
            "https://app.corp:8443",
            "https://app.corp.evil.example",
            "https://*.corp",
            "null",
        ] {
            assert!(!allows(list, origin), "{origin}");
        }
    }

    #[test]
    fn pages_without_an_origin_and_apps_can_be_listed() {
        assert!(allows("null", "null"));
        assert!(allows("capacitor://localhost", "capacitor://localhost"));
        assert!(allows("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"));
    }

    #[test]
    fn a_bad_entry_is_named() {
        for entry in [
            "app.corp",
            "https://app.corp/",
            "https://a*.corp",
            "https://x.*.corp",
            "https://*",
            "https://*.",
            "https://*.*.corp",
            "https://app.corp:70000",
            "*",
            "://app.corp",
            "1https://app.corp",
        ] {
            let error = AllowedOrigins::parse(&format!("https://b.corp, {entry}")).unwrap_err();
            assert_eq!(error, InvalidOrigin { entry: entry.to_owned() });
        }
    }

    #[test]
    fn an_origin_is_shown_as_it_is_compared() {
        let shown = |text: &str| Origin::parse(text.as_bytes()).map(|origin| origin.to_string());
        assert_eq!(shown(" HTTPS://App.Corp:443 ").unwrap(), "https://app.corp");
        assert_eq!(shown("http://[::1]:81").unwrap(), "http://[::1]:81");
        assert_eq!(shown("null").unwrap(), "null");
        assert_eq!(shown(&format!("https://{}", "a".repeat(300))), None);
    }
}
