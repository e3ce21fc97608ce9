//! Requests and answers as bytes, for rivals that bring no HTTP of their own.

use tungstenite::handshake::derive_accept_key;

use crate::admission::{Query, bearer};
use crate::settings::VALIDATE_PATH;

/// An upgrade that may be asked about.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) query: Query,
    pub(crate) token: String,
    /// What is answered when it is admitted.
    pub(crate) accepted: String,
    /// Bytes of the head; what follows is frames.
    pub(crate) head_bytes: usize,
}

/// What has arrived of a request.
#[derive(Debug)]
pub(crate) enum Request {
    Partial,
    Upgrade(Box<Upgrade>),
    /// Not an upgrade of `/ws` with a query and a token, or no HTTP.
    Refused,
}

/// Reads a request's head.
pub(crate) fn request(bytes: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Request::Partial,
        _ => return Request::Refused,
    };
    let upgrade = upgrade(&request, head_bytes);
    upgrade.map_or(Request::Refused, |upgrade| Request::Upgrade(Box::new(upgrade)))
}

fn upgrade(request: &httparse::Request<'_, '_>, head_bytes: usize) -> Option<Upgrade> {
    let query = request.path?.strip_prefix("/ws?")?;
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        std::str::from_utf8(found?.value).ok()
    };
    let is_upgrade = request.method == Some("GET")
        && header("upgrade")?.eq_ignore_ascii_case("websocket")
        && header("sec-websocket-version")? == "13";
    let accept = derive_accept_key(header("sec-websocket-key")?.as_bytes());
    is_upgrade.then_some(Upgrade {
        query: serde_urlencoded::from_str(query).ok()?,
        token: bearer(header("authorization")?)?.to_owned(),
        accepted: format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ),
        head_bytes,
    })
}

/// A validate call as bytes, over a connection that is kept.
pub(crate) fn validate(platform: &str, question: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {VALIDATE_PATH} HTTP/1.1\r\nHost: {platform}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        question.len()
    );
    [head.as_bytes(), question].concat()
}

/// What has arrived of the platform's answer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Answer<'a> {
    Partial,
    /// The body of a 200; the connection can be used again.
    Body(&'a [u8]),
    /// Anything else; the connection is done with.
    Failed,
}

/// Reads an answer.
pub(crate) fn answer(bytes: &[u8]) -> Answer<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Answer::Partial,
        _ => return Answer::Failed,
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    match (response.code, length) {
        (Some(200), Some(length @ ..=BODY_BYTES_MAX)) => {
            bytes.get(head_bytes..head_bytes + length).map_or(Answer::Partial, Answer::Body)
        }
        _ => Answer::Failed,
    }
}

/// The answer to whom is not let in.
pub(crate) const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const HEADERS_MAX: usize = 32;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of the platform's answer, at most.
const BODY_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /ws?role=client&workspaceId=w&runtimeTargetId=t HTTP/1.1\r\n\
        Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer abc\r\n\r\n";

    #[test]
    fn an_upgrade_is_understood_when_its_head_is_whole() {
        for len in 0..REQUEST.len() {
            assert!(matches!(request(&REQUEST.as_bytes()[..len]), Request::Partial), "{len}");
        }
        let bytes = [REQUEST.as_bytes(), b"frames"].concat();
        let Request::Upgrade(upgrade) = request(&bytes) else { panic!("not an upgrade") };
        assert_eq!(upgrade.query.workspace_id, "w");
        assert_eq!(upgrade.token, "abc");
        assert_eq!(&bytes[upgrade.head_bytes..], b"frames");
        // The key and its answer are those of RFC 6455 §1.3.
        assert!(upgrade.accepted.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn other_requests_are_refused() {
        let role = REQUEST.replace("role=client", "role=admin");
        let path = REQUEST.replace("/ws", "/health");
        let token = REQUEST.replace("Authorization", "X-Authorization");
        for text in [role.as_str(), &path, &token, "no HTTP\r\n\r\n"] {
            assert!(matches!(request(text.as_bytes()), Request::Refused), "{text}");
        }
    }

    #[test]
    fn an_answer_has_its_body_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(answer(text), Answer::Body(b"body"));
        assert_eq!(answer(&text[..text.len() - 1]), Answer::Partial);
        assert_eq!(answer(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), Answer::Failed);
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n\r\n"), Answer::Failed);
    }
}
