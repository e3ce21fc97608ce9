//! What the controller is told at its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Level, Limits, Routes, Secret};
use url::Url;

use crate::jwks::KeySchedule;

/// Everything the controller needs to know, already parsed. A value that exists is valid: the
/// program checks the environment before it makes one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program's version, for `relay_info` and `/node`.
    pub version: &'static str,
    /// This relay among those that share a backplane. `RELAY_ID`
    pub relay_id: String,
    /// The word for the mode, as shown: `dev`, `staging`, `prod`. `RELAY_MODE`
    pub mode: &'static str,
    /// The address bound, as configured. `HOST`
    pub host: String,
    /// The port bound. `RELAY_LISTEN_PORT`
    pub port: u16,
    /// The platform's URL as configured, for `/state` and `relay_started`. `SERVER_URL`
    pub server_url: String,
    /// Where worker calls go: the origin of `SERVER_URL`, or of `RELAY_VALIDATE_URL` without one.
    pub platform: Url,
    /// Where tokens are validated, used as given. The internal key is sent here.
    pub validate_url: Url,
    /// Where clients reach this relay. `RELAY_PUBLIC_WS_BASE_URL`
    pub public_ws_url: String,
    /// The shared secret of relay and platform. `RELAY_INTERNAL_KEY`
    pub internal_key: Option<Secret>,
    /// The key before it: asked with when the platform does not know the other.
    /// `RELAY_INTERNAL_KEY_PREVIOUS`
    pub internal_key_previous: Option<Secret>,
    /// Who decides about a token. `RELAY_ADMISSION`
    pub admission: Admission,
    /// Local token checks; needed for every admission but [`Admission::Validate`].
    pub jwks: Option<JwksSettings>,
    /// What becomes of connections whose token expires. `RELAY_TOKEN_EXPIRY`,
    /// `RELAY_TOKEN_EXPIRY_GRACE_SECS`
    pub expiry: Ending,
    /// How long an acceptance of the platform is used for the same question again, if at all.
    /// `RELAY_DECISION_CACHE_MS`
    pub decision_cache: Option<Duration>,
    /// Where revocations are kept beyond the life of the process, if anywhere.
    /// `RELAY_REVOCATIONS_FILE`
    pub revocations_file: Option<PathBuf>,
    /// The whole of a validate call, from first to last byte. `RELAY_ADMISSION_TIMEOUT_MS`
    pub admission_timeout: Duration,
    /// Bytes of a validate answer. Reached: refused. `RELAY_ADMISSION_MAX_RESPONSE_BYTES`
    pub admission_response_bytes_max: usize,
    /// The whole of any other internal call. `RELAY_INTERNAL_API_TIMEOUT_MS`
    pub internal_timeout: Duration,
    /// Bytes of the answer to any other internal call. `RELAY_INTERNAL_API_MAX_RESPONSE_BYTES`
    pub internal_response_bytes_max: usize,
    /// How the platform's TLS is judged, and what we show it.
    pub platform_tls: PlatformTls,
    /// Who may read `/state`, `/logs`, `/metrics` and `/node`.
    pub admin: AdminAccess,
    /// Shows `serverUrl`, TLS and the public URL in `/state`, and details in `/logs`.
    /// `RELAY_HEALTH_VERBOSE`
    pub health_verbose: bool,
    /// Shows identifiers of clients and targets in `/state`. `RELAY_STATE_INCLUDE_CLIENT_IDS`
    pub state_includes_client_ids: bool,
    /// What is written to stdout and remembered for `/logs`.
    pub log: LogSettings,
    /// How connections of peers are encrypted, for display.
    pub tls: TlsFacts,
    /// How relays share frames, for display.
    pub backplane: BackplaneFacts,
    /// Caps judged at every upgrade.
    pub caps: Caps,
    /// The first version of the shards' limits, for `relay_started`.
    pub limits: Arc<Limits>,
    /// The first version of the routes.
    pub routes: Arc<Routes>,
    /// Memory the process may use, for `/node`. `RELAY_MEMORY_BUDGET`
    pub memory_budget_bytes: u64,
    /// The driver the shards run on, for `/node` and `relay_info`.
    pub driver: &'static str,
    /// Time peers have to leave at shutdown. `RELAY_DRAIN_MS`
    pub drain: Duration,
}

/// What is written to stdout, and remembered for `/logs`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogSettings {
    /// The least level that is written. `RELAY_LOG_LEVEL`
    pub level: Level,
    /// How a line looks. `RELAY_LOG_FORMAT`
    pub format: LogFormat,
    /// Entries `/logs` remembers, whatever their level. `MAX_LOGS`
    pub entries_max: usize,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// A JSON object.
    Json,
    /// Words for people.
    Text,
}

/// Who decides about a token. Source: relay specification, section 0b.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// The platform alone, as the reference does.
    Validate,
    /// The key set alone; the platform is not asked.
    Jwks,
    /// The key set refuses what it proves bad; the platform decides about the rest.
    Both,
}

impl Admission {
    /// The word for it in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Jwks => "jwks",
            Self::Both => "both",
        }
    }
}

/// What a token is checked against locally.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JwksSettings {
    /// Whose tokens are checked: one at least. `RELAY_JWKS_URL` with `RELAY_JWT_ISSUER`, and
    /// `RELAY_JWT_ISSUERS`
    pub issuers: Vec<IssuerSettings>,
    /// The `aud` a token must name, if any is demanded. `RELAY_JWT_AUDIENCE`
    pub audience: Option<String>,
    /// How far clocks may disagree about `exp` and `nbf`. `RELAY_JWT_LEEWAY_SECS`
    pub leeway: Duration,
    /// When key sets are fetched. `RELAY_JWKS_REFRESH_SECS`, `RELAY_JWKS_REFRESH_MIN_SECS`,
    /// `RELAY_JWKS_REFRESH_MAX_SECS`, `RELAY_JWKS_COOLDOWN_SECS`, `RELAY_JWKS_MAX_AGE_SECS`
    pub schedule: KeySchedule,
    /// What becomes of tokens whose key no set has. `RELAY_JWKS_UNKNOWN_KEY`
    pub unknown_keys: UnknownKeys,
    /// What becomes of connections whose key was withdrawn. `RELAY_JWKS_WITHDRAWN`,
    /// `RELAY_JWKS_WITHDRAWN_GRACE_SECS`
    pub withdrawn: Ending,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuerSettings {
    /// The `iss` of its tokens; unnamed, everybody whom nothing else here names.
    pub issuer: Option<String>,
    /// Where its key set is fetched. No key of ours is sent there.
    pub url: Url,
}

/// What becomes of tokens whose key is in no set, after a fresh look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UnknownKeys {
    /// The platform is asked, where it is asked at all, as often as
    /// [`Caps::undecided_per_second`] allows.
    #[default]
    Ask,
    /// They are refused: every key of our issuers is in their sets.
    Refuse,
}

/// What becomes of a connection whose token is good no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// It stays, as with the reference.
    Ignore,
    /// It ends after this time, unless its peer presents a fresh token.
    Grace(Duration),
    /// It ends at once.
    Close,
}

/// TLS towards the platform. Source: relay specification, section 15.
#[derive(Clone, Debug, Default)]
pub struct PlatformTls {
    /// Whether its certificate is checked. `RELAY_SERVER_TLS_VERIFY`
    pub verify: Verify,
    /// PEM file that replaces the system's roots. `RELAY_SERVER_CA_CERT_PATH`
    pub ca_path: Option<PathBuf>,
    /// What we show the platform.
    pub client: Option<ClientCertificate>,
}

/// Whether a certificate is checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verify {
    /// Yes, except for the host `localhost` and hosts below `.test`.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// Our certificate, read again when its files change.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// PEM file of the chain. `RELAY_SERVER_CLIENT_CERT_PATH`
    pub cert_path: PathBuf,
    /// PEM file of its key. `RELAY_SERVER_CLIENT_KEY_PATH`
    pub key_path: PathBuf,
    /// Opens the key, if it is encrypted (PKCS #8). `RELAY_SERVER_CLIENT_KEY_PASSPHRASE`
    pub passphrase: Option<Secret>,
}

/// Who may read what the operator reads.
#[derive(Clone, Debug, Default)]
pub struct AdminAccess {
    /// Whether these paths exist at all. `RELAY_ENABLE_ADMIN_HTTP`
    pub enabled: bool,
    /// What a request must show; without one every request is refused. `RELAY_ADMIN_TOKEN`,
    /// trimmed.
    pub token: Option<Secret>,
    /// The token before it, accepted too until everybody has the other.
    /// `RELAY_ADMIN_TOKEN_PREVIOUS`
    pub previous_token: Option<Secret>,
    /// Whether operators have a door of their own: then the relay's port knows none of these paths.
    /// `RELAY_ADMIN_LISTEN`
    pub separate: bool,
}

/// TLS of the relay's own port, for display.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// Whether the relay's port speaks TLS by itself.
    pub enabled: bool,
    /// `RELAY_TLS_HOST`
    pub host: String,
    /// `RELAY_TLS_CERT_PATH`, when TLS is on.
    pub cert_path: Option<String>,
    /// `RELAY_TLS_KEY_PATH`, when TLS is on.
    pub key_path: Option<String>,
}

/// How relays share frames, for display.
#[derive(Clone, Debug)]
pub struct BackplaneFacts {
    /// `single`, `server` or `redis`. `RELAY_BACKPLANE_MODE`
    pub mode: &'static str,
    /// `RELAY_BUS_ENABLED`
    pub bus_enabled: bool,
    /// `RELAY_CLIENT_REDIRECT_ENABLED`
    pub client_redirect_enabled: bool,
    /// `RELAY_BUS_POLL_INTERVAL_MS`
    pub bus_poll_interval_ms: u64,
    /// `RELAY_BUS_PULL_LIMIT`
    pub bus_pull_limit: u64,
    /// `RELAY_BUS_PULL_WAIT_MS`
    pub bus_pull_wait_ms: u64,
}

/// Caps that hold for the whole relay, exactly, whatever the number of shards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caps {
    /// Daemons and clients at a time. Reached: 503. `RELAY_MAX_TOTAL_CONNECTIONS`
    pub connections_max: usize,
    /// Connections of one address at a time, workers too. Reached: 429.
    /// `RELAY_MAX_CONNECTIONS_PER_IP`
    pub connections_per_address_max: usize,
    /// Clients of one scope at a time. Reached: 429. `RELAY_MAX_CLIENTS_PER_WORKSPACE`
    pub clients_per_scope_max: usize,
    /// Upgrade attempts of one address per minute. Reached: 429. `RELAY_UPGRADE_RATE_PER_MINUTE`
    pub upgrades_per_minute: u32,
    /// Addresses whose attempts are remembered; the least recently seen goes.
    /// `RELAY_UPGRADE_BUCKET_MAX`
    pub upgrade_addresses_max: usize,
    /// Upgrades that wait for their validation at a time. Protects memory from a flood of tokens.
    /// Reached: 503 with `Retry-After`. Ours: as many as connect again in a second when a network
    /// that failed is back. `RELAY_PENDING_UPGRADES_MAX`
    pub pending_admissions_max: usize,
    /// Bytes of their tokens. Protects memory where tokens are long. Reached: as above. Ours: a
    /// kilobyte for each.
    pub pending_tokens_bytes_max: usize,
    /// Of them, how many the platform is being asked about; the others wait, daemons first,
    /// workspaces in turn. Protects the platform's descriptors, and ours. Ours: at an answer in
    /// 20 ms twelve thousand per second. `RELAY_VALIDATE_CONCURRENCY`
    pub asked_at_once: usize,
    /// How long they wait for that. Reached: 503 with `Retry-After`. Ours: with the whole of a
    /// validate call less than a shard waits for its answer. `RELAY_ADMISSION_WAIT_MS`
    pub admission_wait: Duration,
    /// How many tokens per second the platform is asked about that cannot be decided here and that
    /// it does not accept. Protects it from invented tokens. Reached: 503 with `Retry-After`.
    /// `RELAY_UNDECIDED_PER_SECOND`
    pub undecided_per_second: u32,
    /// Worker calls in flight at a time. Reached: the call is answered 503.
    pub worker_calls_max: usize,
    /// Bytes of their requests and, as they come, of the answers. Protects the control plane's part
    /// of the memory budget. Reached: a new call is answered 503, one whose answer comes 502. Ours:
    /// a third of the least that part has, as tokens that wait have another.
    pub worker_calls_bytes_max: usize,
    /// The whole of a worker call.
    pub worker_timeout: Duration,
    /// Bytes of the answer to a worker call. Reached: the call is answered 502.
    pub worker_response_bytes_max: usize,
}

/// Validate calls at a time, and quiet connections kept for them.
pub(crate) const ASKED_AT_ONCE: usize = 256;

impl Default for Caps {
    /// The reference's defaults where it has them.
    fn default() -> Self {
        Self {
            connections_max: 2000,
            connections_per_address_max: 50,
            clients_per_scope_max: 100,
            upgrades_per_minute: 120,
            upgrade_addresses_max: 50_000,
            pending_admissions_max: 16 << 10,
            pending_tokens_bytes_max: 16 << 20,
            asked_at_once: ASKED_AT_ONCE,
            admission_wait: Duration::from_millis(7500),
            undecided_per_second: 50,
            worker_calls_max: 256,
            worker_calls_bytes_max: 16 << 20,
            worker_timeout: Duration::from_secs(30),
            worker_response_bytes_max: 1 << 20,
        }
    }
}
