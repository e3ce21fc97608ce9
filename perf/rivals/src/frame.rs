//! The least of RFC 6455 that a server needs, for rivals that bring no WebSocket of their own.
//!
//! Masked frames are decoded where they lie, and the same bytes become the frame that goes on: its
//! shorter head is written over the end of the old one. Messages in several frames are refused.

use std::ops::Range;

/// A frame at the beginning of some bytes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Where the unmasked payload lies.
    pub(crate) payload: Range<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// What the bytes begin with.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Decoded {
    Frame(Frame),
    /// Less than a frame: so many bytes make it whole, or its head, when the rest is not known yet.
    Partial {
        frame_bytes: usize,
    },
}

/// Not a frame that is accepted: unmasked, too large, or part of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused;

/// Decodes the first frame of `bytes` and unmasks it in place.
pub(crate) fn decode(bytes: &mut [u8], payload_bytes_max: usize) -> Result<Decoded, Refused> {
    let [first, second, ..] = *bytes else {
        return Ok(Decoded::Partial { frame_bytes: HEAD_BYTES_MIN });
    };
    let kind = match first {
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        0x88 => Kind::Close,
        0x89 => Kind::Ping,
        0x8a => Kind::Pong,
        _ => return Err(Refused),
    };
    if second & 0x80 == 0 {
        return Err(Refused);
    }
    let len_bytes = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let head_bytes = 2 + len_bytes + MASK_BYTES;
    if bytes.len() < head_bytes {
        return Ok(Decoded::Partial { frame_bytes: head_bytes });
    }
    let len = match &bytes[2..2 + len_bytes] {
        [] => u64::from(second & 0x7f),
        extended => extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= payload_bytes_max).ok_or(Refused)?;
    let frame_bytes = head_bytes + len;
    if bytes.len() < frame_bytes {
        return Ok(Decoded::Partial { frame_bytes });
    }
    let mask = [0, 1, 2, 3].map(|index| bytes[2 + len_bytes + index]);
    unmask(&mut bytes[head_bytes..frame_bytes], mask);
    Ok(Decoded::Frame(Frame { kind, payload: head_bytes..frame_bytes }))
}

/// Writes a server's head before the payload that lies at `payload`; where the frame begins.
///
/// There is room: the client's head was longer by its mask.
pub(crate) fn place_head(bytes: &mut [u8], first: u8, payload: &Range<usize>) -> usize {
    let (head, head_bytes) = head(first, payload.len());
    let start = payload.start - head_bytes;
    bytes[start..payload.start].copy_from_slice(&head[..head_bytes]);
    start
}

/// A server's head, and how many of the bytes it is.
fn head(first: u8, payload_bytes: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = first;
    match payload_bytes {
        len @ ..126 => {
            head[1] = len as u8;
            (head, 2)
        }
        len @ ..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            (head, 4)
        }
        len => {
            head[1] = 127;
            head[2..].copy_from_slice(&(len as u64).to_be_bytes());
            (head, 10)
        }
    }
}

/// A whole close frame.
pub(crate) fn closing(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// Removes the mask, eight bytes at a time; the compiler makes wider ones of it.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// First byte of a text frame.
pub(crate) const TEXT: u8 = 0x81;
/// First byte of a pong.
pub(crate) const PONG: u8 = 0x8a;
/// The shortest head of a client.
const HEAD_BYTES_MIN: usize = 2 + MASK_BYTES;
const MASK_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A text frame as a client sends it.
    fn masked(payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 250];
        let (mut head, head_bytes) = head(TEXT, payload.len());
        head[1] |= 0x80;
        let key = mask.iter().cycle();
        let payload = payload.iter().zip(key).map(|(byte, key)| byte ^ key);
        head[..head_bytes].iter().copied().chain(mask).chain(payload).collect()
    }

    #[test]
    fn a_frame_of_any_length_goes_on_as_a_servers_frame() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
            let mut bytes = masked(&payload);
            let frame = match decode(&mut bytes, len) {
                Ok(Decoded::Frame(frame)) => frame,
                other => panic!("{len}: {other:?}"),
            };
            assert_eq!(frame.kind, Kind::Text);
            let start = place_head(&mut bytes, TEXT, &frame.payload);
            let (head, head_bytes) = head(TEXT, len);
            assert_eq!(bytes[start..], [&head[..head_bytes], &payload].concat());
        }
    }

    #[test]
    fn a_beginning_says_how_much_is_wanted_and_is_left_alone() {
        let whole = masked(&[7; 300]);
        for len in 0..whole.len() {
            let mut bytes = whole[..len].to_vec();
            match decode(&mut bytes, 300) {
                Ok(Decoded::Partial { frame_bytes }) => assert!(frame_bytes > len),
                other => panic!("{len}: {other:?}"),
            }
            assert_eq!(bytes, whole[..len]);
        }
    }

    #[test]
    fn what_is_unmasked_too_large_or_a_part_is_refused() {
        assert_eq!(decode(&mut [0x81, 1, b'a'], 100), Err(Refused));
        assert_eq!(decode(&mut masked(&[0; 101]), 100), Err(Refused));
        assert_eq!(decode(&mut [0x01, 0x81, 0, 0, 0, 0, b'a'], 100), Err(Refused));
        let mut endless = [0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(decode(&mut endless, 100), Err(Refused));
    }
}
