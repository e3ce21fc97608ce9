use proptest::collection::vec;
use proptest::prelude::*;
use relay_contract::Measure;

use super::*;

fn distribution_of(measure: Measure, values: &[(u64, u64)]) -> Distribution {
    let mut histogram = Histogram::default();
    for &(value, count) in values {
        histogram.record(value, count);
    }
    distribution(&histogram, Edges::of(measure))
}

/// The native buckets as index and count, as Prometheus adds them up.
fn native(distribution: &Distribution) -> Vec<(i32, i64)> {
    let mut deltas = distribution.deltas.iter();
    let (mut index, mut count) = (0, 0);
    let mut buckets = Vec::new();
    for span in &distribution.spans {
        index += span.offset;
        for _ in 0..span.length {
            count += deltas.next().expect("a delta for each bucket");
            buckets.push((index, count));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

#[test]
fn whole_values_lie_in_the_bucket_that_ends_with_them() {
    let shown = distribution_of(Measure::SendFrames, &[(0, 7), (1, 1), (2, 2), (4, 3), (5, 4)]);
    assert_eq!(native(&shown), [(0, 1), (8, 2), (16, 3), (19, 4)]);
    assert_eq!((shown.zero_count, shown.sample_count, shown.sample_sum), (7, 17, 37.0));
    let spans: Vec<_> = shown.spans.iter().map(|span| (span.offset, span.length)).collect();
    assert_eq!(spans, [(0, 1), (7, 1), (7, 1), (2, 1)]);
}

#[test]
fn neighbours_share_a_span() {
    let shown = distribution_of(Measure::HopLatency, &[(1 << 20, 5), ((1 << 20) * 11 / 10, 2)]);
    assert_eq!(shown.spans.len(), 1);
    assert_eq!(shown.spans[0].length, 2);
    assert_eq!(shown.deltas, [5, -3]);
    assert!(shown.spans[0].offset < 0, "a millisecond is less than a second");
}

#[test]
fn classic_buckets_are_there_too_and_the_last_is_unbounded() {
    let shown = distribution_of(Measure::HopLatency, &[(3000, 1)]);
    let first = &shown.buckets[0];
    assert_eq!((first.cumulative_count, first.bound), (0, 2048e-9));
    let last = shown.buckets.last().expect("there are some");
    assert_eq!((last.cumulative_count, last.bound), (1, f64::INFINITY));
}

#[test]
fn an_empty_distribution_is_still_a_native_one() {
    let shown = distribution_of(Measure::Turn, &[]);
    assert!(shown.zero_threshold > 0.0);
    assert_eq!((shown.schema, shown.sample_count), (SCHEMA, 0));
}

/// The bytes of a counter and a gauge at zero, field by field as the definition numbers them.
#[test]
fn values_are_there_even_when_they_are_zero() {
    let families =
        [Family::plain("a", Kind::Counter, "b", 0), Family::plain("c", Kind::Gauge, "", 1)];
    let expected = [
        &[19, 10, 1, b'a', 18, 1, b'b', 34, 11, 26, 9, 9][..],
        &0_f64.to_le_bytes(),
        &[18, 10, 1, b'c', 24, 1, 34, 11, 18, 9, 9],
        &1_f64.to_le_bytes(),
    ];
    assert_eq!(delimited(&families), expected.concat());
}

#[test]
fn accept_headers_choose_the_exposition() {
    const OURS: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited";
    for (accept, preferred) in [
        (OURS.to_owned(), true),
        (OURS.replace(';', " ; "), true),
        (format!("{OURS};q=0.7,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"), true),
        (format!("{OURS};q=0.4,text/plain;version=0.0.4;q=0.7,*/*;q=0.1"), false),
        (format!("{OURS};q=0"), false),
        (OURS.replace("delimited", "text"), false),
        ("application/vnd.google.protobuf".to_owned(), false),
        ("*/*".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(is_preferred(Some(&accept)), preferred, "{accept}");
    }
    assert!(!is_preferred(None));
}

proptest! {
    #[test]
    fn native_buckets_add_up_to_what_was_measured(
        values in vec((0_u64..=Histogram::VALUE_MAX, 0_u32..30, 1_u64..1 << 30), 0..100),
    ) {
        let values: Vec<_> =
            values.into_iter().map(|(value, shift, count)| (value >> shift, count)).collect();
        let shown = distribution_of(Measure::EgressDepth, &values);
        let buckets = native(&shown);
        prop_assert!(buckets.iter().all(|bucket| bucket.1 > 0));
        prop_assert!(buckets.is_sorted_by(|a, b| a.0 < b.0));
        let total: i64 = buckets.iter().map(|bucket| bucket.1).sum();
        let expected: u64 = values.iter().map(|value| value.1).sum();
        prop_assert_eq!(total.unsigned_abs() + shown.zero_count, expected);
        prop_assert_eq!(shown.sample_count, expected);
        // Each value is counted within 1/32 of where it lies.
        for &(value, _) in values.iter().filter(|value| value.0 > 0) {
            let (low, high) = (value as f64 * (31.0 / 32.0), value as f64 * (33.0 / 32.0));
            let range = native_index(low)..=native_index(high);
            prop_assert!(buckets.iter().any(|bucket| range.contains(&bucket.0)));
        }
    }

    #[test]
    fn what_is_written_can_be_read(values in vec((0_u64..1 << 36, 1_u64..1000), 0..50)) {
        let written = distribution_of(Measure::HopLatency, &values);
        let read = Distribution::decode(&*written.encode_to_vec());
        prop_assert_eq!(read.expect("it was just written"), written);
    }
}
