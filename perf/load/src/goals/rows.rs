//! From results to goals.

use serde_json::Value;

use super::results::{Found, Results};
use super::{Row, Share, Verdict};

/// Every goal, with each result that tells about it.
pub(super) fn all(results: &Results) -> Vec<Row> {
    let mut rows = shares(results);
    rows.extend(latency(results));
    let calls = "system calls per frame, 64 active pairs";
    rows.extend(per_frame(results, calls, "relay_shard_system_calls_total", 0.5));
    rows.extend(idle(results));
    rows.extend(admissions(results));
    rows.extend(storms(results));
    rows.extend(scaling(results));
    // What is copied shows in the metrics; that nothing is allocated, in a test of the shard.
    let copies = "copies per frame, 64 active pairs";
    rows.extend(per_frame(results, copies, "relay_copied_frames_total", 0.0));
    rows
}

/// A figure that may be at most so much, or has to be at least so much.
#[derive(Clone, Copy)]
enum Bound {
    Most(f64),
    Least(f64),
}

impl Bound {
    fn is_held(self, value: f64) -> bool {
        match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
        }
    }

    fn text(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::Most(bound) => ("≤", bound),
            Self::Least(bound) => ("≥", bound),
        };
        format!("{sign} {bound}{unit}")
    }
}

fn judged(goal: &str, bound: Bound, unit: &str, found: &Found, value: Option<f64>) -> Row {
    let Some(value) = value else { return unknown(goal, bound, unit) };
    Row {
        goal: goal.to_owned(),
        bound: bound.text(unit),
        measured: format!("{}{unit}", figure(value)),
        latency: String::new(),
        source: found.source(),
        verdict: verdict(bound.is_held(value)),
    }
}

fn unknown(goal: &str, bound: Bound, unit: &str) -> Row {
    unshown(goal, bound.text(unit))
}

fn unshown(goal: &str, bound: String) -> Row {
    Row {
        goal: goal.to_owned(),
        bound,
        measured: String::new(),
        latency: String::new(),
        source: String::new(),
        verdict: Verdict::Unknown,
    }
}

fn or_unknown(rows: Vec<Row>, goal: &str, bound: Bound, unit: &str) -> Vec<Row> {
    if rows.is_empty() { vec![unknown(goal, bound, unit)] } else { rows }
}

fn verdict(is_held: bool) -> Verdict {
    if is_held { Verdict::Held } else { Verdict::Missed }
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Processor time per frame, over each contender's.
fn shares(results: &Results) -> Vec<Row> {
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for found in results.with(&["points"]) {
        for point in found.rows("points") {
            let bytes = point["shape"]["payload_bytes"].as_u64().unwrap_or_default();
            let depth = point["shape"]["depth"].as_u64().unwrap_or_default();
            let contenders = point["contenders"].as_array().map_or(&[][..], Vec::as_slice);
            for contender in contenders {
                let name = contender["name"].as_str().unwrap_or_default();
                let Some(goal) = Share::of(name, bytes, depth) else { continue };
                seen.push((name.to_owned(), bytes, depth));
                rows.push(share_row(found, goal, contenders, contender, (bytes, depth)));
            }
        }
    }
    let missing = Share::missing(&seen);
    rows.extend(
        missing.iter().map(|goal| unshown(&format!("CPU per frame {goal}"), String::new())),
    );
    rows
}

fn share_row(
    found: &Found,
    goal: Share,
    contenders: &[Value],
    contender: &Value,
    (bytes, depth): (u64, u64),
) -> Row {
    let name = contender["name"].as_str().unwrap_or_default();
    let ratio = |of: &str| contender["relay_over_this"][of].as_f64().unwrap_or(f64::NAN);
    let micros = |of: &Value, quantile: &str| {
        let value = of[format!("latency_{quantile}_ns")]["median"].as_f64();
        value.map_or_else(|| "?".to_owned(), |ns| format!("{:.0}", ns / 1e3))
    };
    let relay = contenders.first().unwrap_or(&Value::Null);
    let latency = ["p50", "p99", "p999"]
        .map(|quantile| format!("{} / {}", micros(relay, quantile), micros(contender, quantile)));
    Row {
        goal: format!("CPU per frame ÷ {name}, {bytes} B, depth {depth}"),
        bound: goal.bound(),
        measured: format!("{:.3} ({:.3}–{:.3})", ratio("median"), ratio("least"), ratio("most")),
        latency: format!("{} µs", latency.join(", ")),
        source: found.source(),
        verdict: verdict(goal.is_held(ratio("median"))),
    }
}

/// Latency of one pair, over the pass-through's in the same run.
fn latency(results: &Results) -> Vec<Row> {
    let quantiles = [("p50", 1.15), ("p99", 1.3), ("p99.9", 2.0)];
    let mut rows = Vec::new();
    for found in results.scenario("one-pair") {
        for relay in found.rows("cases") {
            let Some(load) = name(relay).strip_prefix("relay, ") else { continue };
            let limit = format!("pass-through, {load}");
            let Some(limit) = found.rows("cases").find(|case| name(case) == limit) else {
                continue;
            };
            let size = load.split(", ").nth(1).unwrap_or(load);
            for (quantile, most) in quantiles {
                let member = format!("{}_ns", quantile.replace('.', ""));
                let (ours, theirs) = (&relay["latency"][&member], &limit["latency"][&member]);
                let ratio = ours.as_f64().zip(theirs.as_f64()).map(|(ours, theirs)| ours / theirs);
                let goal = format!("{quantile} of one pair, {size} ÷ pass-through");
                let mut row = judged(&goal, Bound::Most(most), "", found, ratio);
                let micros = |value: &Value| value.as_f64().unwrap_or(f64::NAN) / 1e3;
                row.latency = format!("{:.1} / {:.1} µs", micros(ours), micros(theirs));
                rows.push(row);
            }
        }
    }
    if rows.is_empty() {
        let goal = |quantile: &str| format!("{quantile} of one pair ÷ pass-through");
        rows.extend(quantiles.map(|(it, most)| unknown(&goal(it), Bound::Most(most), "")));
    }
    let polling: Vec<_> = results
        .scenario("one-pair-polling")
        .map(|found| {
            let p50 = |subject: &str| {
                let case = found.rows("cases").find(|case| name(case).starts_with(subject))?;
                case["latency"]["p50_ns"].as_f64()
            };
            let ratio = p50("relay").zip(p50("pass-through")).map(|(ours, theirs)| ours / theirs);
            judged(POLLING, Bound::Most(0.6), "", found, ratio)
        })
        .collect();
    rows.extend(or_unknown(polling, POLLING, Bound::Most(0.6), ""));
    rows
}

const POLLING: &str = "p50 of one pair ÷ pass-through, busy polling";

fn name(case: &Value) -> &str {
    case["case"]["name"].as_str().unwrap_or_default()
}

/// What a counter of the relay grew by in the window of a case.
fn grown(case: &Value, counter: &str) -> Option<f64> {
    let total = |when: &str| {
        let lines = case["metrics"][when].as_array()?;
        let lines = lines.iter().filter_map(Value::as_str);
        let values = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let name = series.split('{').next()?;
            (name == counter).then(|| value.parse::<f64>().ok())?
        });
        Some(values.sum::<f64>())
    };
    Some(total("after")? - total("before")?)
}

/// What a counter of the relay grows by for each frame, with 64 pairs.
fn per_frame(results: &Results, goal: &str, counter: &str, most: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for found in results.scenario("closed-loop") {
        for case in found.rows("cases").filter(|case| name(case).starts_with("relay")) {
            // Counters that are zero are not written down.
            let counted = grown(case, counter);
            let frames = grown(case, "relay_shard_frames_total").filter(|frames| *frames > 0.0);
            let ratio = counted.zip(frames).map(|(counted, frames)| counted / frames);
            let load = name(case).trim_start_matches("relay, ");
            rows.push(judged(&format!("{goal}: {load}"), Bound::Most(most), "", found, ratio));
        }
    }
    or_unknown(rows, goal, Bound::Most(most), "")
}

/// Memory and heartbeats.
fn idle(results: &Results) -> Vec<Row> {
    const PLAIN: &str = "memory of an idle connection, plain";
    const TLS: &str = "memory of an idle connection, TLS";
    const BASE: &str = "memory without connections";
    const MANY: &str = "idle connections with heartbeats";
    const PINGS: &str = "CPU of heartbeats ÷ raw ping and pong";
    let (mut plain, mut tls, mut base) = (Vec::new(), Vec::new(), Vec::new());
    let (mut many, mut pings) = (Vec::new(), Vec::new());
    for found in results.with(&["total_bytes_per_connection"]) {
        let each = found.number("/total_bytes_per_connection");
        let count = found.number("/connections").unwrap_or_default();
        let of = |goal: &str| format!("{goal}, {count:.0} of them");
        match found.is_tls() {
            true => tls.push(judged(&of(TLS), Bound::Most(6144.0), " B", found, each)),
            false => plain.push(judged(&of(PLAIN), Bound::Most(512.0), " B", found, each)),
        }
        let shards = found.number("/shards").unwrap_or(1.0);
        let begun = found.number("/base/total_bytes").map(|bytes| bytes / 1e6);
        let goal = format!("{BASE}, {shards:.0} shard(s)");
        base.push(judged(&goal, Bound::Most(10.0), " MB", found, begun));
        if let Some(ratio) = found.number("/heartbeat/cpu_ratio") {
            pings.push(judged(&of(PINGS), Bound::Most(1.3), "", found, Some(ratio)));
        }
        if found.number("/heartbeat/seconds").is_some() {
            many.push(judged(MANY, Bound::Least(500_000.0), "", found, Some(count)));
        }
    }
    // The most that were held is what there is to say.
    many.sort_by_key(|row| row.verdict != Verdict::Held);
    many.truncate(1);
    [
        or_unknown(plain, PLAIN, Bound::Most(512.0), " B"),
        or_unknown(tls, TLS, Bound::Most(6144.0), " B"),
        or_unknown(base, BASE, Bound::Most(10.0), " MB"),
        or_unknown(many, MANY, Bound::Least(500_000.0), ""),
        or_unknown(pings, PINGS, Bound::Most(1.3), ""),
    ]
    .concat()
}

/// Through both ways, and with more connections that are there already.
fn admissions(results: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for (through, least) in [("validate", 8000.0), ("jwks", 20_000.0)] {
        let goal = format!("admissions per second and core through {through}");
        let of_way: Vec<&Found> = results
            .with(&["per_s_per_processor"])
            .filter(|found| found.json["through"] == through && found.json["forged"] != true)
            .collect();
        let rate = |found: &Found| found.number("/per_s_per_processor");
        let held = |found: &Found| found.number("/held").unwrap_or_default();
        let row = |found: &&Found| {
            let goal = format!("{goal}, {:.0} held", held(found));
            let mut row = judged(&goal, Bound::Least(least), "/s", found, rate(found));
            let median = |name: &str| {
                let windows = found.rows("windows");
                crate::figures::Spread::of(windows.filter_map(|it| it[name].as_f64())).median
            };
            let (p50, p99) = (median("latency_p50_us"), median("latency_p99_us"));
            row.latency = format!("{p50:.0}, {p99:.0}, – µs");
            row
        };
        let of_rate = of_way.iter().map(row).collect();
        rows.extend(or_unknown(of_rate, &goal, Bound::Least(least), "/s"));
        let few = of_way.iter().copied().find(|found| held(found) <= 1000.0);
        let many = of_way.iter().copied().find(|found| held(found) >= 100_000.0);
        let goal = format!("the same with 100,000 held ÷ 1,000 held, {through}");
        rows.push(match few.zip(many) {
            Some((few, many)) => {
                let ratio = rate(many).zip(rate(few)).map(|(many, few)| many / few);
                judged(&goal, Bound::Least(0.9), "", many, ratio)
            }
            None => unknown(&goal, Bound::Least(0.9), ""),
        });
    }
    rows
}

/// Each way of admission has its file. Under TLS there is no goal: it is told apart.
fn storms(results: &Results) -> Vec<Row> {
    const GOAL: &str = "storm of 16,000, all back";
    let storms = results.with(&["through", "rounds", "seconds"]);
    let is_plain = |found: &&Found| found.json["connections"] == 16_000 && !found.is_tls();
    let rows = storms.filter(is_plain).map(|found| {
        let seconds = found.number("/seconds");
        let through = found.json["through"].as_str().unwrap_or_default();
        let goal = format!("{GOAL}, through {through}");
        let mut row = judged(&goal, Bound::Most(1.5), " s", found, seconds);
        let refused: u64 = found.rows("rounds").filter_map(|round| round["refused"].as_u64()).sum();
        if refused > 0 {
            row.measured += &format!(", {refused} refused first");
            row.verdict = Verdict::Missed;
        }
        row
    });
    or_unknown(rows.collect(), GOAL, Bound::Most(1.5), " s")
}

/// Flat from few to many.
fn scaling(results: &Results) -> Vec<Row> {
    const FRAMES: &str = "CPU per frame from 16 to 10,000 pairs, worst ÷ that of 16";
    const MEMORY: &str = "memory per idle connection, from few to 500,000, most ÷ least";
    let mut rows = Vec::new();
    for found in results.scenario("scaling") {
        let costs: Vec<(u64, f64)> = found
            .rows("cases")
            .filter_map(|case| {
                let count = case["case"]["load"]["pairs"]["count"].as_u64()?;
                Some((count, case["cpu_ns_per_frame"].as_f64()?))
            })
            .collect();
        let first = costs.iter().find(|cost| cost.0 == 16).map(|cost| cost.1);
        let is_whole = costs.iter().any(|cost| cost.0 == 10_000);
        let worst = costs.iter().map(|cost| cost.1).fold(0.0, f64::max);
        let ratio = first.filter(|_| is_whole).map(|first| worst / first);
        rows.push(judged(FRAMES, Bound::Most(1.1), "", found, ratio));
    }
    let mut rows = or_unknown(rows, FRAMES, Bound::Most(1.1), "");
    let plain: Vec<&Found> =
        results.with(&["total_bytes_per_connection"]).filter(|found| !found.is_tls()).collect();
    let each = |found: &&Found| found.number("/total_bytes_per_connection");
    let count = |found: &&Found| found.number("/connections").unwrap_or_default();
    let most = plain.iter().filter_map(each).reduce(f64::max);
    let least = plain.iter().filter_map(each).reduce(f64::min);
    let largest = plain.iter().copied().find(|found| count(found) >= 500_000.0);
    rows.push(match (largest, most.zip(least)) {
        (Some(found), Some((most, least))) if plain.len() > 1 => {
            judged(MEMORY, Bound::Most(1.1), "", found, Some(most / least))
        }
        _ => unknown(MEMORY, Bound::Most(1.1), ""),
    });
    rows
}
