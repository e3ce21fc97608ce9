//! Histograms in HDR's own log format, for its tools in all languages.
//!
//! Written here because the crate that reads it in tests would bring second versions of what we
//! link; the format is a header and variable-length integers.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relay_contract::{Histogram, Measure, ShardReport, Unit};

/// Everything measured since start: one line for each shard and measure.
///
/// Shape: interval log, version 1.3; `Tag=<measure>/shard=<number>`; two significant digits, in
/// nanoseconds, bytes or things. Each bucket of a shard is counted at its middle, so values are off
/// by 1/64 at most and counts are exact. A line begins with its shard's process, which may be older
/// or younger than this one; the log begins with the oldest.
pub(crate) fn text(
    reports: &[ShardReport],
    is_wanted: impl Fn(Measure) -> bool,
    now_unix_ms: i64,
) -> String {
    let uptimes = reports.iter().map(|report| report.load.uptime);
    let longest = uptimes.max().unwrap_or(Duration::ZERO);
    let uptime_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    let start_ms = now_unix_ms.saturating_sub(uptime_ms);
    let mut text = String::from("#[Histogram log format version 1.3]\n");
    let (secs, millis) = (start_ms.div_euclid(1000), start_ms.rem_euclid(1000));
    line(&mut text, format_args!("#[StartTime: {secs}.{millis:03} (seconds since epoch)]"));
    line(
        &mut text,
        format_args!(
            r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#
        ),
    );
    for report in reports {
        let uptime = report.load.uptime;
        let start = longest.saturating_sub(uptime).as_secs_f64();
        for measure in Measure::ALL.iter().copied().filter(|measure| is_wanted(*measure)) {
            let histogram = report.histograms.of(measure);
            let name = measure.name();
            let label = measure.label().map(|(name, value)| format!("/{name}={value}"));
            let label = label.unwrap_or_default();
            let shard = report.shard.0;
            let max = histogram.buckets().last().map_or(0, |bucket| bucket.high);
            let max = max as f64 / max_ratio(measure.unit());
            let encoded = STANDARD.encode(compressed(&encoded(histogram)));
            line(
                &mut text,
                format_args!(
                    "Tag={name}{label}/shard={shard},{start:.3},{:.3},{max:.3},{encoded}",
                    uptime.as_secs_f64()
                ),
            );
        }
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes everything");
}

/// What the largest value is divided by: times are shown in milliseconds there.
fn max_ratio(unit: Unit) -> f64 {
    match unit {
        Unit::Nanoseconds => 1e6,
        Unit::Count | Unit::Bytes => 1.0,
    }
}

/// A histogram in the V2 encoding. Source: HdrHistogram's `encodeIntoByteBuffer`.
fn encoded(histogram: &Histogram) -> Vec<u8> {
    let mut counts: Vec<(usize, u64)> = Vec::new();
    for bucket in histogram.buckets() {
        let index = index_of(bucket.low + (bucket.high - bucket.low) / 2);
        match counts.last_mut() {
            Some((last, count)) if *last == index => *count += bucket.count,
            _ => counts.push((index, bucket.count)),
        }
    }
    let mut payload = Vec::new();
    let mut next = 0;
    for (index, count) in counts {
        match i64::try_from(index - next).unwrap_or(i64::MAX) {
            0 => {}
            // A run of empty places is their number, negative.
            gap => push_integer(&mut payload, -gap),
        }
        push_integer(&mut payload, i64::try_from(count).unwrap_or(i64::MAX));
        next = index + 1;
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(V2_COOKIE.to_be_bytes());
    bytes.extend(length(&payload).to_be_bytes());
    bytes.extend(0_i32.to_be_bytes()); // Normalizing index offset.
    bytes.extend(SIGNIFICANT_DIGITS.to_be_bytes());
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(Histogram::VALUE_MAX.to_be_bytes());
    bytes.extend(1_f64.to_be_bytes()); // Integer to double conversion ratio.
    bytes.extend(payload);
    bytes
}

/// Where HDR counts a value: below 256 each has a place, above every power of two has 128.
fn index_of(value: u64) -> usize {
    let bits = u64::BITS - (value >> SUB_BUCKET_HALF_BITS).leading_zeros();
    let shift = bits.saturating_sub(1);
    ((shift as usize) << SUB_BUCKET_HALF_BITS) + (value >> shift) as usize
}

/// Appends a ZigZag LEB128 integer of at most nine bytes, the last of them whole.
fn push_integer(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            break;
        }
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The bytes as the V2 compressed encoding wants them: a zlib stream, here of stored blocks. The
/// integers are short already, and nobody keeps these lines for long.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut zlib = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).expect("chunks are no longer");
        zlib.push(u8::from(blocks.peek().is_none()));
        zlib.extend(len.to_le_bytes());
        zlib.extend((!len).to_le_bytes());
        zlib.extend(block);
    }
    zlib.extend(adler32(bytes).to_be_bytes());
    let mut framed = Vec::with_capacity(8 + zlib.len());
    framed.extend(V2_COMPRESSED_COOKIE.to_be_bytes());
    framed.extend(length(&zlib).to_be_bytes());
    framed.extend(zlib);
    framed
}

/// Source: RFC 1950 §8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % ADLER_MODULUS;
        (low, (high + low) % ADLER_MODULUS)
    });
    high << 16 | low
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a histogram has some thousand places")
}

const V2_COOKIE: u32 = 0x1c84_9313;
const V2_COMPRESSED_COOKIE: u32 = 0x1c84_9314;
const HEADER_BYTES: usize = 40;
const SIGNIFICANT_DIGITS: u32 = 2;
/// Two digits need 200 places below the first halving: 256, of which the upper half is used again
/// for every further power of two.
const SUB_BUCKET_HALF_BITS: u32 = 7;
const ADLER_MODULUS: u32 = 65_521;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use relay_contract::{Histograms, ShardId, ShardLoad};

    use super::*;

    fn read(encoded: &str) -> hdrhistogram::Histogram<u64> {
        let bytes = STANDARD.decode(encoded).expect("base64");
        Deserializer::new().deserialize(&mut Cursor::new(bytes)).expect("a histogram")
    }

    /// The lines of a log as tag and histogram.
    fn lines(text: &str) -> Vec<(String, hdrhistogram::Histogram<u64>)> {
        let entries = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.expect("valid"));
        let intervals = entries.filter_map(|entry| match entry {
            LogEntry::Interval(line) => {
                assert_eq!(line.start_timestamp(), Duration::ZERO);
                assert_eq!(line.duration(), Duration::from_millis(1500));
                let tag = line.tag().expect("every line has one").as_str().to_owned();
                Some((tag, read(line.encoded_histogram())))
            }
            LogEntry::StartTime(start) => {
                assert_eq!(start, Duration::from_millis(8_500));
                None
            }
            LogEntry::BaseTime(_) => panic!("there is none"),
        });
        intervals.collect()
    }

    fn report(shard: u16, uptime_ms: u64) -> ShardReport {
        let uptime = Duration::from_millis(uptime_ms);
        let load = ShardLoad { uptime, ..ShardLoad::default() };
        ShardReport { shard: ShardId(shard), load, ..ShardReport::default() }
    }

    #[test]
    fn a_line_lasts_as_long_as_the_process_of_its_shard() {
        let text = text(&[report(0, 500), report(1, 9000)], |_| true, 10_000);
        assert!(text.contains("#[StartTime: 1.000 "), "{text}");
        assert!(text.contains("/shard=0,8.500,0.500,"), "{text}");
        assert!(text.contains("/shard=1,0.000,9.000,"), "{text}");
    }

    #[test]
    fn a_log_has_a_line_for_each_shard_and_measure_even_without_values() {
        let lines = lines(&text(&[report(0, 1500), report(3, 1500)], |_| true, 10_000));
        assert_eq!(lines.len(), 2 * Measure::ALL.len());
        assert_eq!(lines[0].0, "relay_hop_latency_seconds/shard=0");
        assert!(lines.iter().all(|(_, histogram)| histogram.is_empty()));
        let refused = "relay_admission_duration_seconds/outcome=refused/shard=3";
        assert!(lines.iter().any(|(tag, _)| tag == refused));
    }

    #[test]
    fn measures_that_are_not_wanted_have_no_line() {
        let wanted = |measure| measure == Measure::Turn;
        let lines = lines(&text(&[report(0, 1500)], wanted, 10_000));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].0, "relay_turn_duration_seconds/shard=0");
    }

    #[test]
    fn the_library_of_the_format_reads_what_was_measured() {
        let mut histograms = Histograms::default();
        histograms.record_many(Measure::HopLatency, 100_000, 98);
        histograms.record_many(Measure::HopLatency, 2_000_000, 2);
        let report = ShardReport { histograms, ..report(0, 1500) };
        let lines = lines(&text(&[report], |_| true, 10_000));
        let hops = &lines[0].1;
        assert_eq!(hops.len(), 100);
        for (quantile, expected) in [(0.5, 100_000.0), (0.99, 2_000_000.0)] {
            let value = hops.value_at_quantile(quantile) as f64;
            assert!((value / expected - 1.0).abs() < 1.0 / 32.0, "{quantile}: {value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_is_lost_and_none_moves_far(
            values in vec((0_u64..=Histogram::VALUE_MAX, 0_u32..30, 1_u64..1 << 40), 0..200),
        ) {
            let mut histogram = Histogram::default();
            let mut expected = std::collections::BTreeMap::<u64, u64>::new();
            for (value, shift, count) in values {
                histogram.record(value >> shift, count);
            }
            for bucket in histogram.buckets() {
                *expected.entry(bucket.low).or_default() += bucket.count;
            }
            let encoded = STANDARD.encode(compressed(&encoded(&histogram)));
            let read = read(&encoded);
            prop_assert_eq!(read.len(), histogram.count());
            let mut counted = read.iter_recorded();
            for bucket in histogram.buckets() {
                let found = counted.next().expect("one for each bucket");
                prop_assert_eq!(found.count_since_last_iteration(), bucket.count);
                let value = found.value_iterated_to();
                prop_assert!(value >= bucket.low && value <= bucket.high + bucket.high / 64);
            }
        }
    }
}
