//! How long nothing has arrived.

use anyhow::{Result, ensure};

use crate::processor;

/// Watches a count that grows with every arrival.
pub(crate) struct Silence {
    count: u64,
    since_ns: u64,
}

/// Silence that means that something is lost.
pub(crate) const STALL_NS: u64 = 5_000_000_000;

impl Silence {
    /// Begins now.
    pub(crate) fn new(count: u64) -> Self {
        Self { count, since_ns: processor::now_ns() }
    }

    /// How long the count has stayed as it is, nanoseconds.
    pub(crate) fn length(&mut self, count: u64, now: u64) -> u64 {
        if self.count != count {
            (self.count, self.since_ns) = (count, now);
        }
        now.saturating_sub(self.since_ns)
    }

    /// Errors: it lasts too long; `missing` is still to come.
    pub(crate) fn bear(&mut self, count: u64, missing: &str) -> Result<()> {
        let length = self.length(count, processor::now_ns());
        ensure!(length < STALL_NS, "nothing has arrived for 5 s: {missing}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_stream_is_no_silence() {
        let mut silence = Silence { count: 0, since_ns: 0 };
        for second in 1..60 {
            let arrived = second / 4;
            assert!(silence.length(arrived, second * 1_000_000_000) < STALL_NS);
        }
        assert!(silence.length(59 / 4, 62 * 1_000_000_000) >= STALL_NS);
    }
}
