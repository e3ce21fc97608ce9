//! When frames are due in an open loop, whatever becomes of earlier ones.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// A fixed rate, spread evenly over pairs that take turns.
///
/// A frame's latency counts from the moment it was due, not from when it could be sent: a stall of
/// the process under test then shows in every frame it held up.
pub(crate) struct Pace {
    /// Nanoseconds from one frame to the next, of whichever pair.
    step_ns: f64,
    start_ns: u64,
    pairs: u64,
    /// Frames called for so far, of all pairs together.
    called: u64,
    /// Frames that each pair was called for and has not sent.
    owed: Box<[u64]>,
    /// How late frames were called for, nanoseconds: this program's own doing.
    pub(crate) lag: Histogram<u64>,
}

impl Pace {
    /// `rate` frames per second over all pairs, the first at `start_ns`.
    pub(crate) fn new(rate: f64, pairs: usize, start_ns: u64) -> Result<Self> {
        let lag = Histogram::new_with_bounds(1, LAG_NS_MAX, 3).context("a histogram")?;
        Ok(Self {
            step_ns: 1e9 / rate,
            start_ns,
            pairs: pairs as u64,
            called: 0,
            owed: vec![0; pairs].into_boxed_slice(),
            lag,
        })
    }

    /// When the next frame is due.
    pub(crate) fn next_ns(&self) -> u64 {
        self.due_ns(self.called)
    }

    /// The pair whose frame is due now, if one is.
    pub(crate) fn call(&mut self, now: u64) -> Option<usize> {
        let due = self.next_ns();
        if due > now {
            return None;
        }
        self.lag.saturating_record(now - due);
        let pair = (self.called % self.pairs) as usize;
        self.called += 1;
        self.owed[pair] += 1;
        Some(pair)
    }

    /// When the frame is due that a pair owes next, if it owes one; it no longer does.
    pub(crate) fn pay(&mut self, pair: usize, released: u64) -> Option<u64> {
        self.owed[pair] = self.owed[pair].checked_sub(1)?;
        Some(self.due_ns(released * self.pairs + pair as u64))
    }

    /// Calls for everything that was due before `end_ns`, however far behind this program is.
    pub(crate) fn close(&mut self, end_ns: u64) {
        while self.call(end_ns.saturating_sub(1)).is_some() {}
    }

    /// When frames were due that were called for and not sent; `released` tells how many a pair
    /// has.
    pub(crate) fn unsent(&self, released: impl Fn(usize) -> u64) -> impl Iterator<Item = u64> {
        self.owed.iter().enumerate().flat_map(move |(pair, owed)| {
            let first = released(pair);
            let numbers = first..first + owed;
            numbers.map(move |number| self.due_ns(number * self.pairs + pair as u64))
        })
    }

    fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.step_ns) as u64
    }
}

/// The longest lag the histogram tells apart.
const LAG_NS_MAX: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_take_turns_at_the_rate() {
        let mut pace = Pace::new(1000.0, 2, 5_000_000).expect("a pace");
        assert_eq!(pace.call(4_999_999), None);
        assert_eq!(pace.call(5_000_000), Some(0));
        assert_eq!(pace.call(5_000_000), None);
        assert_eq!(pace.next_ns(), 6_000_000);
        assert_eq!(pace.call(8_500_000), Some(1));
        assert_eq!(pace.call(8_500_000), Some(0));
        assert_eq!(pace.lag.max(), pace.lag.highest_equivalent(2_500_000));
    }

    #[test]
    fn a_pace_that_is_behind_owes_everything_that_was_due_in_the_end() {
        let mut pace = Pace::new(1000.0, 2, 0).expect("a pace");
        assert_eq!(pace.call(0), Some(0));
        assert_eq!(pace.pay(0, 0), Some(0));
        // It stands still from here to the end of the window.
        pace.close(5_000_000);
        let mut unsent: Vec<u64> = pace.unsent(|pair| [1, 0][pair]).collect();
        unsent.sort_unstable();
        assert_eq!(unsent, [1_000_000, 2_000_000, 3_000_000, 4_000_000]);
        assert_eq!(pace.lag.max(), pace.lag.highest_equivalent(3_999_999));
    }

    #[test]
    fn a_frame_keeps_the_time_it_was_due_however_late_it_goes() {
        let mut pace = Pace::new(1000.0, 2, 0).expect("a pace");
        while pace.call(5_000_000).is_some() {}
        assert_eq!(pace.pay(1, 0), Some(1_000_000));
        assert_eq!(pace.pay(1, 1), Some(3_000_000));
        let unsent: Vec<u64> = pace.unsent(|pair| [0, 2][pair]).collect();
        assert_eq!(unsent, [0, 2_000_000, 4_000_000, 5_000_000]);
        assert_eq!(pace.pay(1, 2), Some(5_000_000));
        assert_eq!(pace.pay(1, 3), None);
    }
}
