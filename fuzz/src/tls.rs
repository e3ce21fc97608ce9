//! Records of an established TLS session, from a peer that has its keys and keeps to nothing else.

use relay_wire::tls::{
    Aead, Content, ContentType, Direction, HEADER_BYTES, RECORD_BYTES_MAX, RecordCut, RecordKey,
    Session, Version,
};

/// A stream of records means the same however it arrives and wherever the session is written down;
/// nothing comes out of it that the peer did not seal, and little is kept. The script itself is
/// taken for records that a handshake is in, which are cut and not opened.
///
/// Shape of the input: where to cut (two bytes), the suite (one), then any number of an operation,
/// a length and as many bytes. Operations: 24 changes the key, 255 sends the bytes as they are, any
/// other seals them as content of that type.
pub fn records(data: &[u8]) {
    let (cut, data) = crate::cut_of(data);
    let Some((&suite, script)) = data.split_first() else { return };
    let (stream, sealed) = played(suite, script);
    let whole = meaning(suite, &[&stream]);
    assert!(sealed.starts_with(&whole.0), "only what was sealed comes out");
    let (left, right) = stream.split_at(cut % (stream.len() + 1));
    assert_eq!(meaning(suite, &[left, right]), whole);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(meaning(suite, &bytes), whole);
    let ends = ends_by_their_headers(script);
    assert_eq!(ends_as_cut(&[script]), ends);
    let (left, right) = script.split_at(cut % (script.len() + 1));
    assert_eq!(ends_as_cut(&[left, right]), ends);
}

/// Where records end in a stream that is there as a whole.
fn ends_by_their_headers(stream: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(&[_, _, _, high, low]) = stream[at..].first_chunk() {
        at += HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        if at > stream.len() {
            break;
        }
        ends.push(at);
    }
    ends
}

/// Where they end for whoever sees it in pieces, as before a handshake is done.
fn ends_as_cut(pieces: &[&[u8]]) -> Vec<usize> {
    let (mut cut, mut ends, mut at) = (RecordCut::default(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let used = cut.advance(rest);
            assert!(used > 0, "every step uses something");
            at += used;
            rest = &rest[used..];
            if cut.is_at_end() {
                ends.push(at);
            }
        }
    }
    ends
}

/// What the peer sends, and the application bytes it means.
fn played(suite: u8, mut script: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut key = RecordKey::from(direction(suite, b'c'));
    let (mut stream, mut sealed) = (Vec::new(), Vec::new());
    while let [operation, len, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        script = rest;
        match operation {
            24 => {
                let asks = bytes.first().is_some_and(|&byte| byte % 2 == 1);
                let message = [24, 0, 0, 1, u8::from(asks)];
                key.seal_record(ContentType::HANDSHAKE, &message, &mut stream);
                key.update();
            }
            255 => stream.extend_from_slice(bytes),
            &kind => {
                key.seal_record(ContentType(kind), bytes, &mut stream);
                match (ContentType(kind), bytes.iter().rposition(|&byte| byte != 0)) {
                    (ContentType::APPLICATION_DATA, _) => sealed.extend_from_slice(bytes),
                    // In TLS 1.3 a type of zero is padding: the type is the last byte before it.
                    (ContentType(0), Some(at)) if bytes[at] == 23 => {
                        sealed.extend_from_slice(&bytes[..at]);
                    }
                    _ => {}
                }
            }
        }
    }
    (stream, sealed)
}

/// Application bytes, whether the peer ended, what it is told.
fn meaning(suite: u8, buffers: &[&[u8]]) -> (Vec<u8>, bool, Option<u8>) {
    let mut session = Session::new(direction(suite, b'c'), direction(suite, b's'));
    let (mut plain, mut closed) = (Vec::new(), false);
    for buffer in buffers {
        let mut input = buffer.to_vec();
        let mut at = 0;
        while at < input.len() {
            let taken = match session.next(&mut input[at..]) {
                Ok(taken) => taken,
                Err(error) => {
                    let mut out = Vec::new();
                    session.writer(&mut out).push(b"secret");
                    assert_eq!(out.is_empty(), error.alert().is_none());
                    return (plain, closed, error.alert().map(|alert| alert.0));
                }
            };
            match taken.content {
                Content::Here(range) => plain.extend_from_slice(&input[at..][range]),
                Content::Apart(block, range) => plain.extend_from_slice(&block[range]),
                Content::CloseNotify => closed = true,
                Content::NeedMore | Content::Nothing => {}
            }
            assert!(taken.used > 0, "every step uses something");
            at += taken.used;
            assert!(session.kept_bytes() < RECORD_BYTES_MAX);
        }
        session = Session::from(session.write_down());
    }
    (plain, closed, None)
}

fn direction(suite: u8, name: u8) -> Direction {
    let (aead, version) = match suite % 6 {
        0 => (Aead::Aes128Gcm, Version::Tls13),
        1 => (Aead::Aes256Gcm, Version::Tls13),
        2 => (Aead::Chacha20Poly1305, Version::Tls13),
        3 => (Aead::Aes128Gcm, Version::Tls12),
        4 => (Aead::Aes256Gcm, Version::Tls12),
        _ => (Aead::Chacha20Poly1305, Version::Tls12),
    };
    let direction = match version {
        Version::Tls13 => Direction::tls13(aead, &[name; 48][..aead.secret_len()], 0),
        Version::Tls12 => Direction::tls12(aead, &[name; 32][..aead.key_len()], &[name; 12], 1),
    };
    direction.expect("the lengths fit")
}
