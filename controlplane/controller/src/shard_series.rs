//! What is shown of each shard beside what it measures.

use std::time::Duration;

use relay_contract::{Counter, ShardReport};

use crate::exposition::{Family, Kind, Value};

/// A family with a value for each shard.
struct Series {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&ShardReport) -> Value<'static>,
}

/// The families, labelled by shard.
pub(crate) fn families(reports: &[ShardReport]) -> impl Iterator<Item = Family<'_>> {
    SERIES.iter().map(move |series| {
        let mut family = Family::new(series.name, series.kind, series.help);
        for report in reports {
            let shard = ("shard", report.shard.0.to_string().into());
            family.push(vec![shard], (series.value)(report));
        }
        family
    })
}

/// Frames between clients and daemons, both ways.
fn frames(report: &ShardReport) -> u64 {
    let counters = &report.counters;
    counters.of(Counter::FramesClientToDaemon) + counters.of(Counter::FramesDaemonToClients)
}

fn message_bytes(report: &ShardReport) -> u64 {
    let counters = &report.counters;
    counters.of(Counter::BytesClientToDaemon) + counters.of(Counter::BytesDaemonToClients)
}

fn nanoseconds(nanoseconds: u64) -> Value<'static> {
    Value::Time(Duration::from_nanos(nanoseconds))
}

const SERIES: &[Series] = &[
    Series {
        name: "relay_memory_budget_bytes",
        kind: Kind::Gauge,
        help: "Memory that peers may make a shard hold.",
        value: |report| Value::Whole(report.memory_bytes_max),
    },
    Series {
        name: "relay_memory_used_bytes",
        kind: Kind::Gauge,
        help: "Memory that peers make a shard hold now, without scopes that nobody is in.",
        value: |report| Value::Whole(report.memory_used_bytes),
    },
    Series {
        name: "relay_shard_connections",
        kind: Kind::Gauge,
        help: "Daemons and clients of a shard.",
        value: |report| Value::Whole(report.connection_count),
    },
    Series {
        name: "relay_shard_scopes",
        kind: Kind::Gauge,
        help: "Scopes of a shard.",
        value: |report| Value::Whole(report.scope_count),
    },
    Series {
        name: "relay_shard_uptime_seconds",
        kind: Kind::Gauge,
        help: "Time since a shard's process started; its counts are since then.",
        value: |report| Value::Time(report.load.uptime),
    },
    Series {
        name: "relay_shard_cpu_seconds_total",
        kind: Kind::Counter,
        help: "Processor time of a shard's thread.",
        value: |report| Value::Time(report.load.cpu),
    },
    Series {
        name: "relay_shard_frames_total",
        kind: Kind::Counter,
        help: "Frames that a shard forwarded, or would have if somebody had been there.",
        value: |report| Value::Whole(frames(report)),
    },
    Series {
        name: "relay_shard_message_bytes_total",
        kind: Kind::Counter,
        help: "Bytes of those frames' messages.",
        value: |report| Value::Whole(message_bytes(report)),
    },
    Series {
        name: "relay_shard_pings_total",
        kind: Kind::Counter,
        help: "Pings that a shard sent to connections that were silent.",
        value: |report| Value::Whole(report.counters.of(Counter::PingsSent)),
    },
    Series {
        name: "relay_shard_received_bytes_total",
        kind: Kind::Counter,
        help: "Bytes that a shard's sockets received.",
        value: |report| Value::Whole(report.load.received_bytes),
    },
    Series {
        name: "relay_shard_sent_bytes_total",
        kind: Kind::Counter,
        help: "Bytes that a shard's sockets took.",
        value: |report| Value::Whole(report.load.sent_bytes),
    },
    Series {
        name: "relay_shard_system_calls_total",
        kind: Kind::Counter,
        help: "System calls of a shard's driver.",
        value: |report| Value::Whole(report.load.system_calls),
    },
    Series {
        name: "relay_shard_residents",
        kind: Kind::Gauge,
        help: "Connections in the table of a shard's driver.",
        value: |report| Value::Whole(report.load.residents),
    },
    Series {
        name: "relay_shard_residents_max",
        kind: Kind::Gauge,
        help: "Connections that the table of a shard's driver takes.",
        value: |report| Value::Whole(report.load.residents_max),
    },
    Series {
        name: "relay_shard_buffers_in_use",
        kind: Kind::Gauge,
        help: "Receive buffers of a shard in use.",
        value: |report| Value::Whole(report.load.buffers_in_use),
    },
    Series {
        name: "relay_shard_buffers_max",
        kind: Kind::Gauge,
        help: "Receive buffers of a shard.",
        value: |report| Value::Whole(report.load.buffers_max),
    },
    Series {
        name: "relay_shard_sampled_spans_total",
        kind: Kind::Counter,
        help: "Spans of turns whose cost was measured.",
        value: |report| Value::Whole(report.load.turn_cost.spans),
    },
    Series {
        name: "relay_shard_sampled_turns_total",
        kind: Kind::Counter,
        help: "Turns of those spans.",
        value: |report| Value::Whole(report.load.turn_cost.turns),
    },
    Series {
        name: "relay_shard_sampled_frames_total",
        kind: Kind::Counter,
        help: "Frames of those spans.",
        value: |report| Value::Whole(report.load.turn_cost.frames),
    },
    Series {
        name: "relay_shard_sampled_frames_squared_total",
        kind: Kind::Counter,
        help: "Frames of those spans, each squared.",
        value: |report| Value::Whole(report.load.turn_cost.frames_squared),
    },
    Series {
        name: "relay_shard_sampled_cpu_seconds_total",
        kind: Kind::Counter,
        help: "Processor time of those spans.",
        value: |report| nanoseconds(report.load.turn_cost.cpu_ns),
    },
    Series {
        name: "relay_shard_sampled_frames_cpu_seconds_total",
        kind: Kind::Counter,
        help: "Processor time of those spans, each times its frames.",
        value: |report| nanoseconds(report.load.turn_cost.frames_cpu_ns),
    },
];
