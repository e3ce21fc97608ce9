//! What happened between two readings.

use super::hottest::Hottest;
use super::refusals::Refusals;
use crate::readings::{Distribution, Interval};

/// One interval of a relay.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: String,
    pub(crate) relay_id: String,
    pub(crate) driver: String,
    pub(crate) uptime_s: f64,
    pub(crate) connections: f64,
    pub(crate) connections_max: Option<f64>,
    pub(crate) pending_admissions: f64,
    pub(crate) admissions_per_s: f64,
    pub(crate) admission: Distribution,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) descriptors: Option<(f64, f64)>,
    /// Receives that found no buffer, for each completion.
    pub(crate) starved: f64,
    pub(crate) shards: Vec<ShardRow>,
    /// Counted since start, those that were most in the interval first.
    pub(crate) refusals: Vec<Refusals>,
    pub(crate) hottest: Hottest,
}

/// One shard's interval, and what it holds at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardRow {
    pub(crate) number: u16,
    pub(crate) connections: f64,
    pub(crate) frames_per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) completions_per_s: f64,
    /// Share of a processor.
    pub(crate) cpu: f64,
    pub(crate) memory_used: f64,
    pub(crate) memory_budget: f64,
    pub(crate) hop: Distribution,
    pub(crate) frames_per_send: Option<f64>,
}

impl Snapshot {
    pub(crate) fn of(interval: &Interval<'_>, hottest: Hottest) -> Self {
        let later = interval.later;
        let now = |name: &str| later.value(name).unwrap_or_default();
        let seconds = interval.seconds().max(f64::MIN_POSITIVE);
        let fact = |label: &str| later.fact("relay_info", label).unwrap_or("?").to_owned();
        let lengths = interval.shards();
        let length = |shard| lengths.iter().find(|length| length.0 == shard).map(|length| length.1);
        let shards = later.shards().into_iter();
        let rows: Vec<_> =
            shards.map(|shard| ShardRow::of(interval, shard, length(shard))).collect();
        let completions: f64 = rows.iter().map(|row| row.completions_per_s).sum();
        let starved_per_s = interval.since("relay_receive_starved_total") / seconds;
        Self {
            version: fact("version"),
            relay_id: fact("relay_id"),
            driver: fact("driver"),
            uptime_s: now("relay_uptime_seconds"),
            connections: now("relay_admitted_connections"),
            connections_max: later.labelled("relay_limit", "limit", "connections"),
            pending_admissions: now("relay_pending_admissions"),
            admissions_per_s: interval.since("relay_admission_ok_total") / seconds,
            admission: interval.of_all("relay_admission_duration_seconds"),
            resident_bytes: later.value("process_resident_memory_bytes"),
            descriptors: later.value("process_open_fds").zip(later.value("process_max_fds")),
            starved: starved_per_s / completions.max(1.0),
            shards: rows,
            refusals: Refusals::of(interval),
            hottest,
        }
    }
}

impl ShardRow {
    /// `seconds` is how long it was looked at; without that it has no rates.
    fn of(interval: &Interval<'_>, number: u16, seconds: Option<f64>) -> Self {
        let now = |name: &str| interval.later.of_shard(name, number).unwrap_or_default();
        let rate =
            |name: &str| seconds.map_or(0.0, |seconds| interval.of_shard(name, number) / seconds);
        let measured = |name: &str| match seconds {
            Some(_) => interval.distribution(name, number),
            None => Distribution::default(),
        };
        let completions = measured("relay_turn_completions").sum;
        Self {
            number,
            connections: now("relay_shard_connections"),
            frames_per_s: rate("relay_shard_frames_total"),
            bytes_per_s: rate("relay_shard_message_bytes_total"),
            completions_per_s: seconds.map_or(0.0, |seconds| completions / seconds),
            cpu: rate("relay_shard_cpu_seconds_total"),
            memory_used: now("relay_memory_used_bytes"),
            memory_budget: now("relay_memory_budget_bytes"),
            hop: measured("relay_hop_latency_seconds"),
            frames_per_send: measured("relay_send_frames").mean(),
        }
    }
}
