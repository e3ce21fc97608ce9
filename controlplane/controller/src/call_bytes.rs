//! How many bytes the calls of workers hold, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all calls in flight hold, and what they may.
#[derive(Clone, Debug)]
pub(crate) struct CallBytes {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    held: AtomicUsize,
    bytes_max: usize,
}

/// What one call holds. Given back with it.
#[derive(Debug)]
pub(crate) struct CallShare {
    account: Arc<Account>,
    bytes: usize,
}

impl CallBytes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { account: Arc::new(Account { held: AtomicUsize::new(0), bytes_max }) }
    }

    /// The share of a new call. `None` when it does not fit beside those of others.
    pub(crate) fn take(&self, bytes: usize) -> Option<CallShare> {
        let mut share = CallShare { account: Arc::clone(&self.account), bytes: 0 };
        share.grow(bytes).then_some(share)
    }
}

impl CallShare {
    /// Holds so many bytes more, if they fit beside what others hold; whether they do. A call that
    /// is alone always fits: its own bounds hold it.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Account { held, bytes_max } = &*self.account;
        let own = self.bytes;
        let grown = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let grown = held.checked_add(bytes)?;
            (grown <= *bytes_max || held == own).then_some(grown)
        });
        if grown.is_ok() {
            self.bytes += bytes;
        }
        grown.is_ok()
    }
}

impl Drop for CallShare {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_together_or_are_not_given() {
        let all = CallBytes::new(10);
        let mut first = all.take(4).expect("room");
        let second = all.take(4).expect("room");
        assert!(all.take(3).is_none());
        assert!(first.grow(2), "what was refused holds nothing");
        assert!(!first.grow(1));
        drop(second);
        assert!(first.grow(4), "room again");
        assert!(all.take(1).is_none());
    }

    #[test]
    fn a_call_that_is_alone_fits_however_large() {
        let all = CallBytes::new(10);
        let mut alone = all.take(11).expect("nobody else is there");
        assert!(alone.grow(20));
        assert!(all.take(1).is_none());
        drop(alone);
        assert!(all.take(10).is_some());
    }
}
