//! Distributions of all shards together, by their quantiles.

use std::collections::BTreeMap;

use relay_grpc::control::v1 as proto;

use super::report::bytes;
use super::table::Table;

/// One line for each measure.
pub(super) fn table(of_shards: &[proto::GetHistogramsResponse]) -> String {
    let mut measures: Vec<Merged<'_>> = Vec::new();
    for histogram in of_shards.iter().flat_map(|shard| &shard.histograms) {
        let is_same = |merged: &&mut Merged<'_>| {
            (merged.name, merged.label) == (&*histogram.name, &*histogram.label)
        };
        match measures.iter_mut().find(is_same) {
            Some(merged) => merged.add(histogram),
            None => {
                let mut merged = Merged::new(histogram);
                merged.add(histogram);
                measures.push(merged);
            }
        }
    }
    let mut table =
        Table::new(&["measure", "#values", "#mean", "#p50", "#p90", "#p99", "#p99.9", "#most"]);
    for measure in &measures {
        let label = match measure.label.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", measure.label),
        };
        let shown = |value| shown(value, measure.unit);
        table.row(&[
            &format!("{}{label}", measure.name),
            &measure.count.to_string(),
            &shown(measure.sum.checked_div(measure.count).unwrap_or(0)),
            &shown(measure.quantile(0.5)),
            &shown(measure.quantile(0.9)),
            &shown(measure.quantile(0.99)),
            &shown(measure.quantile(0.999)),
            &shown(measure.quantile(1.0)),
        ]);
    }
    table.text()
}

/// One file in HdrHistogram's log format: the first shard's whole, of the others what is measured.
pub(super) fn hdr_log(of_shards: &[proto::GetHistogramsResponse]) -> String {
    let mut log = String::new();
    for (place, shard) in of_shards.iter().enumerate() {
        let lines = shard.hdr_log.lines().filter(|line| place == 0 || line.starts_with("Tag="));
        for line in lines {
            log.push_str(&super::table::plain(line));
            log.push('\n');
        }
    }
    log
}

/// The values of one measure on all shards.
struct Merged<'a> {
    name: &'a str,
    label: &'a str,
    unit: proto::HistogramUnit,
    count: u64,
    sum: u64,
    /// By a bucket's largest value: how many.
    buckets: BTreeMap<u64, u64>,
}

impl<'a> Merged<'a> {
    fn new(histogram: &'a proto::Histogram) -> Self {
        Self {
            name: &histogram.name,
            label: &histogram.label,
            unit: histogram.unit(),
            count: 0,
            sum: 0,
            buckets: BTreeMap::new(),
        }
    }

    fn add(&mut self, histogram: &proto::Histogram) {
        self.count = self.count.saturating_add(histogram.count);
        self.sum = self.sum.saturating_add(histogram.sum);
        for bucket in &histogram.buckets {
            let count = self.buckets.entry(bucket.high).or_default();
            *count = count.saturating_add(bucket.count);
        }
    }

    /// The value that this share of all values does not exceed, to the width of its bucket.
    fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0_u64;
        for (&high, &count) in &self.buckets {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                return high;
            }
        }
        self.buckets.keys().next_back().copied().unwrap_or(0)
    }
}

fn shown(value: u64, unit: proto::HistogramUnit) -> String {
    match unit {
        proto::HistogramUnit::Nanoseconds => match value {
            0..1_000 => format!("{value} ns"),
            1_000..1_000_000 => format!("{:.1} µs", value as f64 / 1e3),
            1_000_000..1_000_000_000 => format!("{:.1} ms", value as f64 / 1e6),
            _ => format!("{:.1} s", value as f64 / 1e9),
        },
        proto::HistogramUnit::Bytes => bytes(value),
        proto::HistogramUnit::Count | proto::HistogramUnit::Unspecified => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_shard(buckets: &[(u64, u64)]) -> proto::GetHistogramsResponse {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = buckets.iter().map(|(value, count)| value * count).sum();
        let buckets = buckets.iter();
        let buckets =
            buckets.map(|&(value, count)| proto::Bucket { low: value, high: value, count });
        let histogram = proto::Histogram {
            name: "relay_hop_latency_seconds".to_owned(),
            label: String::new(),
            unit: proto::HistogramUnit::Nanoseconds.into(),
            count,
            sum,
            buckets: buckets.collect(),
        };
        let hdr_log = "#[StartTime: 1]\nTag=a/shard=0,0.000,1.000,1.000,AA\n".to_owned();
        proto::GetHistogramsResponse { shard_id: 0, histograms: vec![histogram], hdr_log }
    }

    #[test]
    fn a_log_of_all_shards_has_one_header() {
        let log = hdr_log(&[of_shard(&[(1, 1)]), of_shard(&[(1, 1)])]);
        let line = "Tag=a/shard=0,0.000,1.000,1.000,AA\n";
        assert_eq!(log, format!("#[StartTime: 1]\n{line}{line}"));
    }

    #[test]
    fn shards_are_one_distribution() {
        let text = table(&[of_shard(&[(1_000, 90), (2_000_000, 9)]), of_shard(&[(5_000, 1)])]);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|titles| titles.starts_with("MEASURE")));
        let line: Vec<_> = lines.next().expect("one measure").split_whitespace().collect();
        assert_eq!(
            line.join(" "),
            "relay_hop_latency_seconds 100 180.9 µs 1.0 µs 1.0 µs 2.0 ms 2.0 ms 2.0 ms"
        );
        assert_eq!(lines.next(), None);
    }
}
