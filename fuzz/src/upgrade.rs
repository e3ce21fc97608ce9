//! What a stranger can put into an upgrade, and behind a request.

use relay_contract::Preflight;
use relay_wire::http1::{self, AllowedOrigins, Body, BodySkipper, HeadError, Origin, UpgradeRules};
use url::form_urlencoded;

/// Query, credentials and WebSocket headers: what is asked of the platform has the form it must
/// have, and what is echoed cannot become a header of its own.
///
/// The lines of the input are the query, `Authorization`, `Sec-WebSocket-Protocol`,
/// `Sec-WebSocket-Version` and `Sec-WebSocket-Key`; what is missing is empty.
pub fn upgrade(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let [query, authorization, protocols, version, key] =
        std::array::from_fn(|_| lines.next().unwrap_or_default());
    let bytes = [
        b"GET /ws?",
        query,
        b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: ",
        authorization,
        b"\r\nSec-WebSocket-Protocol: ",
        protocols,
        b"\r\nSec-WebSocket-Version: ",
        version,
        b"\r\nSec-WebSocket-Key: ",
        key,
        b"\r\n\r\n",
    ]
    .concat();
    let Ok(Some(head)) = http1::parse_head(&bytes, HEAD_BYTES_MAX) else {
        return;
    };
    let rules = UpgradeRules { query_token_allowed: true, ..UpgradeRules::default() };
    if let Preflight::Ask { request, token } = http1::preflight(&head, &rules) {
        let ids =
            [Some(request.workspace_id.as_str()), request.target_id.as_ref().map(|id| id.as_str())];
        for id in ids.into_iter().flatten() {
            assert!((1..=128).contains(&id.len()));
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)), "{id}");
        }
        assert!((10..=4096).contains(&token.expose().encode_utf16().count()));
        let first = form_urlencoded::parse(query).find(|(name, _)| name == "workspaceId");
        if !query.contains(&b'#') && query.is_ascii() {
            assert_eq!(first.expect("it was found").1, request.workspace_id.as_str());
        }
    }
    let answer = match http1::handshake(&head) {
        Ok(answer) => answer,
        Err(refusal) => {
            assert!(refusal.starts_with(b"HTTP/1.1 400 "));
            return;
        }
    };
    let answer = String::from_utf8(answer).expect("what is echoed is a token");
    let (answer, rest) = answer.split_once("\r\n\r\n").expect("an answer has an end");
    assert_eq!(rest, "");
    assert!(answer.starts_with("HTTP/1.1 101 "));
    assert!((4..=5).contains(&answer.lines().count()), "{answer}");
    assert!(!answer.replace("\r\n", "").contains(['\r', '\n']));
    if let Some((_, echoed)) = answer.split_once("Sec-WebSocket-Protocol: ") {
        let offered = String::from_utf8_lossy(protocols);
        let first = offered.split(',').next().unwrap_or_default();
        assert_eq!(echoed, first.trim_matches([' ', '\t', '\r']));
    }
}

/// What follows a request's head: it ends at the same byte however it is cut.
///
/// The first byte chooses how the body is delimited.
pub fn body(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let body = match kind % 4 {
        0 => Body::None,
        1 => Body::Length(u64::from(kind)),
        _ => Body::Chunked,
    };
    let whole = skip(body, &mut std::iter::once(data));
    assert_eq!(skip(body, &mut data.chunks(1)), whole);
    assert_eq!(skip(body, &mut data.chunks(7)), whole);
    match (body, whole) {
        (Body::None, whole) => assert_eq!(whole, Ok((0, true))),
        (Body::Length(len), whole) => {
            let there = data.len().min(usize::try_from(len).expect("a byte"));
            assert_eq!(whole, Ok((there, there as u64 == len)));
        }
        (Body::Chunked, Ok((used, true))) => {
            assert!(data[..used].ends_with(b"\n"), "trailers end with a line");
            assert!(used >= b"0\r\n\r\n".len());
        }
        (Body::Chunked, Ok((used, false))) => assert_eq!(used, data.len()),
        (Body::Chunked, Err(error)) => assert!(error.response().starts_with(b"HTTP/1.1 4")),
    }
}

/// As [`body`], for a body and a cut that somebody chose.
pub(crate) fn same_end(body: Body, data: &[u8], cut: usize) {
    let whole = skip(body, &mut std::iter::once(data));
    let (left, right) = data.split_at(cut.min(data.len()));
    assert_eq!(skip(body, &mut [left, right].into_iter()), whole);
}

/// A list of origins and the origin of a page, in two lines: what is shown of an origin is that
/// origin, and a listed origin is allowed.
pub fn origin(data: &[u8]) {
    let (list, value) = data.split_at(data.iter().position(|&b| b == b'\n').unwrap_or(0));
    let origin = Origin::parse(value);
    let allowed = std::str::from_utf8(list).ok().map(AllowedOrigins::parse);
    if let Some(Ok(allowed)) = allowed {
        let everything = allowed == AllowedOrigins::default();
        assert_eq!(allowed.allow(None), everything, "what states no origin is not listed");
        if everything {
            assert!(allowed.allow(origin.as_ref()));
        }
    }
    if let Some(origin) = origin {
        let shown = origin.to_string();
        assert!(shown.len() <= value.len() && shown.is_ascii());
        assert_eq!(Origin::parse(shown.as_bytes()).as_ref(), Some(&origin));
        let alone = AllowedOrigins::parse(&shown).expect("an origin is a list of one");
        assert!(alone.allow(Some(&origin)));
    }
}

/// Bytes of the body, and whether it ended.
fn skip(body: Body, pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<(usize, bool), HeadError> {
    let mut skipper = BodySkipper::new(body);
    // A body of no bytes ends before any arrive.
    let mut used = skipper.skip(b"")?;
    let mut total = used.used;
    while !used.done {
        let Some(piece) = pieces.next() else {
            return Ok((total, false));
        };
        used = skipper.skip(piece)?;
        total += used.used;
        assert!(used.done || used.used == piece.len());
    }
    Ok((total, true))
}

const HEAD_BYTES_MAX: usize = 16 << 10;
