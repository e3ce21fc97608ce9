//! Address, port, mode and TLS of the listening side.

use std::path::PathBuf;

use url::{Host, Url};

use super::platform::Named;
use super::{Reader, Source, Surroundings, Variable};

/// How careful the relay is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Tokens may come in the query; endpoints show more.
    Dev,
    /// As careful towards peers as `Prod`, without insisting on safe settings.
    Staging,
    /// Settings must be safe.
    Prod,
}

impl Mode {
    /// The word in configuration and in `/state`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

/// A Unix socket to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UnixSocket {
    /// Its file.
    pub path: PathBuf,
    /// The file's permissions.
    pub mode: u32,
}

/// Where and how the relay listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Listen {
    /// A Unix socket, beside or instead of the port.
    pub unix: Option<UnixSocket>,
    /// Whether there is a port at all.
    pub over_tcp: bool,
    /// Address or name to bind; an IPv6 address stands without brackets.
    pub host: String,
    /// Port to bind.
    pub port: u16,
    /// How careful the relay is.
    pub mode: Mode,
    /// Where clients reach this relay.
    pub public_ws_url: String,
    /// Whether the operator named that URL.
    pub public_ws_url_named: bool,
    /// TLS of the port.
    pub tls: Tls,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked; whoever shows one must show a good one.
    Optional,
    /// Nobody without a good one is heard.
    Required,
}

/// TLS of the listening port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tls {
    /// Whether the port speaks TLS.
    pub enabled: bool,
    /// Whether something in front of the relay ends TLS.
    pub ends_in_front: bool,
    /// Host name of the certificate.
    pub host: String,
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Whether clients have to show a certificate.
    pub client_auth: ClientAuth,
    /// Who vouches for those certificates.
    pub client_authorities: Option<PathBuf>,
}

impl Listen {
    pub(super) fn read(reader: &mut Reader<'_>, named: &Named, world: &dyn Surroundings) -> Self {
        let unix = UnixSocket::read(reader);
        let host_named = reader.text("HOST");
        // Who names a socket alone does not want a port that everybody reaches beside it.
        let is_named = host_named.is_some() || reader.is_set("RELAY_LISTEN_PORT");
        let over_tcp = unix.is_none() || is_named;
        let host = match host_named {
            Some(host) => without_brackets(host),
            None => default_host(reader, world),
        };
        let port = read_port(reader);
        let tls = Tls::read(reader, named, world);
        let public = reader.url("RELAY_PUBLIC_WS_BASE_URL");
        let public_ws_url_named = public.is_some();
        let public_url = public.as_ref().map(|(url, _)| url);
        // Behind a proxy of this host, or a service manager, the default of HOST means nothing.
        let is_handed = world.variable("LISTEN_FDS").is_some();
        let is_local = over_tcp && !is_handed && is_loopback(&host);
        let mode = read_mode(reader, is_local, named, public_url);
        let public_ws_url = match public {
            Some((_, text)) => text,
            None => default_public_url(&tls, port),
        };
        reader.conclude("RELAY_PUBLIC_WS_BASE_URL", &public_ws_url, Source::Default);
        Self { unix, over_tcp, host, port, mode, public_ws_url, public_ws_url_named, tls }
    }

    /// Whether other hosts may reach it by the address it binds. Sockets that are handed over are
    /// judged by [`super::of_handed`].
    pub(super) fn is_reachable(&self) -> bool {
        self.over_tcp && !is_loopback(&self.host)
    }

    /// One that listens on loopback.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        let parsed = super::Config::parse(&[], &super::tests::World::default());
        parsed.expect("an empty environment is usable").config.listen
    }
}

impl UnixSocket {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mode = reader.text("RELAY_LISTEN_UNIX_MODE");
        let mode = match mode.as_deref().map(parse_mode) {
            None => UNIX_MODE,
            Some(Some(mode)) => mode,
            Some(None) => {
                let what = "not permissions in octal digits, as chmod takes them".to_owned();
                reader.refuse("RELAY_LISTEN_UNIX_MODE", what);
                UNIX_MODE
            }
        };
        Some(Self { path: reader.path("RELAY_LISTEN_UNIX")?, mode })
    }
}

/// Three octal digits, a zero in front or not.
fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    let is_octal = digits.len() == 3 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    u32::from_str_radix(digits, 8).ok().filter(|_| is_octal)
}

/// The reverse proxy's group may connect, others may not.
const UNIX_MODE: u32 = 0o660;

impl Tls {
    fn read(reader: &mut Reader<'_>, named: &Named, world: &dyn Surroundings) -> Self {
        let ends_in_front = match reader.choice("RELAY_TLS_TERMINATION") {
            Some(word) => word == "platform",
            None => named.by_validate_url_alone(),
        };
        if named.by_validate_url_alone() {
            reader.conclude(
                "RELAY_TLS_TERMINATION",
                "platform",
                Source::Inferred("RELAY_VALIDATE_URL"),
            );
        }
        let host = reader.text("RELAY_TLS_HOST").unwrap_or_else(|| TLS_HOST.to_owned());
        let dir = reader.path("RELAY_TLS_CERT_DIR").unwrap_or_else(|| {
            let home = world.home().unwrap_or_default();
            home.join(".viewport/relay-certs")
        });
        let certificate =
            reader.path("RELAY_TLS_CERT_PATH").unwrap_or_else(|| dir.join(format!("{host}.crt")));
        let key =
            reader.path("RELAY_TLS_KEY_PATH").unwrap_or_else(|| dir.join(format!("{host}.key")));
        let enabled = match reader.choice_any_case("RELAY_TLS") {
            Some("1") => true,
            Some("0") => false,
            // Whoever says that TLS ends in front does not want it twice because of a stray file.
            _ => !ends_in_front && world.exists(&certificate) && world.exists(&key),
        };
        let client_authorities = reader.path("RELAY_TLS_CLIENT_CA_PATH");
        let client_auth = match (reader.choice("RELAY_TLS_CLIENT_AUTH"), &client_authorities) {
            (Some("required"), _) => ClientAuth::Required,
            (Some("optional"), _) => ClientAuth::Optional,
            (Some(_), _) | (None, None) => ClientAuth::None,
            (None, Some(_)) => {
                let reason = Source::Inferred("RELAY_TLS_CLIENT_CA_PATH");
                reader.conclude("RELAY_TLS_CLIENT_AUTH", "required", reason);
                ClientAuth::Required
            }
        };
        Self { enabled, ends_in_front, host, certificate, key, client_auth, client_authorities }
    }
}

/// The reference relay's own name; part of its defaults.
const TLS_HOST: &str = "relay.getviewport.com";
const PORT: u64 = 7781;

/// An IPv6 address as it stands in a URL is the address.
fn without_brackets(host: String) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).map_or(host.clone(), str::to_owned)
}

fn default_host(reader: &mut Reader<'_>, world: &dyn Surroundings) -> String {
    if world.in_container() {
        let reason = Source::Inferred("running in a container");
        reader.conclude("HOST", "0.0.0.0", reason);
        return "0.0.0.0".to_owned();
    }
    Variable::named("HOST").default.to_owned()
}

fn read_port(reader: &mut Reader<'_>) -> u16 {
    let port = reader.count("RELAY_LISTEN_PORT");
    u16::try_from(port).unwrap_or_else(|_| {
        reader.refuse("RELAY_LISTEN_PORT", format!("{port} is not a port; ports end at 65535"));
        0
    })
}

fn default_public_url(tls: &Tls, port: u16) -> String {
    if tls.host == TLS_HOST && u64::from(port) == PORT {
        return format!("wss://{TLS_HOST}/ws");
    }
    let scheme = if tls.enabled { "wss" } else { "ws" };
    format!("{scheme}://{}:{port}/ws", tls.host)
}

fn read_mode(reader: &mut Reader<'_>, local: bool, named: &Named, public: Option<&Url>) -> Mode {
    match reader.choice("RELAY_MODE") {
        Some("dev") => return Mode::Dev,
        Some("staging") => return Mode::Staging,
        Some("prod") => return Mode::Prod,
        _ => {}
    }
    let platform = named.platform_url();
    let (mode, reason) = if local {
        (Mode::Dev, "HOST is loopback")
    } else if platform.is_none() && public.is_none() {
        (Mode::Dev, "neither platform nor public URL is set")
    } else if platform.is_some_and(is_local) || public.is_some_and(is_local) {
        (Mode::Dev, "a URL is local")
    } else {
        (Mode::Prod, "HOST and URLs are not local")
    };
    reader.conclude("RELAY_MODE", mode.name(), Source::Inferred(reason));
    mode
}

/// Whether only this machine can reach the address.
pub(super) fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "localhost" | "::1")
}

/// Whether the URL points to this machine or to a test domain.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".test"),
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
