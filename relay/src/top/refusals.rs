//! How often somebody was turned away, and why.

use crate::readings::Interval;

/// How often somebody was turned away for one reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusals {
    pub(crate) reason: &'static str,
    pub(crate) per_s: f64,
    pub(crate) total: f64,
}

impl Refusals {
    /// Those there were, most in the interval first.
    pub(super) fn of(interval: &Interval<'_>) -> Vec<Self> {
        let seconds = interval.seconds().max(f64::MIN_POSITIVE);
        let refusals = REASONS.iter().map(|&(name, reason)| Self {
            reason,
            per_s: interval.since(name) / seconds,
            total: interval.later.value(name).unwrap_or_default(),
        });
        let mut refusals: Vec<_> = refusals.filter(|refusals| refusals.total > 0.0).collect();
        refusals.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then(b.total.total_cmp(&a.total)));
        refusals
    }
}

/// Counters of peers that got less than they asked for, and what to call that.
const REASONS: &[(&str, &str)] = &[
    ("relay_admission_denied_total", "token denied"),
    ("relay_admission_unavailable_total", "admission unavailable"),
    ("relay_admission_doubts_refused_total", "too many undecided"),
    ("relay_admission_wait_expired_total", "admission too slow"),
    ("relay_upgrade_rejected_total_connections_total", "relay is full"),
    ("relay_upgrade_rejected_ip_connections_total", "address is full"),
    ("relay_upgrade_rejected_workspace_clients_total", "workspace is full"),
    ("relay_upgrade_rate_limited_total", "too many attempts"),
    ("relay_upgrades_held_back_refused_total", "waited too long"),
    ("relay_upgrade_missing_auth_total", "no usable token"),
    ("relay_upgrade_invalid_query_total", "invalid query"),
    ("relay_upgrade_forbidden_origin_total", "foreign origin"),
    ("relay_drain_refused_total", "relay is drained"),
    ("relay_hand_overs_refused_total", "shard is full"),
    ("relay_guests_refused_total", "too many strangers"),
    ("relay_accepts_failed_total", "no descriptors"),
    ("relay_budget_refused_total", "memory budget"),
    ("relay_budget_slow_readers_closed_total", "slow reader, for memory"),
    ("relay_budget_strangers_closed_total", "stranger, for memory"),
    ("relay_budget_unfinished_closed_total", "unfinished, for memory"),
    ("relay_head_timeouts_total", "head too slow"),
    ("relay_head_rejected_total", "bad request"),
    ("relay_proxy_protocol_rejected_total", "bad proxy header"),
    ("relay_tls_handshake_failures_total", "TLS handshake"),
    ("relay_tls_handshake_timeouts_total", "TLS handshake too slow"),
    ("relay_tls_handshakes_refused_total", "too many handshakes"),
    ("relay_tls_records_refused_total", "bad TLS record"),
    ("relay_ws_slow_client_terminated_total", "slow reader"),
    ("relay_frames_client_runtime_rate_limited_total", "client too fast"),
    ("relay_frames_daemon_rate_limited_total", "daemon too fast"),
    ("relay_frames_client_kex_rate_limited_total", "key exchange too often"),
    ("relay_frames_client_pairing_rate_limited_total", "pairing too often"),
    ("relay_frames_client_unrouted_rate_limited_total", "frames to nobody"),
    ("relay_small_frames_rate_limited_total", "too many small frames"),
    ("relay_session_viewer_presence_rate_limited_total", "presence too often"),
    ("relay_session_viewer_presence_rejected_total", "bad presence"),
    ("relay_session_event_subscribe_rejected_total", "subscription refused"),
    ("relay_frames_client_rejected_total", "bad client frame"),
    ("relay_frames_client_rejected_scope_total", "client, wrong scope"),
    ("relay_frames_client_rejected_profile_mismatch_total", "client, wrong profile"),
    ("relay_frames_daemon_rejected_total", "bad daemon frame"),
    ("relay_frames_daemon_rejected_profile_mismatch_total", "daemon, wrong profile"),
    ("relay_client_messages_dropped_total", "no daemon"),
    ("relay_key_exchange_response_dropped_total", "key exchange for nobody"),
    ("relay_pairing_response_dropped_total", "pairing for nobody"),
    ("relay_session_frame_dropped_total", "session of nobody"),
    ("relay_session_event_frame_dropped_total", "event not delivered"),
    ("relay_slow_reader_dropped_frames_total", "frames of slow readers"),
    ("relay_protocol_violations_total", "protocol violation"),
    ("relay_messages_too_large_total", "message too large"),
    ("relay_ws_frame_too_large_total", "frame too large"),
    ("relay_renewals_refused_total", "renewal refused"),
    ("relay_renewals_rate_limited_total", "renewals too often"),
    ("relay_worker_calls_limited_total", "too many worker calls"),
    ("relay_worker_transport_rejected_total", "worker call refused"),
    ("relay_admin_connections_refused_total", "too many operators"),
    ("relay_admin_questions_refused_total", "too many questions"),
    ("relay_admin_unauthorized_total", "operator without token"),
    ("relay_control_connections_refused_total", "too many control calls"),
    ("relay_plane_connections_refused_total", "too many at the link"),
    ("relay_control_unauthorized_total", "control without token"),
    ("relay_control_overloaded_total", "control overloaded"),
];

#[cfg(test)]
mod tests {
    use relay_contract::Counter;

    use super::*;

    /// Counters that sound like refusals and are none of a peer's: sums of others that are listed,
    /// the relay's own orders, other relays and planes, and its log.
    const OTHERS: &[&str] = &[
        "relay_ws_connections_rejected_total",
        "relay_config_reloads_refused_total",
        "relay_stale_versions_refused_total",
        "relay_log_entries_dropped_total",
    ];
    /// The same by their beginnings.
    const OTHER_KINDS: &[&str] = &["relay_bus_", "relay_plane", "relay_inventories_"];

    #[test]
    fn every_counter_that_refuses_has_a_reason() {
        let refuses = |name: &str| {
            [
                "refused",
                "rejected",
                "rate_limited",
                "denied",
                "dropped",
                "too_large",
                "unauthorized",
            ]
            .iter()
            .any(|word| name.contains(word))
        };
        for counter in Counter::ALL {
            let name = counter.name();
            let is_other = OTHERS.contains(&name)
                || OTHER_KINDS.iter().any(|beginning| name.starts_with(beginning));
            let is_listed = REASONS.iter().any(|(listed, _)| *listed == name);
            assert!(is_listed || is_other || !refuses(name), "{name}");
        }
    }

    #[test]
    fn every_reason_is_of_a_counter_and_short() {
        for (name, reason) in REASONS {
            assert!(Counter::ALL.iter().any(|counter| counter.name() == *name), "{name}");
            assert!(reason.len() <= 24, "{reason}");
        }
    }
}
