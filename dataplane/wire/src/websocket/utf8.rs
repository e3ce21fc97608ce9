//! UTF-8 checking of a text that arrives in blocks.

use serde::{Deserialize, Serialize};

use super::mask::Marks;

/// The bytes of a character whose end has not arrived yet; four bytes in all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Utf8Check {
    tail: [u8; 3],
    tail_len: u8,
}

impl Utf8Check {
    /// Takes the next block. False as soon as no continuation could make the text valid.
    ///
    /// Cost: nothing but a test for a block marked as ASCII; else one vectorised pass.
    pub(super) fn feed(&mut self, block: &[u8], marks: Marks) -> bool {
        if self.tail_len == 0 && marks.is_ascii() {
            return true;
        }
        let Some(rest) = self.complete(block) else {
            return false;
        };
        if self.tail_len > 0 {
            // The whole block went into a character that is still open.
            return true;
        }
        let whole = rest.len() - open_tail_len(rest);
        if simdutf8::basic::from_utf8(&rest[..whole]).is_err() {
            return false;
        }
        self.keep(&rest[whole..])
    }

    /// Whether the text may end here.
    pub(super) const fn is_complete(self) -> bool {
        self.tail_len == 0
    }

    /// Finishes the character left open by the block before. `None` when it is no character.
    fn complete<'b>(&mut self, block: &'b [u8]) -> Option<&'b [u8]> {
        let mut used = 0;
        while self.tail_len > 0 {
            let Some(&byte) = block.get(used) else {
                return Some(&[]);
            };
            used += 1;
            let mut candidate = [0; 4];
            let kept = usize::from(self.tail_len);
            candidate[..kept].copy_from_slice(&self.tail[..kept]);
            candidate[kept] = byte;
            let candidate = &candidate[..=kept];
            match std::str::from_utf8(candidate) {
                Ok(_) => self.tail_len = 0,
                Err(_) if !self.keep(candidate) => return None,
                Err(_) => {}
            }
        }
        Some(&block[used..])
    }

    /// Remembers the start of a character. False when nothing can complete it.
    fn keep(&mut self, start: &[u8]) -> bool {
        let open = std::str::from_utf8(start)
            .err()
            .is_none_or(|error| error.valid_up_to() == 0 && error.error_len().is_none());
        if !open || start.len() > self.tail.len() {
            return false;
        }
        self.tail[..start.len()].copy_from_slice(start);
        self.tail_len = start.len() as u8;
        true
    }
}

/// How many bytes at the end of `block` begin a character that needs more bytes than are there.
fn open_tail_len(block: &[u8]) -> usize {
    for (back, &byte) in block.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x00..=0x7f => return 0,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut check = Utf8Check::default();
        pieces.iter().all(|piece| check.feed(piece, Marks::NONE)) && check.is_complete()
    }

    #[test]
    fn every_split_of_every_kind_of_character_is_accepted() {
        let text = "a\u{7ff}\u{fffd}\u{10ffff}\u{800}\u{10000}é".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert!(check(&pieces), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_bad_sequence_is_refused_before_the_text_ends() {
        for bad in [
            &b"\xff"[..],
            b"\xc0\x80",
            b"\xe0\x80",
            b"\xed\xa0",
            b"\xf0\x80",
            b"\xf4\x90",
            b"\xf5",
            b"\x80",
            b"\xe2\x28",
        ] {
            let mut whole = Utf8Check::default();
            assert!(!whole.feed(bad, Marks::NONE), "{bad:x?}");
            let mut bytewise = Utf8Check::default();
            assert!(!bad.iter().all(|byte| bytewise.feed(&[*byte], Marks::NONE)), "{bad:x?}");
        }
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_not_complete() {
        assert!(!check(&[b"a\xe2\x82"]));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_judged_as_the_standard_library_does(
            bytes in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(b"\xe2\x82\xac\xf0\x9f".to_vec()),
                    any::<u8>(),
                ],
                0..40,
            ),
            cuts in proptest::collection::vec(0_usize..40, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(check(&pieces), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
