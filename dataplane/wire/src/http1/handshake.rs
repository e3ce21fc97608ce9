//! The WebSocket handshake, step 12 of the order in the relay specification, section 3.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::head::Head;
use super::response::reason;

/// Judges the WebSocket headers of an admitted upgrade.
///
/// `Ok` is the whole 101 answer; it echoes the first subprotocol offered. `Err` is the whole answer
/// to send before the socket is closed. Both outlive the head. Extensions are never agreed to. The
/// answer may hold a token (a peer may offer it as its first subprotocol), so it must not be
/// logged. Source: RFC 6455 §4.2, and the reference's library for the order of checks and the
/// texts.
pub fn handshake(head: &Head<'_>) -> Result<Vec<u8>, Vec<u8>> {
    if head.method() != "GET" {
        return Err(refuse(405, "Invalid HTTP method", ""));
    }
    let is_websocket =
        head.joined("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    if !is_websocket {
        return Err(refuse(400, "Invalid Upgrade header", ""));
    }
    let Some(key) = head.joined("sec-websocket-key").filter(|key| is_key(key)) else {
        return Err(refuse(400, "Missing or invalid Sec-WebSocket-Key header", ""));
    };
    if !head.joined("sec-websocket-version").is_some_and(|version| is_version(&version)) {
        let supported = "Sec-WebSocket-Version: 13, 8\r\n";
        return Err(refuse(400, "Missing or invalid Sec-WebSocket-Version header", supported));
    }
    let offered = head.joined("sec-websocket-protocol");
    let protocol = match offered.as_deref().map(first_protocol) {
        None => None,
        Some(Some(first)) => Some(first),
        Some(None) => return Err(refuse(400, "Invalid Sec-WebSocket-Protocol header", "")),
    };
    Ok(switch(&key, protocol))
}

fn switch(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        accept(key)
    );
    if let Some(protocol) = protocol {
        answer.push_str("Sec-WebSocket-Protocol: ");
        answer.push_str(protocol);
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    answer.into_bytes()
}

/// The proof that we read the key. Source: RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

fn refuse(status: u16, message: &str, extra: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} {}\r\nConnection: close\r\nContent-Type: text/html\r\n\
         Content-Length: {}\r\n{extra}\r\n{message}",
        reason(status),
        message.len()
    )
    .into_bytes()
}

/// Sixteen bytes in base64, by form: `^[+/0-9A-Za-z]{22}==$`
fn is_key(key: &str) -> bool {
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.strip_suffix("==").is_some_and(|body| body.len() == 22 && body.bytes().all(of_alphabet))
}

/// Whether JavaScript's `Number(text)` is 13 or 8: the reference compares numbers, not texts.
fn is_version(text: &str) -> bool {
    let text = text.trim();
    let number = match text.get(..2) {
        Some("0x" | "0X") => whole(&text[2..], 16),
        Some("0o" | "0O") => whole(&text[2..], 8),
        Some("0b" | "0B") => whole(&text[2..], 2),
        _ => text.parse().ok(),
    };
    matches!(number, Some(13.0 | 8.0))
}

fn whole(digits: &str, radix: u32) -> Option<f64> {
    u8::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+')).map(f64::from)
}

/// The first subprotocol of a well-formed list without repetitions. A head has room for thousands:
/// each is held against its neighbours in order, not against all others.
fn first_protocol(offered: &str) -> Option<&str> {
    let mut names: Vec<&str> = Vec::new();
    let mut parts = offered.split(',').peekable();
    while let Some(part) = parts.next() {
        let is_space = |c| c == ' ' || c == '\t';
        let name = part.trim_start_matches(is_space);
        // White space may follow a name only where a comma follows too.
        let name = if parts.peek().is_some() { name.trim_end_matches(is_space) } else { name };
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return None;
        }
        names.push(name);
    }
    let first = names.first().copied();
    names.sort_unstable();
    let is_repeated = names.windows(2).any(|pair| pair[0] == pair[1]);
    first.filter(|_| !is_repeated)
}

/// Source: RFC 9110 §5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z'
        | b'^'..=b'z' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::super::parse_head;
    use super::*;

    fn answer(headers: &str) -> Result<String, String> {
        answer_to("GET", headers)
    }

    fn answer_to(method: &str, headers: &str) -> Result<String, String> {
        let request =
            format!("{method} /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{headers}\r\n");
        let head = parse_head(request.as_bytes(), 16 << 10).unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        handshake(&head).map(text).map_err(text)
    }

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const GOOD: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    #[test]
    fn a_good_request_is_switched() {
        assert_eq!(
            answer(GOOD).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn the_first_subprotocol_is_echoed() {
        for (offer, echoed) in [
            ("viewport.v1, auth.token", "viewport.v1"),
            ("auth.x ,\tb", "auth.x"),
            ("b\r\nSec-WebSocket-Protocol: c", "b"),
        ] {
            let answer = answer(&format!("{GOOD}Sec-WebSocket-Protocol: {offer}\r\n")).unwrap();
            assert!(
                answer.ends_with(&format!("Sec-WebSocket-Protocol: {echoed}\r\n\r\n")),
                "{offer}"
            );
        }
    }

    #[test]
    fn as_many_subprotocols_as_a_head_holds_cost_no_more_each_than_a_few() {
        let digits = || ('0'..='9').chain('a'..='z').chain('A'..='Z');
        let names = digits().flat_map(|first| digits().map(move |second| [first, second]));
        let names: Vec<String> = names.map(String::from_iter).collect();
        let time_of_each = |count: usize| {
            let offered = names[..count].join(",");
            let time_of_one_list = || {
                let began = std::time::Instant::now();
                assert_eq!(first_protocol(&offered), Some("00"));
                began.elapsed()
            };
            // Whoever interrupts makes none of them shorter.
            (0..20).map(|_| time_of_one_list()).min().unwrap_or_default() / count as u32
        };
        let (few, many) = (time_of_each(60), time_of_each(names.len()));
        // Holding each against all others takes sixty times as long.
        assert!(many < few * 10, "{few:?} each of 60 became {many:?} of {}", names.len());
    }

    #[test]
    fn malformed_or_repeated_subprotocols_are_refused() {
        let expected = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
            Content-Type: text/html\r\nContent-Length: 37\r\n\r\n\
            Invalid Sec-WebSocket-Protocol header";
        for offer in ["a,,b", "a,", ",a", "", "a b", "a,a", "a, b, a", "(a)", "a\u{e9}"] {
            let request = format!("{GOOD}Sec-WebSocket-Protocol: {offer}\r\n");
            assert_eq!(answer(&request).unwrap_err(), expected, "{offer}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        for version in ["13", "8", "13.0", "1.3e1", "0xd", "0b1000", "+13"] {
            let headers =
                format!("Upgrade: WebSocket\r\n{KEY}Sec-WebSocket-Version: {version}\r\n");
            assert!(answer(&headers).is_ok(), "{version}");
        }
        for version in ["12", "", "13, 13", "x", "0x+d", "NaN", "inf", "013x"] {
            let headers =
                format!("Upgrade: websocket\r\n{KEY}Sec-WebSocket-Version: {version}\r\n");
            assert_eq!(
                answer(&headers).unwrap_err(),
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/html\r\n\
                 Content-Length: 47\r\nSec-WebSocket-Version: 13, 8\r\n\r\n\
                 Missing or invalid Sec-WebSocket-Version header",
                "{version}"
            );
        }
    }

    #[test]
    fn other_failures_have_their_texts_in_order() {
        let version = "Sec-WebSocket-Version: 13\r\n";
        for (headers, message) in [
            (format!("Upgrade: h2c\r\n{KEY}{version}"), "Invalid Upgrade header"),
            (
                format!("Upgrade: websocket\r\nUpgrade: websocket\r\n{KEY}{version}"),
                "Invalid Upgrade header",
            ),
            (
                "Upgrade: websocket\r\nSec-WebSocket-Version: 1\r\n".to_owned(),
                "Missing or invalid Sec-WebSocket-Key header",
            ),
            (
                format!(
                    "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n{version}"
                ),
                "Missing or invalid Sec-WebSocket-Key header",
            ),
        ] {
            let refusal = answer(&headers).unwrap_err();
            let expected = format!("Content-Length: {}\r\n\r\n{message}", message.len());
            assert!(
                refusal.starts_with("HTTP/1.1 400 ") && refusal.ends_with(&expected),
                "{refusal}"
            );
        }
        let refusal = answer_to("POST", GOOD).unwrap_err();
        assert!(refusal.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refusal}");
        assert!(refusal.ends_with("\r\n\r\nInvalid HTTP method"), "{refusal}");
    }
}
