//! A value that threads wait on: the one way in which threads of the runner meet.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A value behind a lock, with a bell that rings on every change.
#[derive(Debug, Default)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// Looks at the value, or changes it in a way nobody waits for.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.lock())
    }

    /// Changes the value and wakes everybody who waits on it.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` gives something, looking again after each change; `None` when the
    /// deadline passes first.
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut ready: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut value = self.lock();
        loop {
            if let Some(result) = ready(&mut value) {
                return Some(result);
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            value = self
                .changed
                .wait_timeout(value, remaining)
                .expect("no thread panics while it holds a watched value")
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().expect("no thread panics while it holds a watched value")
    }
}

/// A moment after which nobody waits any longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after_ms(ms: u64) -> Self {
        Self(Instant::now() + Duration::from_millis(ms))
    }

    /// Time left; zero once the deadline has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn passed(self) -> bool {
        self.remaining().is_zero()
    }
}

/// Lets time pass: for waits a scenario asks for, and between two polls of another process.
#[expect(clippy::disallowed_methods, reason = "scenarios prescribe waits; polls need a pause")]
pub(crate) fn pause_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_change_made_by_another_thread_ends_the_wait() {
        let count = Arc::new(Watched::new(0));
        let counting = Arc::clone(&count);
        let counter = std::thread::spawn(move || (0..3).for_each(|_| counting.update(|n| *n += 1)));
        let seen = count.wait(Deadline::after_ms(60_000), |n| (*n == 3).then_some(*n));
        counter.join().unwrap();
        assert_eq!(seen, Some(3));
    }

    #[test]
    fn a_passed_deadline_still_looks_once() {
        let value = Watched::new(7);
        assert_eq!(value.wait(Deadline::after_ms(0), |n| Some(*n)), Some(7));
        assert_eq!(value.wait(Deadline::after_ms(0), |_| None::<u8>), None);
    }
}
