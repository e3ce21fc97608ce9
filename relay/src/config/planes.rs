//! One process, or data plane and control plane apart.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use relay_contract::Secret;
use url::{Host, Url};

use super::{Config, Mode, Problem, Reader, Surroundings};

/// What this process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Both planes.
    All,
    /// Moves frames; somebody else decides.
    DataPlane,
    /// Decides; moves no frames.
    ControlPlane,
}

impl Role {
    /// Whether it serves peers.
    pub(crate) const fn moves_frames(self) -> bool {
        matches!(self, Self::All | Self::DataPlane)
    }

    /// Whether it decides about them.
    pub(crate) const fn decides(self) -> bool {
        matches!(self, Self::All | Self::ControlPlane)
    }
}

/// Where the other plane is, and how both know each other.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    /// What this process is.
    pub role: Role,
    /// Where a data plane finds its control plane.
    pub url: Option<ControlUrl>,
    /// Where a control plane waits for its data planes.
    pub listen: Option<ControlListen>,
    /// A secret that both know.
    pub token: Option<Secret>,
    /// The one before it, which a control plane accepts too.
    pub previous_token: Option<Secret>,
    /// Who vouches for the other side's certificate.
    pub authorities: Option<PathBuf>,
    /// What this side shows.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Where a control plane is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ControlUrl {
    /// Over TCP.
    Url(Url),
    /// A socket of this host.
    Unix(PathBuf),
}

/// Where a control plane listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ControlListen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A file.
    Unix(PathBuf),
}

impl fmt::Display for ControlListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Control {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let role = match reader.choice("RELAY_ROLE") {
            Some("dataplane") => Role::DataPlane,
            Some("controlplane") => Role::ControlPlane,
            _ => Role::All,
        };
        Self {
            role,
            url: ControlUrl::read(reader),
            listen: ControlListen::read(reader),
            token: reader.secret("RELAY_CONTROL_TOKEN"),
            previous_token: reader.secret("RELAY_CONTROL_TOKEN_PREVIOUS"),
            authorities: reader.path("RELAY_CONTROL_CA_PATH"),
            certificate: reader.path("RELAY_CONTROL_CERT_PATH"),
            key: reader.path("RELAY_CONTROL_KEY_PATH"),
        }
    }

    /// Whether a control plane encrypts.
    fn listens_with_tls(&self) -> bool {
        self.certificate.is_some()
    }
}

/// The path behind `unix:`, if it is one.
fn unix_path(reader: &mut Reader<'_>, name: &'static str, text: &str) -> Option<Option<PathBuf>> {
    let path = text.strip_prefix("unix:")?;
    if path.starts_with('/') && path.len() <= PATH_BYTES_MAX {
        return Some(Some(path.into()));
    }
    let what = format!("{path:?} is no absolute path of {PATH_BYTES_MAX} bytes at most");
    reader.refuse(name, what);
    Some(None)
}

impl ControlUrl {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(URL)?;
        if let Some(path) = unix_path(reader, URL, &text) {
            return path.map(Self::Unix);
        }
        match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                if url.username().is_empty() && url.password().is_none() {
                    return Some(Self::Url(url));
                }
                let what = "carries a user or a password, which nobody would ask for".to_owned();
                reader.refuse(URL, what);
            }
            _ => reader.refuse(URL, "neither unix:/PATH nor http(s)://HOST:PORT".to_owned()),
        }
        None
    }

    fn is_encrypted(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme() == "https")
    }

    /// Whether others than this host can listen on the way.
    fn leaves_the_host(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Url(url) => match url.host() {
                Some(Host::Domain(name)) => name != "localhost",
                Some(Host::Ipv4(address)) => !IpAddr::V4(address).is_loopback(),
                Some(Host::Ipv6(address)) => !IpAddr::V6(address).is_loopback(),
                None => true,
            },
        }
    }
}

impl ControlListen {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(LISTEN)?;
        if let Some(path) = unix_path(reader, LISTEN, &text) {
            return path.map(Self::Unix);
        }
        match text.parse() {
            Ok(address) => Some(Self::Tcp(address)),
            Err(_) => {
                reader.refuse(LISTEN, format!("{text:?} is neither IP:PORT nor unix:/PATH"));
                None
            }
        }
    }

    fn leaves_the_host(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

/// What the two planes need together.
pub(super) fn broken(config: &Config, world: &dyn Surroundings, problems: &mut Vec<Problem>) {
    let control = &config.control;
    match control.role {
        Role::All => return,
        Role::DataPlane => data_plane(config, problems),
        Role::ControlPlane => control_plane(config, problems),
    }
    if control.certificate.is_some() != control.key.is_some() {
        let (missing, there) = match control.certificate {
            Some(_) => ("RELAY_CONTROL_KEY_PATH", "RELAY_CONTROL_CERT_PATH"),
            None => ("RELAY_CONTROL_CERT_PATH", "RELAY_CONTROL_KEY_PATH"),
        };
        let example = "RELAY_CONTROL_CERT_PATH=/etc/relay/control.crt \
                       RELAY_CONTROL_KEY_PATH=/etc/relay/control.key";
        problems.push(Problem::rule(missing, format!("required beside {there}"), example));
    }
    for (name, path) in [
        ("RELAY_CONTROL_CA_PATH", &control.authorities),
        ("RELAY_CONTROL_CERT_PATH", &control.certificate),
        ("RELAY_CONTROL_KEY_PATH", &control.key),
    ] {
        if let Some(path) = path.as_deref().filter(|path: &&Path| !world.exists(path)) {
            let what = format!("{} not found", path.display());
            problems.push(Problem::rule(name, what, &format!("{name}=/etc/relay/control.pem")));
        }
    }
}

fn data_plane(config: &Config, problems: &mut Vec<Problem>) {
    let control = &config.control;
    let Some(url) = &control.url else {
        problems.push(Problem::rule(
            URL,
            "required when RELAY_ROLE=dataplane: who decides about upgrades",
            URL_EXAMPLE,
        ));
        return;
    };
    if url.is_encrypted() {
        if control.authorities.is_none() {
            problems.push(Problem::rule(
                "RELAY_CONTROL_CA_PATH",
                "required when RELAY_CONTROL_URL is https: who vouches for the control plane",
                "RELAY_CONTROL_CA_PATH=/etc/relay/control-ca.pem",
            ));
        }
    } else if url.leaves_the_host() && !may_be_plain(config) {
        problems.push(Problem::rule(URL, PLAIN, URL_TLS_EXAMPLE));
    }
}

fn control_plane(config: &Config, problems: &mut Vec<Problem>) {
    let control = &config.control;
    let Some(listen) = &control.listen else {
        problems.push(Problem::rule(
            LISTEN,
            "required when RELAY_ROLE=controlplane: where data planes connect",
            LISTEN_EXAMPLE,
        ));
        return;
    };
    if !listen.leaves_the_host() {
        return;
    }
    if control.listens_with_tls() {
        if control.authorities.is_none() && control.token.is_none() {
            problems.push(Problem::rule(
                LISTEN,
                "others can reach it, and nothing says which data planes may connect: set \
                 RELAY_CONTROL_CA_PATH (mutual TLS) or RELAY_CONTROL_TOKEN",
                "RELAY_CONTROL_CA_PATH=/etc/relay/data-planes-ca.pem",
            ));
        }
    } else if !may_be_plain(config) {
        problems.push(Problem::rule(LISTEN, PLAIN, LISTEN_TLS_EXAMPLE));
    }
}

/// Whether the planes may talk in the clear off this host: with a token, and not in production.
fn may_be_plain(config: &Config) -> bool {
    config.control.token.is_some() && config.listen.mode != Mode::Prod
}

/// What works but is probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let control = &config.control;
    let mut warnings = Vec::new();
    let unused =
        |name: &str, role: &str| format!("{name} is set, but RELAY_ROLE={role} does not use it");
    match control.role {
        Role::All => {
            let given = [(URL, control.url.is_some()), (LISTEN, control.listen.is_some())];
            let given = given.into_iter().filter(|(_, is_given)| *is_given);
            warnings.extend(given.map(|(name, _)| unused(name, "all")));
        }
        Role::DataPlane => {
            if config.admin.listen.is_some() {
                warnings.push(unused("RELAY_ADMIN_LISTEN", "dataplane"));
            }
            let url = control.url.as_ref();
            if url.is_some_and(|url| url.leaves_the_host() && !url.is_encrypted()) {
                warnings.push(format!("{URL}: {IN_THE_CLEAR}"));
            }
        }
        Role::ControlPlane => {
            let listen = control.listen.as_ref();
            if listen.is_some_and(ControlListen::leaves_the_host) && !control.listens_with_tls() {
                warnings.push(format!("{LISTEN}: {IN_THE_CLEAR}"));
            }
        }
    }
    warnings
}

const URL: &str = "RELAY_CONTROL_URL";
const LISTEN: &str = "RELAY_CONTROL_LISTEN";

const URL_EXAMPLE: &str = "RELAY_CONTROL_URL=unix:/run/relay/planes.sock";
const LISTEN_EXAMPLE: &str = "RELAY_CONTROL_LISTEN=unix:/run/relay/planes.sock";
const URL_TLS_EXAMPLE: &str = "RELAY_CONTROL_URL=https://control.corp:7782 \
                               RELAY_CONTROL_CA_PATH=/etc/relay/control-ca.pem";
const LISTEN_TLS_EXAMPLE: &str = "RELAY_CONTROL_CERT_PATH=/etc/relay/control.crt \
                                  RELAY_CONTROL_KEY_PATH=/etc/relay/control.key \
                                  RELAY_CONTROL_CA_PATH=/etc/relay/data-planes-ca.pem";
const PLAIN: &str = "unencrypted and beyond this host: peers' tokens and all decisions could be \
                     read and forged. Use TLS, unix:/PATH or loopback; outside RELAY_MODE=prod a \
                     RELAY_CONTROL_TOKEN on a private network is accepted too";
const IN_THE_CLEAR: &str = "peers' tokens and the control token travel unencrypted; whoever reads \
                            along can decide who connects";

/// Bytes of a socket's path. Source: unix(7), `sun_path` without its final zero.
const PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::super::{FlagValue, Parsed, Refused};
    use super::*;

    fn parse(settings: &[(&str, &str)]) -> Result<Parsed, Refused> {
        let flags: Vec<_> =
            settings.iter().map(|(name, value)| FlagValue::set(name, value)).collect();
        Config::parse(&flags, &World::default())
    }

    #[track_caller]
    fn refused(settings: &[(&str, &str)], variable: &str) {
        let Refused(problems) = parse(settings).expect_err("it is refused");
        assert!(problems.iter().any(|problem| problem.variable == variable), "{problems:?}");
        assert!(problems.iter().all(|problem| !problem.example.is_empty()));
    }

    #[test]
    fn each_role_needs_to_know_where_the_other_plane_is() {
        refused(&[("RELAY_ROLE", "dataplane")], URL);
        refused(&[("RELAY_ROLE", "controlplane")], LISTEN);
        refused(&[("RELAY_ROLE", "both")], "RELAY_ROLE");
        parse(&[]).expect("one process needs neither");
        let path = "unix:/run/relay/planes.sock";
        parse(&[("RELAY_ROLE", "dataplane"), (URL, path)]).expect("usable");
        parse(&[("RELAY_ROLE", "controlplane"), (LISTEN, path)]).expect("usable");
    }

    #[test]
    fn nothing_leaves_the_host_in_the_clear_without_being_told_to() {
        let control = |listen, more: &[(&'static str, &'static str)]| {
            let mut settings = vec![("RELAY_ROLE", "controlplane"), (LISTEN, listen)];
            settings.extend(more);
            settings
        };
        parse(&control("127.0.0.1:7782", &[])).expect("loopback");
        parse(&control("[::1]:7782", &[])).expect("loopback");
        refused(&control("0.0.0.0:7782", &[]), LISTEN);
        let token = ("RELAY_CONTROL_TOKEN", "a-long-enough-token-of-both");
        let parsed = parse(&control("0.0.0.0:7782", &[token])).expect("with a token");
        assert!(parsed.warnings.iter().any(|warning| warning.contains("unencrypted")));
        refused(&control("0.0.0.0:7782", &[token, ("RELAY_MODE", "prod")]), LISTEN);
        let data = [("RELAY_ROLE", "dataplane"), (URL, "http://10.0.0.1:7782")];
        refused(&data, URL);
        refused(&[data[0], (URL, "https://10.0.0.1:7782")], "RELAY_CONTROL_CA_PATH");
        parse(&[data[0], (URL, "http://localhost:7782")]).expect("loopback");
    }

    #[test]
    fn a_certificate_needs_its_key_and_files_have_to_be_there() {
        let unix = [("RELAY_ROLE", "controlplane"), (LISTEN, "unix:/run/control.sock")];
        let certificate = ("RELAY_CONTROL_CERT_PATH", "/none/control.crt");
        refused(&[unix[0], unix[1], certificate], "RELAY_CONTROL_KEY_PATH");
        refused(&[unix[0], unix[1], certificate], "RELAY_CONTROL_CERT_PATH");
    }

    #[test]
    fn addresses_are_parsed_whole() {
        for wrong in ["unix:relative", "10.0.0.1", "ftp://x", "https://user:pass@host:1"] {
            refused(&[("RELAY_ROLE", "dataplane"), (URL, wrong)], URL);
        }
        for wrong in ["unix:", "localhost:7782", "10.0.0.1", ":7782"] {
            refused(&[("RELAY_ROLE", "controlplane"), (LISTEN, wrong)], LISTEN);
        }
    }
}
