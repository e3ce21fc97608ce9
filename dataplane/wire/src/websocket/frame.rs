//! Frames as the server writes them: headers and whole control frames, unmasked.

use std::ops::Deref;

use relay_contract::CloseCode;

/// What a frame carries. Continuations are never written: a forwarded message is one frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

/// Writes the header of an unmasked, final frame.
///
/// Shape: the bytes and how many of them count (2, 4 or 10). Source: RFC 6455 §5.2.
#[inline]
pub fn header(opcode: Opcode, payload_len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = FINAL | opcode as u8;
    if payload_len <= CONTROL_PAYLOAD_BYTES_MAX {
        bytes[1] = payload_len as u8;
        (bytes, 2)
    } else if let Ok(short) = u16::try_from(payload_len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&short.to_be_bytes());
        (bytes, 4)
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        (bytes, 10)
    }
}

/// Writes the header of a frame directly before its payload, into bytes the sender's header
/// occupied.
///
/// Returns where the frame starts, or `None` when `room` (bytes before `payload_start` that may be
/// overwritten) is too small; the buffer is then untouched. A masked header is four bytes longer
/// than the unmasked one for the same payload, so a frame that arrived whole always fits.
#[inline]
pub fn place_header(
    buffer: &mut [u8],
    payload_start: usize,
    room: usize,
    opcode: Opcode,
    payload_len: usize,
) -> Option<usize> {
    let (bytes, len) = header(opcode, payload_len);
    let start = payload_start.checked_sub(len)?;
    if len > room {
        return None;
    }
    buffer.get_mut(start..payload_start)?.copy_from_slice(&bytes[..len]);
    Some(start)
}

/// A whole control frame, ready to send. Dereferences to its bytes.
#[derive(Clone, Copy)]
pub struct ControlFrame {
    bytes: [u8; 2 + CONTROL_PAYLOAD_BYTES_MAX],
    len: u8,
}

impl ControlFrame {
    /// Takes as much of the parts as a control frame can carry.
    fn new(opcode: Opcode, parts: [&[u8]; 2]) -> Self {
        let mut bytes = [0; 2 + CONTROL_PAYLOAD_BYTES_MAX];
        let mut len = 2;
        for part in parts {
            let taken = part.len().min(bytes.len() - len);
            bytes[len..len + taken].copy_from_slice(&part[..taken]);
            len += taken;
        }
        bytes[0] = FINAL | opcode as u8;
        bytes[1] = (len - 2) as u8;
        Self { bytes, len: len as u8 }
    }
}

impl Deref for ControlFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A close frame. Without a code it has no payload, and the reason is not sent.
///
/// Shape: of the reason, the first 123 bytes count. Pass UTF-8: RFC 6455 §5.5.1 asks for it.
pub fn close_frame(code: Option<CloseCode>, reason: &[u8]) -> ControlFrame {
    match code {
        Some(code) => ControlFrame::new(Opcode::Close, [&code.0.to_be_bytes(), reason]),
        None => ControlFrame::new(Opcode::Close, [&[], &[]]),
    }
}

/// A ping. Of the payload, the first 125 bytes count.
pub fn ping_frame(payload: &[u8]) -> ControlFrame {
    ControlFrame::new(Opcode::Ping, [payload, &[]])
}

/// The answer to a ping, with the ping's payload.
pub fn pong_frame(payload: &[u8]) -> ControlFrame {
    ControlFrame::new(Opcode::Pong, [payload, &[]])
}

/// Bytes of the longest unmasked header. Source: RFC 6455 §5.2.
pub const HEADER_BYTES_MAX: usize = 10;

/// Payload bytes a control frame may have. Source: RFC 6455 §5.5.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

const FINAL: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_form() {
        for (len, expected) in [
            (0, &b"\x81\x00"[..]),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65_535, b"\x81\x7e\xff\xff"),
            (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let (bytes, used) = header(Opcode::Text, len);
            assert_eq!(&bytes[..used], expected, "{len}");
        }
    }

    #[test]
    fn a_header_is_placed_only_where_it_fits() {
        let mut buffer = *b"....payload";
        assert_eq!(place_header(&mut buffer, 4, 1, Opcode::Text, 7), None);
        assert_eq!(&buffer, b"....payload");
        assert_eq!(place_header(&mut buffer, 4, 4, Opcode::Text, 7), Some(2));
        assert_eq!(&buffer, b"..\x81\x07payload");
    }

    #[test]
    fn a_header_never_reaches_before_the_buffer() {
        let mut buffer = [0; 4];
        assert_eq!(place_header(&mut buffer, 1, 9, Opcode::Text, 3), None);
        assert_eq!(place_header(&mut buffer, 9, 9, Opcode::Text, 3), None);
    }

    #[test]
    fn control_frames_carry_code_reason_and_payload() {
        assert_eq!(&*close_frame(None, b"unsent"), b"\x88\x00");
        assert_eq!(&*close_frame(Some(CloseCode::NORMAL), b"bye"), b"\x88\x05\x03\xe8bye");
        assert_eq!(&*ping_frame(b""), b"\x89\x00");
        assert_eq!(&*pong_frame(b"abc"), b"\x8a\x03abc");
    }

    #[test]
    fn a_control_frame_never_exceeds_its_limit() {
        let long = [b'r'; 200];
        assert_eq!(close_frame(Some(CloseCode::NORMAL), &long).len(), 127);
        assert_eq!(ping_frame(&long).len(), 127);
    }
}
