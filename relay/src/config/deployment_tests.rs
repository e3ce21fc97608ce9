//! What `deploy/` says of times and settings, against what the program does.

use std::fs;
use std::path::Path;

use relay_contract::Counter;

use super::tests::{KEY, config};

const UNIT: &str = include_str!("../../../deploy/relay.service");
const MANIFEST: &str = include_str!("../../../deploy/kubernetes/relay.yaml");

/// What a shard may take beyond its deadline, and the reader of the log.
const GRACE_SECS: u64 = 2;

/// The number behind a key, of which there is one.
fn number(text: &str, key: &str) -> u64 {
    let mut found = text.match_indices(key).filter_map(|(at, _)| {
        let rest = text[at + key.len()..].trim_start_matches([' ', ':', '=', '"', '{']);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    let number = found.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(found.next(), None, "one {key}");
    number
}

/// The path a probe asks for.
fn path<'a>(probe: &str) -> &'a str {
    let rest = MANIFEST.split_once(probe).expect("the probe is there").1;
    let rest = rest.split_once("httpGet: {path: ").expect("it asks over HTTP").1;
    rest.split_once(',').expect("a port follows").0
}

#[test]
fn systemd_waits_longer_than_a_drain() {
    let drain_ms = config("").engine.drain_ms;
    let stop_secs = number(UNIT, "\nTimeoutStopSec");
    assert!(stop_secs * 1000 > drain_ms + GRACE_SECS * 1000, "{stop_secs} s, {drain_ms} ms");
    assert!(UNIT.contains("\nType=notify-reload\n"));
    assert!(number(UNIT, "\nWatchdogSec") > 0);
}

#[test]
fn kubernetes_waits_longer_than_load_balancers_and_a_drain() {
    let drain_ms = number(MANIFEST, "name: RELAY_DRAIN_MS, value");
    let grace_secs = number(MANIFEST, "terminationGracePeriodSeconds:");
    let pre_stop_secs = number(MANIFEST, "sleep: {seconds");
    let needed_ms = (pre_stop_secs + GRACE_SECS) * 1000 + drain_ms;
    assert!(grace_secs * 1000 > needed_ms, "{grace_secs} s, {needed_ms} ms");
    // A pod that is not ready leaves the Service before its peers are told.
    let probe = MANIFEST.split_once("readinessProbe:").expect("there is one").1;
    let noticed_secs = number(probe.split_once("livenessProbe:").unwrap().0, "periodSeconds");
    assert!(noticed_secs < pre_stop_secs);
}

#[test]
fn the_settings_in_the_manifest_are_usable() {
    let settings = MANIFEST.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("- {name: ")?.split_once(", value: ")?;
        let value = rest.trim_end_matches('}').trim_matches('"');
        // The key comes from a file there.
        (name != "RELAY_INTERNAL_KEY_FILE").then(|| format!("{name}={value}"))
    });
    let settings: Vec<_> = settings.chain([KEY.to_owned()]).collect();
    let config = config(&settings.join(" "));
    assert_eq!(config.engine.drain_ms, number(MANIFEST, "name: RELAY_DRAIN_MS, value"));
    assert_eq!(u64::from(config.listen.port), number(MANIFEST, "containerPort"));
}

#[test]
fn kubernetes_asks_what_a_drained_relay_answers() {
    assert_eq!(path("readinessProbe:"), "/ready");
    assert_eq!(path("livenessProbe:"), "/health");
    assert_eq!(path("startupProbe:"), "/health");
}

#[test]
fn kubernetes_gives_no_more_rights_than_needed() {
    for line in [
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: {drop: [ALL]}",
        "seccompProfile: {type: Localhost, localhostProfile: relay.json}",
        "automountServiceAccountToken: false",
    ] {
        assert!(MANIFEST.contains(line), "{line}");
    }
}

const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yml");

/// Alerts by name: what each asks, and its runbook.
fn alerts() -> Vec<(&'static str, &'static str, &'static str)> {
    let value = |text: &'static str, key: &str| {
        let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key} in {text:?}")).1;
        rest.lines().next().unwrap_or_default().trim()
    };
    let rules = ALERTS.split("- alert: ").skip(1);
    rules
        .map(|rule| (rule.lines().next().unwrap(), value(rule, "expr:"), value(rule, "runbook:")))
        .collect()
}

/// Counters of the control plane that wake nobody, each for a reason.
const QUIET: [(&str, &str); 31] = [
    ("relay_admission_ok_total", "as it should be"),
    ("relay_admission_denied_total", "tokens that are no good are the peers' matter"),
    ("relay_admission_decisions_reused_total", "as it should be"),
    ("relay_admissions_shared_total", "as it should be"),
    ("relay_admissions_revoked_total", "what an operator asked for"),
    ("relay_admission_unavailable_total", "RelayAdmissionsUnanswered says it"),
    ("relay_admission_expired_total", "RelayAdmissionsUnanswered says it"),
    ("relay_token_expired_closed_total", "what the settings ask for"),
    ("relay_revoked_closed_total", "what an operator asked for"),
    ("relay_connections_dismissed_total", "what the control plane asked for"),
    ("relay_renewals_asked_total", "as it should be"),
    ("relay_renewals_accepted_total", "as it should be"),
    ("relay_renewals_refused_total", "tokens that are no good are the peers' matter"),
    ("relay_renewals_rate_limited_total", "the peer's matter"),
    ("relay_config_reloads_total", "as it should be"),
    ("relay_control_watch_restarts_total", "a watcher that reads slowly, and misses nothing"),
    ("relay_control_plane_resumed_total", "as it should be"),
    ("relay_inventories_offered_total", "as it should be"),
    ("relay_plane_names_refused_total", "entries that are told all the same, as unknown"),
    ("relay_drain_told_total", "what an operator asked for"),
    ("relay_workspaces_moved_total", "what an operator asked for"),
    ("relay_workspace_moves_failed_no_such_shard_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_driver_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_timed_out_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_stopping_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_not_here_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_too_many_total", "RelayMovesFail says it"),
    ("relay_workspace_moves_failed_no_room_total", "RelayMovesFail says it"),
    ("relay_tls_reloads_total", "as it should be"),
    ("relay_internal_key_retries_total", "a rotation that goes on"),
    ("relay_worker_calls_limited_total", "the worker hears it, and asks again"),
];

/// What counters of the control plane begin with.
const CONTROL_PLANE: [&str; 17] = [
    "admission",
    "admissions",
    "audit",
    "commands",
    "config",
    "connections_dismissed",
    "control",
    "drain",
    "internal_key",
    "inventories",
    "jwks",
    "key_withdrawn",
    "plane",
    "renewals",
    "revo",
    "stale_versions",
    "token_expired",
];

#[test]
fn every_counter_of_the_control_plane_wakes_somebody_or_has_a_reason_not_to() {
    let more = ["tls_reload", "workspace_moves_failed", "workspaces_moved", "worker_calls"];
    let is_theirs = |name: &str| {
        let name = name.trim_start_matches("relay_");
        CONTROL_PLANE.iter().chain(&more).any(|start| name.starts_with(start))
    };
    let asked: String = alerts().iter().map(|(_, expr, _)| format!("{expr} ")).collect();
    let counters = Counter::ALL.iter().map(|counter| counter.name());
    let theirs: Vec<_> = counters.filter(|name| is_theirs(name)).collect();
    for name in &theirs {
        let is_quiet = QUIET.iter().any(|(quiet, _)| quiet == name);
        let wakes =
            asked.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).any(|w| w == *name);
        let other = "neither has an alert nor says why not, or does both";
        assert!(is_quiet != wakes, "{name} {other}");
    }
    for (quiet, _) in QUIET {
        assert!(theirs.contains(&quiet), "{quiet} is no counter of theirs");
    }
}

#[test]
fn every_alert_has_a_runbook_that_speaks_of_what_it_asks_and_every_runbook_an_alert() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let mut unused: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| format!("docs/runbooks/{}", file.unwrap().file_name().display()))
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 20, "{}", alerts.len());
    for (alert, expr, runbook) in &alerts {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(runbook);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{runbook}: {error}"));
        for part in ["**Look**", "**Do**"] {
            assert!(text.contains(part), "{runbook} lacks {part}");
        }
        let series = expr.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        for name in series.filter(|word| word.starts_with("relay_") && word.ends_with("_total")) {
            // The page of a counter names it, so that whoever is woken finds it there.
            assert!(text.contains(name), "{alert}: {runbook} does not speak of {name}");
        }
        unused.retain(|page| page != runbook);
    }
    assert!(unused.is_empty(), "pages that no alert names: {unused:?}");
}
