//! Every variable the program reads: its name, form, default and meaning.

use std::fmt;

/// How the text of a variable is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Any text; surrounding blanks do not count, blank is unset.
    Text,
    /// Text that is never shown. Also read from the file that `<NAME>_FILE` names.
    Secret,
    /// A file or directory; taken as it stands.
    Path,
    /// An absolute URL with one of these schemes.
    Url(&'static [&'static str]),
    /// Texts separated by commas.
    List,
    /// Yes or no, in the words of [`FLAG_WORDS`].
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number above zero. Anything else counts as unset, with a warning.
    Count,
    /// Bytes, with a unit if need be, or a percentage.
    Size,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Secret => f.write_str("secret"),
            Self::Path => f.write_str("path"),
            Self::Url(schemes) => write!(f, "URL ({})", schemes.join(", ")),
            Self::List => f.write_str("list"),
            Self::Flag => f.write_str("flag"),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Count => f.write_str("number"),
            Self::Size => f.write_str("size"),
        }
    }
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    /// The documented name.
    pub name: &'static str,
    /// Another name for the same thing. Both with different values are an error.
    pub alias: Option<&'static str>,
    /// How its text is read.
    pub kind: Kind,
    /// What holds when it is unset: the value itself, or words in parentheses.
    pub default: &'static str,
    /// A value that would be accepted.
    pub example: &'static str,
    /// What it does, in one sentence.
    pub meaning: &'static str,
    /// What becomes of another value when the configuration is read again.
    pub change: Change,
}

/// What becomes of another value when the configuration is read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// It takes effect.
    AtOnce,
    /// All of it is refused, naming this variable: it takes effect after a restart.
    AfterRestart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "at once",
            Self::AfterRestart => "restart",
        })
    }
}

impl Variable {
    /// The variable of this documented name.
    ///
    /// Panics for a name outside [`VARIABLES`]: names are written in the source, never read.
    pub(crate) fn named(name: &str) -> &'static Self {
        VARIABLES
            .iter()
            .find(|variable| variable.name == name)
            .expect("every name the parser asks for stands in the table")
    }

    /// The variable that has this documented name or alias.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name || variable.alias == Some(name))
    }

    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    const fn at_once(mut self) -> Self {
        self.change = Change::AtOnce;
        self
    }
}

/// The words of a [`Kind::Flag`], in the exact case they must have.
pub(crate) const FLAG_WORDS: [(&str, bool); 8] = [
    ("0", false),
    ("1", true),
    ("false", false),
    ("true", true),
    ("no", false),
    ("yes", true),
    ("off", false),
    ("on", true),
];

const HTTP: Kind = Kind::Url(&["http", "https"]);
const WEBSOCKET: Kind = Kind::Url(&["ws", "wss"]);
const REDIS: Kind = Kind::Url(&["redis", "rediss"]);
const BACKPLANE: Kind = Kind::Url(&["http", "https", "redis", "rediss"]);
const PLATFORM_VERIFY: Kind = Kind::Choice(&["auto", "0", "1"]);
const PLATFORM_AUTH: Kind = Kind::Choice(&["mtls", "private_network_shared_secret"]);

const fn any(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, alias: None, kind, default, example, meaning, change: Change::AfterRestart }
}

const fn count(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    any(name, Kind::Count, default, default, meaning)
}

const fn flag(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    any(name, Kind::Flag, default, "1", meaning)
}

const fn secret(name: &'static str, example: &'static str, meaning: &'static str) -> Variable {
    any(name, Kind::Secret, "(none)", example, meaning)
}

const fn path(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    any(name, Kind::Path, default, "/etc/relay/file.pem", meaning)
}

/// The whole environment, in the order of `docs/config.md` and `relay config check`.
#[rustfmt::skip]
pub(crate) const VARIABLES: &[Variable] = &[
    any("RELAY_CONFIG", Kind::Path, "(none)", "/etc/relay/relay.toml",
        "Configuration file, below environment and flags; also --config."),
    any("HOST", Kind::Text, "127.0.0.1", "0.0.0.0",
        "Address to bind; `::` takes IPv6 and IPv4. In a container the default is 0.0.0.0."),
    count("RELAY_LISTEN_PORT", "7781", "Port to bind.").or("PORT"),
    any("RELAY_LISTEN_UNIX", Kind::Path, "(none)", "/run/relay/relay.sock",
        "Unix socket to listen on for a proxy on the same host: instead of a port, or beside it \
         when HOST or RELAY_LISTEN_PORT is set."),
    any("RELAY_LISTEN_UNIX_MODE", Kind::Text, "0660", "0660",
        "Permissions of that socket: whoever may open it is a trusted proxy."),
    any("RELAY_MODE", Kind::Choice(&["dev", "staging", "prod"]), "(inferred)", "prod",
        "`dev` accepts tokens in the query and shows more; `prod` insists on safe settings; \
         `staging` does neither."),
    any("RELAY_ID", Kind::Text, "(HOST:PORT:random)", "relay-eu-1",
        "Names this relay among those that share a backplane."),
    any("RELAY_PUBLIC_WS_BASE_URL", WEBSOCKET, "(from TLS host and port)", "wss://relay.corp/ws",
        "Where clients reach this relay; announced to other relays."),

    any("RELAY_TLS", Kind::Choice(&["auto", "0", "1"]), "auto", "1",
        "TLS on the listening port; `auto` means when certificate and key exist."),
    any("RELAY_TLS_TERMINATION", Kind::Choice(&["self", "platform"]), "self", "platform",
        "`platform` says that something in front of the relay ends TLS. The default is `platform` \
         when RELAY_VALIDATE_URL names the platform and SERVER_URL does not."),
    any("RELAY_TLS_HOST", Kind::Text, "relay.getviewport.com", "relay.corp",
        "Host name of the certificate."),
    path("RELAY_TLS_CERT_DIR", "(~/.viewport/relay-certs)",
        "Directory of `<host>.crt` and `<host>.key`.").at_once(),
    path("RELAY_TLS_CERT_PATH", "(<dir>/<host>.crt)",
        "Certificate chain, its own first, in PEM or DER. Read again when it changes.").at_once(),
    path("RELAY_TLS_KEY_PATH", "(<dir>/<host>.key)",
        "Private key, not encrypted, in PEM or DER. May be the same file.").at_once(),
    path("RELAY_TLS_CLIENT_CA_PATH", "(none)",
        "Certificates of those who vouch for clients' certificates.").at_once(),
    any("RELAY_TLS_CLIENT_AUTH", Kind::Choice(&["none", "optional", "required"]),
        "(required with RELAY_TLS_CLIENT_CA_PATH, else none)", "optional",
        "Whether clients have to show a certificate.").at_once(),
    count("RELAY_TLS_HANDSHAKE_TIMEOUT_MS", "10000",
        "How long a TLS handshake may take, however it drips.").at_once(),
    count("RELAY_TLS_HANDSHAKES_MAX", "2048",
        "TLS handshakes going on in one shard; more connections are closed.").at_once(),

    flag("RELAY_ENABLE_ADMIN_HTTP", "0", "Serves /state, /logs, /metrics, /histograms and /node."),
    any("RELAY_ADMIN_LISTEN", Kind::Text, "(the relay's port)", "unix:/run/relay/admin.sock",
        "Serves them at HOST:PORT or unix:/PATH instead, with /health and /ready, without TLS; the \
         relay's port then answers 404."),
    secret("RELAY_ADMIN_TOKEN", "$(openssl rand -base64 32)", "Bearer token of these endpoints.")
        .at_once(),
    secret("RELAY_ADMIN_TOKEN_PREVIOUS", "$(cat old-token)",
        "The token before it, accepted too while it is rotated.").at_once(),
    flag("RELAY_HEALTH_VERBOSE", "(1 in dev, else 0)",
        "Shows mode, TLS and relay id in /health, and details in /logs and /state."),
    flag("RELAY_STATE_INCLUDE_CLIENT_IDS", "(1 in dev, else 0)", "Lists client ids in /state.")
        .at_once(),
    any("RELAY_CONTROL_API_LISTEN", Kind::Text, "(none)", "unix:/run/relay/control.sock",
        "Serves the control API (gRPC) at unix:/PATH or HOST:PORT; `relay ctl` calls it."),
    secret("RELAY_CONTROL_API_OPERATOR_TOKEN", "$(openssl rand -base64 32)",
        "Bearer token of those who may make every call at HOST:PORT.").at_once(),
    secret("RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS", "$(cat old-token)",
        "The token before it, accepted too while it is rotated.").at_once(),
    secret("RELAY_CONTROL_API_READER_TOKEN", "$(openssl rand -hex 32)",
        "Bearer token of those who may make the calls there that change nothing.").at_once(),
    secret("RELAY_CONTROL_API_READER_TOKEN_PREVIOUS", "$(cat old-reader-token)",
        "The token before it, accepted too while it is rotated.").at_once(),
    path("RELAY_CONTROL_API_TLS_CERT_PATH", "(none)",
        "Certificate chain of HOST:PORT in PEM; needed where that is not loopback."),
    path("RELAY_CONTROL_API_TLS_KEY_PATH", "(none)", "Its private key in PEM, not encrypted."),
    path("RELAY_CONTROL_API_TLS_CLIENT_CA_PATH", "(none)",
        "Certificates of those who vouch for clients' certificates; then nobody comes in without \
         one, and without tokens whoever has one is an operator."),
    any("RELAY_REVOCATIONS_FILE", Kind::Path, "(none)", "/var/lib/relay/revocations",
        "Where revocations are kept, so that they hold when the relay starts anew; without it they \
         end with the process."),
    any("RELAY_AUDIT_LOG", Kind::Text, "stdout", "/var/log/relay/audit.log",
        "Where calls of the control API that change something are written down: `stdout`, `off`, \
         or the path of a file."),
    any("RELAY_AUDIT_LOG_MAX_BYTES", Kind::Size, "64MiB", "64MiB",
        "Size of that file; beyond it the next is begun."),
    count("RELAY_AUDIT_LOG_FILES", "8", "Full files that are kept beside it."),
    count("MAX_LOGS", "400", "Entries kept for /logs."),
    any("RELAY_LOG_LEVEL", Kind::Choice(&["debug", "info", "warn", "error"]), "info", "warn",
        "The least that is written to stdout; /logs shows the same whatever it is.").at_once(),
    any("RELAY_LOG_FORMAT", Kind::Choice(&["json", "text"]), "json", "text",
        "How a line on stdout looks.").at_once(),

    any("SERVER_URL", HTTP, "https://api.getviewport.com", "https://api.corp",
        "The platform: validation, presence, bus, worker calls."),
    any("RELAY_VALIDATE_URL", HTTP, "(SERVER_URL/api/runtime/internal/relay/validate)",
        "https://api.corp/api/runtime/internal/relay/validate",
        "Full URL that validates tokens. Its origin is the platform when SERVER_URL is unset."),
    secret("RELAY_INTERNAL_KEY", "$(openssl rand -base64 32)",
        "Shared secret of the platform's internal endpoints.").at_once(),
    secret("RELAY_INTERNAL_KEY_PREVIOUS", "$(cat old-key)",
        "The secret before it: used when the platform refuses the other, while it is rotated.")
        .at_once(),
    count("RELAY_ADMISSION_TIMEOUT_MS", "2000", "How long one validation may take in all.")
        .at_once(),
    count("RELAY_ADMISSION_MAX_RESPONSE_BYTES", "262144", "Bytes of one validation answer.")
        .at_once(),
    count("RELAY_INTERNAL_API_TIMEOUT_MS", "2000",
        "How long any other call to the platform may take.").at_once(),
    count("RELAY_INTERNAL_API_MAX_RESPONSE_BYTES", "262144",
        "Bytes of any other answer of the platform.").at_once(),
    any("RELAY_SERVER_TLS_VERIFY", PLATFORM_VERIFY, "auto", "1",
        "Checks the platform's certificate; `auto`: except for localhost and *.test."),
    any("RELAY_SERVER_AUTH_MODE", PLATFORM_AUTH, "mtls", "private_network_shared_secret",
        "How the relay proves itself in `prod`. The default is `private_network_shared_secret` \
         when RELAY_VALIDATE_URL names the platform, SERVER_URL does not and mTLS is off."),
    path("RELAY_SERVER_CA_CERT_PATH", "(system roots)",
        "Authorities for the platform's certificate, instead of the system's."),
    flag("RELAY_SERVER_MTLS", "0",
        "Shows a client certificate to the platform; on as soon as both paths are set."),
    path("RELAY_SERVER_CLIENT_CERT_PATH", "(none)", "Client certificate in PEM."),
    path("RELAY_SERVER_CLIENT_KEY_PATH", "(none)", "Its private key in PEM."),
    secret("RELAY_SERVER_CLIENT_KEY_PASSPHRASE", "correct-horse", "Passphrase of that key."),

    any("RELAY_ADMISSION", Kind::Choice(&["validate", "jwks", "both"]),
        "(both with RELAY_JWKS_URL, else validate)", "jwks",
        "Who judges tokens: the platform, local keys alone, or local keys and then the platform.")
        .at_once(),
    any("RELAY_JWKS_URL", HTTP, "(none)", "https://api.corp/.well-known/jwks.json",
        "Where signing keys are fetched; switches local token checks on.").at_once(),
    any("RELAY_JWT_ISSUER", Kind::Text, "(viewport-server with jwks, else unchecked)",
        "viewport-server", "Issuer a token must have.").at_once(),
    any("RELAY_JWT_ISSUERS", Kind::List, "(none)",
        "https://login.partner.corp=https://login.partner.corp/keys",
        "More issuers, each as ISSUER=URL of its keys. A token is checked with the keys of the \
         issuer it names, and with no others.").at_once(),
    any("RELAY_JWT_AUDIENCE", Kind::Text, "(viewport-relay with jwks, else unchecked)",
        "viewport-relay", "Audience a token must have.").at_once(),
    count("RELAY_JWT_LEEWAY_SECS", "30", "Clock difference tolerated in token times.").at_once(),
    count("RELAY_JWKS_REFRESH_SECS", "600",
        "Time between fetches of a key set whose server says nothing about it (Cache-Control).")
        .at_once(),
    count("RELAY_JWKS_REFRESH_MIN_SECS", "60", "The least time, whatever it says.").at_once(),
    count("RELAY_JWKS_REFRESH_MAX_SECS", "3600", "The most time, whatever it says.").at_once(),
    count("RELAY_JWKS_COOLDOWN_SECS", "30",
        "Time between fetches that tokens with unknown keys cause.").at_once(),
    count("RELAY_JWKS_MAX_AGE_SECS", "86400",
        "How long a key set is used that cannot be fetched anew.").at_once(),
    any("RELAY_JWKS_UNKNOWN_KEY", Kind::Choice(&["ask", "refuse"]), "ask", "refuse",
        "Tokens whose key is in no set after a fresh look: the platform is asked (unless \
         RELAY_ADMISSION=jwks), or they are refused.").at_once(),
    any("RELAY_JWKS_WITHDRAWN", Kind::Choice(&["ignore", "grace", "close"]), "grace", "close",
        "Connections whose signing key is published no more: they stay, end within the grace \
         time, or end at once.").at_once(),
    count("RELAY_JWKS_WITHDRAWN_GRACE_SECS", "300",
        "That grace time. They end spread over its second half.").at_once(),
    any("RELAY_TOKEN_EXPIRY", Kind::Choice(&["ignore", "grace", "close"]), "ignore", "close",
        "Connections whose token expires: they stay, end after the grace time, or end at once. \
         A fresh token sent over the connection keeps it.").at_once(),
    count("RELAY_TOKEN_EXPIRY_GRACE_SECS", "60", "That grace time.").at_once(),
    any("RELAY_DECISION_CACHE_MS", Kind::Count, "(none)", "5000",
        "How long the platform's acceptance is used for the same token, role, workspace and \
         target again. A revocation ends it.").at_once(),
    count("RELAY_VALIDATE_CONCURRENCY", "256", "Validations under way at a time.").at_once(),
    count("RELAY_ADMISSION_WAIT_MS", "7500",
        "How long an upgrade waits for its validation to begin; then 503 with Retry-After.")
        .at_once(),
    count("RELAY_UNDECIDED_PER_SECOND", "50",
        "Tokens per second that local checks cannot decide and that the platform refuses; more \
         are answered 503.").at_once(),

    count("RELAY_MAX_TOTAL_CONNECTIONS", "2000", "Daemons and clients of the whole relay.")
        .at_once(),
    count("RELAY_MAX_CONNECTIONS_PER_IP", "50", "Connections of one address.").at_once(),
    count("RELAY_MAX_CLIENTS_PER_WORKSPACE", "100", "Clients of one workspace and target.")
        .at_once(),
    count("RELAY_MAX_FRAME_BYTES", "1048576", "Bytes of one message.").at_once(),
    count("RELAY_MAX_PENDING_BYTES", "4194304", "Bytes waiting for one slow reader.").at_once(),
    count("RELAY_UPGRADE_RATE_PER_MINUTE", "120", "Upgrade attempts of one address per minute.")
        .at_once(),
    count("RELAY_UPGRADE_BUCKET_MAX", "50000", "Addresses that limiter tracks.").at_once(),
    count("RELAY_PENDING_UPGRADES_MAX", "16384", "Upgrades that may wait for their validation.")
        .at_once(),
    count("RELAY_KEX_INIT_RATE_PER_MINUTE", "60", "Key exchanges of one client per minute.")
        .at_once(),
    count("RELAY_KEX_RATE_LIMITER_MAX_KEYS", "20000", "Clients that limiter tracks.").at_once(),
    count("RELAY_RUNTIME_RATE_PER_MINUTE", "240", "Encrypted frames of one client per minute.")
        .at_once(),
    count("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1200",
        "Encrypted frames of one workspace's clients per minute.").at_once(),
    count("RELAY_RUNTIME_RATE_LIMITER_MAX_KEYS", "20000", "Clients that limiter tracks.").at_once(),
    count("RELAY_RUNTIME_WORKSPACE_RATE_LIMITER_MAX_KEYS", "10000",
        "Workspaces that limiter tracks.").at_once(),
    count("RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE", "2400",
        "Messages of one workspace's daemons and workers per minute.").at_once(),
    count("RELAY_DAEMON_RATE_LIMITER_MAX_KEYS", "10000", "Workspaces that limiter tracks.")
        .at_once(),
    count("RELAY_PAIRING_RATE_PER_MINUTE", "30", "Pairing frames of one client per minute.")
        .at_once(),
    count("RELAY_PAIRING_RATE_LIMITER_MAX_KEYS", "20000", "Clients that limiter tracks.").at_once(),
    count("RELAY_UNROUTED_FRAME_RATE_PER_MINUTE", "600",
        "Invalid frames and subscriptions of one client connection per minute.").at_once(),
    count("RELAY_SMALL_FRAME_RATE_PER_MINUTE", "20000",
        "Pings, pongs and small fragments of one connection per minute.").at_once(),
    count("RELAY_PAIRING_REQUEST_TRACK_MAX", "2048",
        "Pairings, and key exchanges, one target may have waiting.").at_once(),
    count("RELAY_SESSION_OWNER_TRACK_MAX", "4096", "Sessions remembered for one target.").at_once(),
    any("RELAY_TRUSTED_PROXIES", Kind::List, "(none)", "10.0.0.0/8,192.168.1.7",
        "Peers whose X-Forwarded-For is believed: addresses and networks.").at_once(),
    any("RELAY_ALLOWED_ORIGINS", Kind::List, "(every origin)",
        "https://app.corp,https://*.app.corp",
        "Whose pages may connect from a browser. `*` stands for one label of a host; `null` for \
         pages without an origin. What is no browser is not asked.").at_once(),
    any("RELAY_PROXY_PROTOCOL", Kind::Choice(&["off", "required"]), "off", "required",
        "`required`: every connection of a trusted proxy begins with a PROXY header, version 1 or \
         2; that of others never does."),

    count("RELAY_PING_INTERVAL_MS", "30000", "Time between pings.").at_once(),
    count("RELAY_PONG_TIMEOUT_MS", "10000", "Silence after a ping that ends a connection.")
        .at_once(),
    count("RELAY_IDLE_TIMEOUT_MS", "300000",
        "Time without message or pong that ends a connection.").at_once(),
    count("RELAY_HEAD_TIMEOUT_MS", "10000",
        "How long a request head may take, and then its body, however it drips.").at_once(),
    count("RELAY_KEEP_ALIVE_TIMEOUT_MS", "5000",
        "How long an HTTP connection may idle between two requests.").at_once(),
    count("RELAY_CLOSE_TIMEOUT_MS", "30000",
        "How long a peer may take to read its last bytes and to answer a close frame.").at_once(),
    count("RELAY_TCP_KEEPALIVE_SECS", "60",
        "Silence after which TCP asks whether a peer is still there; after as long again without \
         an answer the connection is cut."),
    count("RELAY_TCP_USER_TIMEOUT_MS", "60000",
        "How long sent bytes may stay unacknowledged, or a peer's window closed, before TCP cuts \
         the connection."),
    count("RELAY_EMPTY_WORKSPACE_TTL_MS", "120000",
        "How long an empty workspace is remembered, at most.").at_once(),
    count("RELAY_CLEANUP_INTERVAL_MS", "30000", "Time between searches for empty workspaces.")
        .at_once(),

    any("RELAY_BACKPLANE_MODE", Kind::Choice(&["single", "server", "redis"]), "(inferred)",
        "redis", "How relays reach each other: not at all, through the platform, or by Redis."),
    any("RELAY_BACKPLANE_URL", BACKPLANE, "(RELAY_REDIS_URL or SERVER_URL)",
        "rediss://redis.corp:6380",
        "The backplane's endpoint: Redis in mode redis, the platform in mode server."),
    any("RELAY_REDIS_URL", REDIS, "(none)", "redis://redis.corp:6379",
        "Alias of RELAY_BACKPLANE_URL in mode redis."),
    any("RELAY_REDIS_KEY_PREFIX", Kind::Text, "viewport:relay", "corp:relay",
        "What every key in Redis starts with."),
    count("RELAY_REDIS_CONNECT_TIMEOUT_MS", "5000", "How long connecting to Redis may take."),
    count("RELAY_REDIS_PRESENCE_TTL_MS", "45000", "How long presence in Redis lives."),
    count("RELAY_REDIS_QUEUE_MAX", "10000", "Frames that may wait in Redis for one relay."),
    flag("RELAY_PRESENCE_SYNC_ENABLED", "(1 unless single)", "Announces daemons to other relays."),
    count("RELAY_PRESENCE_SYNC_INTERVAL_MS", "20000", "Time between announcements."),
    count("RELAY_PRESENCE_RESOLVE_CACHE_MAX", "10000", "Answers about daemons kept."),
    flag("RELAY_CLIENT_REDIRECT_ENABLED", "(1 unless single)",
        "Sends clients to the relay that holds their daemon."),
    any("RELAY_REDIRECT_ALLOWED_HOSTS", Kind::List, "(own hosts in prod, else any)",
        "relay-a.corp,relay-b.corp", "Hosts a client may be sent to.").at_once(),
    flag("RELAY_BUS_ENABLED", "0", "Carries frames between relays."),
    secret("RELAY_BUS_HMAC_KEY", "$(openssl rand -base64 32)", "Signs frames between relays."),
    secret("RELAY_BUS_HMAC_KEY_PREVIOUS", "$(cat old-key)",
        "The key before it: frames signed with it are accepted too, while it is rotated."),
    count("RELAY_BUS_POLL_INTERVAL_MS", "250", "Pause between pulls from the bus."),
    count("RELAY_BUS_PULL_LIMIT", "200", "Frames of one pull."),
    count("RELAY_BUS_PULL_WAIT_MS", "1000", "How long one pull waits for frames."),
    count("RELAY_BUS_SIGNATURE_MAX_SKEW_MS", "15000", "Age at which a signed frame is refused."),
    count("RELAY_BUS_FRESHNESS_TRACK_MAX", "20000", "Sources whose last frame is remembered."),

    any("RELAY_ROLE", Kind::Choice(&["all", "dataplane", "controlplane"]), "all", "dataplane",
        "What this process is: both planes, or one of them (docs/two-processes.md)."),
    any("RELAY_CONTROL_URL", Kind::Text, "(none)", "unix:/run/relay/planes.sock",
        "Where a data plane finds its control plane: unix:/PATH or http(s)://HOST:PORT."),
    any("RELAY_CONTROL_LISTEN", Kind::Text, "(none)", "unix:/run/relay/planes.sock",
        "Where a control plane waits for its data planes: unix:/PATH or IP:PORT."),
    secret("RELAY_CONTROL_TOKEN", "$(openssl rand -base64 32)",
        "A secret that both planes know: a data plane shows it.").at_once(),
    secret("RELAY_CONTROL_TOKEN_PREVIOUS", "$(cat old-token)",
        "The token before it, which a control plane accepts too while it is rotated.").at_once(),
    path("RELAY_CONTROL_CA_PATH", "(none)",
        "Who vouches for the other plane's certificate, in PEM. A control plane that has it lets \
         in data planes with such a certificate alone."),
    path("RELAY_CONTROL_CERT_PATH", "(none)",
        "Certificate chain this plane shows the other, in PEM. A control plane that has it speaks \
         TLS."),
    path("RELAY_CONTROL_KEY_PATH", "(none)", "Its private key, in PEM, not encrypted."),

    any("RELAY_DRIVER", Kind::Choice(&["auto", "uring", "epoll", "monoio"]), "auto", "epoll",
        "What moves bytes: io_uring, epoll (also called monoio), or io_uring where it can be had."),
    any("RELAY_SHARDS", Kind::Count, "(one per usable core)", "4", "Data-plane threads."),
    any("RELAY_BUSY_POLL_US", Kind::Count, "(none)", "200",
        "How long a shard looks out for frames before it sleeps, in microseconds: it halves the \
         time a lone frame takes, and costs a whole core per shard as long as frames come more \
         often."),
    any("RELAY_MEMORY_BUDGET", Kind::Size,
        "(half of the cgroup's limit or the machine's memory)", "512MiB",
        "Memory the process may use: bytes, KiB, MiB, GiB, or a percentage of what there is. Near \
         it new connections are answered 503; docs/budgets.md says who gets which part."),
    count("RELAY_DRAIN_MS", "10000",
        "How long a stopping relay takes: peers are told to go over four fifths of it at most, a \
         millisecond each, and the rest is theirs.").at_once(),
    flag("RELAY_CORE_DUMPS", "0",
        "Lets a crash leave a core dump, with every key in it, and debuggers attach."),
];

/// All variables as a Markdown table, as it stands in `docs/config.md`.
pub(crate) fn table_of_variables() -> String {
    let mut table = String::from(
        "| variable | also | value | default | example | change | meaning |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for variable in VARIABLES {
        let alias = variable.alias.map_or(String::new(), |alias| format!("`{alias}`"));
        let default = match variable.default.starts_with('(') {
            true => variable.default.to_owned(),
            false => format!("`{}`", variable.default),
        };
        table += &format!(
            "| `{}` | {alias} | {} | {default} | `{}` | {} | {} |\n",
            variable.name, variable.kind, variable.example, variable.change, variable.meaning
        );
    }
    table
}
