//! One direction of a pair: what is sent, and what must arrive.
//!
//! Frames are built once and stamped with their sequence number where they lie, so that the
//! generator costs little more than its system calls. What arrives is compared byte by byte with
//! what was sent: order and content in one pass.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::envelope::{Envelope, SEQ_DIGITS, SEQ_FIRST};

/// The mask of every frame. Any but zero will do: the relay must remove it all the same.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What stands between sender and receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Between {
    /// A relay, which removes the mask.
    Relay,
    /// A pass-through, which changes nothing.
    Passthrough,
}

/// Frames on their way from one socket to another, at most `depth` at a time.
pub(crate) struct Flow {
    sender: Sender,
    receiver: Receiver,
    /// When each of the frames in flight was sent, nanoseconds, by sequence number modulo depth.
    sent_at: Box<[u64]>,
}

/// `depth` frames in a row, used over and over.
struct Sender {
    frames: Vec<u8>,
    layout: Layout,
    depth: u64,
    /// Frames stamped and released so far.
    released: u64,
    /// Bytes the socket took so far.
    written: u64,
}

/// The bytes expected next.
struct Receiver {
    frame: Vec<u8>,
    layout: Layout,
    /// Bytes of the current frame that have arrived.
    at: usize,
    /// Whole frames that have arrived.
    count: u64,
}

/// Where things stand in a frame.
#[derive(Clone, Copy)]
struct Layout {
    frame_bytes: usize,
    /// Byte index of the first digit of the sequence number.
    seq_at: usize,
    /// Mask of the first digit and its followers; zero when unmasked.
    key: [u8; 4],
}

impl Flow {
    /// A flow with nothing in flight.
    pub(crate) fn new(envelope: &Envelope, depth: usize, between: Between) -> Self {
        let (sent, layout) = frame(envelope, Some(MASK));
        let (expected, expected_layout) = match between {
            Between::Relay => frame(envelope, None),
            Between::Passthrough => (sent.clone(), layout),
        };
        Self {
            sender: Sender {
                frames: sent.repeat(depth),
                layout,
                depth: depth as u64,
                released: 0,
                written: 0,
            },
            receiver: Receiver { frame: expected, layout: expected_layout, at: 0, count: 0 },
            sent_at: vec![0; depth].into_boxed_slice(),
        }
    }

    /// Lets `count` more frames go at `now`, nanoseconds.
    pub(crate) fn release(&mut self, count: u64, now: u64) {
        let sender = &mut self.sender;
        debug_assert!(sender.released + count <= self.receiver.count + sender.depth);
        for number in sender.released..sender.released + count {
            let slot = (number % sender.depth) as usize;
            let start = slot * sender.layout.frame_bytes;
            let frame = &mut sender.frames[start..start + sender.layout.frame_bytes];
            sender.layout.stamp(frame, SEQ_FIRST + number);
            self.sent_at[slot] = now;
        }
        sender.released += count;
    }

    /// Writes what was released, at most so many bytes at a time. True when all of it went.
    pub(crate) fn write(&mut self, socket: impl AsFd, most: usize) -> Result<bool> {
        let sender = &mut self.sender;
        let ring_bytes = sender.frames.len();
        while sender.unwritten() > 0 {
            let start = (sender.written % ring_bytes as u64) as usize;
            let len = most.min(sender.unwritten() as usize);
            let first = &sender.frames[start..ring_bytes.min(start + len)];
            let second = &sender.frames[..len - first.len()];
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            match rustix::io::writev(&socket, &slices) {
                Ok(written) => sender.written += written as u64,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Compares what arrived with what was sent. Returns the numbers of the frames it completed.
    pub(crate) fn arrive(&mut self, mut bytes: &[u8]) -> Result<Range<u64>> {
        let receiver = &mut self.receiver;
        let before = receiver.count;
        while !bytes.is_empty() {
            let expected = &receiver.frame[receiver.at..];
            let len = expected.len().min(bytes.len());
            ensure!(
                bytes[..len] == expected[..len],
                "frame {} differs from what was sent, somewhere from byte {} on: {:?}",
                receiver.count,
                receiver.at,
                String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
            );
            receiver.at += len;
            bytes = &bytes[len..];
            if receiver.at == receiver.frame.len() {
                receiver.at = 0;
                receiver.count += 1;
                receiver.layout.stamp(&mut receiver.frame, SEQ_FIRST + receiver.count);
            }
        }
        ensure!(receiver.count <= self.sender.released, "more frames arrived than were sent");
        Ok(before..receiver.count)
    }

    /// When a frame in flight was sent.
    pub(crate) fn sent_at(&self, number: u64) -> u64 {
        self.sent_at[(number % self.sender.depth) as usize]
    }

    /// Frames sent and not arrived.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sender.released - self.receiver.count
    }
}

impl Sender {
    fn unwritten(&self) -> u64 {
        self.released * self.layout.frame_bytes as u64 - self.written
    }
}

impl Layout {
    /// Writes the sequence number over the one that stands there.
    fn stamp(self, frame: &mut [u8], mut seq: u64) {
        for index in (0..SEQ_DIGITS).rev() {
            frame[self.seq_at + index] = (b'0' + (seq % 10) as u8) ^ self.key[index % 4];
            seq /= 10;
        }
    }
}

/// A text frame around the envelope. Source: RFC 6455 §5.2.
fn frame(envelope: &Envelope, mask: Option<[u8; 4]>) -> (Vec<u8>, Layout) {
    let frame = text_frame(envelope.text.as_bytes(), mask);
    let head_bytes = frame.len() - envelope.text.len();
    let mut key = mask.unwrap_or_default();
    key.rotate_left(envelope.seq_at % 4);
    let layout = Layout { frame_bytes: frame.len(), seq_at: head_bytes + envelope.seq_at, key };
    (frame, layout)
}

/// One whole text message as a frame, masked as clients do or unmasked as servers do.
pub(crate) fn text_frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x81];
    match payload.len() {
        len @ ..126 => frame.push(mask_bit | len as u8),
        len @ ..=0xffff => {
            frame.push(mask_bit | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask_bit | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A text message as a client sends it.
pub(crate) fn client_frame(text: &str) -> Vec<u8> {
    text_frame(text.as_bytes(), Some(MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(between: Between) -> Flow {
        let envelope = Envelope::new("session-1", 300).expect("it fits");
        Flow::new(&envelope, 4, between)
    }

    /// What a relay would make of the frames a flow sends next.
    fn unmasked(flow: &Flow, count: u64) -> Vec<u8> {
        let mut receiver_frame = flow.receiver.frame.clone();
        let layout = flow.receiver.layout;
        let mut stream = Vec::new();
        for number in 0..count {
            layout.stamp(&mut receiver_frame, SEQ_FIRST + number);
            stream.extend(&receiver_frame);
        }
        stream
    }

    #[test]
    fn stamped_frames_are_valid_under_their_mask() {
        let mut flow = flow(Between::Relay);
        flow.release(4, 0);
        let layout = flow.sender.layout;
        for (number, frame) in flow.sender.frames.chunks(layout.frame_bytes).enumerate() {
            let payload = &frame[8..];
            let text: Vec<u8> =
                payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b).collect();
            let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(json["seq"], SEQ_FIRST + number as u64);
        }
    }

    #[test]
    fn arrivals_are_counted_whatever_the_pieces() {
        for piece in [1, 7, 304, 305, 1000] {
            let mut flow = flow(Between::Relay);
            flow.release(4, 0);
            let stream = unmasked(&flow, 4);
            let count: u64 = stream
                .chunks(piece)
                .map(|bytes| flow.arrive(bytes).expect("it is as sent").count() as u64)
                .sum();
            assert_eq!((count, flow.in_flight()), (4, 0));
        }
    }

    #[test]
    fn a_changed_byte_a_gap_and_a_frame_too_many_are_found() {
        let mut changed = flow(Between::Relay);
        changed.release(1, 0);
        let mut stream = unmasked(&changed, 1);
        stream[200] ^= 1;
        assert!(changed.arrive(&stream).is_err());

        let mut gap = flow(Between::Relay);
        gap.release(2, 0);
        let stream = unmasked(&gap, 2);
        assert!(gap.arrive(&stream[stream.len() / 2..]).is_err());

        let mut extra = flow(Between::Relay);
        extra.release(1, 0);
        let stream = unmasked(&extra, 2);
        assert!(extra.arrive(&stream).is_err());
    }

    #[test]
    fn a_pass_through_is_expected_to_change_nothing() {
        let mut flow = flow(Between::Passthrough);
        flow.release(4, 0);
        let stream = flow.sender.frames.clone();
        assert_eq!(flow.arrive(&stream).expect("it is as sent"), 0..4);
    }
}
