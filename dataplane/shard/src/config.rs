//! What a shard is told at its birth.

use std::sync::Arc;

use relay_contract::{Limits, ShardId, Tick};
use relay_wire::http1::{TrustedProxies, UpgradeRules};

/// Facts that do not change while the shard lives. Limits do: they arrive as versions. It has no
/// `Debug`, because it has a key.
#[derive(Clone)]
pub struct ShardConfig {
    /// Which shard this is.
    pub shard: ShardId,
    /// The first version of the limits.
    pub limits: Arc<Limits>,
    /// Keys the hash of peer-chosen identifiers; random per process, fixed in a simulation.
    pub hash_key: [u8; 16],
    /// What is set about upgrades.
    pub upgrade_rules: UpgradeRules,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether these send a PROXY header in front of every connection. All of them, or none: a
    /// proxy that sends none passes on what its own clients write, a forged header included.
    pub proxy_protocol: bool,
    /// What `/health` says.
    pub health: HealthFacts,
    /// Milliseconds since 1970 at the origin of the driver's clock.
    pub unix_ms_at_origin: u64,
    /// Receive buffers of the driver's pool; open messages may hold a quarter of them.
    pub receive_buffers: usize,
    /// TLS for every accepted connection, or none.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The constant members of `/health`.
#[derive(Clone, Debug)]
pub struct HealthFacts {
    /// When the process started, for `uptimeMs`.
    pub started: Tick,
    /// Members shown to everybody only when the operator wants them.
    pub verbose: Option<VerboseHealth>,
}

/// The members of a verbose `/health`.
#[derive(Clone, Debug)]
pub struct VerboseHealth {
    /// `tlsEnabled`
    pub tls_enabled: bool,
    /// `relayMode`, a plain word.
    pub relay_mode: &'static str,
    /// `relayId` as the content of a JSON string, already escaped.
    pub relay_id_json: String,
}

impl HealthFacts {
    /// The body of `/health`. Source: relay specification, section 2.
    pub(crate) fn body(&self, now: Tick) -> String {
        let uptime_ms = now.since(self.started).as_millis();
        match &self.verbose {
            None => format!(r#"{{"ok":true,"service":"relay","uptimeMs":{uptime_ms}}}"#),
            Some(facts) => format!(
                concat!(
                    r#"{{"ok":true,"service":"relay","uptimeMs":{},"tlsEnabled":{},"#,
                    r#""relayMode":"{}","relayId":"{}"}}"#
                ),
                uptime_ms, facts.tls_enabled, facts.relay_mode, facts.relay_id_json
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_health_has_three_members() {
        let facts = HealthFacts { started: Tick::from_millis(5), verbose: None };
        let body = facts.body(Tick::from_millis(12));
        assert_eq!(body, r#"{"ok":true,"service":"relay","uptimeMs":7}"#);
    }
}
