//! Redis, where it is the backplane. This version connects to none: what is found matters to a
//! later one.

use std::time::Duration;

use redis::{Client, ErrorKind, RedisError, RedisResult};
use relay_contract::Secret;
use rustls::crypto::aws_lc_rs;
use url::Url;

use super::finding::{Finding, Verdict};
use super::names;
use crate::config::{BackplaneMode, Config};

const CHECK: &str = "redis";

/// Whether Redis lets us in, and keeps what it is given. Nothing to say in other modes.
pub(crate) async fn check(config: &Config) -> Vec<Finding> {
    let backplane = &config.backplane;
    let Some(address) = &backplane.redis_url else {
        return Vec::new();
    };
    if backplane.mode != BackplaneMode::Redis {
        return Vec::new();
    }
    let patience = backplane.redis_connect_timeout.min(PATIENCE_MAX);
    vec![as_of_now(examine(address, patience).await)]
}

/// Nothing here keeps anybody out while nothing goes over Redis.
fn as_of_now(finding: Finding) -> Finding {
    match finding.verdict {
        Verdict::Ok | Verdict::Warn => finding,
        Verdict::Fail => Finding {
            verdict: Verdict::Warn,
            found: format!("{}; this version connects to no Redis yet", finding.found),
            ..finding
        },
    }
}

async fn examine(address: &Secret, patience: Duration) -> Finding {
    let Ok(url) = Url::parse(address.expose()) else {
        let example = "RELAY_BACKPLANE_URL=redis://redis.corp:6379";
        return Finding::fail(CHECK, "RELAY_BACKPLANE_URL is no URL", example);
    };
    let host = url.host_str().unwrap_or("localhost").trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(PORT);
    let reached = names::reach_host(CHECK, "RELAY_BACKPLANE_URL", &host, port, patience).await;
    if let Err(finding) = reached {
        return finding;
    }
    let place = format!("{host}:{port}");
    let address = address.clone();
    // The commands have deadlines of their own; the TLS handshake has this one alone.
    let asked = tokio::task::spawn_blocking(move || Facts::ask(&address, patience));
    match tokio::time::timeout(patience.saturating_mul(STEPS), asked).await {
        Ok(Ok(Ok(facts))) => facts.judge(&place),
        Ok(Ok(Err(error))) => refused(&place, &error),
        Ok(Err(_)) | Err(_) => Finding::fail(
            CHECK,
            format!("{place} takes a connection and does not go on"),
            "redis:// where it speaks no TLS, rediss:// where it does; or a Redis that is not busy",
        ),
    }
}

/// What Redis says of itself.
#[derive(Debug, Default, Eq, PartialEq)]
struct Facts {
    version: String,
    /// Zero is no limit.
    memory_max: u64,
    eviction: String,
    role: String,
}

impl Facts {
    /// Blocks for at most [`STEPS`] times `patience`, but for a TLS handshake that hangs.
    fn ask(address: &Secret, patience: Duration) -> RedisResult<Self> {
        // Whoever came first has chosen the same.
        let _chosen = aws_lc_rs::default_provider().install_default();
        let client = Client::open(address.expose())?;
        let mut connection = client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        redis::cmd("PING").query::<()>(&mut connection)?;
        // One that must not look at itself still carries frames.
        let text = redis::cmd("INFO").query::<String>(&mut connection).unwrap_or_default();
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                "redis_version" => facts.version = value.to_owned(),
                "maxmemory" => facts.memory_max = value.parse().unwrap_or(0),
                "maxmemory_policy" => facts.eviction = value.to_owned(),
                "role" => facts.role = value.to_owned(),
                _ => {}
            }
        }
        facts
    }

    fn judge(&self, place: &str) -> Finding {
        if self.version.is_empty() {
            let found = format!("{place} lets us in; its version is not for us to see (INFO)");
            return Finding::ok(CHECK, found);
        }
        let is_old = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        let described = format!("{place}, Redis {}", self.version);
        if self.role == "slave" {
            return Finding::fail(
                CHECK,
                format!("{described}, is a replica: it takes no writes"),
                "RELAY_BACKPLANE_URL of the primary",
            );
        }
        if is_old.is_some_and(|major| major < VERSION_MIN) {
            return Finding::warn(
                CHECK,
                format!("{described}, gets no fixes any more"),
                format!("Redis {VERSION_MIN} or later"),
            );
        }
        if self.memory_max > 0 && self.eviction != "noeviction" {
            return Finding::warn(
                CHECK,
                format!(
                    "{described}, forgets keys when its memory is full ({}): daemons would vanish \
                     for other relays",
                    self.eviction
                ),
                "CONFIG SET maxmemory-policy noeviction, on a Redis of the relays' own",
            );
        }
        Finding::ok(CHECK, format!("{described}, lets us in and forgets nothing"))
    }
}

/// What a refusal means. Redis quotes no password.
fn refused(place: &str, error: &RedisError) -> Finding {
    let text = error.to_string();
    let needs_user = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
        || error.kind() == ErrorKind::AuthenticationFailed;
    let remedy = if needs_user {
        "user and password in the URL, RELAY_BACKPLANE_URL=redis://user:password@host:6379, as \
         Redis has them"
    } else if text.contains("UnknownIssuer") {
        "a certificate of an authority this machine knows, or that authority among the system's \
         (update-ca-certificates)"
    } else if text.contains("NotValidForName") || text.contains("not valid for name") {
        "the host name as the certificate of Redis has it"
    } else {
        "redis:// where it speaks no TLS, rediss:// where it does"
    };
    Finding::fail(CHECK, format!("{place}: {text}"), remedy)
}

/// Connecting, PING, INFO.
const STEPS: u32 = 3;

/// An operator waits for this; the relay may wait longer.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// Source: the Redis URI scheme.
const PORT: u16 = 6379;

/// Users (ACL), and timeouts below a second, exist since 6.
const VERSION_MIN: u32 = 6;

#[cfg(test)]
#[path = "redis_server_tests.rs"]
mod tests;
