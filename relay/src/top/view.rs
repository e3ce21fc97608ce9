//! A snapshot as text.

use std::fmt::{Arguments, Write};

use super::snapshot::{ShardRow, Snapshot};
use crate::readings::Distribution;

/// Reasons shown.
const REFUSALS_MAX: usize = 8;
/// Receives without a buffer, for each completion, from which on times tell too little.
const STARVED_SHOWN: f64 = 0.05;
/// Scopes shown.
const HOTTEST_MAX: usize = 10;

/// The picture, some twenty lines.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut line = |what: Arguments<'_>| {
        writeln!(text, "{what}").expect("a string takes everything");
    };
    line(format_args!(
        "relay {}  {}  {}  up {}",
        snapshot.version,
        snapshot.relay_id,
        snapshot.driver,
        lasted(snapshot.uptime_s)
    ));
    line(format_args!(
        "connections {}   descriptors {}   resident {}",
        of(snapshot.connections, snapshot.connections_max),
        snapshot.descriptors.map_or_else(|| "?".to_owned(), |(now, most)| of(now, Some(most))),
        snapshot.resident_bytes.map_or_else(|| "?".to_owned(), bytes)
    ));
    line(format_args!(
        "admissions {:.1}/s   p99 {}   waiting {:.0}",
        snapshot.admissions_per_s,
        quantile(&snapshot.admission, 0.99),
        snapshot.pending_admissions
    ));
    line(format_args!(""));
    line(format_args!("{SHARD_HEAD}"));
    for shard in &snapshot.shards {
        line(format_args!("{}", row(&shard.number.to_string(), shard)));
    }
    if snapshot.shards.len() > 1 {
        line(format_args!("{}", row("all", &all(&snapshot.shards))));
    }
    if snapshot.starved > STARVED_SHOWN {
        line(format_args!(
            "of 100 receives {:.0} found no buffer: what waits in the kernel is in no time here",
            snapshot.starved * 100.0
        ));
    }
    if !snapshot.refusals.is_empty() {
        line(format_args!(""));
        line(format_args!("{:<24} {:>9} {:>12}", "REFUSED", "PER S", "SINCE START"));
        for refusals in snapshot.refusals.iter().take(REFUSALS_MAX) {
            let (reason, per_s, total) = (refusals.reason, refusals.per_s, refusals.total);
            line(format_args!("{reason:<24} {per_s:>9.1} {total:>12.0}"));
        }
    }
    if !snapshot.hottest.0.is_empty() {
        line(format_args!(""));
        line(format_args!("{:<44} {:>10} {:>10}", "HOTTEST WORKSPACES", "FRAMES/S", "BYTES/S"));
        for scope in snapshot.hottest.0.iter().take(HOTTEST_MAX) {
            let name: String = scope.name.chars().take(44).collect();
            let moved = bytes(scope.bytes_per_s);
            line(format_args!("{name:<44} {:>10.0} {moved:>10}", scope.frames_per_s));
        }
    }
    text
}

const SHARD_HEAD: &str = "SHARD  CONNECTIONS   FRAMES/S    BYTES/S   CPU   MEMORY OF BUDGET       \
                          P50      P99    P99.9  FRAMES/SEND";

fn row(name: &str, shard: &ShardRow) -> String {
    format!(
        "{name:>5} {:>12.0} {:>10.0} {:>10} {:>4.0}%  {:>8} {:>9} {:>9}{:>9}{:>9} {:>12}",
        shard.connections,
        shard.frames_per_s,
        bytes(shard.bytes_per_s),
        shard.cpu * 100.0,
        bytes(shard.memory_used),
        bytes(shard.memory_budget),
        quantile(&shard.hop, 0.5),
        quantile(&shard.hop, 0.99),
        quantile(&shard.hop, 0.999),
        shard.frames_per_send.map_or_else(|| "-".to_owned(), |frames| format!("{frames:.1}")),
    )
}

/// All shards as one.
fn all(shards: &[ShardRow]) -> ShardRow {
    let mut all = ShardRow::default();
    let (mut frames, mut sends) = (0.0, 0.0);
    for shard in shards {
        all.connections += shard.connections;
        all.frames_per_s += shard.frames_per_s;
        all.bytes_per_s += shard.bytes_per_s;
        all.cpu += shard.cpu;
        all.memory_used += shard.memory_used;
        all.memory_budget += shard.memory_budget;
        all.hop.merge(&shard.hop);
        if let Some(per_send) = shard.frames_per_send.filter(|per_send| *per_send > 0.0) {
            frames += shard.frames_per_s;
            sends += shard.frames_per_s / per_send;
        }
    }
    all.frames_per_send = (sends > 0.0).then(|| frames / sends);
    all
}

fn of(now: f64, most: Option<f64>) -> String {
    most.map_or_else(|| format!("{now:.0}"), |most| format!("{now:.0} of {most:.0}"))
}

fn quantile(distribution: &Distribution, share: f64) -> String {
    match distribution.quantile(share) {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 10.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.0} s"),
    }
}

/// Bytes to three digits or so.
fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn lasted(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds:.0} s"),
        (0, hours, minutes) => format!("{hours}:{minutes:02} h"),
        (days, hours, minutes) => format!("{days} d {hours}:{minutes:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hottest::Hottest;
    use super::*;
    use crate::readings::Readings;

    const EARLIER: &str = include_str!("recorded/earlier.txt");
    const LATER: &str = include_str!("recorded/later.txt");
    const HOTTEST: &str = include_str!("recorded/node.json");
    const SHOWN: &str = include_str!("recorded/shown.txt");

    fn reading(text: &str) -> Readings {
        Readings::parse(text).expect("a relay wrote it")
    }

    fn shown(earlier: &str, later: &str) -> String {
        let hottest = Hottest::parse(HOTTEST).expect("a relay wrote it");
        text(&super::super::snapshot(&reading(earlier), &reading(later), hottest))
    }

    #[test]
    fn a_recorded_interval_looks_as_reviewed() {
        assert_eq!(shown(EARLIER, LATER), SHOWN);
    }

    #[test]
    fn a_relay_that_was_started_anew_counts_from_its_start() {
        let anew = shown(LATER, EARLIER);
        let is_negative = |l: &[u8]| l.starts_with(b" -") && l[2].is_ascii_digit();
        let numbers = anew.lines().skip(1).map(str::as_bytes);
        assert!(!numbers.flat_map(|line| line.windows(3)).any(is_negative), "{anew}");
    }

    #[test]
    fn receives_without_a_buffer_are_told_of() {
        let name = "relay_receive_starved_total";
        let lines = LATER.lines().filter(|line| !line.starts_with(name));
        let starved: Vec<_> = lines.chain(["relay_receive_starved_total 100000000"]).collect();
        let shown = shown(EARLIER, &starved.join("\n"));
        assert!(shown.contains("found no buffer"), "{shown}");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (value, expected) in
            [(0.0, "0 B"), (999.0, "999 B"), (1536.0, "1.5 KiB"), (5e9, "4.7 GiB")]
        {
            assert_eq!(bytes(value), expected);
        }
        for (seconds, expected) in [(59.0, "59 s"), (3720.0, "1:02 h"), (90_060.0, "1 d 1:01 h")] {
            assert_eq!(lasted(seconds), expected);
        }
    }
}
