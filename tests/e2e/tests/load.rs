//! The load generator against the program under test: what it counts is real, and it says when its
//! figures are not the relay's.
//!
//! `relay-load` is expected beside the program that `RELAY_BIN` names.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Every case runs on one processor, which any machine has, and is short: nothing is measured here.
const WINDOW: &str = "
[window]
seconds = 1.0
warm_up = 0.1
load_cpus = [0]
";

/// One processor for both sides, and nothing is taken for a measurement.
const SMALL: [&str; 5] = ["--relay-cpu", "0", "--load-cpu", "0", "--allow-bottleneck"];

/// Where the relay under test is.
fn relay() -> PathBuf {
    let relay = std::env::var_os("RELAY_BIN").map(PathBuf::from);
    relay.expect("RELAY_BIN names the relay, for example target/release/relay")
}

/// Runs a command of the generator; its result.
fn command(words: &str) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let result = folder.path().join("result.json");
    let mut command = Command::new(relay().with_file_name("relay-load"));
    command.args(words.split(' ')).args(SMALL).arg("--json").arg(&result);
    command.arg("--relay").arg(relay());
    if let Ok(driver) = std::env::var("RELAY_DRIVER") {
        command.args(["--driver", &driver]);
    }
    let output = command.output().expect("relay-load starts");
    assert!(output.status.success(), "{words}: {output:?}");
    let result = read(&result);
    for member in ["machine", "program", "commit", "command"] {
        assert!(!result[member].is_null(), "{words}: {member}");
    }
    result
}

/// Runs one scenario: lines of its window, then its load. Returns the outcome and where results
/// are.
fn run(name: &str, load: &str, arguments: &[&str]) -> (Output, TempDir) {
    run_text(name, &format!("question = 'q'\nshows = 's'\n{WINDOW}{load}"), arguments)
}

/// The same of a whole file.
fn run_text(name: &str, text: &str, arguments: &[&str]) -> (Output, TempDir) {
    let relay = relay();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = folder.path().join(format!("{name}.toml"));
    std::fs::write(&scenario, text).expect("a scenario file");
    let mut command = Command::new(relay.with_file_name("relay-load"));
    command.arg("run").arg(&scenario).arg("--results").arg(folder.path());
    command.arg("--relay").arg(relay).args(arguments);
    if let Ok(driver) = std::env::var("RELAY_DRIVER") {
        command.args(["--driver", &driver]);
    }
    (command.output().expect("relay-load starts"), folder)
}

/// The cases of a scenario that must have gone well.
fn cases(name: &str, load: &str) -> Vec<Value> {
    let (output, folder) = run(name, load, &["--allow-bottleneck"]);
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(folder.path().join(format!("{name}.html")));
    assert!(page.expect("a page").contains("<svg"));
    let json = read(&folder.path().join(format!("{name}.json")));
    json["cases"].as_array().expect("cases").clone()
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

fn count(case: &Value, member: &str) -> u64 {
    case[member].as_u64().unwrap_or_default()
}

#[test]
fn closed_loops_of_one_size_and_of_a_mix_lose_nothing() {
    let cases = cases(
        "closed",
        "[pairs]\ncount = 8\ndepth = 4\nmix = [{ bytes = 300, weight = 3 }, \
         { bytes = 70000, weight = 1 }]\n",
    );
    assert_eq!(cases.len(), 1);
    assert!(count(&cases[0], "frames") > 0);
    assert!(count(&cases[0], "verified") >= count(&cases[0], "frames"), "{}", cases[0]);
}

#[test]
fn an_open_loop_over_several_processes_keeps_its_rate() {
    let load = "processes = 2\nsources = 3\n\
                [pairs]\ncount = 8\npayload = 300\ndepth = 16\nrate = 1000\n";
    let case = cases("open", load).remove(0);
    assert_eq!(count(&case, "processes"), 2);
    // Those due in the window, whenever they arrived.
    let due = count(&case["latency"], "count");
    assert!((995..=1005).contains(&due), "{due} of 1000 frames are accounted for");
}

#[test]
fn real_sessions_under_tls_with_tokens_checked_by_key_hold() {
    let cases = cases(
        "sessions",
        "[relay]\ntls = true\njwks = true\n[pairs]\ncount = 4\npayload = 64\ndepth = 4\n\
         echo = true\ne2ee = true\n",
    );
    assert!(count(&cases[0], "verified") > 0);
}

#[test]
fn what_is_said_in_a_room_reaches_every_listener() {
    let cases =
        cases("rooms", "[rooms]\ncount = 2\nlisteners = [1, 5]\npayload = 300\ndepth = 2\n");
    assert_eq!(cases.len(), 2);
    let spoken = cases[1]["counts"]["frames spoken"].as_u64();
    assert_eq!(Some(count(&cases[1], "verified")), spoken.map(|spoken| spoken * 5));
}

#[test]
fn a_scenario_without_a_load_is_refused() {
    let (output, _folder) = run("empty", "", &[]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("exactly one of"), "{output:?}");
}

#[test]
fn a_rate_that_the_load_cannot_keep_is_an_error_unless_taken() {
    let load = "[pairs]\ncount = 1\npayload = 300\ndepth = 4\nrate = 5000000\n";
    let (output, folder) = run("hasty", load, &[]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("not only the process under test set this"), "{said}");
    let case = &read(&folder.path().join("hasty.json"))["cases"][0];
    assert!(count(&case["facts"], "unsent") > 0, "{}", case["facts"]);
    // What else runs on the machine decides which of the two is named first.
    let who = case["bottlenecks"][0]["who"].as_str();
    assert!(matches!(who, Some("load" | "machine")), "{who:?}");
    let (output, _folder) = run("hasty", load, &["--allow-bottleneck"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_relay_and_the_pass_through_are_loaded_alike() {
    let load = "[pairs]\ncount = 2\npayload = 300\ndepth = 2\n";
    let text =
        format!("question = 'q'\nshows = 's'\nsubjects = ['relay', 'passthrough']\n{WINDOW}{load}");
    let (output, folder) = run_text("alike", &text, &["--allow-bottleneck", "--no-slices"]);
    assert!(output.status.success(), "{output:?}");
    let cases = read(&folder.path().join("alike.json"))["cases"].clone();
    for case in cases.as_array().expect("cases") {
        assert!(count(case, "frames") > 0, "{case}");
        assert_eq!(case["slices"].as_array().map(Vec::len), Some(0));
    }
    let metrics = cases[0]["metrics"]["after"].as_array().expect("a relay was asked");
    let is_there =
        |part: &str| metrics.iter().filter_map(Value::as_str).any(|it| it.contains(part));
    assert!(
        is_there("relay_processors ") && is_there("relay_shard_uptime_seconds{"),
        "{metrics:?}"
    );
}

#[test]
fn slow_readers_are_closed_in_every_window() {
    // Long enough for a reader's budget to fill on a machine that is busy.
    let text = "question = 'q'\nshows = 's'\n\
                [window]\nseconds = 4.0\nwarm_up = 0.1\nload_cpus = [0]\n\
                [pairs]\ncount = 2\npayload = 300\ndepth = 2\n\
                [slow_readers]\ncount = 2\npayload = 65536\n";
    let (output, folder) = run_text("slow", text, &["--allow-bottleneck"]);
    assert!(output.status.success(), "{output:?}");
    let cases = read(&folder.path().join("slow.json"))["cases"].clone();
    assert!(cases[0]["cpu_ns_per_frame"].is_null(), "their frames cost as well");
    let closed = cases[0]["counts"]["slow readers closed with 4008"].as_u64();
    assert!(closed.is_some_and(|closed| closed > 0), "{}", cases[0]["counts"]);
}

#[test]
fn a_command_in_a_scenario_gets_the_options_and_a_page() {
    let text = "question = 'q'\nshows = 's'\n[command]\narguments = ['storm', '--connections', \
                '50', '--rounds', '1', '--relay-cpu', '0', '--load-cpu', '0']\n";
    let options = ["--allow-bottleneck", "--allow-refusals"];
    let (output, folder) = run_text("stormy", text, &options);
    assert!(output.status.success(), "{output:?}");
    let result = read(&folder.path().join("stormy.json"));
    assert_eq!(count(&result, "connections"), 50);
    let line = result["command"].as_str().expect("a command");
    assert!(options.iter().all(|option| line.contains(option)), "{line}");
    let page = std::fs::read_to_string(folder.path().join("stormy.html")).expect("a page");
    assert!(page.contains("<th>connections<td>50"), "{page}");
}

#[test]
fn a_window_s_length_is_refused_where_there_is_none() {
    let text = "question = 'q'\nshows = 's'\n[command]\narguments = ['storm']\n";
    let (output, _folder) = run_text("long", text, &["--seconds", "1"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--seconds"), "{output:?}");
}

#[test]
fn pairs_count_frames_and_who_worked() {
    let result = command("pairs --pairs 2 --depth 2 --seconds 1 --warm-up 0.1");
    assert!(count(&result["window"], "frames") > 0, "{result}");
    assert!(result["watched"]["facts"]["load_cpu_share"].as_f64() > Some(0.0), "{result}");
}

#[test]
fn a_comparison_has_a_ratio_and_its_goal() {
    let result = command("compare --pairs 2 --points 256x1 --rounds 1 --seconds 1 --warm-up 0.1");
    let limit = &result["points"][0]["contenders"][1];
    assert_eq!(limit["name"], "passthrough");
    assert!(limit["relay_over_this"]["median"].as_f64() > Some(0.0), "{limit}");
    assert_eq!(limit["goal"], 1.1);
    assert_eq!(limit["watched"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_plan_is_held_against_what_comes_of_it() {
    let result = command(
        "capacity --rounds 1 --seconds 1 --pairs 4 --rate 50 --shards 2 --p99-us 1000000 \
         --tolerance 1000 --latency-tolerance 1000",
    );
    let round = &result["rounds"][0];
    assert_eq!(round["plan"]["shards"].as_array().map(Vec::len), Some(2));
    assert_eq!(round["plan"]["processors"], 1.0);
    assert!(round["held"]["hop_p99_us"].as_f64() > Some(0.0), "{round}");
}

#[test]
fn quiet_pairs_are_measured_beside_a_neighbour() {
    let result = command("fairness --neighbour flood --rounds 1 --seconds 1 --pairs 2 --rate 50");
    let verdict = &result["neighbours"][0];
    assert_eq!(verdict["neighbour"], "flood");
    assert!(verdict["p99_ratio"]["median"].as_f64() > Some(0.0), "{verdict}");
    assert_eq!(verdict["watched"].as_array().map(Vec::len), Some(1));
}

#[test]
fn idle_connections_are_held_and_pinged() {
    let result = command("idle --connections 200 --heartbeat-secs 1 --raw");
    let heartbeat = &result["heartbeat"];
    assert_eq!(count(&heartbeat["held"], "lost"), 0);
    for whose in ["relay", "raw"] {
        assert!(count(&heartbeat[whose], "pings") > 0, "{whose}: {heartbeat}");
    }
}

#[test]
fn admissions_and_forgeries_are_answered() {
    for words in ["--through jwks", "--through validate", "--through both --forged"] {
        let words = format!("admissions {words} --held 50 --count 200 --at-once 8 --rounds 1");
        let result = command(&words);
        let window = &result["windows"][0];
        assert_eq!(count(window, "admissions"), 200, "{words}");
        assert!(window["latency_p50_us"].as_f64() > Some(0.0), "{words}: {window}");
    }
}

#[test]
fn goals_are_read_from_results() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let result = r#"{"connections": 16000, "through": "validate", "tls": false, "seconds": 1.6,
        "rounds": [{"refused": 0}], "commit": "abc"}"#;
    std::fs::write(folder.path().join("storm.json"), result).expect("a result");
    let goals = |strict: &[&str]| {
        let mut command = Command::new(relay().with_file_name("relay-load"));
        command.arg("goals").arg(folder.path()).args(strict).output().expect("relay-load starts")
    };
    let output = goals(&[]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = table.lines().find(|line| line.contains("storm of 16,000")).expect("a row");
    assert!(row.contains("**missed**") && row.contains("storm.json, abc"), "{row}");
    assert!(!goals(&["--strict"]).status.success());
}
