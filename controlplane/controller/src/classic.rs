//! Classic buckets: where they end, and what is in them.

use std::time::Duration;

use relay_contract::{Histogram, Measure, Unit};

use crate::exposition::Seconds;

/// Where the classic buckets of a measure end: at powers of two of nanoseconds, bytes or things,
/// each power divided into `steps`. There the shard's own buckets end as well, so every count is
/// exact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Edges {
    unit: Unit,
    /// The first edge, as a power of two.
    first: u32,
    /// The last edge, as a power of two.
    last: u32,
    /// Buckets per power of two, itself a power of two and at most 32.
    steps: u64,
}

/// One classic bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClassicBucket {
    /// The bound as it is shown.
    pub(crate) le: String,
    /// Values up to the bound.
    pub(crate) count: u64,
}

impl Edges {
    /// Those of a measure.
    ///
    /// Hop latency, whose tail is what capacity is planned with, has four per power of two, from
    /// 2 µs to 1 s; other times have one, from 1 µs or 131 µs to 34 s.
    pub(crate) fn of(measure: Measure) -> Self {
        let (first, last, steps) = match measure {
            Measure::HopLatency => (11, 30, 4),
            Measure::QueueWait | Measure::Turn => (10, 35, 1),
            Measure::Admitted | Measure::Refused | Measure::Unanswered => (17, 35, 1),
            Measure::TurnCompletions | Measure::SendFrames => (1, 12, 1),
            Measure::EgressDepth => (8, 22, 1),
        };
        Self { unit: measure.unit(), first, last, steps }
    }

    /// The buckets with how many values each and those below it hold; the last one holds all.
    pub(crate) fn buckets(self, histogram: &Histogram) -> impl Iterator<Item = ClassicBucket> {
        let mut counted = histogram.buckets().peekable();
        let mut count = 0;
        let ends = self.ends().map(Some).chain([None]);
        ends.map(move |end| {
            while let Some(bucket) =
                counted.next_if(|bucket| end.is_none_or(|end| bucket.high < end))
            {
                count += bucket.count;
            }
            let le = end.map_or_else(|| "+Inf".to_owned(), |end| self.bound(end));
            ClassicBucket { le, count }
        })
    }

    /// The bounds of the buckets, in the unit that is shown.
    pub(crate) fn bounds(self) -> impl Iterator<Item = f64> {
        let shown = move |end: u64| match self.unit {
            Unit::Nanoseconds => self.scaled(end as f64),
            Unit::Count | Unit::Bytes => (end - 1) as f64,
        };
        self.ends().map(shown).chain([f64::INFINITY])
    }

    /// All values together, in the unit that is shown.
    pub(crate) fn sum(self, histogram: &Histogram) -> String {
        self.shown(histogram.sum())
    }

    /// What a value is in the unit that is shown.
    pub(crate) fn scaled(self, value: f64) -> f64 {
        match self.unit {
            Unit::Nanoseconds => value / 1e9,
            Unit::Count | Unit::Bytes => value,
        }
    }

    /// The smallest value beyond each bucket.
    fn ends(self) -> impl Iterator<Item = u64> {
        let Self { first, last, steps, .. } = self;
        let within =
            move |power: u32| (0..steps).map(move |step| (1 << power) * (steps + step) / steps);
        (first..last).flat_map(within).chain([1 << last])
    }

    /// The bound that is shown of a bucket with the values below `end`. Times are cut to whole
    /// nanoseconds, so all that is below `end` is at most `end`; of whole things the last one is
    /// named.
    fn bound(self, end: u64) -> String {
        match self.unit {
            Unit::Nanoseconds => self.shown(end),
            Unit::Count | Unit::Bytes => self.shown(end - 1),
        }
    }

    fn shown(self, value: u64) -> String {
        match self.unit {
            Unit::Nanoseconds => Seconds(Duration::from_nanos(value)).to_string(),
            Unit::Count | Unit::Bytes => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds and cumulative counts, those at zero left out.
    fn shown(measure: Measure, values: &[u64]) -> Vec<(String, u64)> {
        let mut histogram = Histogram::default();
        for &value in values {
            histogram.record(value, 1);
        }
        let buckets = Edges::of(measure).buckets(&histogram);
        buckets.filter(|bucket| bucket.count > 0).map(|bucket| (bucket.le, bucket.count)).collect()
    }

    #[test]
    fn no_bucket_of_a_shard_lies_in_two_classic_ones() {
        for &measure in Measure::ALL {
            let edges: Vec<u64> = Edges::of(measure).ends().collect();
            assert!(edges.is_sorted());
            for &end in &edges {
                for value in [end - 1, end] {
                    let mut histogram = Histogram::default();
                    histogram.record(value, 1);
                    let bucket = histogram.buckets().next().expect("it was counted");
                    assert_eq!(bucket.high < end, value < end, "{measure:?}: {bucket:?}, {end}");
                }
            }
        }
    }

    #[test]
    fn counts_are_cumulative_and_the_last_bucket_holds_all() {
        let shown = shown(Measure::SendFrames, &[1, 1, 2, 3, 4, 1_000_000]);
        let shown: Vec<_> = shown.iter().map(|(le, count)| (le.as_str(), *count)).collect();
        assert_eq!(shown[..3], [("1", 2), ("3", 4), ("7", 5)]);
        assert_eq!(shown.last(), Some(&("+Inf", 6)));
        assert_eq!(shown[shown.len() - 2], ("4095", 5));
    }

    #[test]
    fn bounds_of_times_are_seconds() {
        let shown = shown(Measure::HopLatency, &[2047, 2048]);
        assert_eq!(shown[0], ("0.000002048".to_owned(), 1));
        assert_eq!(shown[1], ("0.00000256".to_owned(), 2));
    }

    #[test]
    fn without_values_every_bucket_is_there_at_zero() {
        let buckets: Vec<_> = Edges::of(Measure::Turn).buckets(&Histogram::default()).collect();
        assert_eq!(buckets.len(), 27);
        assert!(buckets.iter().all(|bucket| bucket.count == 0));
    }
}
