//! The endpoints for operators.

use std::fmt;
use std::path::PathBuf;

use relay_contract::Secret;

use super::listen::is_loopback;
use super::{Mode, Reader, Source};

/// The endpoints for operators.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Whether they exist at all.
    pub enabled: bool,
    /// The bearer token; without one nobody is authorised.
    pub token: Option<Secret>,
    /// The token before it, accepted too.
    pub previous_token: Option<Secret>,
    /// Where they are served instead of on the relay's port.
    pub listen: Option<AdminListen>,
    /// Whether `/health`, `/logs` and `/state` show everything.
    pub verbose: bool,
    /// Whether `/state` lists client ids.
    pub client_ids: bool,
}

/// Where operators have a door of their own, or call the control API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum AdminListen {
    /// Host and port.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl AdminListen {
    /// What the variable of this name says.
    pub(super) fn read(reader: &mut Reader<'_>, name: &'static str) -> Option<Self> {
        let text = reader.text(name)?;
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
                let what =
                    format!("{path:?} is no absolute path of {PATH_BYTES_MAX} bytes at most");
                reader.refuse(name, what);
                return None;
            }
            return Some(Self::Unix(path.into()));
        }
        let port = text.rsplit_once(':').and_then(|(host, port)| {
            (!host.is_empty()).then_some(())?;
            port.parse::<u16>().ok().filter(|port| *port != 0)
        });
        if port.is_none() {
            reader.refuse(name, format!("{text:?} is neither HOST:PORT nor unix:/PATH"));
            return None;
        }
        Some(Self::Tcp(text))
    }
}

/// The host of `HOST:PORT`, an IPv6 address without its brackets.
pub(super) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

const LISTEN: &str = "RELAY_ADMIN_LISTEN";

/// Bytes of a socket's path. Source: unix(7), `sun_path` without its final zero.
const PATH_BYTES_MAX: usize = 107;

impl Admin {
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        let in_dev = mode == Mode::Dev;
        let shown = if in_dev { "1" } else { "0" };
        let reason = Source::Inferred("RELAY_MODE");
        let listen = AdminListen::read(reader, LISTEN);
        let enabled = reader.flag("RELAY_ENABLE_ADMIN_HTTP").unwrap_or(listen.is_some());
        if listen.is_some() {
            let reason = Source::Inferred("RELAY_ADMIN_LISTEN");
            reader.conclude("RELAY_ENABLE_ADMIN_HTTP", "1", reason);
        }
        let token = reader.secret("RELAY_ADMIN_TOKEN");
        let previous_token = reader.secret("RELAY_ADMIN_TOKEN_PREVIOUS");
        let verbose = reader.flag("RELAY_HEALTH_VERBOSE").unwrap_or(in_dev);
        reader.conclude("RELAY_HEALTH_VERBOSE", shown, reason.clone());
        let client_ids = reader.flag("RELAY_STATE_INCLUDE_CLIENT_IDS");
        reader.conclude("RELAY_STATE_INCLUDE_CLIENT_IDS", shown, reason);
        if let Some(AdminListen::Tcp(address)) = &listen
            && !is_loopback(host_of(address))
        {
            reader.warnings.push(format!(
                "RELAY_ADMIN_LISTEN={address}: the admin token travels unencrypted; prefer \
                 loopback, unix:/PATH, or a private network"
            ));
        }
        if enabled && token.is_none() {
            reader.warnings.push(
                "RELAY_ENABLE_ADMIN_HTTP is on without RELAY_ADMIN_TOKEN: nobody is authorised"
                    .to_owned(),
            );
        }
        Self {
            enabled,
            token,
            previous_token,
            listen,
            verbose,
            client_ids: client_ids.unwrap_or(in_dev),
        }
    }
}
