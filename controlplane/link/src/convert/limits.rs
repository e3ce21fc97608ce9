//! Limits.

use std::time::Duration;

use relay_contract::{Heartbeat, Limits};
use relay_grpc::plane::v1;

use super::{BadMessage, size_in, size_out};

/// Milliseconds on the wire.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

macro_rules! limits {
    (
        sizes: $($size:ident)*;
        rates: $($rate:ident)*;
        times: $($time:ident $time_ms:ident)*;
        heartbeat: $($beat:ident $beat_ms:ident)*;
    ) => {
        pub(super) fn limits_out(limits: &Limits) -> v1::Limits {
            v1::Limits {
                version: limits.version,
                $($size: Some(size_out(limits.$size)),)*
                $($rate: Some(limits.$rate),)*
                $($time_ms: Some(millis(limits.$time)),)*
                $($beat_ms: Some(millis(limits.heartbeat.$beat)),)*
            }
        }

        /// The memory budget is the default's: each data plane has its own. So is what an older
        /// control plane does not know.
        pub(super) fn limits_in(limits: &v1::Limits) -> Result<Limits, BadMessage> {
            let default = Limits::default();
            let time = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
            Ok(Limits {
                version: limits.version,
                memory_bytes_max: default.memory_bytes_max,
                $($size: match limits.$size {
                    Some(size) => size_in(size, stringify!($size))?,
                    None => default.$size,
                },)*
                $($rate: limits.$rate.unwrap_or(default.$rate),)*
                $($time: time(limits.$time_ms, default.$time),)*
                heartbeat: Heartbeat {
                    $($beat: time(limits.$beat_ms, default.heartbeat.$beat),)*
                },
            })
        }
    };
}

limits! {
    sizes: frame_bytes_max egress_bytes_max key_exchange_keys_max runtime_keys_max
        runtime_workspace_keys_max daemon_keys_max pairing_keys_max pending_requests_max
        session_owners_max head_bytes_max guests_max tls_handshakes_max turn_work_max;
    rates: key_exchange_per_minute runtime_per_minute runtime_per_minute_workspace
        daemon_per_minute pairing_per_minute unrouted_per_minute small_frames_per_minute
        frame_logs_per_minute guests_per_address_max worker_calls_max;
    times: pending_request_ttl pending_request_ttl_ms session_owner_ttl session_owner_ttl_ms
        empty_scope_ttl empty_scope_ttl_ms cleanup_interval cleanup_interval_ms
        close_timeout close_timeout_ms head_timeout head_timeout_ms
        keep_alive_timeout keep_alive_timeout_ms admission_timeout admission_timeout_ms
        tls_handshake_timeout tls_handshake_timeout_ms;
    heartbeat: ping_interval ping_interval_ms pong_timeout pong_timeout_ms
        idle_timeout idle_timeout_ms;
}
