//! WebSocket frames and HTTP answers as a peer writes and reads them.

/// One frame of the relay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

const KEY: [u8; 4] = [1, 2, 3, 4];

impl Frame {
    /// A close frame of that code and reason.
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        Self { opcode: CLOSE, payload }
    }
}

/// A masked frame; `first` is its first byte.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ KEY[index % 4]));
    frame
}

/// A whole text message.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    masked(0x80 | TEXT, payload)
}

/// A ping.
pub(crate) fn ping(payload: &[u8]) -> Vec<u8> {
    masked(0x80 | PING, payload)
}

/// A close frame.
pub(crate) fn close(code: u16) -> Vec<u8> {
    masked(0x80 | CLOSE, &code.to_be_bytes())
}

/// The payload of a frame that a client sends to its daemon; `index` tells them apart.
pub(crate) fn envelope(index: usize, ciphertext_bytes: usize) -> Vec<u8> {
    let ciphertext = "x".repeat(ciphertext_bytes);
    format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","epoch":1,"#,
            r#""seq":{},"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        index + 1,
        ciphertext
    )
    .into_bytes()
}

/// Takes complete, unmasked frames off the front.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut used = 0;
    while let Some((frame, len)) = first(&bytes[used..]) {
        frames.push(frame);
        used += len;
    }
    bytes.drain(..used);
    frames
}

fn first(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&start, &short) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(start & 0xf0, 0x80, "the relay sends whole messages without extensions");
    assert!(short < 0x80, "the relay does not mask");
    let (header_len, len) = match short {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(header_len..header_len + len)?.to_vec();
    Some((Frame { opcode: start & 0xf, payload }, header_len + len))
}

/// Takes one complete answer off the front: its status and body. `101` has no body.
pub(crate) fn take_answer(bytes: &mut Vec<u8>) -> Option<(u16, String)> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..head_len].to_vec()).expect("heads are ASCII");
    let status = head.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let end = head_len + length.unwrap_or(0);
    let body = String::from_utf8(bytes.get(head_len..end)?.to_vec()).expect("bodies are text");
    bytes.drain(..end);
    Some((status, body))
}

/// An upgrade of that role for one target of the workspace.
pub(crate) fn upgrade(role: &str, target: &str) -> String {
    upgrade_with_token(role, target, "0123456789")
}

pub(crate) fn upgrade_with_token(role: &str, target: &str, token: &str) -> String {
    format!(
        "GET /ws?role={role}&workspaceId=w&runtimeTargetId={target} HTTP/1.1\r\nHost: h\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// A plain request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}
