//! Request heads under a byte limit.

use std::fmt;

use httparse::Status;
use url::Url;

use super::body::Body;

/// Why bytes are not a request we accept. Always the peer's fault; the connection ends with the
/// answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1, or something two servers could read differently.
    #[error("request is malformed")]
    BadRequest,
    /// The head is larger than the limit.
    #[error("request head is too large")]
    TooLarge,
}

impl HeadError {
    /// What the peer is sent before the connection is closed.
    pub const fn response(self) -> &'static [u8] {
        match self {
            Self::BadRequest => b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            Self::TooLarge => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n"
            }
        }
    }
}

/// A request head, whole and judged.
///
/// Shape: borrows the bytes it was parsed from. Header values are bytes as sent, white space at the
/// ends removed; where text is needed they are Latin-1, as the reference reads them.
#[derive(Clone)]
pub struct Head<'b> {
    method: &'b str,
    target: &'b [u8],
    minor: u8,
    headers: Vec<(&'b str, &'b [u8])>,
    len: usize,
    body: Body,
}

impl fmt::Debug for Head<'_> {
    /// Targets and headers may carry tokens, so only their shape is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("headers", &self.headers.len())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A request target resolved against the Host header.
#[derive(Clone, Eq, PartialEq)]
pub struct RequestTarget(Url);

impl RequestTarget {
    /// The path, dot segments resolved, percent-encoding kept.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The query without its question mark, as sent.
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// The first query parameter of that name, decoded: `+` is a space, bad UTF-8 becomes U+FFFD.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.0.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl fmt::Debug for RequestTarget {
    /// The query may carry a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestTarget").field(&self.path()).finish()
    }
}

/// Parses the request head that `bytes` begins with.
///
/// `Ok(None)` asks for more bytes. Errors: malformed, or larger than `limit` bytes; then the
/// connection cannot go on. Stricter than the grammar where two servers could disagree about where
/// a request ends: bare line feeds, folded headers, repeated or contradicting lengths, unknown
/// transfer encodings, and upgrades with a body are refused. Cost: one pass over the bytes per
/// call, one allocation for the headers. Source: RFC 9112; methods and the rule for Host as the
/// reference's parser has them.
pub fn parse_head(bytes: &[u8], limit: usize) -> Result<Option<Head<'_>>, HeadError> {
    let window = &bytes[..bytes.len().min(limit)];
    let head = match parse(window, FEW_HEADERS) {
        Err(Failure::TooManyHeaders) => parse(window, HEADER_COUNT_MAX),
        other => other,
    };
    match head {
        Ok(Some(head)) => {
            judge(&head, &window[..head.len])?;
            Ok(Some(head))
        }
        Ok(None) if bytes.len() >= limit => Err(HeadError::TooLarge),
        Ok(None) => Ok(None),
        Err(Failure::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(Failure::BadRequest) => Err(HeadError::BadRequest),
    }
}

enum Failure {
    BadRequest,
    TooManyHeaders,
}

fn parse(bytes: &[u8], header_count_max: usize) -> Result<Option<Head<'_>>, Failure> {
    let mut headers = vec![httparse::EMPTY_HEADER; header_count_max];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Failure::TooManyHeaders),
        Err(_) => return Err(Failure::BadRequest),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Failure::BadRequest);
    };
    let headers: Vec<_> =
        request.headers.iter().map(|header| (header.name, header.value)).collect();
    let body = Body::of(&headers, minor).ok_or(Failure::BadRequest)?;
    Ok(Some(Head { method, target: target.as_bytes(), minor, headers, len, body }))
}

/// What the parser lets through and we do not.
fn judge(head: &Head<'_>, bytes: &[u8]) -> Result<(), HeadError> {
    let bare_line_feed = bytes
        .iter()
        .enumerate()
        .any(|(i, &byte)| byte == b'\n' && (i == 0 || bytes[i - 1] != b'\r'));
    let target_starts =
        matches!(head.target.first(), Some(b'/' | b'*' | b'a'..=b'z' | b'A'..=b'Z'));
    let host_count = head.all("host").count();
    let host_fits = match host_count {
        0 => head.minor == 0 || head.is_upgrade(),
        count => count == 1,
    };
    // What follows an upgrade is another protocol; who took it for a body would not notice.
    let upgrade_with_body = head.is_upgrade() && !matches!(head.body, Body::None | Body::Length(0));
    if upgrade_with_body {
        return Err(HeadError::BadRequest);
    }
    if bare_line_feed || !target_starts || !host_fits || !METHODS.contains(&head.method) {
        return Err(HeadError::BadRequest);
    }
    Ok(())
}

impl<'b> Head<'b> {
    /// The method, in upper case.
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target as sent.
    pub fn target(&self) -> &'b [u8] {
        self.target
    }

    /// 0 or 1, of HTTP/1.0 or HTTP/1.1.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// All headers in the order sent.
    pub fn headers(&self) -> &[(&'b str, &'b [u8])] {
        &self.headers
    }

    /// Bytes of the head; the body, the next request or the first frame starts there.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first header of that name. Names compare without case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// Every header of that name, in the order sent.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// Every header of that name joined with `, `, as Latin-1: what the reference's parser hands
    /// out.
    pub fn joined(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        let mut joined = latin1(values.next()?);
        for value in values {
            joined.push_str(", ");
            joined.push_str(&latin1(value));
        }
        Some(joined)
    }

    /// Whether the connection may carry another request after this one.
    pub fn keep_alive(&self) -> bool {
        if self.minor == 0 {
            self.connection_has("keep-alive")
        } else {
            !self.connection_has("close")
        }
    }

    /// Whether the peer wants to leave HTTP: it sent `Upgrade`, and `Connection` says so.
    pub fn is_upgrade(&self) -> bool {
        self.header("upgrade").is_some() && self.connection_has("upgrade")
    }

    /// How the request's body is delimited.
    pub fn body(&self) -> Body {
        self.body
    }

    /// The target as a URL, read like `new URL(target, "http://" + host)`. A request without Host
    /// is read as if it were for `localhost`. `None` when target and Host make no URL.
    pub fn request_target(&self) -> Option<RequestTarget> {
        let host = self.header("host").map_or_else(|| "localhost".to_owned(), latin1);
        let base = Url::parse(&format!("http://{host}")).ok()?;
        let url = Url::options().base_url(Some(&base)).parse(&latin1(self.target)).ok()?;
        Some(RequestTarget(url))
    }

    fn connection_has(&self, token: &str) -> bool {
        self.all("connection")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Bytes as text in which every byte is one character.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Headers that nearly every request fits in.
const FEW_HEADERS: usize = 32;

/// Headers one request may have; the shortest are four bytes, so the byte limit allows more.
/// Reached: 431.
const HEADER_COUNT_MAX: usize = 1024;

/// The methods the reference's parser knows.
const METHODS: [&str; 35] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
