//! Distributions, as the control API shows them.

use relay_contract::{Measure, ShardId, ShardReport, Unit};
use relay_grpc::control::v1 as proto;
use tonic::Status;

use crate::hdr_log;

/// What is wanted of all measures on all shards.
#[derive(Debug)]
pub(crate) struct Wanted {
    shard_ids: Vec<u32>,
    names: Vec<String>,
    with_hdr_log: bool,
}

impl Wanted {
    /// # Errors
    /// INVALID_ARGUMENT for a measure that there is not.
    pub(super) fn new(request: proto::GetHistogramsRequest) -> Result<Self, Status> {
        let proto::GetHistogramsRequest { shard_ids, names, with_hdr_log } = request;
        let is_known = |name: &String| Measure::ALL.iter().any(|measure| measure.name() == name);
        if !names.iter().all(is_known) {
            let mut known: Vec<_> = Measure::ALL.iter().map(|measure| measure.name()).collect();
            known.dedup();
            let text = format!("names: there are {}", known.join(", "));
            return Err(Status::invalid_argument(text));
        }
        Ok(Self { shard_ids, names, with_hdr_log })
    }

    /// A message for each shard. The relay's date is for the log.
    pub(super) fn of(
        &self,
        reports: &[ShardReport],
        now_unix_ms: i64,
    ) -> Vec<proto::GetHistogramsResponse> {
        let is_wanted = |report: &&ShardReport| {
            self.shard_ids.is_empty() || self.shard_ids.contains(&u32::from(report.shard.0))
        };
        let reports: Vec<_> = reports.iter().filter(is_wanted).cloned().collect();
        let log = match self.with_hdr_log {
            true => hdr_log::text(&reports, |measure| self.is_wanted(measure), now_unix_ms),
            false => String::new(),
        };
        let messages = reports.iter().map(|report| proto::GetHistogramsResponse {
            shard_id: report.shard.0.into(),
            histograms: self.histograms(report),
            hdr_log: of_shard(&log, report.shard),
        });
        messages.collect()
    }

    fn histograms(&self, report: &ShardReport) -> Vec<proto::Histogram> {
        let measures = Measure::ALL.iter().filter(|measure| self.is_wanted(**measure));
        let shown = measures.map(|&measure| histogram(report, measure));
        shown.filter(|histogram| histogram.count > 0).collect()
    }

    fn is_wanted(&self, measure: Measure) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == measure.name())
    }
}

/// The header of a log, and the lines of one shard.
fn of_shard(log: &str, shard: ShardId) -> String {
    let own = format!("/shard={},", shard.0);
    let lines = log.split_inclusive('\n');
    lines.filter(|line| !line.starts_with("Tag=") || line.contains(&own)).collect()
}

fn histogram(report: &ShardReport, measure: Measure) -> proto::Histogram {
    let values = report.histograms.of(measure);
    let label = measure.label().map(|(name, value)| format!("{name}=\"{value}\""));
    let unit = match measure.unit() {
        Unit::Nanoseconds => proto::HistogramUnit::Nanoseconds,
        Unit::Count => proto::HistogramUnit::Count,
        Unit::Bytes => proto::HistogramUnit::Bytes,
    };
    let buckets = values.buckets().map(|bucket| proto::Bucket {
        low: bucket.low,
        high: bucket.high,
        count: bucket.count,
    });
    proto::Histogram {
        name: measure.name().to_owned(),
        label: label.unwrap_or_default(),
        unit: unit.into(),
        count: values.count(),
        sum: values.sum(),
        buckets: buckets.collect(),
    }
}
