//! The first entry of every log.

use relay_contract::{Level, LogEntry};

use crate::settings::Settings;

/// `relay_started`, with the reference's members in its order. Source: relay specification, section
/// 12.
pub(crate) fn relay_started(settings: &Settings) -> LogEntry {
    let caps = &settings.caps;
    let limits = &settings.limits;
    let backplane = &settings.backplane;
    let idle_timeout_ms = limits.heartbeat.idle_timeout.as_millis();
    LogEntry::new(Level::Info, "relay_started")
        .with("host", settings.host.clone())
        .with("port", i64::from(settings.port))
        .with("serverUrl", settings.server_url.clone())
        .with("relayId", settings.relay_id.clone())
        .with("publicWsBaseUrl", settings.public_ws_url.clone())
        .with("clientRedirectEnabled", backplane.client_redirect_enabled)
        .with("backplaneMode", backplane.mode)
        .with("busEnabled", backplane.bus_enabled)
        .with("busPollIntervalMs", number(backplane.bus_poll_interval_ms))
        .with("busPullLimit", number(backplane.bus_pull_limit))
        .with("busPullWaitMs", number(backplane.bus_pull_wait_ms))
        .with("tlsEnabled", settings.tls.enabled)
        .with("tlsCertPath", settings.tls.cert_path.clone())
        .with("tlsKeyPath", settings.tls.key_path.clone())
        .with("maxTotalConnections", number(caps.connections_max))
        .with("maxConnectionsPerIp", number(caps.connections_per_address_max))
        .with("maxClientsPerWorkspace", number(caps.clients_per_scope_max))
        .with("maxFrameBytes", number(limits.frame_bytes_max))
        .with("maxKeyExchangeInitPerMinute", i64::from(limits.key_exchange_per_minute))
        .with("idleTimeoutMs", number(idle_timeout_ms))
        .with("adminHttpEnabled", settings.admin.enabled)
}

/// `node_started`: our own facts, on stdout and in `/logs?all=1` only.
pub(crate) fn node_started(settings: &Settings, shard_count: usize) -> LogEntry {
    LogEntry::new(Level::Info, "node_started")
        .with("version", settings.version)
        .with("driver", settings.driver)
        .with("shards", number(shard_count))
        .with("admission", settings.admission.name())
        .ours()
}

fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
