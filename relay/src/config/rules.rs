//! What values must fulfil together, in the reference relay's order.

use std::net::SocketAddr;
use std::path::Path;

use relay_contract::Secret;
use url::Url;

use crate::listener::BACKLOG;

use super::listen::is_local;
use super::planes;
use super::{
    AdmissionMode, BackplaneMode, ClientAuth, Config, Mode, Problem, Refused, ServerAuth,
    Surroundings, TlsVerify,
};

/// Every rule the configuration breaks. The first is the one the reference would report.
pub(super) fn broken(config: &Config, world: &dyn Surroundings) -> Vec<Problem> {
    let mut problems = Vec::new();
    files(config, world, &mut problems);
    backplane(config, &mut problems);
    local_urls(config, &mut problems);
    if config.listen.mode == Mode::Prod {
        prod(config, &mut problems);
    }
    ours(config, world, &mut problems);
    planes::broken(config, world, &mut problems);
    problems
}

/// A connection that may hold more than its shard.
fn greedy(config: &Config) -> Option<String> {
    let limits = &config.limits;
    // A backlog with one frame beyond it, and a message in pieces with what is noted of it.
    let frames = limits.frame_bytes_max.saturating_mul(3);
    let most = limits.egress_bytes_max.saturating_add(frames);
    (most > limits.memory_bytes_max).then(|| {
        format!(
            "RELAY_MEMORY_BUDGET leaves each shard {} bytes for its peers, and one connection may \
             hold {most} by RELAY_MAX_PENDING_BYTES and RELAY_MAX_FRAME_BYTES: it is closed before \
             it reaches these limits",
            limits.memory_bytes_max
        )
    })
}

/// A kernel that lets fewer connections wait to be accepted than the relay asks for.
pub(super) fn backlog(world: &dyn Surroundings) -> Option<String> {
    let cap = world.read(Path::new(SOMAXCONN)).ok()?;
    let cap: i32 = cap.trim().parse().ok()?;
    (cap < BACKLOG).then(|| {
        format!(
            "net.core.somaxconn={cap}: the kernel drops connections of a burst larger than that; \
             the relay asks for {BACKLOG} (sysctl -w net.core.somaxconn={BACKLOG})"
        )
    })
}

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// Private keys that every user of the machine can read.
pub(super) fn open_keys(config: &Config, world: &dyn Surroundings) -> Vec<String> {
    let tls = &config.listen.tls;
    let client = config.platform.client_certificate.as_ref();
    let keys = [
        tls.enabled.then_some(&tls.key),
        client.map(|client| &client.key),
        config.control.key.as_ref(),
    ];
    let open = keys.into_iter().flatten().filter(|path| world.is_open_to_all(path));
    open.map(|path| {
        let path = path.display();
        format!("every user of this machine can read the private key {path}; chmod 600 {path}")
    })
    .collect()
}

/// A secret and the one before it.
struct Rotation<'a> {
    name: &'static str,
    current: &'a Option<Secret>,
    previous: &'a Option<Secret>,
}

fn rotations(config: &Config) -> [Rotation<'_>; 4] {
    [
        Rotation {
            name: "RELAY_INTERNAL_KEY",
            current: &config.platform.key,
            previous: &config.platform.previous_key,
        },
        Rotation {
            name: "RELAY_ADMIN_TOKEN",
            current: &config.admin.token,
            previous: &config.admin.previous_token,
        },
        Rotation {
            name: "RELAY_BUS_HMAC_KEY",
            current: &config.backplane.bus_key,
            previous: &config.backplane.previous_bus_key,
        },
        Rotation {
            name: "RELAY_CONTROL_TOKEN",
            current: &config.control.token,
            previous: &config.control.previous_token,
        },
    ]
}

/// What works but is probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for Rotation { name, current, previous } in rotations(config) {
        // Both are the operator's: how long this takes tells nobody anything.
        if let (Some(current), Some(previous)) = (current, previous)
            && current.expose() == previous.expose()
        {
            warnings.push(format!("{name}_PREVIOUS is {name} itself: nothing is rotated"));
        }
    }
    warnings.extend(planes::warnings(config));
    let platform = &config.platform;
    warnings.extend(greedy(config));
    if platform.key.is_some()
        && platform.validate.scheme() == "http"
        && !is_local(&platform.validate)
    {
        warnings.push(
            "the internal key and all tokens travel to the platform unencrypted (http)".to_owned(),
        );
    }
    let listen = &config.listen;
    let token = config.admin.token.as_ref().filter(|_| config.admin.enabled);
    if listen.mode == Mode::Prod && token.is_some_and(|token| !is_strong(token.expose())) {
        warnings.push(
            "RELAY_ADMIN_TOKEN: shorter than 24 characters, or a placeholder; whoever guesses it \
             reads who is connected"
                .to_owned(),
        );
    }
    if listen.tls.enabled && !listen.over_tcp {
        warnings.push("RELAY_TLS is on, but a Unix socket never speaks TLS".to_owned());
    }
    if listen.is_reachable() {
        warnings.extend(open_dev(config, &format!("HOST={}", listen.host)));
    }
    let capacity = &config.capacity;
    let nobody_is_trusted = capacity.trusted_proxies.is_empty() && listen.unix.is_none();
    if capacity.proxy_protocol && nobody_is_trusted {
        warnings.push(
            "RELAY_PROXY_PROTOCOL=required asks a header of trusted proxies alone, and \
             RELAY_TRUSTED_PROXIES names none"
                .to_owned(),
        );
    }
    for (name, url) in [
        ("SERVER_URL", Some(&platform.server)),
        ("RELAY_VALIDATE_URL", Some(&platform.validate)),
        ("RELAY_JWKS_URL or RELAY_JWT_ISSUERS", config.admission.key_urls().find(has_user)),
    ] {
        if url.is_some_and(|url| has_user(&url)) {
            warnings.push(format!("{name}: user and password of the URL are not sent"));
        }
    }
    let backplane = &config.backplane;
    if backplane.mode != BackplaneMode::Single {
        warnings.push(format!(
            "RELAY_BACKPLANE_MODE={}: this version serves its own connections alone; no presence \
             and no frame reaches another relay",
            backplane.mode.name()
        ));
    }
    if backplane.mode == BackplaneMode::Redis
        && backplane.presence
        && backplane.presence_interval >= backplane.redis_presence_ttl
    {
        warnings.push(
            "RELAY_PRESENCE_SYNC_INTERVAL_MS is not below RELAY_REDIS_PRESENCE_TTL_MS: presence \
             of live daemons will expire"
                .to_owned(),
        );
    }
    warnings
}

fn has_user(url: &&Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn files(config: &Config, world: &dyn Surroundings, problems: &mut Vec<Problem>) {
    let missing = |path: &Path| !world.exists(path);
    let tls = &config.listen.tls;
    if tls.enabled && (missing(&tls.certificate) || missing(&tls.key)) {
        problems.push(Problem::rule(
            "RELAY_TLS",
            format!(
                "RELAY_TLS enabled but cert/key not found (cert={}, key={})",
                tls.certificate.display(),
                tls.key.display()
            ),
            "RELAY_TLS_CERT_PATH=/etc/relay/tls.crt RELAY_TLS_KEY_PATH=/etc/relay/tls.key",
        ));
    }
    client_authorities(config, world, problems);
    let Some(client) = &config.platform.client_certificate else {
        return;
    };
    let example = "RELAY_SERVER_CLIENT_CERT_PATH=/etc/relay/client.crt \
                   RELAY_SERVER_CLIENT_KEY_PATH=/etc/relay/client.key";
    if client.certificate.as_os_str().is_empty() || client.key.as_os_str().is_empty() {
        problems.push(Problem::rule(
            "RELAY_SERVER_MTLS",
            "RELAY_SERVER_MTLS enabled but RELAY_SERVER_CLIENT_CERT_PATH and \
             RELAY_SERVER_CLIENT_KEY_PATH are not both set",
            example,
        ));
    } else if missing(&client.certificate) || missing(&client.key) {
        problems.push(Problem::rule(
            "RELAY_SERVER_MTLS",
            format!(
                "RELAY_SERVER_MTLS enabled but client cert/key not found (cert={}, key={})",
                client.certificate.display(),
                client.key.display()
            ),
            example,
        ));
    }
}

fn client_authorities(config: &Config, world: &dyn Surroundings, problems: &mut Vec<Problem>) {
    let tls = &config.listen.tls;
    let what = match &tls.client_authorities {
        _ if !tls.enabled => return,
        None if tls.client_auth == ClientAuth::None => return,
        None => "required when RELAY_TLS_CLIENT_AUTH asks for certificates".to_owned(),
        Some(path) if world.exists(path) => return,
        Some(path) => format!("{} not found", path.display()),
    };
    problems.push(Problem::rule(
        "RELAY_TLS_CLIENT_CA_PATH",
        what,
        "RELAY_TLS_CLIENT_CA_PATH=/etc/relay/clients.pem",
    ));
}

fn backplane(config: &Config, problems: &mut Vec<Problem>) {
    let backplane = &config.backplane;
    let mode = backplane.mode.name();
    if backplane.mode == BackplaneMode::Single {
        return;
    }
    if config.platform.key.is_none() {
        problems.push(Problem::rule(
            "RELAY_INTERNAL_KEY",
            format!("RELAY_INTERNAL_KEY is required when RELAY_BACKPLANE_MODE={mode}"),
            "RELAY_INTERNAL_KEY=$(openssl rand -base64 32)",
        ));
    }
    let needs_redis = backplane.mode == BackplaneMode::Redis;
    if needs_redis && backplane.redis_url.is_none() {
        problems.push(Problem::rule(
            "RELAY_BACKPLANE_URL",
            "RELAY_REDIS_URL is required when RELAY_BACKPLANE_MODE=redis (RELAY_BACKPLANE_URL \
             means the same)",
            "RELAY_BACKPLANE_URL=redis://redis.corp:6379",
        ));
    }
    if (needs_redis || backplane.bus) && backplane.bus_key.is_none() {
        let what = match needs_redis {
            true => "RELAY_BUS_HMAC_KEY is required when RELAY_BACKPLANE_MODE=redis",
            false => "RELAY_BUS_HMAC_KEY is required when RELAY_BUS_ENABLED=1",
        };
        problems.push(Problem::rule(
            "RELAY_BUS_HMAC_KEY",
            what,
            "RELAY_BUS_HMAC_KEY=$(openssl rand -base64 32)",
        ));
    }
}

fn local_urls(config: &Config, problems: &mut Vec<Problem>) {
    if config.listen.is_reachable() {
        problems.extend(local_url(config, &format!("HOST={}", config.listen.host)));
    }
}

/// What a door that others reach asks of the URLs.
fn local_url(config: &Config, door: &str) -> Option<Problem> {
    let public = Url::parse(&config.listen.public_ws_url);
    let any_local = is_local(&config.platform.server) || public.is_ok_and(|url| is_local(&url));
    (any_local && config.control.role.moves_frames()).then(|| {
        Problem::rule(
            "SERVER_URL",
            format!(
                "SERVER_URL and RELAY_PUBLIC_WS_BASE_URL must be set explicitly outside local \
                 loopback development; {door} is reachable by others"
            ),
            "SERVER_URL=https://api.corp RELAY_PUBLIC_WS_BASE_URL=wss://relay.corp/ws",
        )
    })
}

/// What is said of a door that others reach in dev.
fn open_dev(config: &Config, door: &str) -> Option<String> {
    let is_dev = config.listen.mode == Mode::Dev && config.control.role.moves_frames();
    is_dev.then(|| {
        format!(
            "RELAY_MODE=dev on {door}: others can reach a relay that takes tokens in the query \
             and shows more than it should"
        )
    })
}

/// Judges sockets that were handed over by what they are bound to: HOST says nothing of them, and
/// only whoever has taken them knows. What an operator should know of them.
///
/// Errors: one that others reach, where a URL is local.
pub(crate) fn of_handed(config: &Config, bound: &[SocketAddr]) -> Result<Option<String>, Refused> {
    let is_reachable = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    let Some(address) = bound.iter().find(is_reachable) else {
        return Ok(None);
    };
    let door = format!("the socket on {address} that was handed over");
    match local_url(config, &door) {
        Some(problem) => Err(Refused(vec![problem])),
        None => Ok(open_dev(config, &door)),
    }
}

fn prod(config: &Config, problems: &mut Vec<Problem>) {
    let tls = &config.listen.tls;
    if config.control.role.moves_frames() && !tls.enabled && !tls.ends_in_front {
        problems.push(Problem::rule(
            "RELAY_TLS",
            "RELAY_TLS must be enabled when RELAY_MODE=prod unless RELAY_TLS_TERMINATION=platform",
            "RELAY_TLS_TERMINATION=platform",
        ));
    }
    if !config.control.role.decides() {
        return;
    }
    let key = config.platform.key.as_ref();
    if !key.is_some_and(|key| is_strong(key.expose())) {
        problems.push(Problem::rule(
            "RELAY_INTERNAL_KEY",
            "RELAY_INTERNAL_KEY must be configured with a high-entropy secret when \
             RELAY_MODE=prod: 24 characters or more, and no placeholder",
            "RELAY_INTERNAL_KEY=$(openssl rand -base64 32)",
        ));
    }
    match config.platform.auth {
        ServerAuth::Mtls => prod_mtls(config, problems),
        ServerAuth::SharedSecret if is_local(&config.platform.server) => {
            problems.push(Problem::rule(
                "SERVER_URL",
                "SERVER_URL must not be local when RELAY_MODE=prod and \
                 RELAY_SERVER_AUTH_MODE=private_network_shared_secret",
                "SERVER_URL=https://api.corp",
            ));
        }
        ServerAuth::SharedSecret => {}
    }
}

fn prod_mtls(config: &Config, problems: &mut Vec<Problem>) {
    if config.platform.client_certificate.is_none() {
        problems.push(Problem::rule(
            "RELAY_SERVER_MTLS",
            "RELAY_SERVER_MTLS must be enabled when RELAY_MODE=prod",
            "RELAY_SERVER_AUTH_MODE=private_network_shared_secret, or both \
             RELAY_SERVER_CLIENT_CERT_PATH and RELAY_SERVER_CLIENT_KEY_PATH",
        ));
    }
    if config.platform.verify != TlsVerify::Always {
        problems.push(Problem::rule(
            "RELAY_SERVER_TLS_VERIFY",
            "RELAY_SERVER_TLS_VERIFY must be 1 when RELAY_MODE=prod to prevent TLS downgrade",
            "RELAY_SERVER_TLS_VERIFY=1",
        ));
    }
}

/// What the reference does not know.
fn ours(config: &Config, world: &dyn Surroundings, problems: &mut Vec<Problem>) {
    if config.platform.key.is_some() && !config.platform.is_named {
        problems.push(Problem::rule(
            "RELAY_INTERNAL_KEY",
            "set, but neither SERVER_URL nor RELAY_VALIDATE_URL names the platform it is for; it \
             is not sent to a default host",
            "SERVER_URL=https://api.corp",
        ));
    }
    for Rotation { name, current, previous } in rotations(config) {
        if current.is_none() && previous.is_some() {
            problems.push(Problem::rule(
                name,
                format!("unset, but {name}_PREVIOUS, which only stands beside it, is set"),
                PREVIOUS_EXAMPLE,
            ));
        }
    }
    if let Some(path) = config.platform.authorities.as_ref().filter(|path| !world.exists(path)) {
        problems.push(Problem::rule(
            "RELAY_SERVER_CA_CERT_PATH",
            format!("{} not found", path.display()),
            "RELAY_SERVER_CA_CERT_PATH=/etc/relay/ca.pem",
        ));
    }
    if config.admission.mode != AdmissionMode::Validate && config.admission.issuers.is_empty() {
        problems.push(Problem::rule(
            "RELAY_JWKS_URL",
            format!("required when RELAY_ADMISSION={}", config.admission.mode.name()),
            "RELAY_JWKS_URL=https://api.corp/.well-known/jwks.json",
        ));
    }
}

const PREVIOUS_EXAMPLE: &str = "the new secret under the plain name, the old one under \
                                NAME_PREVIOUS until nobody uses it";

/// Long enough, and not copied from an example.
pub(crate) fn is_strong(key: &str) -> bool {
    let lower = key.to_lowercase();
    let is_sample = ["change-me", "placeholder", "example"].iter().any(|word| lower.contains(word));
    key.encode_utf16().count() >= 24 && !is_sample
}
