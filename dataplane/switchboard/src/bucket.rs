//! How often one thing may happen per minute.

use std::time::Duration;

use relay_contract::Tick;
use serde::{Deserialize, Serialize};

/// Holds a minute's worth of tokens and fills evenly.
///
/// Shape: only the moment at which it will be full again is kept. Each token taken defers it by the
/// time one token needs to come back; a token is there as long as that moment is at most a minute
/// off. A new one is full.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bucket {
    full_at: Tick,
}

impl Bucket {
    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Tick, per_minute: u32) -> bool {
        let after = self.full_at.max(now).after(MINUTE / per_minute.max(1));
        let taken = after <= now.after(MINUTE);
        if taken {
            self.full_at = after;
        }
        taken
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_holds_a_minute_s_worth_whatever_the_rate() {
        for per_minute in [1, 2, 3, 7, 59, 60, 61, 240, 600, 1200, 2400, 20_000, 99_991] {
            let mut bucket = Bucket::default();
            let now = Tick::from_millis(5);
            let taken = (0..=per_minute).filter(|_| bucket.take(now, per_minute)).count();
            assert_eq!(taken, per_minute as usize, "rate {per_minute}");
        }
    }

    #[test]
    fn a_bucket_fills_evenly() {
        let mut bucket = Bucket::default();
        while bucket.take(Tick(0), 600) {}
        assert!(!bucket.take(Tick::from_millis(99), 600));
        assert!(bucket.take(Tick::from_millis(100), 600));
        assert!(!bucket.take(Tick::from_millis(100), 600));
        let taken = (0..20).filter(|_| bucket.take(Tick::from_millis(700), 600)).count();
        assert_eq!(taken, 6);
    }

    #[test]
    fn a_rate_too_high_to_measure_takes_everything() {
        let mut bucket = Bucket::default();
        assert!((0..100_000).all(|_| bucket.take(Tick(7), u32::MAX)));
    }
}
