//! Receives that found no buffer, and whose turn it is when one comes back.

use std::collections::VecDeque;

use crate::Key;

/// The longest waiting first; those that found some buffers, and then no more, behind all that
/// found none. Otherwise whoever took the last buffers would be the first to get the next.
#[derive(Debug, Default)]
pub(crate) struct Starved {
    none: VecDeque<Key>,
    some: VecDeque<Key>,
}

impl Starved {
    /// One more waits; `is_fed` says whether its receive has brought anything.
    pub(crate) fn push(&mut self, key: Key, is_fed: bool) {
        let waiting = if is_fed { &mut self.some } else { &mut self.none };
        waiting.push_back(key);
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.none.pop_front().or_else(|| self.some.pop_front())
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.none.is_empty() && self.some.is_empty()
    }
}
