//! What `deploy/` says of times and settings, against what the program does.

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
