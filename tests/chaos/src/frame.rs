//! WebSocket frames, right and wrong. Written apart from the relay's own codec, so that the two
//! share no mistake. Source: RFC 6455 §5.2.

/// A whole text message.
pub const TEXT: u8 = 0x81;
/// A whole binary message.
pub const BINARY: u8 = 0x82;
/// The first fragment of a text message.
pub const TEXT_BEGIN: u8 = 0x01;
/// A fragment that is neither first nor last.
pub const CONTINUATION: u8 = 0x00;
/// The last fragment.
pub const CONTINUATION_END: u8 = 0x80;
/// A close frame.
pub const CLOSE: u8 = 0x88;
/// A ping.
pub const PING: u8 = 0x89;
/// A pong.
pub const PONG: u8 = 0x8a;

/// A masked frame; `first` is its first byte: final bit, reserved bits, opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64, true);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A frame without a mask: what a server sends, and a client must not.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64, false);
    bytes.extend_from_slice(payload);
    bytes
}

/// The header alone, of a frame that promises so many bytes.
pub fn header(first: u8, payload_bytes: u64, is_masked: bool) -> Vec<u8> {
    let mask_bit = u8::from(is_masked) << 7;
    let mut bytes = vec![first];
    if payload_bytes < 126 {
        bytes.push(mask_bit | payload_bytes as u8);
    } else if let Ok(short) = u16::try_from(payload_bytes) {
        bytes.push(mask_bit | 126);
        bytes.extend(short.to_be_bytes());
    } else {
        bytes.push(mask_bit | 127);
        bytes.extend(payload_bytes.to_be_bytes());
    }
    if is_masked {
        bytes.extend(MASK);
    }
    bytes
}

/// A masked text message.
pub fn text(text: &str) -> Vec<u8> {
    masked(TEXT, text.as_bytes())
}

/// A masked close frame.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    masked(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A frame as the relay sent it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Final bit, reserved bits and opcode.
    pub first: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The frame that these bytes of a server begin with, and how many of them it is.
pub fn decode(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (len, head_bytes) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        len => (u64::from(len), 2),
    };
    let end = head_bytes + usize::try_from(len).ok()?;
    let payload = bytes.get(head_bytes..end)?.to_vec();
    Some((Frame { first, payload }, end))
}

/// Any key will do; it need not be random towards a relay on loopback.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, head_bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = unmasked(TEXT, &vec![b'x'; len]);
            assert_eq!(frame.len(), head_bytes + len);
            let (read, used) = decode(&frame).expect("it is whole");
            assert_eq!((read.first, read.payload.len(), used), (TEXT, len, frame.len()));
            assert_eq!(decode(&frame[..frame.len() - 1]), None);
        }
    }

    #[test]
    fn the_mask_covers_the_payload_alone() {
        let frame = masked(TEXT, b"Hello");
        assert_eq!(frame[..6], [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(frame[6..], [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
