//! The controller's two clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_contract::Tick;
use rustix::time::{ClockId, clock_gettime};

/// Tells the time: how long (for decisions) and what date (for people and tokens).
pub trait Clock: Send + Sync {
    /// The monotonic clock. The shards' clock, where both run on one machine.
    fn now(&self) -> Tick;

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> i64;
}

/// The kernel's clocks.
///
/// Shape: [`Tick`] is `CLOCK_MONOTONIC`, the same in every thread of the machine, so a shard's
/// ticks mean the same here. Source: clock_gettime(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        let time = clock_gettime(ClockId::Monotonic);
        let secs = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Tick(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn unix_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A machine that believes it is before 1970 logs 1970.
            Err(_) => 0,
        }
    }
}
