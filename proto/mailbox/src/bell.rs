//! The doorbell of one thread.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

use std::fmt;
use std::sync::Arc;

/// Wakes the one thread that sleeps.
pub trait Ring: Send + Sync {
    /// Ends the sleep the thread is in, or the next one if it does not sleep yet. Never blocks.
    fn ring(&self);
}

impl<R: Ring + ?Sized> Ring for Arc<R> {
    fn ring(&self) {
        (**self).ring();
    }
}

/// A "sleeping" flag and the ringer to use when it is set; shared by all lanes into one thread.
///
/// The thread that owns it, before it sleeps: [`rest`](Self::rest), look at every lane once more,
/// sleep; and [`rise`](Self::rise) when it is awake. Everybody else, after making something visible
/// to it: [`notify`](Self::notify).
pub struct Bell {
    sleeping: AtomicBool,
    ringer: Box<dyn Ring>,
}

impl Bell {
    /// A bell whose thread is awake.
    pub fn new(ring: impl Ring + 'static) -> Arc<Self> {
        Arc::new(Self { sleeping: AtomicBool::new(false), ringer: Box::new(ring) })
    }

    /// Announces that the owner is about to sleep. It has to look at its lanes after this call and
    /// before it sleeps: whoever pushed before the announcement saw no reason to ring.
    pub fn rest(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `notify`. Of the two fences one comes first: either the owner's
        // next look at its lanes sees the push, or the pusher's look at the flag sees it set.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back. A ring that crossed with it ends the next sleep early, no more.
    pub fn rise(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Rings if the owner announced sleep, and only the first caller does.
    ///
    /// Cost: a fence and a load while the owner is awake.
    pub fn notify(&self) {
        // Pairs with the fence in `rest`.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.ringer.ring();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Ring for Count {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_awake_thread_is_not_rung() {
        let count = Arc::new(Count::default());
        let bell = Bell::new(Arc::clone(&count));
        bell.notify();
        bell.rest();
        bell.rise();
        bell.notify();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_sleeping_thread_is_rung_once() {
        let count = Arc::new(Count::default());
        let bell = Bell::new(Arc::clone(&count));
        bell.rest();
        bell.notify();
        bell.notify();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
