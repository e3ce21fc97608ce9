//! Distributions, as the control API shows them.

use relay_contract::{Measure, ShardReport, Unit};
use relay_grpc::control::v1 as proto;
use tonic::Status;

/// What is wanted of all measures on all shards.
#[derive(Debug)]
pub(crate) struct Wanted {
    shard_ids: Vec<u32>,
    names: Vec<String>,
}

impl Wanted {
    /// # Errors
    /// INVALID_ARGUMENT for a measure that there is not.
    pub(super) fn new(request: proto::GetHistogramsRequest) -> Result<Self, Status> {
        let proto::GetHistogramsRequest { shard_ids, names } = request;
        let is_known = |name: &String| Measure::ALL.iter().any(|measure| measure.name() == name);
        if !names.iter().all(is_known) {
            let mut known: Vec<_> = Measure::ALL.iter().map(|measure| measure.name()).collect();
            known.dedup();
            let text = format!("names: there are {}", known.join(", "));
            return Err(Status::invalid_argument(text));
        }
        Ok(Self { shard_ids, names })
    }

    /// A message for each shard.
    pub(super) fn of(&self, reports: &[ShardReport]) -> Vec<proto::GetHistogramsResponse> {
        let is_wanted = |report: &&ShardReport| {
            self.shard_ids.is_empty() || self.shard_ids.contains(&u32::from(report.shard.0))
        };
        let wanted = reports.iter().filter(is_wanted);
        wanted
            .map(|report| proto::GetHistogramsResponse {
                shard_id: report.shard.0.into(),
                histograms: self.histograms(report),
            })
            .collect()
    }

    fn histograms(&self, report: &ShardReport) -> Vec<proto::Histogram> {
        let is_wanted = |measure: &&Measure| {
            self.names.is_empty() || self.names.iter().any(|name| name == measure.name())
        };
        let measures = Measure::ALL.iter().filter(is_wanted);
        let shown = measures.map(|&measure| histogram(report, measure));
        shown.filter(|histogram| histogram.count > 0).collect()
    }
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
