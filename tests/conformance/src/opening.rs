//! The opening handshake of a WebSocket, as a client that may write anything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::frame::{Frame, OPCODE_TEXT};
use crate::http_message::{Head, Response, latin1, latin1_bytes};
use crate::normalise::Normaliser;
use crate::step::Auth;

/// An upgrade request, placeholders expanded.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) port: u16,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) token: Option<(Auth, String)>,
    pub(crate) protocols: Vec<String>,
    /// Replace, remove (`None`) or add.
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) early: Vec<String>,
}

impl Opening {
    /// The request and the early frames, to be written at once.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.full_target());
        for (name, value) in self.all_headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = latin1_bytes(&text);
        for early in &self.early {
            bytes.extend(Frame::from_client(OPCODE_TEXT, early.as_bytes()).encode());
        }
        bytes
    }

    /// The `Sec-WebSocket-Accept` that answers this request.
    pub(crate) fn accept(&self) -> String {
        let key = self.all_headers().into_iter().find(|(name, _)| same_name(name, KEY_HEADER));
        accept_for(&key.map(|(_, key)| key).unwrap_or_default())
    }

    fn full_target(&self) -> String {
        let Some((Auth::Query, token)) = &self.token else {
            return self.target.clone();
        };
        let separator = if self.target.contains('?') { '&' } else { '?' };
        format!("{}{separator}token={}", self.target, percent_encoded(token))
    }

    fn all_headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![
            ("Host".to_owned(), format!("127.0.0.1:{}", self.port)),
            ("Upgrade".to_owned(), "websocket".to_owned()),
            ("Connection".to_owned(), "Upgrade".to_owned()),
            ("Sec-WebSocket-Version".to_owned(), "13".to_owned()),
            (KEY_HEADER.to_owned(), KEY.to_owned()),
        ];
        let mut protocols = self.protocols.clone();
        match &self.token {
            Some((Auth::Header, token)) => {
                headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
            }
            Some((Auth::Protocol, token)) => protocols.push(format!("auth.{token}")),
            Some((Auth::Query | Auth::None, _)) | None => {}
        }
        if !protocols.is_empty() {
            headers.push(("Sec-WebSocket-Protocol".to_owned(), protocols.join(", ")));
        }
        for (name, value) in &self.headers {
            let place = headers.iter().position(|(present, _)| same_name(present, name));
            match (place, value) {
                (Some(place), Some(value)) => headers[place] = (name.clone(), value.clone()),
                (Some(place), None) => {
                    headers.remove(place);
                }
                (None, Some(value)) => headers.push((name.clone(), value.clone())),
                (None, None) => {}
            }
        }
        headers
    }
}

/// What is observed of a 101 answer.
pub(crate) fn observe_accepted(head: &Head, accept: &str, normaliser: &Normaliser) -> Value {
    let text = |name| head.header(name).map(|value| normaliser.observe(value));
    json!({
        "status": 101,
        "accept": head.header("sec-websocket-accept") == Some(accept),
        "upgrade": text("upgrade"),
        "connection": head.header("connection").map(str::to_ascii_lowercase),
        "protocol": text("sec-websocket-protocol"),
        "extensions": text("sec-websocket-extensions"),
    })
}

/// What is observed of any other answer, or of none.
pub(crate) fn observe_refused(raw: &[u8], ended: bool, normaliser: &Normaliser) -> Value {
    let responses = Response::parse_all(raw, ended);
    let status = responses.first().and_then(|response| response.head.status());
    match observe_dated(&responses, normaliser) {
        Some(responses) => json!({"status": status, "responses": responses}),
        None => json!({"status": status, "raw": normaliser.observe(&latin1(raw)), "eof": ended}),
    }
}

/// Status, type and body of responses of which the first one has a date: their bytes differ
/// from run to run.
pub(crate) fn observe_dated(responses: &[Response], normaliser: &Normaliser) -> Option<Value> {
    responses.first()?.head.header("date")?;
    let observed = responses.iter().map(|response| {
        let body = String::from_utf8_lossy(&response.body.bytes);
        json!({
            "status": response.head.status(),
            "contentType": response.head.header("content-type"),
            "body": normaliser.observe(&body),
        })
    });
    Some(observed.collect())
}

/// RFC 6455 section 4.2.2, step 5.4.
fn accept_for(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize();
    STANDARD.encode(digest)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

const KEY_HEADER: &str = "Sec-WebSocket-Key";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening {
            port: 4711,
            method: "GET".to_owned(),
            target: "/ws?a=b".to_owned(),
            token: None,
            protocols: Vec::new(),
            headers: Vec::new(),
            early: Vec::new(),
        }
    }

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(opening().accept(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_plain_request_has_the_five_headers() {
        let expected = "GET /ws?a=b HTTP/1.1\r\nHost: 127.0.0.1:4711\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(latin1(&opening().encode()), expected);
    }

    #[test]
    fn the_token_goes_where_the_scenario_wants_it() {
        let token = |auth| {
            let token = Some((auth, "a/b".to_owned()));
            latin1(&Opening { token, protocols: vec!["x".to_owned()], ..opening() }.encode())
        };
        assert!(token(Auth::Header).contains("\r\nAuthorization: Bearer a/b\r\n"));
        assert!(token(Auth::Protocol).contains("\r\nSec-WebSocket-Protocol: x, auth.a/b\r\n"));
        assert!(token(Auth::Query).starts_with("GET /ws?a=b&token=a%2Fb HTTP/1.1\r\n"));
        assert!(!token(Auth::None).contains("a/b"));
    }

    #[test]
    fn headers_replace_remove_and_add() {
        let headers = vec![
            ("host".to_owned(), Some("x".to_owned())),
            ("Upgrade".to_owned(), None),
            ("X-New".to_owned(), Some("1".to_owned())),
        ];
        let text = latin1(&Opening { headers, ..opening() }.encode());
        assert!(text.contains("\r\nhost: x\r\nConnection: Upgrade\r\n"), "{text}");
        assert!(text.ends_with("\r\nX-New: 1\r\n\r\n"), "{text}");
    }

    #[test]
    fn early_frames_follow_the_request_at_once() {
        let bytes = Opening { early: vec!["Hello".to_owned()], ..opening() }.encode();
        assert!(bytes.ends_with(&Frame::from_client(OPCODE_TEXT, "Hello").encode()));
    }

    #[test]
    fn a_refusal_shows_its_bytes_unless_it_carries_a_date() {
        let normaliser = Normaliser::default();
        let plain = b"HTTP/1.1 401 Unauthorized\r\n\r\n";
        let seen = observe_refused(plain, true, &normaliser);
        assert_eq!(seen, json!({"status": 401, "raw": latin1(plain), "eof": true}));
        assert_eq!(
            observe_refused(b"", false, &normaliser),
            json!({"status": null, "raw": "", "eof": false})
        );
        let dated = b"HTTP/1.1 404 No\r\nDate: x\r\nContent-Type: t\r\nContent-Length: 1\r\n\r\nb";
        let response = json!({"status": 404, "contentType": "t", "body": "b"});
        assert_eq!(
            observe_refused(dated, true, &normaliser),
            json!({"status": 404, "responses": [response]})
        );
    }
}
