//! WebSocket frames, bit by bit: RFC 6455 section 5.2, written independently of the relay's own
//! codec so that the two cannot share a mistake.

/// What a frame looks like on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// RSV1, RSV2 and RSV3 as the bits 4, 2 and 1.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    /// Without the mask.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A whole masked frame, as a well-behaved client sends it.
    pub(crate) fn from_client(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, rsv: 0, opcode, masked: true, payload: payload.into() }
    }

    /// A masked close frame; without a code its payload is empty.
    pub(crate) fn close(code: Option<u16>, reason: &str) -> Self {
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend(code.to_be_bytes());
            payload.extend(reason.as_bytes());
        }
        Self::from_client(OPCODE_CLOSE, payload)
    }

    /// The frame's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_declaring(self.payload.len() as u64)
    }

    /// The frame's bytes with `length` in the header, whatever the payload's own length is.
    pub(crate) fn encode_declaring(&self, length: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + HEADER_BYTES_MAX);
        bytes.push(u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | self.opcode & 0x0f);
        let mask_bit = u8::from(self.masked) << 7;
        if length < 126 {
            bytes.push(mask_bit | length as u8);
        } else if let Ok(length) = u16::try_from(length) {
            bytes.push(mask_bit | 126);
            bytes.extend(length.to_be_bytes());
        } else {
            bytes.push(mask_bit | 127);
            bytes.extend(length.to_be_bytes());
        }
        if self.masked {
            bytes.extend(MASK);
            bytes
                .extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// Received bytes on their way to frames.
#[derive(Debug, Default)]
pub(crate) struct FrameDecoder {
    buffer: Vec<u8>,
}

impl FrameDecoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if all of it has arrived.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let (&[first, second], rest) = self.buffer.split_first_chunk()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            length => (u64::from(length), rest),
        };
        let masked = second & 0x80 != 0;
        let (mask, rest) = if masked { rest.split_first_chunk()? } else { (&[0; 4], rest) };
        let payload = rest.get(..usize::try_from(length).ok()?)?;
        let header_bytes = self.buffer.len() - rest.len();
        let frame = Frame {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0x0f,
            masked,
            payload: payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key)
                .collect(),
        };
        self.buffer.drain(..header_bytes + frame.payload.len());
        Some(frame)
    }
}

pub(crate) const OPCODE_CONTINUATION: u8 = 0;
pub(crate) const OPCODE_TEXT: u8 = 1;
pub(crate) const OPCODE_BINARY: u8 = 2;
pub(crate) const OPCODE_CLOSE: u8 = 8;
pub(crate) const OPCODE_PING: u8 = 9;
pub(crate) const OPCODE_PONG: u8 = 10;

/// Two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Four different bytes, none zero: unmasking with a wrong offset shows.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_encoded_and_decoded() {
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(Frame::from_client(OPCODE_TEXT, "Hello").encode(), masked);
        let mut decoder = FrameDecoder::default();
        decoder.push(&masked);
        decoder.push(&[0x01, 0x03, 0x48, 0x65, 0x6c]);
        assert_eq!(decoder.next(), Some(Frame::from_client(OPCODE_TEXT, "Hello")));
        let unmasked =
            Frame { fin: false, rsv: 0, opcode: 1, masked: false, payload: b"Hel".into() };
        assert_eq!(decoder.next(), Some(unmasked));
        assert_eq!(decoder.next(), None);
    }

    #[test]
    fn every_length_form_survives_every_split() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [true, false] {
                let frame =
                    Frame { fin: true, rsv: 5, opcode: 2, masked, payload: vec![7; length] };
                let bytes = frame.encode();
                for split in (0..bytes.len()).take(16).chain([bytes.len() - 1]) {
                    let mut decoder = FrameDecoder::default();
                    decoder.push(&bytes[..split]);
                    assert_eq!(decoder.next(), None);
                    decoder.push(&bytes[split..]);
                    assert_eq!(decoder.next().as_ref(), Some(&frame));
                }
            }
        }
    }

    #[test]
    fn a_declared_length_changes_the_header_only() {
        let frame = Frame { fin: true, rsv: 0, opcode: 1, masked: false, payload: b"ab".into() };
        let declared = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0, b'a', b'b'];
        assert_eq!(frame.encode_declaring(1 << 32), declared);
    }

    #[test]
    fn a_close_frame_without_a_code_is_empty() {
        assert!(Frame::close(None, "").payload.is_empty());
        assert_eq!(Frame::close(Some(1000), "x").payload, [0x03, 0xe8, b'x']);
    }
}
