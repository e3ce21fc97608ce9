//! HTTP/1.1 heads and bodies: enough to read what a relay answers and what it asks a platform.

/// The first line and the headers of a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    /// Names as received, values without the surrounding blanks.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Takes the head off the front of `bytes`: the head and how many bytes it was, once the
    /// empty line has arrived.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END)?;
        let text = latin1(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Some((Self { first_line, headers }, end + HEAD_END.len()))
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The number in a status line; `None` when it is not one.
    pub(crate) fn status(&self) -> Option<u16> {
        let rest = self.first_line.strip_prefix("HTTP/1.")?.get(2..)?;
        rest.split(' ').next()?.parse().ok()
    }

    /// How the end of the body that follows a request with this head is found.
    pub(crate) fn request_body(&self) -> BodyLength {
        self.declared_body().unwrap_or(BodyLength::Exactly(0))
    }

    /// How the end of the body that follows a response with this head is found.
    pub(crate) fn response_body(&self) -> BodyLength {
        match self.status() {
            Some(100..=199 | 204 | 304) => BodyLength::Exactly(0),
            _ => self.declared_body().unwrap_or(BodyLength::UntilEnd),
        }
    }

    fn declared_body(&self) -> Option<BodyLength> {
        let coding = self.header("transfer-encoding").map(str::to_ascii_lowercase);
        if coding.is_some_and(|coding| coding.contains("chunked")) {
            return Some(BodyLength::Chunked);
        }
        self.header("content-length")?.parse().ok().map(BodyLength::Exactly)
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyLength {
    Exactly(usize),
    Chunked,
    /// With the connection.
    UntilEnd,
}

/// A body as far as it has arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    /// Bytes it took on the wire.
    pub(crate) wire_bytes: usize,
    pub(crate) complete: bool,
}

impl Body {
    /// Reads a body off the front of `wire`; `ended` when nothing will follow.
    pub(crate) fn read(wire: &[u8], length: BodyLength, ended: bool) -> Self {
        match length {
            BodyLength::Exactly(length) => {
                let taken = length.min(wire.len());
                let bytes = wire[..taken].to_vec();
                Self { bytes, wire_bytes: taken, complete: taken == length }
            }
            BodyLength::UntilEnd => {
                Self { bytes: wire.to_vec(), wire_bytes: wire.len(), complete: ended }
            }
            BodyLength::Chunked => Self::read_chunks(wire),
        }
    }

    fn read_chunks(wire: &[u8]) -> Self {
        let mut bytes = Vec::new();
        let mut rest = wire;
        while let Some((size, from)) = chunk_size(rest) {
            if size == 0 {
                // The trailer section, of which nobody makes use, ends with an empty line.
                let (trailer_bytes, complete) = match find(from, b"\r\n") {
                    Some(0) => (2, true),
                    Some(_) => match find(from, HEAD_END) {
                        Some(end) => (end + HEAD_END.len(), true),
                        None => (from.len(), false),
                    },
                    None => (from.len(), false),
                };
                let wire_bytes = wire.len() - from.len() + trailer_bytes;
                return Self { bytes, wire_bytes, complete };
            }
            let Some(after) = from.get(size.saturating_add(2)..) else {
                bytes.extend(&from[..size.min(from.len())]);
                break;
            };
            bytes.extend(&from[..size]);
            rest = after;
        }
        Self { bytes, wire_bytes: wire.len(), complete: false }
    }
}

/// A response with the transfer coding taken off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

impl Response {
    /// The responses in `wire`, one after the other; the last one may be incomplete.
    pub(crate) fn parse_all(mut wire: &[u8], ended: bool) -> Vec<Self> {
        let mut responses = Vec::new();
        while let Some((head, head_bytes)) = Head::parse(wire) {
            let body = Body::read(&wire[head_bytes..], head.response_body(), ended);
            wire = &wire[head_bytes + body.wire_bytes..];
            responses.push(Self { head, body });
        }
        responses
    }
}

/// Bytes as characters of the same number.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Characters as bytes of the same number; text beyond Latin-1 as UTF-8.
pub(crate) fn latin1_bytes(text: &str) -> Vec<u8> {
    let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    bytes.unwrap_or_else(|_| text.as_bytes().to_vec())
}

fn chunk_size(wire: &[u8]) -> Option<(usize, &[u8])> {
    let end = find(wire, b"\r\n")?;
    let line = std::str::from_utf8(&wire[..end]).ok()?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    Some((usize::from_str_radix(digits, 16).ok()?, &wire[end + 2..]))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

const HEAD_END: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_responses_are_told_apart_by_their_lengths() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\n\
            Transfer-Encoding: chunked\r\n\r\n3;x=y\r\ncde\r\n1\r\nf\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Error\r\n\r\nrest";
        let responses = Response::parse_all(wire, true);
        let seen: Vec<_> = responses
            .iter()
            .map(|r| (r.head.status().unwrap(), r.body.bytes.as_slice(), r.body.complete))
            .collect();
        let expected: [(u16, &[u8], bool); 4] =
            [(200, b"ab", true), (404, b"cdef", true), (204, b"", true), (500, b"rest", true)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_unfinished_body_is_known_as_such() {
        for wire in ["5\r\nab", "2\r\nab\r\n", "2\r\nab\r\n0\r\n", "2\r\nab\r\n0\r\nA: b\r\n"] {
            let body = Body::read(wire.as_bytes(), BodyLength::Chunked, true);
            assert_eq!((body.bytes.as_slice(), body.complete), (&b"ab"[..], false), "{wire:?}");
        }
        assert!(!Body::read(b"abc", BodyLength::Exactly(4), true).complete);
        assert!(!Body::read(b"abc", BodyLength::UntilEnd, false).complete);
    }

    #[test]
    fn trailers_belong_to_the_body_on_the_wire() {
        let wire = b"1\r\na\r\n0\r\nA: b\r\n\r\nnext";
        let body = Body::read(wire, BodyLength::Chunked, false);
        assert_eq!((body.wire_bytes, body.complete), (wire.len() - 4, true));
    }

    #[test]
    fn a_status_needs_a_status_line() {
        let (head, bytes) = Head::parse(b"HTTP/1.0 431\r\nA:  b \r\n\r\nx").unwrap();
        assert_eq!((head.status(), head.header("a"), bytes), (Some(431), Some("b"), 24));
        assert_eq!(Head::parse(b"GET / HTTP/1.1\r\n\r\n").unwrap().0.status(), None);
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
