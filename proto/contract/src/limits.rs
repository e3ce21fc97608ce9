//! Every bound the data plane keeps, with its unit, what it protects and where the number comes
//! from.

use std::time::Duration;

/// What a shard and its switchboard keep to. A value is immutable; a change is a new version.
///
/// Defaults are those of the reference relay (relay specification, section 1) where it has them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Which of two values is newer.
    pub version: u64,
    /// Payload bytes of one message. Reached: close 1009. `RELAY_MAX_FRAME_BYTES`
    pub frame_bytes_max: usize,
    /// Bytes that may wait for one connection before another message is added. Reached: 4008
    /// `buffer overflow`. `RELAY_MAX_PENDING_BYTES`
    pub egress_bytes_max: usize,
    /// Key exchange starts per minute, client and address. `RELAY_KEX_INIT_RATE_PER_MINUTE`
    pub key_exchange_per_minute: u32,
    /// Keys the key exchange limiter tracks; the least recently used goes.
    /// `RELAY_KEX_RATE_LIMITER_MAX_KEYS`
    pub key_exchange_keys_max: usize,
    /// Encrypted frames per minute and client. `RELAY_RUNTIME_RATE_PER_MINUTE`
    pub runtime_per_minute: u32,
    /// Encrypted frames of clients per minute and workspace.
    /// `RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE`
    pub runtime_per_minute_workspace: u32,
    /// `RELAY_RUNTIME_RATE_LIMITER_MAX_KEYS`
    pub runtime_keys_max: usize,
    /// `RELAY_RUNTIME_WORKSPACE_RATE_LIMITER_MAX_KEYS`
    pub runtime_workspace_keys_max: usize,
    /// Daemon and worker messages per minute and workspace. `RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE`
    pub daemon_per_minute: u32,
    /// `RELAY_DAEMON_RATE_LIMITER_MAX_KEYS`
    pub daemon_keys_max: usize,
    /// Pairing frames per minute, client and address. `RELAY_PAIRING_RATE_PER_MINUTE`
    pub pairing_per_minute: u32,
    /// `RELAY_PAIRING_RATE_LIMITER_MAX_KEYS`
    pub pairing_keys_max: usize,
    /// Pending pairing requests, and pending key exchanges, per scope; the oldest goes.
    /// `RELAY_PAIRING_REQUEST_TRACK_MAX`
    pub pending_requests_max: usize,
    /// Sessions whose owner is remembered, per scope; the oldest goes.
    /// `RELAY_SESSION_OWNER_TRACK_MAX`
    pub session_owners_max: usize,
    /// How long a pairing or key exchange waits for its answer.
    pub pending_request_ttl: Duration,
    /// How long an unused session keeps its owner.
    pub session_owner_ttl: Duration,
    /// Liveness of connections.
    pub heartbeat: Heartbeat,
    /// How long a scope outlives its last connection. `RELAY_EMPTY_WORKSPACE_TTL_MS`
    pub empty_scope_ttl: Duration,
    /// How often empty scopes are looked for. `RELAY_CLEANUP_INTERVAL_MS`
    pub cleanup_interval: Duration,
    /// How long a peer may take to answer our close frame before TCP is cut.
    pub close_timeout: Duration,
    /// Bytes of a request head. Reached: 431. The reference's parser has the same bound.
    pub head_bytes_max: usize,
    /// How long a request head may take. Reached: the socket is closed.
    pub head_timeout: Duration,
    /// How long a kept-alive HTTP connection may idle.
    pub keep_alive_timeout: Duration,
    /// How long an upgrade waits for its decision. Reached: 401, as for a failed validation.
    pub admission_timeout: Duration,
    /// Connections of one shard that are not admitted yet. Reached: the newest is closed
    /// unanswered.
    pub guests_max: usize,
    /// Of these, how many may come from one address that is not a trusted proxy. Reached: as above.
    pub guests_per_address_max: u32,
    /// Worker calls in flight per connection. Reached: the call is answered 503.
    pub worker_calls_max: u32,
}

/// Pings and the patience for their answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// `RELAY_PING_INTERVAL_MS`
    pub ping_interval: Duration,
    /// Silence after an unanswered ping that ends the connection. `RELAY_PONG_TIMEOUT_MS`
    pub pong_timeout: Duration,
    /// Time without message or pong that ends the connection. `RELAY_IDLE_TIMEOUT_MS`
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            version: 1,
            frame_bytes_max: 1 << 20,
            egress_bytes_max: 4 << 20,
            key_exchange_per_minute: 60,
            key_exchange_keys_max: 20_000,
            runtime_per_minute: 240,
            runtime_per_minute_workspace: 1200,
            runtime_keys_max: 20_000,
            runtime_workspace_keys_max: 10_000,
            daemon_per_minute: 2400,
            daemon_keys_max: 10_000,
            pairing_per_minute: 30,
            pairing_keys_max: 20_000,
            pending_requests_max: 2048,
            session_owners_max: 4096,
            pending_request_ttl: Duration::from_secs(120),
            session_owner_ttl: Duration::from_secs(30 * 60),
            heartbeat: Heartbeat {
                ping_interval: Duration::from_secs(30),
                pong_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(300),
            },
            empty_scope_ttl: Duration::from_secs(120),
            cleanup_interval: Duration::from_secs(30),
            close_timeout: Duration::from_secs(30),
            head_bytes_max: 16 << 10,
            head_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            admission_timeout: Duration::from_secs(10),
            guests_max: 4096,
            guests_per_address_max: 2048,
            worker_calls_max: 64,
        }
    }
}
