//! What happened between two readings.

use super::hottest::Hottest;
use crate::readings::{Distribution, Readings};

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
    /// Share of a processor.
    pub(crate) cpu: f64,
    pub(crate) memory_used: f64,
    pub(crate) memory_budget: f64,
    pub(crate) hop: Distribution,
    pub(crate) frames_per_send: Option<f64>,
}

/// How often somebody was turned away for one reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusals {
    pub(crate) reason: &'static str,
    pub(crate) per_s: f64,
    pub(crate) total: f64,
}

/// Counters of peers that got less than they asked for, and what to call that.
const REASONS: &[(&str, &str)] = &[
    ("relay_admission_denied_total", "token denied"),
    ("relay_admission_unavailable_total", "admission unavailable"),
    ("relay_upgrade_rate_limited_total", "too many attempts"),
    ("relay_upgrade_missing_auth_total", "no usable token"),
    ("relay_upgrade_invalid_query_total", "invalid query"),
    ("relay_guests_refused_total", "too many strangers"),
    ("relay_budget_refused_total", "memory budget"),
    ("relay_head_timeouts_total", "head too slow"),
    ("relay_head_rejected_total", "bad request"),
    ("relay_tls_handshake_failures_total", "TLS handshake"),
    ("relay_ws_slow_client_terminated_total", "slow reader"),
    ("relay_frames_client_runtime_rate_limited_total", "client too fast"),
    ("relay_frames_daemon_rate_limited_total", "daemon too fast"),
    ("relay_frames_client_rejected_total", "bad client frame"),
    ("relay_frames_daemon_rejected_total", "bad daemon frame"),
    ("relay_client_messages_dropped_total", "no daemon"),
    ("relay_protocol_violations_total", "protocol violation"),
    ("relay_messages_too_large_total", "message too large"),
];

impl Snapshot {
    pub(crate) fn between(earlier: &Readings, later: &Readings, hottest: Hottest) -> Self {
        let now = |name: &str| later.value(name).unwrap_or_default();
        let uptime_s = now("relay_uptime_seconds");
        // The relay's own clock; a relay that was started anew counts from its start.
        let before = earlier.value("relay_uptime_seconds").filter(|before| *before < uptime_s);
        let restarted = Readings::default();
        let earlier = if before.is_some() { earlier } else { &restarted };
        let seconds = (uptime_s - before.unwrap_or_default()).max(f64::MIN_POSITIVE);
        let since = |name: &str| now(name) - earlier.value(name).unwrap_or_default();
        let fact = |label: &str| later.fact("relay_info", label).unwrap_or("?").to_owned();
        let refusals = REASONS.iter().map(|&(name, reason)| Refusals {
            reason,
            per_s: since(name) / seconds,
            total: now(name),
        });
        let mut refusals: Vec<_> = refusals.filter(|refusals| refusals.total > 0.0).collect();
        refusals.sort_by(|a, b| {
            (b.per_s, b.total).partial_cmp(&(a.per_s, a.total)).expect("none is NaN")
        });
        let admission = "relay_admission_duration_seconds";
        Self {
            version: fact("version"),
            relay_id: fact("relay_id"),
            driver: fact("driver"),
            uptime_s,
            connections: now("relay_admitted_connections"),
            connections_max: later.labelled("relay_limit", "limit", "connections"),
            pending_admissions: now("relay_pending_admissions"),
            admissions_per_s: since("relay_admission_ok_total") / seconds,
            admission: later
                .distribution(admission, None)
                .since(&earlier.distribution(admission, None)),
            resident_bytes: later.value("process_resident_memory_bytes"),
            descriptors: later.value("process_open_fds").zip(later.value("process_max_fds")),
            shards: later
                .shards()
                .into_iter()
                .map(|n| ShardRow::between(earlier, later, n, seconds))
                .collect(),
            refusals,
            hottest,
        }
    }
}

impl ShardRow {
    fn between(earlier: &Readings, later: &Readings, number: u16, seconds: f64) -> Self {
        let now = |name: &str| later.of_shard(name, number).unwrap_or_default();
        let rate =
            |name: &str| (now(name) - earlier.of_shard(name, number).unwrap_or_default()) / seconds;
        let measured = |name: &str| {
            let before = earlier.distribution(name, Some(number));
            later.distribution(name, Some(number)).since(&before)
        };
        Self {
            number,
            connections: now("relay_shard_connections"),
            frames_per_s: rate("relay_shard_frames_total"),
            bytes_per_s: rate("relay_shard_message_bytes_total"),
            cpu: rate("relay_shard_cpu_seconds_total"),
            memory_used: now("relay_memory_used_bytes"),
            memory_budget: now("relay_memory_budget_bytes"),
            hop: measured("relay_hop_latency_seconds"),
            frames_per_send: measured("relay_send_frames").mean(),
        }
    }
}
