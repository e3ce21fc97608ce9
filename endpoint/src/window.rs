//! Which message numbers of one direction were seen.

/// How far back numbers are remembered, and how far ahead they may jump.
///
/// Protects a session from replay. Source: endpoint specification, section 3.
pub const WINDOW: u64 = 1024;

/// The last [`WINDOW`] message numbers, one bit each.
#[derive(Clone)]
pub(crate) struct Window {
    /// Highest number marked; 0 before the first.
    highest: u64,
    /// Bit `seq % WINDOW` tells whether `seq` was seen, for the last `WINDOW` numbers up to
    /// `highest`.
    seen: [u64; WORDS],
}

/// Why a number is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OutOfWindow {
    Seen,
    TooOld,
    TooFarAhead,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { highest: 0, seen: [0; WORDS] }
    }

    /// Judges a number and remembers nothing: only a message that decrypts may burn its number.
    pub(crate) fn check(&self, seq: u64) -> Result<(), OutOfWindow> {
        if seq > self.highest {
            return if seq - self.highest > WINDOW {
                Err(OutOfWindow::TooFarAhead)
            } else {
                Ok(())
            };
        }
        if self.highest - seq >= WINDOW {
            return Err(OutOfWindow::TooOld);
        }
        let (word, bit) = place(seq);
        // Number 0 is never sent; it counts as seen.
        if seq == 0 || self.seen[word] & bit != 0 {
            return Err(OutOfWindow::Seen);
        }
        Ok(())
    }

    /// Remembers a number that [`Window::check`] let pass.
    pub(crate) fn mark(&mut self, seq: u64) {
        if seq > self.highest {
            if seq - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..seq {
                    let (word, bit) = place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = seq;
        }
        let (word, bit) = place(seq);
        self.seen[word] |= bit;
    }
}

fn place(seq: u64) -> (usize, u64) {
    let index = usize::try_from(seq % WINDOW).expect("a remainder of 1,024 fits");
    (index / 64, 1 << (index % 64))
}

const WORDS: usize = 16;
const _: () = assert!(WORDS as u64 * 64 == WINDOW);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_edges_of_the_window_are_exact() {
        let mut window = Window::new();
        assert_eq!(window.check(0), Err(OutOfWindow::Seen));
        assert_eq!(window.check(WINDOW + 1), Err(OutOfWindow::TooFarAhead));
        assert_eq!(window.check(WINDOW), Ok(()));
        window.mark(WINDOW);
        assert_eq!(window.check(1), Ok(()));
        window.mark(WINDOW + 1);
        assert_eq!(window.check(1), Err(OutOfWindow::TooOld));
        assert_eq!(window.check(2), Ok(()));
        assert_eq!(window.check(2 * WINDOW + 1), Ok(()));
        assert_eq!(window.check(2 * WINDOW + 2), Err(OutOfWindow::TooFarAhead));
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut window = Window::new();
        window.highest = u64::MAX - 1;
        assert_eq!(window.check(u64::MAX), Ok(()));
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(OutOfWindow::Seen));
    }

    proptest! {
        #[test]
        fn the_window_is_a_set_with_two_bounds(
            steps in prop::collection::vec(-1100_i64..1100, 1..400),
        ) {
            let mut window = Window::new();
            let mut model = BTreeSet::from([0_u64]);
            for step in steps {
                let highest = *model.last().unwrap();
                let seq = highest.saturating_add_signed(step);
                let expected = if seq > highest + WINDOW {
                    Err(OutOfWindow::TooFarAhead)
                } else if seq + WINDOW <= highest {
                    Err(OutOfWindow::TooOld)
                } else if model.contains(&seq) {
                    Err(OutOfWindow::Seen)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(seq), expected);
                if expected.is_ok() {
                    window.mark(seq);
                    model.insert(seq);
                }
            }
        }
    }
}
