//! What the runner's exit code says, with a relay that ends at once and so fails every scenario.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relay-conformance"))
        .args(["--relay", "/bin/false"])
        .args(arguments)
        .output()
        .expect("the runner is built with its tests")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_failure_fails_the_run() {
    let output = run(&["--scenario", "tls/health"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(last_line(&output), "0 passed, 1 failed");
}

#[test]
fn a_failure_that_is_only_reported_does_not() {
    let output = run(&["--scenario", "tls/health", "--report-only", "tls/health"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(last_line(&output), "0 passed, 0 failed");
}

#[test]
fn one_reported_scenario_excuses_no_other_of_its_group() {
    let output = run(&["--group", "tls", "--report-only", "tls/health"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(last_line(&output), "0 passed, 2 failed");
}

#[test]
fn an_unknown_name_runs_nothing() {
    let output = run(&["--scenario", "tls/health", "--report-only", "tls/gone"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no group or scenario tls/gone"));
    assert!(output.stdout.is_empty());
}
