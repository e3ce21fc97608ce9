//! What `/metrics` shows.

use std::borrow::Cow;
use std::time::Duration;

use relay_contract::{Counter, Counters, Measure, ShardReport};

use crate::classic::Edges;
use crate::exposition::{Family, Kind, Value};
use crate::process::Process;
use crate::settings::Caps;
use crate::shard_series;

/// What `/metrics` shows beside counters and shards, at this moment.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Admitted connections in the ledger, workers included.
    pub(crate) admitted: u64,
    /// Upgrades that wait for their decision.
    pub(crate) pending_admissions: u64,
    /// Questions that the platform is being asked.
    pub(crate) questions_asked: u64,
    /// Questions that wait for that.
    pub(crate) questions_waiting: u64,
    /// Revocations that refuse admissions.
    pub(crate) revocations: u64,
    /// Keys that check tokens.
    pub(crate) keys: u64,
    /// Seconds since the key set was fetched that was fetched longest ago.
    pub(crate) keys_age_secs: u64,
    /// Worker calls in flight.
    pub(crate) worker_calls: u64,
    /// Whether everybody is being let go.
    pub(crate) draining: bool,
    /// Data planes in processes of their own.
    pub(crate) data_planes: u64,
    /// Since the control plane began.
    pub(crate) uptime: Duration,
    pub(crate) started_unix_ms: i64,
    pub(crate) process: Process,
}

/// Constant facts, as labels of `relay_info`.
#[derive(Debug)]
pub(crate) struct Info<'a> {
    pub(crate) version: &'a str,
    pub(crate) driver: &'a str,
    pub(crate) shards: usize,
    pub(crate) relay_id: &'a str,
}

/// All metrics: every counter from the start, none with labels; what shards report is labelled by
/// shard. `control` is what the control plane itself counted.
///
/// Source: relay specification, section 0b.
pub(crate) fn families<'a>(
    control: &Counters,
    gauges: &Gauges,
    info: &Info<'a>,
    caps: &Caps,
    reports: &'a [ShardReport],
) -> Vec<Family<'a>> {
    let mut counters = control.clone();
    reports.iter().for_each(|report| counters.merge(&report.counters));
    let counter = |&counter: &Counter| {
        Family::plain(counter.name(), Kind::Counter, counter.help(), counters.of(counter))
    };
    let mut families: Vec<_> = Counter::ALL.iter().map(counter).collect();
    let connections = reports.iter().map(|report| report.connection_count).sum();
    let scopes = reports.iter().map(|report| report.scope_count).sum();
    families.extend(
        [
            // Workers excluded: the reference's meaning.
            ("relay_connections_total", "Daemons and clients connected now.", connections),
            ("relay_workspaces_total", "Scopes known now.", scopes),
            (
                "relay_admitted_connections",
                "Admitted connections now, workers included.",
                gauges.admitted,
            ),
            (
                "relay_pending_admissions",
                "Upgrades that wait for their decision.",
                gauges.pending_admissions,
            ),
            (
                "relay_admission_questions",
                "Validations that the platform is being asked for.",
                gauges.questions_asked,
            ),
            (
                "relay_admission_questions_waiting",
                "Validations that wait for others to be over.",
                gauges.questions_waiting,
            ),
            ("relay_revocations", "Revocations that refuse admissions now.", gauges.revocations),
            ("relay_jwks_keys", "Published keys that check tokens now.", gauges.keys),
            (
                "relay_jwks_age_seconds",
                "Time since the last good fetch of the key set that was fetched longest ago.",
                gauges.keys_age_secs,
            ),
            ("relay_worker_calls", "Worker calls in flight.", gauges.worker_calls),
            ("relay_draining", "Whether the relay is drained or stops.", gauges.draining.into()),
            ("relay_data_planes", "Data planes in processes of their own.", gauges.data_planes),
        ]
        .map(|(name, help, value)| Family::plain(name, Kind::Gauge, help, value)),
    );
    families.extend(of_process(gauges));
    families.push(limits(caps));
    families.extend(shard_series::families(reports));
    families.extend(distributions(reports));
    let mut facts = Family::new("relay_info", Kind::Gauge, "Facts of this relay.");
    let labels = vec![
        ("version", info.version.into()),
        ("driver", info.driver.into()),
        ("shards", info.shards.to_string().into()),
        ("relay_id", info.relay_id.into()),
    ];
    facts.push(labels, Value::Whole(1));
    families.push(facts);
    families
}

/// What the kernel says of the process, under the names that all programs use.
fn of_process<'f>(gauges: &Gauges) -> impl Iterator<Item = Family<'f>> + use<'f> {
    let whole = |value: Option<u64>| value.map(Value::Whole);
    let process = &gauges.process;
    let families = [
        (
            "relay_uptime_seconds",
            Kind::Gauge,
            "Time since the relay started.",
            Some(Value::Time(gauges.uptime)),
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, since 1970.",
            u64::try_from(gauges.started_unix_ms).ok().map(Duration::from_millis).map(Value::Time),
        ),
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Processor time of all threads.",
            Some(Value::Time(process.cpu)),
        ),
        (
            "relay_processors",
            Kind::Gauge,
            "Processors that the process may use: its affinity, and its control group's quota.",
            whole(process.processors),
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Memory of the process, without sockets.",
            whole(process.resident_bytes),
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Descriptors in use, those in tables of rings left out.",
            whole(process.open_descriptors),
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "Descriptors there may be.",
            whole(process.max_descriptors),
        ),
    ];
    families.into_iter().filter_map(|(name, kind, help, value)| {
        let mut family = Family::new(name, kind, help);
        family.push(Vec::new(), value?);
        Some(family)
    })
}

/// Configured limits that end growth.
fn limits(caps: &Caps) -> Family<'static> {
    let mut family = Family::new("relay_limit", Kind::Gauge, "A configured limit.");
    for (name, value) in [
        ("connections", caps.connections_max),
        ("connections_per_address", caps.connections_per_address_max),
        ("clients_per_scope", caps.clients_per_scope_max),
        ("pending_admissions", caps.pending_admissions_max),
        ("worker_calls", caps.worker_calls_max),
    ] {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        family.push(vec![("limit", name.into())], Value::Whole(value));
    }
    family
}

/// What each shard measured.
fn distributions(reports: &[ShardReport]) -> impl Iterator<Item = Family<'_>> {
    let families = Measure::ALL.chunk_by(|a, b| a.name() == b.name());
    families.map(move |measures| {
        let mut family = Family::new(measures[0].name(), Kind::Histogram, measures[0].help());
        for report in reports {
            for &measure in measures {
                let mut labels = vec![shard(report)];
                labels.extend(measure.label().map(|(name, value)| (name, value.into())));
                let histogram = report.histograms.of(measure);
                family.push(labels, Value::Histogram(histogram, Edges::of(measure)));
            }
        }
        family
    })
}

fn shard(report: &ShardReport) -> (&'static str, Cow<'static, str>) {
    ("shard", report.shard.0.to_string().into())
}

#[cfg(test)]
mod tests {
    use relay_contract::{Histograms, ShardId};

    use super::*;
    use crate::exposition;

    fn text_of(counters: &Counters, reports: &[ShardReport]) -> String {
        let info = Info { version: "0.1.0", driver: "uring", shards: 2, relay_id: "a\"b\\c\nd" };
        let (gauges, caps) = (Gauges::default(), Caps::default());
        exposition::text(&families(counters, &gauges, &info, &caps, reports))
    }

    fn text(counters: &Counters) -> String {
        text_of(counters, &[])
    }

    fn report(shard: u16, memory_used_bytes: u64) -> ShardReport {
        let shard = ShardId(shard);
        ShardReport { shard, memory_used_bytes, memory_bytes_max: 900, ..ShardReport::default() }
    }

    #[test]
    fn every_counter_is_there_at_zero_with_help_and_type() {
        let text = text(&Counters::default());
        for counter in Counter::ALL {
            let name = counter.name();
            assert!(text.contains(&format!("# HELP {name} {}\n", counter.help())));
            assert!(text.contains(&format!("# TYPE {name} counter\n{name} 0\n")));
        }
        for gauge in ["relay_connections_total", "relay_workspaces_total"] {
            assert!(text.contains(&format!("# TYPE {gauge} gauge\n{gauge} 0\n")));
        }
    }

    #[test]
    fn a_counted_event_shows() {
        let mut counters = Counters::default();
        counters.count(Counter::WsConnectionsOpened);
        assert!(text(&counters).contains("\nrelay_ws_connections_opened_total 1\n"));
    }

    #[test]
    fn each_shard_shows_its_memory() {
        let text = text_of(&Counters::default(), &[report(0, 1), report(1, 2)]);
        assert!(text.contains(
            "# TYPE relay_memory_used_bytes gauge\nrelay_memory_used_bytes{shard=\"0\"} 1\n\
             relay_memory_used_bytes{shard=\"1\"} 2\n"
        ));
        assert!(text.contains("\nrelay_memory_budget_bytes{shard=\"1\"} 900\n"));
    }

    #[test]
    fn every_distribution_is_there_from_the_start_for_each_shard() {
        let text = text_of(&Counters::default(), &[report(0, 0), report(1, 0)]);
        for measure in Measure::ALL {
            let name = measure.name();
            assert_eq!(text.matches(&format!("# TYPE {name} histogram\n")).count(), 1, "{name}");
            let label = measure.label().map(|(name, value)| format!(",{name}=\"{value}\""));
            let label = label.unwrap_or_default();
            for shard in [0, 1] {
                let labels = format!("shard=\"{shard}\"{label}");
                assert!(text.contains(&format!("\n{name}_bucket{{{labels},le=\"+Inf\"}} 0\n")));
                assert!(text.contains(&format!("\n{name}_sum{{{labels}}} 0\n")));
                assert!(text.contains(&format!("\n{name}_count{{{labels}}} 0\n")));
            }
        }
    }

    #[test]
    fn what_a_shard_measured_shows() {
        let mut histograms = Histograms::default();
        histograms.record_many(Measure::HopLatency, 10_000, 3);
        let text = text_of(&Counters::default(), &[ShardReport { histograms, ..report(4, 0) }]);
        let name = "relay_hop_latency_seconds";
        for line in [
            r#"_bucket{shard="4",le="0.000008192"} 0"#,
            r#"_bucket{shard="4",le="0.00001024"} 3"#,
            r#"_sum{shard="4"} 0.00003"#,
            r#"_count{shard="4"} 3"#,
        ] {
            assert!(text.contains(&format!("\n{name}{line}\n")), "{line}");
        }
    }

    #[test]
    fn alerts_and_dashboards_ask_for_series_that_exist() {
        let text = text_of(&Counters::default(), &[report(0, 0)]);
        let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        for (file, asking) in [
            ("alerts", include_str!("../../../deploy/prometheus/alerts.yml")),
            ("dashboard", include_str!("../../../deploy/grafana/relay.json")),
        ] {
            let words = asking.split(|letter| !is_name(letter));
            let names: Vec<_> = words.filter(|word| word.starts_with("relay_")).collect();
            assert!(names.len() > 5, "{file}");
            for name in names {
                let is_shown = |end| text.contains(&format!("\n{name}{end}"));
                assert!(is_shown("{") || is_shown(" "), "{file}: {name}");
            }
        }
    }

    #[test]
    fn labels_are_escaped() {
        let text = text(&Counters::default());
        assert!(text.contains(r#"relay_id="a\"b\\c\nd"} 1"#), "{text}");
        assert!(text.ends_with("1\n"));
    }
}
