//! What a shard measures: distributions, counted in plain integers.

/// How values of one kind are distributed, since start.
///
/// Shape: log-linear. Values below 32 have a bucket each; above, every power of two is divided into
/// 32 buckets of equal width, so a bucket is at most 1/32 of its values wide. Values from
/// [`Histogram::VALUE_MAX`] on share the last bucket. Memory: 8 KiB from the first value on,
/// nothing before. Cost of a value: a shift and two additions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Histogram {
    /// Empty until the first value, then one count per bucket.
    counts: Vec<u64>,
    sum: u64,
}

/// Values from `low` to `high`, both included, and how many of them there were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucket {
    /// The smallest value that is counted here.
    pub low: u64,
    /// The largest value that is counted here.
    pub high: u64,
    /// How many.
    pub count: u64,
}

/// Buckets per power of two, as a power of two: a bucket is at most 1/32 of its values wide.
/// Source: BENCHMARKS.md, "What do the histograms cost?".
const STEP_BITS: u32 = 5;
/// Values have fewer bits than this; of nanoseconds, 68 seconds.
const VALUE_BITS: u32 = 36;
const BUCKET_COUNT: usize = ((VALUE_BITS - STEP_BITS + 1) as usize) << STEP_BITS;

impl Histogram {
    /// The largest value that is told from larger ones.
    pub const VALUE_MAX: u64 = (1 << VALUE_BITS) - 1;

    /// Counts `count` equal values.
    #[inline]
    pub fn record(&mut self, value: u64, count: u64) {
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
        let index = index_of(value);
        match self.counts.get_mut(index) {
            Some(counted) => *counted += count,
            None => self.begin(index, count),
        }
    }

    #[cold]
    fn begin(&mut self, index: usize, count: u64) {
        self.counts = vec![0; BUCKET_COUNT];
        self.counts[index] = count;
    }

    /// One that was told elsewhere: how much all values were together, and for each bucket a value
    /// of it and how many there were. Counts that do not fit end at the largest number.
    pub fn restored(sum: u64, buckets: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut counts = Vec::new();
        for (value, count) in buckets {
            counts.resize(BUCKET_COUNT, 0_u64);
            let counted = &mut counts[index_of(value)];
            *counted = counted.saturating_add(count);
        }
        Self { counts, sum }
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together, each as it was, not as its bucket's.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Buckets with values in them, from small to large.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(index, &count)| Bucket {
            low: low_of(index),
            high: low_of(index + 1) - 1,
            count,
        })
    }
}

/// Where a value is counted.
#[inline]
fn index_of(value: u64) -> usize {
    let value = value.min(Histogram::VALUE_MAX);
    let bits = u64::BITS - (value >> STEP_BITS).leading_zeros();
    let shift = bits.saturating_sub(1);
    ((shift as usize) << STEP_BITS) + (value >> shift) as usize
}

/// The smallest value of a bucket.
fn low_of(index: usize) -> u64 {
    let shift = (index >> STEP_BITS).saturating_sub(1);
    ((index - (shift << STEP_BITS)) as u64) << shift
}

/// What values are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Nanoseconds; shown in seconds.
    Nanoseconds,
    /// Things of a kind.
    Count,
    /// Bytes.
    Bytes,
}

macro_rules! measures {
    ($($variant:ident $unit:ident $name:literal $label:expr, $help:literal)*) => {
        /// What is measured, each on every shard.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum Measure {
            $(#[doc = $help] $variant,)*
        }

        impl Measure {
            /// Every measure, in the order of their exposition; those of one name are neighbours.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the exposition, with its unit.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What tells measures of one name apart: a label and its value.
            pub const fn label(self) -> Option<(&'static str, &'static str)> {
                match self { $(Self::$variant => $label,)* }
            }

            /// What its values are of.
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// One sentence for HELP.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

measures! {
    HopLatency Nanoseconds "relay_hop_latency_seconds" None,
        "From the turn that received a frame's last byte to the turn that learnt it was sent."
    QueueWait Nanoseconds "relay_queue_wait_seconds" None,
        "From the turn that received a frame's last byte to the turn that began to send it."
    Admitted Nanoseconds "relay_admission_duration_seconds" Some(("outcome", "admitted")),
        "From asking the control plane about an upgrade to its answer, or to giving up on it."
    Refused Nanoseconds "relay_admission_duration_seconds" Some(("outcome", "refused")),
        "From asking the control plane about an upgrade to its answer, or to giving up on it."
    Unanswered Nanoseconds "relay_admission_duration_seconds" Some(("outcome", "unanswered")),
        "From asking the control plane about an upgrade to its answer, or to giving up on it."
    Turn Nanoseconds "relay_turn_duration_seconds" None,
        "A turn of a shard: from what completed to what is to be sent."
    TurnCompletions Count "relay_turn_completions" None,
        "Completions that one turn looked at."
    SendFrames Count "relay_send_frames" None,
        "Frames whose last byte left with one send."
    EgressDepth Bytes "relay_egress_depth_bytes" None,
        "Bytes of messages that waited for a connection when a send to it began."
}

/// A histogram for each [`Measure`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histograms([Histogram; Measure::ALL.len()]);

impl Default for Histograms {
    fn default() -> Self {
        Self([const { Histogram { counts: Vec::new(), sum: 0 } }; Measure::ALL.len()])
    }
}

impl Histograms {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, measure: Measure, value: u64) {
        self.0[measure as usize].record(value, 1);
    }

    /// Counts `count` equal values.
    #[inline]
    pub fn record_many(&mut self, measure: Measure, value: u64, count: u64) {
        self.0[measure as usize].record(value, count);
    }

    /// Puts one that was told elsewhere in its place.
    pub fn set(&mut self, measure: Measure, histogram: Histogram) {
        self.0[measure as usize] = histogram;
    }

    /// What was counted so far.
    pub fn of(&self, measure: Measure) -> &Histogram {
        &self.0[measure as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket_of(value: u64) -> Bucket {
        let mut histogram = Histogram::default();
        histogram.record(value, 1);
        let mut buckets = histogram.buckets();
        let bucket = buckets.next().expect("it was counted");
        assert_eq!(buckets.next(), None);
        bucket
    }

    #[test]
    fn small_values_have_a_bucket_each() {
        for value in 0..64 {
            assert_eq!(bucket_of(value), Bucket { low: value, high: value, count: 1 });
        }
    }

    #[test]
    fn a_bucket_holds_its_value_and_is_narrow() {
        let powers = (0..VALUE_BITS).map(|bit| 1_u64 << bit);
        for value in powers.flat_map(|power| [power - 1, power, power + 1, power + power / 3]) {
            let bucket = bucket_of(value);
            assert!((bucket.low..=bucket.high).contains(&value), "{value}: {bucket:?}");
            assert!((bucket.high - bucket.low) * 32 <= bucket.low, "{value}: {bucket:?}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for index in 0..BUCKET_COUNT {
            assert_eq!(index_of(low_of(index)), index);
            assert_eq!(index_of(low_of(index + 1) - 1), index);
        }
        assert_eq!(low_of(BUCKET_COUNT), Histogram::VALUE_MAX + 1);
    }

    #[test]
    fn what_was_told_elsewhere_is_the_same() {
        let mut histogram = Histogram::default();
        for value in [0, 31, 32, 1000, 1_000_000, u64::MAX >> 8] {
            histogram.record(value, 3);
        }
        let buckets = histogram.buckets().map(|bucket| (bucket.low, bucket.count));
        assert_eq!(Histogram::restored(histogram.sum(), buckets), histogram);
        assert_eq!(Histogram::restored(0, [(5, u64::MAX), (5, 1)]).buckets().count(), 1);
        assert_eq!(Histogram::restored(0, []), Histogram::default());
    }

    #[test]
    fn values_beyond_the_largest_share_its_bucket() {
        assert_eq!(bucket_of(u64::MAX).high, Histogram::VALUE_MAX);
    }

    #[test]
    fn measures_of_one_name_are_neighbours_and_tell_each_other_apart() {
        let families: Vec<_> = Measure::ALL.chunk_by(|a, b| a.name() == b.name()).collect();
        for (at, family) in families.iter().enumerate() {
            assert!(families[at + 1..].iter().all(|other| other[0].name() != family[0].name()));
            for (at, measure) in family.iter().enumerate() {
                let others = family[at + 1..].iter();
                assert!(others.clone().all(|other| other.label() != measure.label()));
                assert!(others.clone().all(|other| other.unit() == measure.unit()));
                assert!(others.clone().all(|other| other.help() == measure.help()));
            }
        }
    }
}
