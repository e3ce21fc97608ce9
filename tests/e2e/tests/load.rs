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
seconds = 0.3
warm_up = 0.1
load_cpus = [0]
";

/// Runs one scenario: lines of its window, then its load. Returns the outcome and where results
/// are.
fn run(name: &str, load: &str, arguments: &[&str]) -> (Output, TempDir) {
    let relay = std::env::var_os("RELAY_BIN").map(PathBuf::from);
    let relay = relay.expect("RELAY_BIN names the relay, for example target/release/relay");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = folder.path().join(format!("{name}.toml"));
    let text = format!("question = 'q'\nshows = 's'\n{WINDOW}{load}");
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
    assert!((295..=305).contains(&due), "{due} of 300 frames are accounted for");
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
