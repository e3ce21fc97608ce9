//! Opening a WebSocket at a relay, blocking.

use std::borrow::Cow;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::flow::client_frame;

/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 4096;

/// Who asks for what.
pub(crate) struct Upgrade<'a> {
    pub(crate) role: &'a str,
    pub(crate) workspace: &'a str,
    pub(crate) target: &'a str,
    pub(crate) token: Cow<'a, str>,
}

impl Upgrade<'_> {
    /// Asks on a connected socket and insists on 101.
    pub(crate) fn perform(&self, socket: &mut (impl Read + Write)) -> Result<()> {
        let Self { role, workspace, target, token } = self;
        let request = format!(
            "GET /ws?role={role}&workspaceId={workspace}&runtimeTargetId={target} HTTP/1.1\r\n\
             Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        // One byte at a time: what follows the head is somebody else's.
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            ensure!(head.len() < HEAD_BYTES_MAX, "the answer's head has no end");
            let is_end = socket.read(&mut byte)? == 0;
            ensure!(!is_end, "closed instead of answering: {}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            bail!("the upgrade of a {role} was refused: {}", String::from_utf8_lossy(&head).trim());
        }
        Ok(())
    }
}

/// Sends one text message as a client does.
pub(crate) fn send_text(socket: &mut impl Write, text: &str) -> Result<()> {
    socket.write_all(&client_frame(text)).context("sending a message")
}

/// Receives one text message and insists that it is the expected one.
pub(crate) fn expect_text(socket: &mut impl Read, expected: &str) -> Result<()> {
    let text = receive_text(socket)?;
    ensure!(text == expected, "expected {expected:?}, got {text:?}");
    Ok(())
}

/// Receives one short text message.
pub(crate) fn receive_text(socket: &mut impl Read) -> Result<String> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).context("waiting for a message")?;
    let mut len = u64::from(head[1] & 0x7f);
    if len == 126 {
        let mut extended = [0; 2];
        socket.read_exact(&mut extended)?;
        len = u64::from(u16::from_be_bytes(extended));
    }
    ensure!(head[0] == 0x81 && len <= 1 << 16, "not a short text message: {head:02x?}");
    let mut payload = vec![0; len as usize];
    socket.read_exact(&mut payload)?;
    String::from_utf8(payload).context("a message that is not UTF-8")
}
