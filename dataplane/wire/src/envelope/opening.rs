//! How the text before began, so that what begins alike is not read twice.

use super::scanner::Findings;

/// The beginning of the text read last, and what was found in the part of it that texts share.
///
/// Frames of one kind begin alike, those of one session up to their sequence number. What a scanner
/// knows at the beginning of a member is decided by the bytes before it; where these are the same
/// as last time, it goes on from there.
///
/// Shape: the known part ends behind a comma between two top-level members. One beginning is known
/// at a time: within a run of frames of one session the known part reaches to what differs from
/// frame to frame; where sessions take turns, to what differs from session to session.
#[derive(Clone)]
pub(super) struct Opening {
    bytes: [u8; OPENING_BYTES],
    known_len: usize,
    found: Findings,
    /// What was kept of the known part's strings; not longer than they are.
    text: [u8; OPENING_BYTES],
    text_len: usize,
    /// What reading the known part took.
    steps: u32,
}

/// What a text has in common with the one before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Common {
    /// Bytes whose meaning is known.
    pub(super) known: usize,
    /// Bytes that are the same. What is found at a member's beginning up to here may be kept.
    pub(super) same: usize,
}

impl Opening {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; OPENING_BYTES],
            known_len: 0,
            found: Findings::NONE,
            text: [0; OPENING_BYTES],
            text_len: 0,
            steps: 0,
        }
    }

    /// Compares the beginning of a text, whose first piece this is, and remembers it instead.
    ///
    /// Cost: one pass over [`OPENING_BYTES`]; of a shorter piece, nothing is compared.
    pub(super) fn compare(&mut self, piece: &[u8]) -> Common {
        let Some(begins) = piece.first_chunk::<OPENING_BYTES>() else {
            return Common::default();
        };
        let same = common_len(&self.bytes, begins);
        if same < OPENING_BYTES {
            self.bytes = *begins;
        }
        if same < self.known_len {
            self.known_len = 0;
        }
        Common { known: self.known_len, same }
    }

    /// What is known behind the known part, and the steps it took; the text kept of it goes into
    /// `text`.
    pub(super) fn recall(&self, text: &mut Vec<u8>) -> (&Findings, u32) {
        text.extend_from_slice(&self.text[..self.text_len]);
        (&self.found, self.steps)
    }

    /// Keeps what was found in the first `len` bytes of the text that was compared last, which
    /// took so many steps.
    pub(super) fn keep(&mut self, len: usize, found: &Findings, text: &[u8], steps: u32) {
        let Some(kept) = self.text.get_mut(..text.len()) else {
            return;
        };
        kept.copy_from_slice(text);
        self.text_len = text.len();
        self.found = *found;
        self.steps = steps;
        self.known_len = len;
    }
}

/// Bytes that are the same from the beginning on.
fn common_len(left: &[u8; OPENING_BYTES], right: &[u8; OPENING_BYTES]) -> usize {
    let words = left.as_chunks().0.iter().zip(right.as_chunks().0);
    for (index, (left, right)) in words.enumerate() {
        let difference = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if difference != 0 {
            return index * 8 + difference.trailing_zeros() as usize / 8;
        }
    }
    OPENING_BYTES
}

/// Bytes of a beginning: type, version, profile, session and epoch of an encrypted frame.
pub(super) const OPENING_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_common_ends_at_the_first_difference(
            left in proptest::array::uniform32(any::<u8>()),
            at in 0..=OPENING_BYTES,
            other in 1..=u8::MAX,
        ) {
            let left: [u8; OPENING_BYTES] = std::array::from_fn(|i| left[i % 32]);
            let mut right = left;
            for byte in right.iter_mut().skip(at) {
                *byte ^= other;
            }
            prop_assert_eq!(common_len(&left, &right), at);
        }
    }

    #[test]
    fn the_known_part_is_forgotten_when_a_text_begins_otherwise() {
        let mut opening = Opening::new();
        let first = [b'a'; OPENING_BYTES];
        opening.compare(&first);
        opening.keep(10, &Findings::NONE, b"kept", 3);
        let mut second = first;
        second[20] = b'b';
        assert_eq!(opening.compare(&second), Common { known: 10, same: 20 });
        second[9] = b'b';
        assert_eq!(opening.compare(&second), Common { known: 0, same: 9 });
        assert_eq!(opening.compare(&second), Common { known: 0, same: OPENING_BYTES });
        assert_eq!(opening.compare(&second[..50]), Common::default());
    }
}
