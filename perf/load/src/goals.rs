//! `relay-load goals`: all that the relay means to reach, read from result files: value, where it
//! comes from, held or missed.

mod results;
mod rows;
mod share;

use anyhow::{Result, ensure};

use crate::arguments::Goals;
use results::Results;
pub(crate) use share::Share;

/// One goal and what became of it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    goal: String,
    bound: String,
    /// With its spread, where several were measured.
    measured: String,
    /// Latency beside it: 50th, 99th and 99.9th percentile.
    latency: String,
    /// File and commit.
    source: String,
    verdict: Verdict,
}

/// What became of a goal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Held,
    Missed,
    /// No result tells.
    Unknown,
}

/// Prints the table.
///
/// Errors: the folder has no results; or, where that is asked for, a goal is missed or not shown.
pub(crate) fn run(arguments: &Goals) -> Result<()> {
    let results = Results::read(&arguments.results)?;
    let rows = rows::all(&results);
    print!("{}", table(&rows));
    let count = |verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let (missed, unknown) = (count(Verdict::Missed), count(Verdict::Unknown));
    println!("\n{} held, {missed} missed, {unknown} not measured", count(Verdict::Held));
    let is_reached = missed + unknown == 0;
    ensure!(is_reached || !arguments.strict, "{missed} goals missed, {unknown} not measured");
    Ok(())
}

/// Markdown.
fn table(rows: &[Row]) -> String {
    let mut text = "| goal | bound | measured | p50, p99, p99.9 | result, commit | |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let Row { goal, bound, measured, latency, source, verdict } = row;
        let word = match verdict {
            Verdict::Held => "held",
            Verdict::Missed => "**missed**",
            Verdict::Unknown => "not measured",
        };
        text += &format!("| {goal} | {bound} | {measured} | {latency} | {source} | {word} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdicts(results: &Results, goal: &str) -> Vec<Verdict> {
        let rows = rows::all(results);
        let rows = rows.iter().filter(|row| row.goal.contains(goal));
        rows.map(|row| row.verdict).collect()
    }

    fn compared(ratio: f64) -> Results {
        let contender = |name: &str, ratio: f64| {
            json!({
                "name": name,
                "relay_over_this": {"median": ratio, "least": ratio, "most": ratio},
                "latency_p50_ns": {"median": 1000.0}, "latency_p99_ns": {"median": 2000.0},
            })
        };
        let contenders = [contender("relay", 1.0), contender("passthrough", ratio)];
        let shape = json!({"payload_bytes": 256, "depth": 16, "pairs": 64});
        Results::of(&[(
            "compare.json",
            json!({"commit": "abc", "points": [{"shape": shape, "contenders": contenders}]}),
        )])
    }

    #[test]
    fn a_ratio_is_held_against_its_goal() {
        let goal = "÷ passthrough, 256 B, depth 16";
        assert_eq!(verdicts(&compared(1.39), goal), [Verdict::Held]);
        assert_eq!(verdicts(&compared(1.47), goal), [Verdict::Missed]);
    }

    #[test]
    fn what_no_result_tells_is_not_held() {
        let rows = rows::all(&Results::of(&[]));
        assert!(rows.len() > 25, "{}", rows.len());
        assert!(rows.iter().all(|row| row.verdict == Verdict::Unknown), "{rows:#?}");
    }

    #[test]
    fn memory_of_every_result_counts() {
        let idle = |bytes: f64, base: u64| {
            json!({
                "connections": 45_000, "shards": 1, "tls": false, "heartbeat": null,
                "total_bytes_per_connection": bytes, "base": {"total_bytes": base},
            })
        };
        let results =
            Results::of(&[("a.json", idle(494.8, 9_000_000)), ("b.json", idle(527.6, 11_000_000))]);
        let plain = verdicts(&results, "idle connection, plain");
        assert_eq!(plain, [Verdict::Held, Verdict::Missed]);
        assert_eq!(verdicts(&results, "without connections"), [Verdict::Held, Verdict::Missed]);
    }

    #[test]
    fn every_percentile_of_a_pair_has_its_own_goal() {
        let case = |subject: &str, p999: u64| {
            json!({
                "case": {"name": format!("{subject}, 1 pairs, 4 KiB, depth 1")},
                "latency": {"p50_ns": 100, "p99_ns": 200, "p999_ns": p999},
            })
        };
        let cases = [case("relay", 551), case("pass-through", 221)];
        let results =
            Results::of(&[("one-pair.json", json!({"name": "one-pair", "cases": cases}))]);
        assert_eq!(verdicts(&results, "p50 of one pair, 4 KiB"), [Verdict::Held]);
        assert_eq!(verdicts(&results, "p99.9 of one pair, 4 KiB"), [Verdict::Missed]);
    }

    #[test]
    fn cost_per_frame_that_is_not_flat_is_missed() {
        let case = |pairs: u64, cost: f64| {
            json!({
                "case": {"name": format!("{pairs} pairs"), "load": {"pairs": {"count": pairs}}},
                "cpu_ns_per_frame": cost,
            })
        };
        let scaling = |costs: [f64; 2]| {
            let cases = [case(16, costs[0]), case(10_000, costs[1])];
            Results::of(&[("scaling.json", json!({"name": "scaling", "cases": cases}))])
        };
        let goal = "from 16 to 10,000 pairs";
        assert_eq!(verdicts(&scaling([700.0, 760.0]), goal), [Verdict::Held]);
        assert_eq!(verdicts(&scaling([708.0, 883.0]), goal), [Verdict::Missed]);
    }

    #[test]
    fn a_storm_that_refused_somebody_is_missed() {
        let storm = |seconds: f64, refused: u64| {
            let rounds = [json!({"refused": refused, "seconds": seconds})];
            Results::of(&[(
                "storm.json",
                json!({
                    "connections": 16_000, "through": "validate", "tls": false,
                    "seconds": seconds, "rounds": rounds,
                }),
            )])
        };
        assert_eq!(verdicts(&storm(1.39, 0), "storm"), [Verdict::Held]);
        assert_eq!(verdicts(&storm(1.39, 1), "storm"), [Verdict::Missed]);
        assert_eq!(verdicts(&storm(1.6, 0), "storm"), [Verdict::Missed]);
    }

    #[test]
    fn the_table_is_markdown() {
        let table = table(&rows::all(&compared(1.47)));
        let line = table.lines().find(|line| line.contains("passthrough, 256 B, depth 16"));
        let line = line.expect("a row");
        assert!(line.contains("1.470") && line.contains("**missed**"), "{line}");
        assert!(line.contains("compare.json, abc") && line.contains("1 / 1, 2 / 2"), "{line}");
    }
}
