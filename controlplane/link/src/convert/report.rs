//! Reports of shards.

use std::time::Duration;

use prost::Message as _;
use relay_contract::{
    Counter, Counters, Histogram, Histograms, Measure, QueryId, ScopeReport, ScopeTraffic, ShardId,
    ShardLoad, ShardReport, Tick, TurnCost,
};
use relay_grpc::plane::v1;

use super::upgrade::{id_in, target_in};
use super::{BadMessage, size_out};

/// The largest count that is believed. Sums of those of all shards there may be stay within 64
/// bits.
const COUNT_MAX: u64 = 1 << 46;

fn count_in(count: u64, what: &'static str) -> Result<u64, BadMessage> {
    if count <= COUNT_MAX { Ok(count) } else { Err(BadMessage::OutOfRange(what)) }
}

pub(super) fn report_out(query: QueryId, report: ShardReport) -> v1::Reported {
    let counted = Counter::ALL.iter().filter(|&&counter| report.counters.of(counter) > 0);
    let counters = counted.map(|&counter| v1::Count {
        name: counter.name().to_owned(),
        value: report.counters.of(counter),
    });
    let distributions = Measure::ALL.iter().filter_map(|&measure| {
        let histogram = report.histograms.of(measure);
        (histogram.count() > 0).then(|| distribution_out(measure, histogram))
    });
    v1::Reported {
        query: query.0,
        counters: counters.collect(),
        connection_count: report.connection_count,
        scope_count: report.scope_count,
        scopes: report.scopes.into_iter().map(scope_out).collect(),
        hottest: report.hottest.into_iter().map(traffic_out).collect(),
        now_ns: report.now.0,
        memory_bytes_max: report.memory_bytes_max,
        memory_used_bytes: report.memory_used_bytes,
        load: Some(load_out(&report.load)),
        distributions: distributions.collect(),
        more: false,
    }
}

/// The event, in parts that are short enough for a message each where it is a long report.
///
/// Cost: nothing but a look at its length where it is not.
pub(crate) fn parts(event: v1::Event) -> Vec<v1::Event> {
    let v1::Event { shard, event: Some(v1::event::Event::Reported(mut reported)) } = event else {
        return vec![event];
    };
    let mut parts = Vec::new();
    if reported.encoded_len() > PART_BYTES_MAX {
        let mut part = v1::Reported { query: reported.query, more: true, ..Default::default() };
        let mut bytes = 0;
        for scope in std::mem::take(&mut reported.scopes) {
            bytes += scope.encoded_len() + SCOPE_HEAD_BYTES_MAX;
            part.scopes.push(scope);
            if bytes > PART_BYTES_MAX {
                bytes = 0;
                let scopes = std::mem::take(&mut part.scopes);
                parts.push(v1::Reported { scopes, ..part.clone() });
            }
        }
        reported.scopes = part.scopes;
    }
    parts.push(reported);
    let event = |part| v1::Event { shard, event: Some(v1::event::Event::Reported(part)) };
    parts.into_iter().map(event).collect()
}

/// Bytes of one part, but for its last scope: far below the longest message there may be.
pub(crate) const PART_BYTES_MAX: usize = 4 << 20;

/// What stands before a scope in a message: a tag and a length.
const SCOPE_HEAD_BYTES_MAX: usize = 6;

pub(super) fn report_in(shard: ShardId, reported: v1::Reported) -> Result<ShardReport, BadMessage> {
    let mut counters = Counters::default();
    for v1::Count { name, value } in reported.counters {
        // A newer data plane counts what this control plane does not know.
        if let Some(&counter) = Counter::ALL.iter().find(|counter| counter.name() == name) {
            let value = count_in(value.saturating_add(counters.of(counter)), "counter")?;
            counters.add(counter, value - counters.of(counter));
        }
    }
    let mut histograms = Histograms::default();
    for distribution in reported.distributions {
        distribution_in(distribution, &mut histograms)?;
    }
    let hottest = reported.hottest.into_iter().take(ShardReport::HOTTEST_MAX).map(traffic_in);
    Ok(ShardReport {
        shard,
        counters,
        connection_count: count_in(reported.connection_count, "connections")?,
        scope_count: count_in(reported.scope_count, "scopes")?,
        scopes: reported.scopes.into_iter().map(scope_in).collect::<Result<_, _>>()?,
        hottest: hottest.collect::<Result<_, _>>()?,
        now: Tick(reported.now_ns),
        memory_bytes_max: reported.memory_bytes_max,
        memory_used_bytes: reported.memory_used_bytes,
        load: load_in(&reported.load.unwrap_or_default()),
        histograms,
    })
}

fn scope_out(scope: ScopeReport) -> v1::Scope {
    v1::Scope {
        workspace_id: scope.workspace_id.into(),
        target_id: scope.target_id.map(Into::into),
        daemon_connected: scope.daemon_connected,
        client_ids: scope.client_ids.into_iter().map(Into::into).collect(),
        last_activity_ns: scope.last_activity.0,
    }
}

fn scope_in(scope: v1::Scope) -> Result<ScopeReport, BadMessage> {
    Ok(ScopeReport {
        workspace_id: id_in(scope.workspace_id, "workspace")?.into(),
        target_id: target_in(scope.target_id)?,
        daemon_connected: scope.daemon_connected,
        client_ids: scope.client_ids.into_iter().map(Into::into).collect(),
        last_activity: Tick(scope.last_activity_ns),
    })
}

fn traffic_out(traffic: ScopeTraffic) -> v1::Traffic {
    v1::Traffic {
        workspace_id: traffic.workspace_id.into(),
        target_id: traffic.target_id.map(Into::into),
        frames_per_s: traffic.frames_per_s,
        bytes_per_s: traffic.bytes_per_s,
    }
}

fn traffic_in(traffic: v1::Traffic) -> Result<ScopeTraffic, BadMessage> {
    Ok(ScopeTraffic {
        workspace_id: id_in(traffic.workspace_id, "workspace")?.into(),
        target_id: target_in(traffic.target_id)?,
        frames_per_s: traffic.frames_per_s,
        bytes_per_s: traffic.bytes_per_s,
    })
}

fn load_out(load: &ShardLoad) -> v1::Load {
    let TurnCost { spans, turns, frames, frames_squared, cpu_ns, frames_cpu_ns } = load.turn_cost;
    v1::Load {
        cpu_ns: u64::try_from(load.cpu.as_nanos()).unwrap_or(u64::MAX),
        system_calls: load.system_calls,
        received_bytes: load.received_bytes,
        sent_bytes: load.sent_bytes,
        residents: load.residents,
        residents_max: load.residents_max,
        buffers_in_use: load.buffers_in_use,
        buffers_max: load.buffers_max,
        spans,
        turns,
        frames,
        frames_squared,
        turns_cpu_ns: cpu_ns,
        frames_cpu_ns,
        uptime_ns: u64::try_from(load.uptime.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn load_in(load: &v1::Load) -> ShardLoad {
    ShardLoad {
        uptime: Duration::from_nanos(load.uptime_ns),
        cpu: Duration::from_nanos(load.cpu_ns),
        system_calls: load.system_calls,
        received_bytes: load.received_bytes,
        sent_bytes: load.sent_bytes,
        residents: load.residents,
        residents_max: load.residents_max,
        buffers_in_use: load.buffers_in_use,
        buffers_max: load.buffers_max,
        turn_cost: TurnCost {
            spans: load.spans,
            turns: load.turns,
            frames: load.frames,
            frames_squared: load.frames_squared,
            cpu_ns: load.turns_cpu_ns,
            frames_cpu_ns: load.frames_cpu_ns,
        },
    }
}

fn distribution_out(measure: Measure, histogram: &Histogram) -> v1::Distribution {
    let (lows, counts) = histogram.buckets().map(|bucket| (bucket.low, bucket.count)).unzip();
    v1::Distribution {
        name: measure.name().to_owned(),
        label: measure.label().map_or("", |(_, value)| value).to_owned(),
        sum: histogram.sum(),
        lows,
        counts,
    }
}

fn distribution_in(
    distribution: v1::Distribution,
    histograms: &mut Histograms,
) -> Result<(), BadMessage> {
    let v1::Distribution { name, label, sum, lows, counts } = distribution;
    let is_it = |measure: &&Measure| {
        measure.name() == name && measure.label().map_or("", |(_, value)| value) == label
    };
    let Some(&measure) = Measure::ALL.iter().find(is_it) else {
        return Ok(());
    };
    if lows.len() != counts.len() || size_out(lows.len()) > Histogram::VALUE_MAX {
        return Err(BadMessage::OutOfRange("distribution"));
    }
    let total = counts.iter().fold(0_u64, |total, &count| total.saturating_add(count));
    count_in(total, "distribution")?;
    histograms.set(measure, Histogram::restored(sum, lows.into_iter().zip(counts)));
    Ok(())
}
