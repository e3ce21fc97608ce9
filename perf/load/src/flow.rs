//! One direction of a pair: what is sent, and what must arrive.
//!
//! Frames are built once and stamped with their sequence number where they lie, so that the
//! generator costs little more than its system calls. What arrives is compared byte by byte with
//! what was sent: order and content in one pass. The long end of a large frame is not the frame's
//! own but one of a few that all flows of a process share, so that the generator works in its cache
//! and the process under test has the memory bus to itself.

use std::io::IoSlice;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustix::io::Errno;

use crate::body::Bodies;
use crate::envelope::{Envelope, SEQ_DIGITS, SEQ_FIRST};
use crate::wire::Wire;

/// The mask of every frame. Any but zero will do: the relay must remove it all the same.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Bytes of a message that are its own: all that names its sender, session and number.
const OWN_BYTES: usize = 512;
/// Bytes behind them from which on they are shared.
const SHARED_BYTES_MIN: usize = 1024;
/// Slices of one write, at most.
const SLICES_MAX: usize = 64;

/// What stands between sender and receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Between {
    /// A relay, which removes the mask.
    Relay,
    /// A pass-through, which changes nothing.
    Passthrough,
}

/// Frames on their way from one socket to another.
pub(crate) struct Flow {
    sender: Sender,
    receiver: Receiver,
    /// When each of the frames in flight was sent, nanoseconds, by slot.
    sent_at: Box<[u64]>,
}

/// Frames in a row, used over and over: one per slot, in the order of their pattern.
pub(crate) struct Sender {
    track: Track,
    /// The heads of all slots, one behind the other.
    heads: Vec<u8>,
    /// Where each slot's head begins, and where the last one ends.
    starts: Box<[usize]>,
    /// Frames stamped and released so far.
    released: u64,
    /// Whole frames the socket took so far.
    written: u64,
    /// Bytes it took of the next one.
    written_bytes: usize,
}

/// The bytes expected next.
pub(crate) struct Receiver {
    track: Track,
    /// Bytes of the current frame that have arrived.
    at: usize,
    /// Whole frames that have arrived.
    count: u64,
}

/// Which frame follows which.
struct Track {
    kinds: Box<[Kind]>,
    /// The kind in each slot.
    pattern: Rc<[u8]>,
}

/// Frames of one size.
#[derive(Clone)]
struct Kind {
    /// The frame, or its beginning.
    head: Vec<u8>,
    /// The rest, where frames share it.
    bodies: Option<Arc<Bodies>>,
    /// Byte index of the first digit of the sequence number.
    seq_at: usize,
    /// Mask of the first digit and its followers; zero when unmasked.
    key: [u8; 4],
    frame_bytes: usize,
}

impl Flow {
    /// A flow with nothing in flight: frames of one or several sizes in the order of a pattern that
    /// names each by index. As many may be in flight as the pattern is long.
    pub(crate) fn of(envelopes: &[Envelope], pattern: &Rc<[u8]>, between: Between) -> Self {
        Self {
            sender: Sender::new(envelopes, pattern),
            receiver: Receiver::new(envelopes, pattern, between),
            sent_at: vec![0; pattern.len()].into_boxed_slice(),
        }
    }

    /// Lets `count` more frames go at `now`, nanoseconds.
    pub(crate) fn release(&mut self, count: u64, now: u64) {
        debug_assert!(
            self.sender.released + count <= self.receiver.count + self.sent_at.len() as u64
        );
        for number in self.sender.released..self.sender.released + count {
            let slot = self.sender.track.slot(number);
            self.sent_at[slot] = now;
        }
        self.sender.release(count);
    }

    /// Writes what was released, at most so many bytes at a time. True when all of it went.
    pub(crate) fn write(&mut self, wire: &mut Wire, most: usize) -> Result<bool> {
        self.sender.write(wire, most)
    }

    /// Compares what arrived with what was sent. Returns the numbers of the frames it completed.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) -> Result<Range<u64>> {
        let numbers = self.receiver.arrive(bytes)?;
        ensure!(numbers.end <= self.sender.released, "more frames arrived than were sent");
        Ok(numbers)
    }

    /// When a frame in flight was sent.
    pub(crate) fn sent_at(&self, number: u64) -> u64 {
        self.sent_at[self.sender.track.slot(number)]
    }

    /// Frames sent and not arrived.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sender.released - self.receiver.count
    }

    /// Frames released so far.
    pub(crate) fn released(&self) -> u64 {
        self.sender.released
    }

    /// Frames that may be in flight.
    pub(crate) fn slots(&self) -> u64 {
        self.sent_at.len() as u64
    }
}

impl Sender {
    /// Nothing is released.
    pub(crate) fn new(envelopes: &[Envelope], pattern: &Rc<[u8]>) -> Self {
        let track = Track::new(envelopes, pattern, Some(MASK));
        let mut heads = Vec::new();
        let mut starts = vec![0];
        for kind in pattern.iter() {
            heads.extend(&track.kinds[usize::from(*kind)].head);
            starts.push(heads.len());
        }
        let starts = starts.into_boxed_slice();
        Self { track, heads, starts, released: 0, written: 0, written_bytes: 0 }
    }

    /// Stamps `count` more frames and lets them go.
    pub(crate) fn release(&mut self, count: u64) {
        for number in self.released..self.released + count {
            let slot = self.track.slot(number);
            let head = &mut self.heads[self.starts[slot]..self.starts[slot + 1]];
            self.track.kind(number).stamp(head, SEQ_FIRST + number);
        }
        self.released += count;
    }

    /// Frames released so far.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Whether a released frame has not been written whole.
    pub(crate) fn has_more(&self) -> bool {
        self.written < self.released
    }

    /// Writes what was released, at most so many bytes at a time. True when all of it went.
    pub(crate) fn write(&mut self, wire: &mut Wire, most: usize) -> Result<bool> {
        while self.has_more() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.gather(&mut slices, most);
            match wire.write_some(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        wire.flush_some()
    }

    /// Names what to write next; returns how many slices that took.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX], most: usize) -> usize {
        let (mut number, mut skip, mut left, mut count) =
            (self.written, self.written_bytes, most, 0);
        let mut push = |bytes: &'a [u8], left: &mut usize| {
            let bytes = &bytes[..bytes.len().min(*left)];
            *left -= bytes.len();
            if !bytes.is_empty() {
                slices[count] = IoSlice::new(bytes);
                count += 1;
            }
            count
        };
        let mut used = 0;
        while number < self.released && left > 0 && used + 2 <= SLICES_MAX {
            let slot = self.track.slot(number);
            let (start, end) = (self.starts[slot], self.starts[slot + 1]);
            if let Some(bodies) = &self.track.kind(number).bodies {
                let body = bodies.masked(number);
                let head_bytes = end - start;
                push(&self.heads[start + skip.min(head_bytes)..end], &mut left);
                used = push(&body[skip.saturating_sub(head_bytes)..], &mut left);
                number += 1;
            } else {
                // Whole frames lie one behind the other as far as none has a body.
                let first = slot;
                let mut behind = slot;
                while number < self.released
                    && behind < self.track.pattern.len()
                    && (behind == first || self.track.kind(number).bodies.is_none())
                {
                    behind += 1;
                    number += 1;
                }
                used = push(&self.heads[start + skip..self.starts[behind]], &mut left);
            }
            skip = 0;
        }
        used
    }

    fn advance(&mut self, written: usize) {
        self.written_bytes += written;
        while self.written < self.released {
            let frame_bytes = self.track.kind(self.written).frame_bytes;
            if self.written_bytes < frame_bytes {
                break;
            }
            self.written_bytes -= frame_bytes;
            self.written += 1;
        }
    }
}

impl Receiver {
    /// Nothing has arrived.
    pub(crate) fn new(envelopes: &[Envelope], pattern: &Rc<[u8]>, between: Between) -> Self {
        let mask = match between {
            Between::Relay => None,
            Between::Passthrough => Some(MASK),
        };
        let mut track = Track::new(envelopes, pattern, mask);
        track.stamp(0);
        Self { track, at: 0, count: 0 }
    }

    /// Whole frames that have arrived.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Compares what arrived with what must arrive next. Returns the numbers of the frames it
    /// completed.
    pub(crate) fn arrive(&mut self, mut bytes: &[u8]) -> Result<Range<u64>> {
        let before = self.count;
        while !bytes.is_empty() {
            let kind = self.track.kind(self.count);
            let expected = match &kind.bodies {
                Some(bodies) if self.at >= kind.head.len() => {
                    let body = match kind.key {
                        [0, 0, 0, 0] => bodies.plain(self.count),
                        _ => bodies.masked(self.count),
                    };
                    &body[self.at - kind.head.len()..]
                }
                _ => &kind.head[self.at..],
            };
            let len = expected.len().min(bytes.len());
            ensure!(
                bytes[..len] == expected[..len],
                "frame {} differs from what was sent, somewhere from byte {} on: {:?}",
                self.count,
                self.at,
                String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
            );
            self.at += len;
            bytes = &bytes[len..];
            if self.at == kind.frame_bytes {
                self.at = 0;
                self.count += 1;
                self.track.stamp(self.count);
            }
        }
        Ok(before..self.count)
    }
}

impl Track {
    fn new(envelopes: &[Envelope], pattern: &Rc<[u8]>, mask: Option<[u8; 4]>) -> Self {
        let kinds = envelopes.iter().map(|envelope| Kind::new(envelope, mask)).collect();
        Self { kinds, pattern: Rc::clone(pattern) }
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.pattern.len() as u64) as usize
    }

    fn kind(&self, number: u64) -> &Kind {
        &self.kinds[usize::from(self.pattern[self.slot(number)])]
    }

    /// Gives the next frame's number to the kind it will be of.
    fn stamp(&mut self, number: u64) {
        let slot = self.slot(number);
        let kind = &mut self.kinds[usize::from(self.pattern[slot])];
        let (seq_at, key) = (kind.seq_at, kind.key);
        stamp(&mut kind.head, seq_at, key, SEQ_FIRST + number);
    }
}

impl Kind {
    fn new(envelope: &Envelope, mask: Option<[u8; 4]>) -> Self {
        let frame = text_frame(envelope.text.as_bytes(), mask);
        let prefix_bytes = frame.len() - envelope.text.len();
        let mut key = mask.unwrap_or_default();
        key.rotate_left(envelope.seq_at % 4);
        let frame_bytes = frame.len();
        let (head, bodies) = match envelope.text.len().checked_sub(OWN_BYTES) {
            Some(body_bytes @ SHARED_BYTES_MIN..) => {
                let head = frame[..prefix_bytes + OWN_BYTES].to_vec();
                (head, Some(Bodies::of(body_bytes, MASK)))
            }
            _ => (frame, None),
        };
        Self { head, bodies, seq_at: prefix_bytes + envelope.seq_at, key, frame_bytes }
    }

    fn stamp(&self, head: &mut [u8], seq: u64) {
        stamp(head, self.seq_at, self.key, seq);
    }
}

/// Writes the sequence number over the one that stands there.
fn stamp(frame: &mut [u8], seq_at: usize, key: [u8; 4], mut seq: u64) {
    for index in (0..SEQ_DIGITS).rev() {
        frame[seq_at + index] = (b'0' + (seq % 10) as u8) ^ key[index % 4];
        seq /= 10;
    }
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

    fn envelope(bytes: usize) -> Envelope {
        Envelope::new("session-1", bytes).expect("it fits")
    }

    fn flow(between: Between) -> Flow {
        Flow::of(&[envelope(300)], &vec![0; 4].into(), between)
    }

    /// Sizes without and with a shared body.
    fn mixed(between: Between) -> Flow {
        let envelopes = [envelope(300), envelope(5000), envelope(1000)];
        Flow::of(&envelopes, &vec![0, 1, 0, 0, 2, 1].into(), between)
    }

    /// Everything a flow has to write, in pieces of at most so many bytes.
    fn written(flow: &mut Flow, most: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while flow.sender.has_more() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = flow.sender.gather(&mut slices, most);
            let bytes: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert!(!bytes.is_empty() && bytes.len() <= most);
            stream.extend(&bytes);
            flow.sender.advance(bytes.len());
        }
        stream
    }

    /// What a relay makes of client frames: the same without masks.
    fn relayed(mut stream: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let [first, second, rest @ ..] = stream {
            let (len, len_bytes) = match second & 0x7f {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), 2),
                len => (usize::from(len), 0),
            };
            out.extend([*first, second & 0x7f]);
            out.extend(&rest[..len_bytes]);
            let (key, payload) = rest[len_bytes..].split_at(4);
            out.extend(payload[..len].iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
            stream = &payload[len..];
        }
        out
    }

    #[test]
    fn frames_are_valid_under_their_mask_whatever_the_pieces() {
        for most in [1, 7, 500, 5000, usize::MAX] {
            let mut flow = mixed(Between::Relay);
            flow.release(6, 0);
            let stream = relayed(&written(&mut flow, most));
            let mut rest = &stream[..];
            for (number, bytes) in [300, 5000, 300, 300, 1000, 5000].into_iter().enumerate() {
                let text = &rest[4..4 + bytes];
                let json: serde_json::Value = serde_json::from_slice(text).expect("JSON");
                assert_eq!(json["seq"], SEQ_FIRST + number as u64);
                rest = &rest[4 + bytes..];
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn arrivals_are_counted_whatever_the_pieces() {
        for piece in [1, 7, 304, 305, 1000, 100_000] {
            let mut flow = mixed(Between::Relay);
            for round in 0..3 {
                flow.release(6, 0);
                let stream = relayed(&written(&mut flow, usize::MAX));
                let count: u64 = stream
                    .chunks(piece)
                    .map(|bytes| flow.arrive(bytes).expect("it is as sent").count() as u64)
                    .sum();
                assert_eq!((count, flow.in_flight()), (6, 0), "round {round}");
            }
        }
    }

    #[test]
    fn a_changed_byte_a_gap_and_a_frame_too_many_are_found() {
        for at in [200, 304 + 4000] {
            let mut changed = mixed(Between::Relay);
            changed.release(6, 0);
            let mut stream = relayed(&written(&mut changed, usize::MAX));
            stream[at] ^= 1;
            assert!(changed.arrive(&stream).is_err());
        }

        let mut gap = flow(Between::Relay);
        gap.release(2, 0);
        let stream = relayed(&written(&mut gap, usize::MAX));
        assert!(gap.arrive(&stream[stream.len() / 2..]).is_err());

        let mut extra = flow(Between::Relay);
        extra.release(1, 0);
        let mut other = flow(Between::Relay);
        other.release(2, 0);
        assert!(extra.arrive(&relayed(&written(&mut other, usize::MAX))).is_err());
    }

    #[test]
    fn bodies_of_neighbouring_frames_differ() {
        let mut flow = Flow::of(&[envelope(5000)], &vec![0; 4].into(), Between::Relay);
        flow.release(2, 0);
        let mut stream = relayed(&written(&mut flow, usize::MAX));
        let (first, second) = stream.split_at_mut(5004);
        assert_ne!(first[1000..], second[1000..]);
        second[1000..].copy_from_slice(&first[1000..]);
        assert!(flow.arrive(&stream).is_err());
    }

    #[test]
    fn a_pass_through_is_expected_to_change_nothing() {
        let mut flow = mixed(Between::Passthrough);
        flow.release(6, 0);
        let stream = written(&mut flow, usize::MAX);
        assert_eq!(flow.arrive(&stream).expect("it is as sent"), 0..6);
    }
}
