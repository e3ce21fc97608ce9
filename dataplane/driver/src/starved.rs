//! Receives that wait for a buffer, and whose turn it is when one comes back.

use std::collections::VecDeque;

use crate::Key;

/// In the order of their waiting, whoever they are: those that found no buffer, and those that are
/// asked for while others wait.
///
/// Of those that starve in one turn, the ones that found some buffers and then no more are behind
/// all that found none: otherwise whoever took the last would be the first to get the next. Who
/// waited before that turn is ahead of both.
#[derive(Debug, Default)]
pub(crate) struct Starved {
    waiting: VecDeque<Key>,
    /// Those of this turn that found some.
    fed: Vec<Key>,
}

impl Starved {
    /// One more waits; `is_fed` says whether its receive has brought anything.
    pub(crate) fn push(&mut self, key: Key, is_fed: bool) {
        if is_fed {
            self.fed.push(key);
        } else {
            self.waiting.push_back(key);
        }
    }

    /// All that starve in this turn are known: whoever comes now is behind them.
    pub(crate) fn end_turn(&mut self) {
        self.waiting.extend(self.fed.drain(..));
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.waiting.pop_front()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.fed.len()
    }

    /// Forgets those that do not wait any more. Cost: a walk over all.
    pub(crate) fn retain(&mut self, mut waits: impl FnMut(Key) -> bool) {
        self.waiting.retain(|&key| waits(key));
        self.fed.retain(|&key| waits(key));
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.fed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    #[test]
    fn who_found_some_is_behind_all_that_found_none_in_the_same_turn() {
        let mut starved = Starved::default();
        starved.push(key(1), true);
        starved.push(key(2), false);
        starved.end_turn();
        assert_eq!([starved.pop(), starved.pop()], [Some(key(2)), Some(key(1))]);
        assert!(starved.is_empty());
    }

    #[test]
    fn nobody_overtakes_who_waited_in_an_earlier_turn() {
        let mut starved = Starved::default();
        starved.push(key(1), true);
        starved.end_turn();
        starved.push(key(2), false);
        starved.end_turn();
        assert_eq!([starved.pop(), starved.pop()], [Some(key(1)), Some(key(2))]);
    }
}
