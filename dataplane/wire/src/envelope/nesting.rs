//! Which containers are open, one bit each.

/// A stack of objects and arrays.
///
/// Shape: one bit per level, 64 levels inline. Every level costs the sender at least one byte, so
/// the heap part never exceeds an eighth of the frame: 128 KiB for a frame of 1 MiB that is nothing
/// but brackets.
#[derive(Clone, Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    /// The innermost levels: bit `(level - 1) % 64` is set for an object.
    top: u64,
    /// The full words below.
    deep: Vec<u64>,
}

impl Nesting {
    /// Forgets everything, and gives back what an unusually deep frame took.
    pub(super) fn clear(&mut self) {
        self.depth = 0;
        if self.deep.capacity() > 0 {
            self.deep.clear();
            self.deep.shrink_to(RETAINED_WORDS_MAX);
        }
    }

    /// Memory that the depth so far may have made it take.
    pub(super) fn held_bytes(&self) -> usize {
        2 * self.deep.len() * size_of::<u64>()
    }

    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    #[inline]
    pub(super) fn push(&mut self, is_object: bool) {
        let bit = self.depth % 64;
        if bit == 0 && self.depth > 0 {
            self.deep.push(self.top);
        }
        self.top = self.top & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
    }

    /// Closes the innermost container if it is of that kind.
    #[inline]
    pub(super) fn pop(&mut self, is_object: bool) -> bool {
        if self.depth == 0 || self.in_object() != is_object {
            return false;
        }
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.top = self.deep.pop().unwrap_or_default();
        }
        true
    }

    /// Whether the innermost container is an object.
    #[inline]
    pub(super) const fn in_object(&self) -> bool {
        self.depth > 0 && self.top >> ((self.depth - 1) % 64) & 1 == 1
    }
}

/// Words kept from frame to frame: room for 8,192 levels.
const RETAINED_WORDS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_stack(moves in proptest::collection::vec(0_u8..5, 0..600)) {
            let mut nesting = Nesting::default();
            let mut model = Vec::new();
            for step in moves {
                match step {
                    0 | 1 => { nesting.push(true); model.push(true); }
                    2 => { nesting.push(false); model.push(false); }
                    kind => {
                        let is_object = kind == 3;
                        let expected = model.last() == Some(&is_object);
                        prop_assert_eq!(nesting.pop(is_object), expected);
                        if expected { model.pop(); }
                    }
                }
                prop_assert_eq!(nesting.depth(), model.len());
                prop_assert_eq!(nesting.in_object(), model.last() == Some(&true));
            }
        }
    }

    #[test]
    fn a_million_levels_cost_an_eighth_of_their_bytes() {
        let mut nesting = Nesting::default();
        for level in 0..1_000_000 {
            nesting.push(level % 3 == 0);
        }
        assert!(nesting.deep.capacity() * 8 <= 2 * 1_000_000 / 8);
        for level in (0..1_000_000).rev() {
            assert!(nesting.pop(level % 3 == 0));
        }
        assert_eq!(nesting.depth(), 0);
        nesting.clear();
        assert!(nesting.deep.capacity() <= RETAINED_WORDS_MAX);
    }
}
