//! The environment that the relay takes, as far as a rival knows it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use clap::Args;

/// What a rival is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Where to listen
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Where to listen
    #[arg(long, env = "PORT", default_value_t = 7781)]
    port: u16,
    /// The platform: http, an address and a port
    #[arg(long, env = "SERVER_URL", default_value = "http://127.0.0.1:7780")]
    server_url: String,
    /// Bytes of a message, at most
    #[arg(long, env = "RELAY_MAX_FRAME_BYTES", default_value_t = 1 << 20)]
    pub(crate) frame_bytes_max: usize,
    /// Bytes that may wait for one connection
    #[arg(long, env = "RELAY_MAX_PENDING_BYTES", default_value_t = 4 << 20)]
    pub(crate) pending_bytes_max: usize,
}

impl Settings {
    /// Where to listen.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// The platform's address, for those who connect to it themselves.
    pub(crate) fn platform(&self) -> Result<SocketAddr> {
        let authority = self.server_url.strip_prefix("http://").context("SERVER_URL: http only")?;
        authority.trim_end_matches('/').parse().context("SERVER_URL: an address and a port")
    }

    /// Where tokens are validated.
    pub(crate) fn validate_url(&self) -> String {
        format!("{}{VALIDATE_PATH}", self.server_url.trim_end_matches('/'))
    }
}

/// The platform's endpoint.
pub(crate) const VALIDATE_PATH: &str = "/api/runtime/internal/relay/validate";
