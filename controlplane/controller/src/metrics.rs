//! The text of `/metrics`.

use std::fmt::Write;

use relay_contract::{Counter, Counters};

/// What `/metrics` shows beside the counters, at this moment.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Daemons and clients, workers excluded: the reference's meaning.
    pub(crate) connections: u64,
    /// Scopes in the directories.
    pub(crate) workspaces: u64,
    /// Admitted connections in the ledger, workers included.
    pub(crate) admitted: u64,
    /// Upgrades that wait for their decision.
    pub(crate) pending_admissions: u64,
    /// Worker calls in flight.
    pub(crate) worker_calls: u64,
    /// What peers make each shard hold.
    pub(crate) memory: Vec<ShardMemory>,
}

/// One shard's account of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardMemory {
    pub(crate) shard: u16,
    pub(crate) budget_bytes: u64,
    pub(crate) used_bytes: u64,
}

/// Constant facts, as labels of `relay_info`.
#[derive(Debug)]
pub(crate) struct Info<'a> {
    pub(crate) version: &'a str,
    pub(crate) driver: &'a str,
    pub(crate) shards: usize,
    pub(crate) relay_id: &'a str,
}

/// Writes the exposition: every counter from the start, each with HELP and TYPE, none with labels;
/// gauges of shards have theirs.
///
/// Source: Prometheus text format 0.0.4; relay specification, section 0b.
pub(crate) fn exposition(counters: &Counters, gauges: &Gauges, info: &Info<'_>) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    for &counter in Counter::ALL {
        let (name, help) = (counter.name(), counter.help());
        sample(&mut text, "counter", name, help, counters.of(counter));
    }
    for (name, help, value) in [
        ("relay_connections_total", "Daemons and clients connected now.", gauges.connections),
        ("relay_workspaces_total", "Scopes known now.", gauges.workspaces),
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
        ("relay_worker_calls", "Worker calls in flight.", gauges.worker_calls),
    ] {
        sample(&mut text, "gauge", name, help, value);
    }
    let shards = &gauges.memory;
    let (name, help) = ("relay_memory_budget_bytes", "Memory that peers may make a shard hold.");
    by_shard(&mut text, name, help, shards.iter().map(|of| (of.shard, of.budget_bytes)));
    let (name, help) = ("relay_memory_used_bytes", "Memory that peers make a shard hold now.");
    by_shard(&mut text, name, help, shards.iter().map(|of| (of.shard, of.used_bytes)));
    let labels = format!(
        r#"{{version="{}",driver="{}",shards="{}",relay_id="{}"}}"#,
        label(info.version),
        label(info.driver),
        info.shards,
        label(info.relay_id)
    );
    head(&mut text, "gauge", "relay_info", "Facts of this relay.");
    line(&mut text, format_args!("relay_info{labels} 1"));
    text
}

fn sample(text: &mut String, kind: &str, name: &str, help: &str, value: u64) {
    head(text, kind, name, help);
    line(text, format_args!("{name} {value}"));
}

/// A gauge with a value for each shard.
fn by_shard(text: &mut String, name: &str, help: &str, values: impl Iterator<Item = (u16, u64)>) {
    head(text, "gauge", name, help);
    for (shard, value) in values {
        line(text, format_args!("{name}{{shard=\"{shard}\"}} {value}"));
    }
}

fn head(text: &mut String, kind: &str, name: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes everything");
}

/// A label's value, escaped.
fn label(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
    escaped.replace('\n', r"\n")
}

/// Room for the whole text, so that it grows once.
const TEXT_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counters: &Counters) -> String {
        let info = Info { version: "0.1.0", driver: "uring", shards: 2, relay_id: "a\"b\\c\nd" };
        exposition(counters, &Gauges::default(), &info)
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
        let memory = vec![
            ShardMemory { shard: 0, budget_bytes: 900, used_bytes: 1 },
            ShardMemory { shard: 1, budget_bytes: 900, used_bytes: 2 },
        ];
        let gauges = Gauges { memory, ..Gauges::default() };
        let info = Info { version: "0.1.0", driver: "uring", shards: 2, relay_id: "r" };
        let text = exposition(&Counters::default(), &gauges, &info);
        assert!(text.contains(
            "# TYPE relay_memory_used_bytes gauge\nrelay_memory_used_bytes{shard=\"0\"} 1\n\
             relay_memory_used_bytes{shard=\"1\"} 2\n"
        ));
        assert!(text.contains("\nrelay_memory_budget_bytes{shard=\"1\"} 900\n"));
    }

    #[test]
    fn labels_are_escaped() {
        let text = text(&Counters::default());
        assert!(text.contains(r#"relay_id="a\"b\\c\nd"} 1"#), "{text}");
        assert!(text.ends_with("1\n"));
    }
}
