//! What changes for connections that are not admitted yet.

use std::sync::Arc;

use relay_driver::Driver;
use relay_wire::http1::{AllowedOrigins, TrustedProxies};
use rustls::ServerConfig;

use crate::shard::Shard;

/// Something new at the door. Connections that are open keep what they were admitted with.
#[derive(Clone, Debug)]
pub enum DoorNews {
    /// TLS for connections accepted from now on, where TLS ends here at all.
    Tls(Arc<ServerConfig>),
    /// Who is believed, and whose pages may connect, from the next request head on.
    Rules(Arc<DoorRules>),
}

/// Who is believed, and whose pages may connect.
#[derive(Clone, Debug, Default)]
pub struct DoorRules {
    /// Whose `X-Forwarded-For` is believed, and who sends PROXY headers where these are asked for.
    pub trusted_proxies: TrustedProxies,
    /// Whose pages may connect from a browser.
    pub allowed_origins: AllowedOrigins,
}

impl<D: Driver> Shard<D> {
    /// Hears what is new at the door.
    pub(crate) fn take_door_news(&mut self) {
        while let Some(news) = self.ports.door.receive() {
            match news {
                // Connections keep the session they have.
                DoorNews::Tls(config) => self.tls = self.tls.is_some().then_some(config),
                DoorNews::Rules(rules) => {
                    self.config.trusted_proxies = rules.trusted_proxies.clone();
                    self.config.upgrade_rules.allowed_origins = rules.allowed_origins.clone();
                }
            }
        }
    }
}
