//! Metrics in Prometheus' protobuf exposition, with native histograms beside the classic ones.
//!
//! Source: `io/prometheus/client/metrics.proto` of prometheus/client_model; field numbers below are
//! its.

use prost::Message;
use relay_contract::Histogram;

use crate::classic::Edges;
use crate::exposition::{Family, Kind, Sample, Value};

/// The content type of [`delimited`].
pub(crate) const CONTENT_TYPE: &str = "application/vnd.google.protobuf; \
    proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// All families, each behind its length.
pub(crate) fn delimited(families: &[Family<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    for family in families {
        let family = metric_family(family);
        family.encode_length_delimited(&mut bytes).expect("a vector takes everything");
    }
    bytes
}

/// Whether an `Accept` header prefers this exposition to text. Source: RFC 9110 §12.5.1.
pub(crate) fn is_preferred(accept: Option<&str>) -> bool {
    let (mut ours, mut text) = (0, 0);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media_type = parts.next().unwrap_or_default();
        let parameters: Vec<String> = parts.collect();
        let quality = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
        let quality = quality.map_or(1000, thousandths);
        let has = |wanted: &str| parameters.iter().any(|parameter| parameter == wanted);
        match &*media_type {
            "application/vnd.google.protobuf"
                if has("proto=io.prometheus.client.metricfamily") && has("encoding=delimited") =>
            {
                ours = ours.max(quality);
            }
            "text/plain" | "text/*" => text = text.max(quality),
            _ => {}
        }
    }
    ours > 0 && ours >= text
}

/// A quality between 0 and 1, in thousandths; one that is none counts for nothing.
fn thousandths(quality: &str) -> u32 {
    let value: f64 = quality.parse().unwrap_or(0.0);
    (value.clamp(0.0, 1.0) * 1000.0) as u32
}

fn metric_family(family: &Family<'_>) -> MetricFamily {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    MetricFamily {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        kind: kind.into(),
        metrics: family.samples.iter().map(|sample| metric(family.kind, sample)).collect(),
    }
}

fn metric(kind: Kind, sample: &Sample<'_>) -> Metric {
    let label = |(name, value): &(&'static str, std::borrow::Cow<'_, str>)| LabelPair {
        name: (*name).to_owned(),
        value: value.clone().into_owned(),
    };
    let mut metric =
        Metric { labels: sample.labels.iter().map(label).collect(), ..Metric::default() };
    let value = match sample.value {
        Value::Whole(value) => value as f64,
        Value::Time(time) => time.as_secs_f64(),
        Value::Histogram(histogram, edges) => {
            metric.histogram = Some(distribution(histogram, edges));
            return metric;
        }
    };
    match kind {
        Kind::Counter => metric.counter = Some(Number { value }),
        Kind::Gauge | Kind::Histogram => metric.gauge = Some(Number { value }),
    }
    metric
}

/// Classic buckets as in the text, and native ones of [`SCHEMA`].
fn distribution(histogram: &Histogram, edges: Edges) -> Distribution {
    let (mut zero_count, mut native) = (0, Vec::new());
    for bucket in histogram.buckets() {
        if bucket.low == 0 {
            zero_count += bucket.count;
            continue;
        }
        // A shard's bucket may lie in two native ones: it is counted where its middle is.
        let middle = (bucket.low as f64 + bucket.high as f64) / 2.0;
        let index = native_index(edges.scaled(middle));
        match native.last_mut() {
            Some((last, count)) if *last == index => *count += bucket.count,
            _ => native.push((index, bucket.count)),
        }
    }
    let (spans, deltas) = spans(&native);
    let classic = edges.buckets(histogram).zip(edges.bounds());
    Distribution {
        sample_count: histogram.count(),
        sample_sum: edges.scaled(histogram.sum() as f64),
        buckets: classic
            .map(|(bucket, bound)| ClassicBucket { cumulative_count: bucket.count, bound })
            .collect(),
        schema: SCHEMA,
        zero_threshold: ZERO_THRESHOLD,
        zero_count,
        spans,
        deltas,
    }
}

/// The native bucket of a positive value: bucket `i` ends at `2^(i/8)`, which belongs to it.
fn native_index(value: f64) -> i32 {
    (value.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

/// Buckets in ascending order as runs without gaps, and each count less the one before.
fn spans(buckets: &[(i32, u64)]) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for &(index, count) in buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (next, before) = (index + 1, count);
    }
    (spans, deltas)
}

/// Eight buckets per power of two, each 9 % wider than the one before; those of a shard are finer.
const SCHEMA: i32 = 3;
/// Below every value but zero. Source: the default of Prometheus' own library.
const ZERO_THRESHOLD: f64 = 2.938735877055719e-39;
/// Room for a relay with one shard.
const BYTES: usize = 32 << 10;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Distribution>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// `Gauge` and `Counter`, which look alike. The value is there even when it is zero.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, required, tag = "1")]
    value: f64,
}

/// `Histogram`.
#[derive(Clone, PartialEq, Message)]
struct Distribution {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<ClassicBucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    deltas: Vec<i64>,
}

/// `Bucket`.
#[derive(Clone, PartialEq, Message)]
struct ClassicBucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    bound: f64,
}

/// `BucketSpan`.
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
