//! How long messages took, for people.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Columns of the longest bar.
const BAR_WIDTH: u64 = 40;
/// Nothing is shorter than this, in nanoseconds: the first bar's upper end.
const FIRST_BAR_NS: u64 = 16_000;

/// Whatever took longer counts as this, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Round trips, to three digits.
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    /// None yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        Self(histogram.expect("these are bounds and a precision it has"))
    }

    /// Counts one.
    pub(crate) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantiles in one line.
    pub(crate) fn line(&self) -> String {
        let at = |quantile| shown(self.0.value_at_quantile(quantile));
        format!(
            "p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            shown(self.0.max())
        )
    }

    /// One bar per doubling, from the shortest to the longest.
    pub(crate) fn bars(&self) -> String {
        let rows = self.rows();
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let mut bars = String::new();
        for (upper, count) in rows {
            let width = usize::try_from((count * BAR_WIDTH).div_ceil(most)).unwrap_or(0);
            // Writing to a String cannot fail.
            let _ = writeln!(bars, "  < {:>8}  {:40}  {count}", shown(upper), "█".repeat(width));
        }
        bars
    }

    /// Upper ends and counts, without the empty rows at both ends.
    fn rows(&self) -> Vec<(u64, u64)> {
        let mut rows = Vec::new();
        let (mut lower, mut upper) = (0, FIRST_BAR_NS);
        while lower <= self.0.max() {
            let count = self.0.count_between(lower, upper - 1);
            if count > 0 || !rows.is_empty() {
                rows.push((upper, count));
            }
            lower = upper;
            upper = upper.saturating_mul(2);
        }
        rows
    }
}

/// A time in the unit that suits it.
fn shown(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_stands_in_one_bar() {
        let mut latency = Latency::new();
        for micros in [5, 20, 40, 41, 900, 70_000] {
            latency.record(Duration::from_micros(micros));
        }
        let counted: u64 = latency.rows().iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 6);
        assert!(latency.line().contains("max 70."));
    }

    #[test]
    fn no_message_makes_no_bar() {
        assert_eq!(Latency::new().bars(), "");
    }
}
