//! Bounds: of the whole relay, and of every shard.

use std::time::Duration;

use relay_contract::{Heartbeat, Limits};
use relay_wire::http1::{AllowedOrigins, TrustedProxies};

use super::{Reader, as_size};

/// Bounds of the whole relay, whatever the number of shards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Capacity {
    /// Daemons and clients.
    pub connections_max: usize,
    /// Connections of one address.
    pub connections_per_address_max: usize,
    /// Clients of one workspace and target.
    pub clients_per_workspace_max: usize,
    /// Upgrade attempts of one address per minute.
    pub upgrades_per_minute: u32,
    /// Addresses that limiter tracks.
    pub upgrade_addresses_max: usize,
    /// Upgrades that may wait for their validation.
    pub pending_upgrades_max: usize,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Whose pages may connect from a browser.
    pub allowed_origins: AllowedOrigins,
    /// Whether these say in a PROXY header who is behind them.
    pub proxy_protocol: bool,
}

impl Capacity {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            connections_max: as_size(reader.count("RELAY_MAX_TOTAL_CONNECTIONS")),
            connections_per_address_max: as_size(reader.count("RELAY_MAX_CONNECTIONS_PER_IP")),
            clients_per_workspace_max: as_size(reader.count("RELAY_MAX_CLIENTS_PER_WORKSPACE")),
            upgrades_per_minute: rate(reader, "RELAY_UPGRADE_RATE_PER_MINUTE"),
            upgrade_addresses_max: as_size(reader.count("RELAY_UPGRADE_BUCKET_MAX")),
            pending_upgrades_max: as_size(reader.count("RELAY_PENDING_UPGRADES_MAX")),
            trusted_proxies: read_proxies(reader),
            allowed_origins: read_origins(reader),
            proxy_protocol: reader.choice("RELAY_PROXY_PROTOCOL") == Some("required"),
        }
    }
}

fn read_origins(reader: &mut Reader<'_>) -> AllowedOrigins {
    let list = reader.text("RELAY_ALLOWED_ORIGINS").unwrap_or_default();
    AllowedOrigins::parse(&list).unwrap_or_else(|error| {
        reader.refuse("RELAY_ALLOWED_ORIGINS", error.to_string());
        AllowedOrigins::default()
    })
}

fn read_proxies(reader: &mut Reader<'_>) -> TrustedProxies {
    let list = reader.text("RELAY_TRUSTED_PROXIES").unwrap_or_default();
    TrustedProxies::parse(&list).unwrap_or_else(|error| {
        reader.refuse("RELAY_TRUSTED_PROXIES", error.to_string());
        TrustedProxies::default()
    })
}

/// The first version of the shards' limits. `patience` is how long a decision about an upgrade may
/// take.
pub(super) fn limits(reader: &mut Reader<'_>, patience: Duration) -> Limits {
    let default = Limits::default();
    Limits {
        frame_bytes_max: as_size(reader.count("RELAY_MAX_FRAME_BYTES")),
        egress_bytes_max: as_size(reader.count("RELAY_MAX_PENDING_BYTES")),
        key_exchange_per_minute: rate(reader, "RELAY_KEX_INIT_RATE_PER_MINUTE"),
        key_exchange_keys_max: as_size(reader.count("RELAY_KEX_RATE_LIMITER_MAX_KEYS")),
        runtime_per_minute: rate(reader, "RELAY_RUNTIME_RATE_PER_MINUTE"),
        runtime_per_minute_workspace: rate(reader, "RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE"),
        runtime_keys_max: as_size(reader.count("RELAY_RUNTIME_RATE_LIMITER_MAX_KEYS")),
        runtime_workspace_keys_max: as_size(
            reader.count("RELAY_RUNTIME_WORKSPACE_RATE_LIMITER_MAX_KEYS"),
        ),
        daemon_per_minute: rate(reader, "RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE"),
        daemon_keys_max: as_size(reader.count("RELAY_DAEMON_RATE_LIMITER_MAX_KEYS")),
        pairing_per_minute: rate(reader, "RELAY_PAIRING_RATE_PER_MINUTE"),
        pairing_keys_max: as_size(reader.count("RELAY_PAIRING_RATE_LIMITER_MAX_KEYS")),
        unrouted_per_minute: rate(reader, "RELAY_UNROUTED_FRAME_RATE_PER_MINUTE"),
        small_frames_per_minute: rate(reader, "RELAY_SMALL_FRAME_RATE_PER_MINUTE"),
        pending_requests_max: as_size(reader.count("RELAY_PAIRING_REQUEST_TRACK_MAX")),
        session_owners_max: as_size(reader.count("RELAY_SESSION_OWNER_TRACK_MAX")),
        heartbeat: Heartbeat {
            ping_interval: reader.millis("RELAY_PING_INTERVAL_MS"),
            pong_timeout: reader.millis("RELAY_PONG_TIMEOUT_MS"),
            idle_timeout: reader.millis("RELAY_IDLE_TIMEOUT_MS"),
        },
        empty_scope_ttl: reader.millis("RELAY_EMPTY_WORKSPACE_TTL_MS"),
        cleanup_interval: reader.millis("RELAY_CLEANUP_INTERVAL_MS"),
        head_timeout: reader.millis("RELAY_HEAD_TIMEOUT_MS"),
        keep_alive_timeout: reader.millis("RELAY_KEEP_ALIVE_TIMEOUT_MS"),
        close_timeout: reader.millis("RELAY_CLOSE_TIMEOUT_MS"),
        tls_handshake_timeout: reader.millis("RELAY_TLS_HANDSHAKE_TIMEOUT_MS"),
        tls_handshakes_max: as_size(reader.count("RELAY_TLS_HANDSHAKES_MAX")),
        // A shard waits a little longer than the decision it waits for.
        admission_timeout: default
            .admission_timeout
            .max(patience.saturating_add(Duration::from_secs(3))),
        ..default
    }
}

fn rate(reader: &mut Reader<'_>, name: &'static str) -> u32 {
    u32::try_from(reader.count(name)).unwrap_or(u32::MAX)
}
