//! Lets a shard that shares this thread's processor go first.
//!
//! A crowd brings a millisecond of work at once, and a thread that is running goes on until it
//! rests or the kernel's next tick, of which there are 250 a second on many machines: meanwhile a
//! frame waits. So this thread offers its place every now and then. Nobody waiting, that costs half
//! a microsecond.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Work between two offers. Protects the latency of frames. Source: what a shard's own turn takes
/// at most in company.
const PIECE: Duration = Duration::from_micros(50);

thread_local! {
    /// When this thread last offered its place.
    static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Offers this thread's place, if it has worked long enough since the last time.
pub(crate) fn give_way() {
    let now = Instant::now();
    let is_due = OFFERED.get().is_none_or(|offered| now.duration_since(offered) >= PIECE);
    if is_due {
        std::thread::yield_now();
        OFFERED.set(Some(Instant::now()));
    }
}

/// The same future, which gives way after each step.
pub(crate) async fn politely<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        give_way();
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_offered_once_per_piece_of_work() {
        OFFERED.set(None);
        give_way();
        assert!(OFFERED.get().is_some());
        let first = Some(Instant::now());
        OFFERED.set(first);
        give_way();
        assert_eq!(OFFERED.get(), first, "not before a piece of work is done");
        let later = Instant::now() + 2 * PIECE;
        while Instant::now() < later {
            std::hint::spin_loop();
        }
        give_way();
        assert!(OFFERED.get() > first);
    }

    #[tokio::test]
    async fn whoever_is_polite_gets_done() {
        OFFERED.set(None);
        let sum = politely(async {
            tokio::task::yield_now().await;
            3
        });
        assert_eq!(sum.await, 3);
        assert!(OFFERED.get().is_some());
    }
}
