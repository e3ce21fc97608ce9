//! How relays reach each other.

use std::time::Duration;

use relay_contract::Secret;

use super::platform::Named;
use super::{Listen, Reader, Source, as_size};

/// What carries presence and frames between relays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BackplaneMode {
    /// Nothing: this relay is alone.
    Single,
    /// The platform.
    Server,
    /// Redis.
    Redis,
}

impl BackplaneMode {
    /// The word in configuration and in `/state`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Server => "server",
            Self::Redis => "redis",
        }
    }
}

/// The backplane and its bounds.
#[derive(Clone, Debug)]
#[expect(
    dead_code,
    reason = "parsed and checked as a whole; nothing carries frames to another relay yet"
)]
pub(crate) struct Backplane {
    /// What carries presence and frames.
    pub mode: BackplaneMode,
    /// Redis, with whatever password the URL carries.
    pub redis_url: Option<Secret>,
    /// What every key in Redis starts with.
    pub redis_key_prefix: String,
    /// How long connecting to Redis may take.
    pub redis_connect_timeout: Duration,
    /// How long presence in Redis lives.
    pub redis_presence_ttl: Duration,
    /// Frames that may wait in Redis for one relay.
    pub redis_queue_max: usize,
    /// Whether daemons are announced.
    pub presence: bool,
    /// Time between announcements.
    pub presence_interval: Duration,
    /// Answers about daemons kept.
    pub presence_cache_max: usize,
    /// Whether clients are sent to the relay that holds their daemon.
    pub redirect: bool,
    /// Hosts a client may be sent to; empty means the default rule.
    pub redirect_hosts: Vec<String>,
    /// Whether frames travel between relays.
    pub bus: bool,
    /// Signs these frames.
    pub bus_key: Option<Secret>,
    /// Verifies, beside the other, what relays with the key before it have signed.
    pub previous_bus_key: Option<Secret>,
    /// Pause between pulls.
    pub bus_poll_interval: Duration,
    /// Frames of one pull.
    pub bus_pull_limit: u64,
    /// How long one pull waits for frames.
    pub bus_pull_wait: Duration,
    /// Age at which a signed frame is refused.
    pub bus_skew_max: Duration,
    /// Sources whose last frame is remembered.
    pub bus_freshness_max: usize,
}

impl Backplane {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        named: &Named,
        listen: &Listen,
        has_key: bool,
    ) -> Self {
        let bus = reader.flag("RELAY_BUS_ENABLED");
        let presence = reader.flag("RELAY_PRESENCE_SYNC_ENABLED");
        let redirect = reader.flag("RELAY_CLIENT_REDIRECT_ENABLED");
        let switched_on = bus.unwrap_or(false) || presence.unwrap_or(false);
        let mode = read_mode(reader, named, has_key, switched_on);
        let redis_url = read_redis_url(reader, named, mode);
        let alone = mode == BackplaneMode::Single;
        let announced = announces_by_default(reader, named, listen, alone);
        let presence = !alone && presence.unwrap_or(announced);
        let redirect = !alone && redirect.unwrap_or(announced);
        let reason = Source::Inferred("RELAY_BACKPLANE_MODE");
        reader.conclude("RELAY_PRESENCE_SYNC_ENABLED", digit(presence), reason.clone());
        reader.conclude("RELAY_CLIENT_REDIRECT_ENABLED", digit(redirect), reason);
        Self {
            mode,
            redis_url,
            redis_key_prefix: reader
                .text("RELAY_REDIS_KEY_PREFIX")
                .unwrap_or_else(|| "viewport:relay".to_owned()),
            redis_connect_timeout: reader.millis("RELAY_REDIS_CONNECT_TIMEOUT_MS"),
            redis_presence_ttl: reader.millis("RELAY_REDIS_PRESENCE_TTL_MS"),
            redis_queue_max: as_size(reader.count("RELAY_REDIS_QUEUE_MAX")),
            presence,
            presence_interval: reader.millis("RELAY_PRESENCE_SYNC_INTERVAL_MS"),
            presence_cache_max: as_size(reader.count("RELAY_PRESENCE_RESOLVE_CACHE_MAX")),
            redirect,
            redirect_hosts: reader.list("RELAY_REDIRECT_ALLOWED_HOSTS"),
            bus: !alone && bus.unwrap_or(false),
            bus_key: reader.secret("RELAY_BUS_HMAC_KEY"),
            previous_bus_key: reader.secret("RELAY_BUS_HMAC_KEY_PREVIOUS"),
            bus_poll_interval: reader.millis("RELAY_BUS_POLL_INTERVAL_MS"),
            bus_pull_limit: reader.count("RELAY_BUS_PULL_LIMIT"),
            bus_pull_wait: reader.millis("RELAY_BUS_PULL_WAIT_MS"),
            bus_skew_max: reader.millis("RELAY_BUS_SIGNATURE_MAX_SKEW_MS"),
            bus_freshness_max: as_size(reader.count("RELAY_BUS_FRESHNESS_TRACK_MAX")),
        }
    }
}

fn read_mode(
    reader: &mut Reader<'_>,
    named: &Named,
    has_key: bool,
    switched_on: bool,
) -> BackplaneMode {
    match reader.choice("RELAY_BACKPLANE_MODE") {
        Some("single") => return BackplaneMode::Single,
        Some("server") => return BackplaneMode::Server,
        Some(_) => return BackplaneMode::Redis,
        None => {}
    }
    let (mode, reason) = if named.backplane_is_redis() {
        (BackplaneMode::Redis, "RELAY_BACKPLANE_URL is a Redis URL")
    } else if has_key {
        (BackplaneMode::Server, "RELAY_INTERNAL_KEY is set")
    } else if switched_on {
        (BackplaneMode::Server, "bus or presence is switched on")
    } else {
        (BackplaneMode::Single, "no internal key, bus or presence")
    };
    reader.conclude("RELAY_BACKPLANE_MODE", mode.name(), Source::Inferred(reason));
    mode
}

fn read_redis_url(reader: &mut Reader<'_>, named: &Named, mode: BackplaneMode) -> Option<Secret> {
    let alias = reader.url("RELAY_REDIS_URL").map(|(_, text)| text);
    let documented = named.backplane.as_ref().filter(|_| named.backplane_is_redis());
    let documented = documented.map(|(_, text)| text.clone());
    if mode != BackplaneMode::Redis {
        if documented.is_some() && mode == BackplaneMode::Server {
            let what = "a Redis URL, but RELAY_BACKPLANE_MODE=server needs http or https";
            reader.refuse("RELAY_BACKPLANE_URL", what.to_owned());
        }
        return None;
    }
    if named.backplane.is_some() && documented.is_none() {
        let what = "no Redis URL, but RELAY_BACKPLANE_MODE=redis needs redis or rediss";
        reader.refuse("RELAY_BACKPLANE_URL", what.to_owned());
    }
    if let (Some(documented), Some(alias)) = (&documented, &alias)
        && documented != alias
    {
        let what = "RELAY_BACKPLANE_URL and RELAY_REDIS_URL mean the same and are set to \
                    different values";
        reader.refuse("RELAY_BACKPLANE_URL", what.to_owned());
    }
    documented.or(alias).map(Secret::new)
}

/// The reference announces itself under a public URL it makes up. Where the operator named no
/// address of ours, that would send other people's clients to a stranger.
fn announces_by_default(
    reader: &mut Reader<'_>,
    named: &Named,
    listen: &Listen,
    alone: bool,
) -> bool {
    let unnamed = named.by_validate_url_alone() && !listen.public_ws_url_named;
    if unnamed && !alone {
        reader.warnings.push(
            "RELAY_PUBLIC_WS_BASE_URL is unset: presence and redirect stay off unless switched on"
                .to_owned(),
        );
    }
    !unnamed
}

const fn digit(flag: bool) -> &'static str {
    if flag { "1" } else { "0" }
}
