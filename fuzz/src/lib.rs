//! What must hold for any bytes a peer or a remote server can send, as plain functions.
//!
//! Each function is a fuzz target: it panics when a claim is broken. `fuzz_targets` hands them to
//! libFuzzer; `tests/smoke.rs` runs them over [`seeds`], what fuzzers found worth keeping
//! (`inputs/`), and seeded mutations, without any engine.
#![forbid(unsafe_code)]

mod admission;
mod endpoint;
mod plane;
pub mod seeds;
mod state;
mod target;
mod tls;
mod upgrade;
mod worker;

pub use admission::{answer, claims, keys, token};
pub use endpoint::endpoint_frame;
pub use plane::plane_message;
pub use state::restored;
pub use target::{TARGETS, Target};
pub use tls::records;
pub use upgrade::{body, origin, upgrade};
pub use worker::worker;

use std::net::IpAddr;

use relay_wire::envelope::{self, ColdKind, Envelope, Invalid, Scanner, cold, emit};
use relay_wire::http1::{self, TrustedProxies, UpgradeRules};
use relay_wire::websocket::{self, Decoder, Step};
use relay_wire::{PROXY_HEADER_BYTES_MAX, parse_proxy_header};

/// A request head and its body: no panic, no reading past the end, the same end wherever it is cut.
pub fn request(data: &[u8]) {
    let (cut, data) = cut_of(data);
    let head = match http1::parse_head(data, HEAD_BYTES_MAX) {
        Ok(Some(head)) => head,
        Ok(None) => {
            assert!(data.len() < HEAD_BYTES_MAX);
            return;
        }
        Err(error) => {
            assert!(error.response().starts_with(b"HTTP/1.1 4"));
            return;
        }
    };
    assert!(head.len() <= data.len());
    for prefix in [head.len() - 1, head.len() / 2] {
        let found = http1::parse_head(&data[..prefix], HEAD_BYTES_MAX);
        assert!(!matches!(found, Ok(Some(_))), "a prefix of a head is no head");
    }
    let _ = http1::preflight(&head, &UpgradeRules::default());
    let answer = http1::handshake(&head);
    let (Ok(answer) | Err(answer)) = answer;
    assert!(answer.starts_with(b"HTTP/1.1 "));
    upgrade::same_end(head.body(), &data[head.len()..], cut);
}

/// A byte stream after the upgrade: it means the same however it arrives.
pub fn frames(data: &[u8]) {
    let (cut, data) = cut_of(data);
    let whole = meaning(&[data], false);
    let cut = cut % (data.len() + 1);
    let parts = [&data[..cut], &data[cut..]];
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    for close in [false, true] {
        assert_eq!(meaning(&[data], close), whole);
        assert_eq!(meaning(&parts, close), whole);
        assert_eq!(meaning(&bytes, close), whole);
    }
}

/// What a stream means: messages with their envelopes, control frames, the error it ends in. Its
/// frames stay where they lie, or are moved close together.
fn meaning(buffers: &[&[u8]], close: bool) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut scanner = Scanner::new();
    let mut message = Vec::new();
    let mut meaning = Vec::new();
    for buffer in buffers {
        let mut input = buffer.to_vec();
        let (mut free, mut at) = (0, 0);
        loop {
            let step = match close {
                true => decoder.next_close(&mut input, free, at, MESSAGE_BYTES_MAX, &mut scanner),
                false => decoder.next(&mut input, at, MESSAGE_BYTES_MAX, &mut scanner),
            };
            at = match step {
                Ok(Step::NeedMore) => break,
                Ok(Step::Piece(piece)) => {
                    assert!(free <= piece.payload.start && piece.payload.end <= piece.at);
                    free = piece.payload.end;
                    message.extend_from_slice(&input[piece.payload.clone()]);
                    assert!(message.len() <= MESSAGE_BYTES_MAX);
                    assert!(piece.header_room <= piece.payload.start);
                    if piece.last {
                        let utf8 = std::str::from_utf8(&message).is_ok();
                        assert_eq!(piece.utf8, utf8);
                        let frame = scanner.finish();
                        assert_eq!(format!("{frame:?}"), read(&message), "invalid bytes replaced");
                        meaning.push(format!("{:?} {message:?} {frame:?}", piece.opcode));
                        message.clear();
                    }
                    piece.at
                }
                Ok(Step::Ping { payload, at }) => {
                    meaning.push(format!("ping {:?}", payload.bytes(&input)));
                    assert!(websocket::pong_frame(payload.bytes(&input)).len() <= 127);
                    at
                }
                Ok(Step::Pong { payload, at }) => {
                    meaning.push(format!("pong {:?}", payload.bytes(&input)));
                    at
                }
                Ok(Step::Close { code, payload, at }) => {
                    meaning.push(format!("close {code:?} {:?}", payload.bytes(&input)));
                    at
                }
                Err(error) => {
                    meaning.push(format!("{:?}", error.close_code()));
                    break;
                }
            };
        }
    }
    meaning
}

/// What decoding with replacement makes of a message, read at once.
fn read(message: &[u8]) -> String {
    let mut scanner = Scanner::new();
    scanner.feed(String::from_utf8_lossy(message).as_bytes());
    format!("{:?}", scanner.finish())
}

/// A frame's text: JSON exactly when serde_json says so, and the same frame however it arrives.
pub fn envelope(data: &[u8]) {
    let (cut, data) = cut_of(data);
    let mut whole = Scanner::new();
    whole.feed(data);
    let once = format!("{} {:?}", whole.steps(), whole.finish());
    for _ in 0..2 {
        whole.reset();
        whole.feed(data);
        let again = format!("{} {:?}", whole.steps(), whole.finish());
        assert_eq!(again, once, "what was read before changes nothing");
    }
    let answer = whole.finish();
    let cut = cut % (data.len() + 1);
    let mut pieces = Scanner::new();
    pieces.feed(&data[..cut]);
    pieces.feed(&data[cut..]);
    assert_eq!(format!("{:?}", pieces.finish()), format!("{answer:?}"));
    if let Ok(text) = std::str::from_utf8(data) {
        // Ignoring a value checks its grammar without depth limit, surrogates or number range.
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let is_object = is_json && text.trim_ascii_start().starts_with('{');
        assert_eq!(answer != Err(Invalid::Json), is_object);
    }
    if let Ok(Envelope::E2ee { session_id, .. }) = answer {
        assert!(!envelope::is_blank(session_id));
        assert_string_survives(session_id);
    }
    // Whoever reads a frame has made text of it: units are counted of that alone.
    let is_text = std::str::from_utf8(data).is_ok();
    for kind in COLD_KINDS {
        if let Ok(frame) = cold::parse(kind, data)
            && is_text
        {
            assert_cold(frame);
        }
    }
}

fn assert_cold(frame: cold::ColdFrame) {
    match frame {
        cold::ColdFrame::Worker(request) => {
            assert!(request.path.starts_with("/api/runtime/workspaces/"));
            assert!(matches!(&*request.method, "GET" | "POST" | "PATCH"));
        }
        cold::ColdFrame::Subscribe { channel, .. }
        | cold::ColdFrame::Unsubscribe { channel }
        | cold::ColdFrame::Presence { channel }
        | cold::ColdFrame::SessionEvent { channel } => assert_string_survives(&channel),
        cold::ColdFrame::Renewal { token } => {
            let units = token.expose().encode_utf16().count();
            assert!((10..=4096).contains(&units), "{units}");
        }
    }
}

/// What we write of a string is JSON that reads back as the same string.
fn assert_string_survives(text: &[u8]) {
    let mut written = Vec::new();
    emit::write_string(text, &mut written);
    if let Ok(text) = std::str::from_utf8(text) {
        let read: String = serde_json::from_slice(&written).expect("we write JSON");
        assert_eq!(read, text);
    }
}

/// Lists of proxies and forwarded addresses: no panic, and what is printed of a bad entry is the
/// entry.
pub fn proxies(data: &[u8]) {
    let (_, data) = cut_of(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match TrustedProxies::parse(text) {
        Ok(trusted) => {
            let peer = trusted.peer(IpAddr::from([10, 0, 0, 1]));
            let lines = text.lines().map(str::as_bytes);
            let client = http1::client_address(peer, lines, &trusted);
            assert_eq!(client, client.to_canonical());
        }
        Err(error) => assert!(text.contains(&error.entry)),
    }
}

/// What a proxy sends in front: one answer, wherever the bytes are cut, and none that more bytes
/// change.
pub fn proxy_header(data: &[u8]) {
    let answer = parse_proxy_header(data);
    if let Ok(Some(header)) = answer {
        assert!((1..=PROXY_HEADER_BYTES_MAX).contains(&header.len) && header.len <= data.len());
        assert_eq!(header.source, header.source.map(|address| address.to_canonical()));
    }
    let pieces = (0..=data.len()).map(|len| parse_proxy_header(&data[..len]));
    let first = pieces.into_iter().find(|answer| *answer != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), answer);
    if answer == Ok(None) {
        assert!(data.len() < PROXY_HEADER_BYTES_MAX);
    }
}

/// The first two bytes say where to cut the rest.
fn cut_of(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        _ => (0, data),
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;

const MESSAGE_BYTES_MAX: usize = 4096;

const COLD_KINDS: [ColdKind; 6] = [
    ColdKind::Worker,
    ColdKind::Subscribe,
    ColdKind::Unsubscribe,
    ColdKind::Presence,
    ColdKind::SessionEvent,
    ColdKind::Renewal,
];
