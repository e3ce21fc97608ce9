//! What peers and platforms may do to a relay, class by class: each test is named after what it
//! survives. `docs/survived.md` has the list, and what is tested elsewhere.

use anyhow::Result;

use crate::stage::{survives, survives_behind_tls};

#[test]
fn unparsable_targets_hosts_and_methods_are_survived() -> Result<()> {
    survives(&["unparsable-target", "unparsable-host", "unparsable-upgrade", "unparsable-request"])
}

#[test]
fn header_smuggling_is_survived() -> Result<()> {
    survives(&["header-smuggling", "oversize-head"])
}

#[test]
fn resets_at_every_stage_are_survived() -> Result<()> {
    survives(&["reset-anywhere", "fin-anywhere", "reset-while-pending"])
}

#[test]
fn violations_by_any_role_admitted_pending_or_rejected_are_survived() -> Result<()> {
    survives(&["violations", "violations-pending", "violations-rejected"])
}

#[test]
fn bad_answers_of_the_platform_are_survived() -> Result<()> {
    survives(&[
        "platform-oversize",
        "platform-cut",
        "platform-dripping",
        "platform-redirecting",
        "platform-malformed",
        "platform-garbage",
    ])
}

#[test]
fn a_platform_that_is_down_slow_and_back_is_survived() -> Result<()> {
    survives(&["platform-down", "platform-slow"])
}

#[test]
fn floods_of_tiny_fragments_tiny_frames_pings_and_empty_frames_are_survived() -> Result<()> {
    survives(&[
        "tiny-fragment-flood",
        "tiny-message-flood",
        "ping-flood",
        "pong-flood",
        "empty-message-flood",
    ])
}

#[test]
fn slow_loris_in_requests_tls_and_frames_is_survived() -> Result<()> {
    survives(&["slow-head", "slow-body", "slow-tls-hello", "slow-frames"])
}

#[test]
fn slow_loris_behind_tls_is_survived() -> Result<()> {
    survives_behind_tls(&["slow-head", "slow-body", "slow-tls-hello", "slow-frames"])
}

#[test]
fn abuse_of_tls_is_survived() -> Result<()> {
    survives_behind_tls(&[
        "tls-noise",
        "tls-handshake-flood",
        "tls-cut",
        "tls-tiny-records",
        "tls-forged-record",
        "tls-key-update-flood",
    ])
}

#[test]
fn resets_and_violations_behind_tls_are_survived() -> Result<()> {
    survives_behind_tls(&["reset-anywhere", "fin-anywhere", "half-close-anywhere", "violations"])
}

#[test]
fn peers_that_never_read_never_answer_a_close_or_half_close_are_survived() -> Result<()> {
    survives(&["never-read", "never-answer-a-close", "half-close-anywhere"])
}

#[test]
fn calls_of_workers_without_end_are_survived() -> Result<()> {
    survives(&["worker-flood", "worker-hoard"])
}

#[test]
fn unauthenticated_scope_creation_is_survived() -> Result<()> {
    survives(&["random-scopes", "token-flood"])
}

#[test]
fn limits_raced_by_bursts_are_survived() -> Result<()> {
    survives(&["upgrade-burst", "upgrade-crowd", "reconnect-storm"])
}

#[test]
fn forged_forwarded_addresses_are_survived() -> Result<()> {
    survives(&["forged-forwarded", "forged-proxy-header"])
}

#[test]
fn json_nested_a_million_deep_is_survived() -> Result<()> {
    survives(&["deep-nesting", "odd-json"])
}

#[test]
fn invalid_utf8_at_every_split_is_survived() -> Result<()> {
    survives(&["invalid-utf8"])
}

#[test]
fn descriptor_exhaustion_is_survived() -> Result<()> {
    survives(&["descriptor-exhaustion"])
}
