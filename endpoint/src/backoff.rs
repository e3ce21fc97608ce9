//! When to try again after a failure.

use std::time::Duration;

use rand::{CryptoRng, RngExt};

use crate::limits::Retry;

/// Counts failures in a row and spaces the attempts, with full jitter: many ends that lost one
/// relay come back spread out, not in waves.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, failures: 0 }
    }

    /// Forgets the failures.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and says how long to wait.
    pub(crate) fn failed(&mut self, rng: &mut impl CryptoRng) -> Duration {
        self.failures += 1;
        if self.failures >= self.retry.failures_max {
            self.failures = 0;
            return self.retry.pause + up_to(self.retry.jitter, rng);
        }
        let doubled = self.retry.first.saturating_mul(1 << (self.failures - 1).min(31));
        up_to(doubled.min(self.retry.longest), rng) + up_to(self.retry.jitter, rng)
    }
}

fn up_to(most: Duration, rng: &mut impl CryptoRng) -> Duration {
    let ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.random_range(0..=ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    proptest! {
        #[test]
        fn waits_double_up_to_a_bound_and_every_fifth_failure_pauses(seed: u64) {
            let retry = Retry::default();
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(retry);
            for failure in 1..=20_u32 {
                let wait = backoff.failed(&mut rng);
                let in_row = (failure - 1) % retry.failures_max + 1;
                if in_row == retry.failures_max {
                    prop_assert!(wait >= retry.pause);
                } else {
                    let most = (retry.first * (1 << (in_row - 1))).min(retry.longest);
                    prop_assert!(wait <= most + retry.jitter);
                }
            }
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut rng = StdRng::seed_from_u64(1);
        let retry = Retry::default();
        let mut backoff = Backoff::new(retry);
        for _ in 0..100 {
            assert!(backoff.failed(&mut rng) <= retry.first + retry.jitter);
            backoff.succeeded();
        }
    }
}
