//! Every bound the data plane keeps, with its unit, what it protects and where the number comes
//! from.

use std::time::Duration;

/// What a shard and its switchboard keep to. A value is immutable; a change is a new version.
///
/// Where no other source is named, the default is that of the reference relay (relay specification,
/// section 1); the variable named last sets another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Which of two values is newer. A shard ignores one that is not newer than its own.
    pub version: u64,
    /// Payload bytes of one message. Protects the memory in which a message is put together, and
    /// whoever is to receive it. Reached: close 1009. `RELAY_MAX_FRAME_BYTES`
    pub frame_bytes_max: usize,
    /// Bytes that may wait for one connection before another message is added. Protects shard
    /// memory from a slow reader. Reached: close 4008 `buffer overflow`. `RELAY_MAX_PENDING_BYTES`
    pub egress_bytes_max: usize,
    /// Key exchange starts per minute, client and address. Protects daemons from the cost of
    /// handshakes. Reached: close 4008. `RELAY_KEX_INIT_RATE_PER_MINUTE`
    pub key_exchange_per_minute: u32,
    /// Keys (client and address) whose key exchanges are counted. Protects shard memory. Reached:
    /// the least recently used is forgotten and starts anew. `RELAY_KEX_RATE_LIMITER_MAX_KEYS`
    pub key_exchange_keys_max: usize,
    /// Encrypted frames and viewers' presence per minute and client of a workspace. Protects
    /// daemons from one client. Reached: close 4008. `RELAY_RUNTIME_RATE_PER_MINUTE`
    pub runtime_per_minute: u32,
    /// The same of all clients per minute and workspace. Protects the shard, and so other tenants,
    /// from one workspace. Reached: close 4008. `RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE`
    pub runtime_per_minute_workspace: u32,
    /// Clients whose encrypted frames are counted. Protects shard memory. Reached: the least
    /// recently used is forgotten and starts anew. `RELAY_RUNTIME_RATE_LIMITER_MAX_KEYS`
    pub runtime_keys_max: usize,
    /// Workspaces whose clients' encrypted frames are counted. Protects shard memory. Reached: the
    /// least recently used is forgotten and starts anew.
    /// `RELAY_RUNTIME_WORKSPACE_RATE_LIMITER_MAX_KEYS`
    pub runtime_workspace_keys_max: usize,
    /// Messages of daemons and workers per minute and workspace. Protects clients, the platform
    /// and the shard. Reached: close 4008. `RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE`
    pub daemon_per_minute: u32,
    /// Keys whose daemon and worker messages are counted. Protects shard memory. Reached: the
    /// least recently used is forgotten and starts anew. `RELAY_DAEMON_RATE_LIMITER_MAX_KEYS`
    pub daemon_keys_max: usize,
    /// Pairing frames per minute, client and address. Protects daemons from guessing. Reached:
    /// close 4008. `RELAY_PAIRING_RATE_PER_MINUTE`
    pub pairing_per_minute: u32,
    /// Keys (client and address) whose pairing frames are counted. Protects shard memory. Reached:
    /// the least recently used is forgotten and starts anew. `RELAY_PAIRING_RATE_LIMITER_MAX_KEYS`
    pub pairing_keys_max: usize,
    /// Frames per minute and client connection that reach nobody: invalid ones, those outside the
    /// connection's scope or channels, and subscriptions. Protects the shard and its log from
    /// answering for ever. Reached: close 4008. Ours: a viewer may renew all its 64 subscriptions
    /// nine times a minute. `RELAY_UNROUTED_FRAME_RATE_PER_MINUTE`
    pub unrouted_per_minute: u32,
    /// Pings, pongs and fragments of fewer than 128 bytes per minute and connection. Protects the
    /// shard's time from frames that carry nothing. Reached: close 4008. Ours: far above any
    /// heartbeat and any sender that fragments with sense, and a few milliseconds of work.
    /// `RELAY_SMALL_FRAME_RATE_PER_MINUTE`
    pub small_frames_per_minute: u32,
    /// Log entries per minute and connection about its frames. Protects the log, and whoever reads
    /// it. Reached: the entry is left out, with a count. Ours: enough to see what is wrong.
    pub frame_logs_per_minute: u32,
    /// Requests that wait for an answer, per scope: so many pairings and as many key exchanges.
    /// Protects shard memory. Reached: the oldest is forgotten, and its answer dropped.
    /// `RELAY_PAIRING_REQUEST_TRACK_MAX`
    pub pending_requests_max: usize,
    /// Sessions whose owner is remembered, per scope. Protects shard memory. Reached: the one used
    /// least recently is forgotten, and frames of the daemon for it are dropped.
    /// `RELAY_SESSION_OWNER_TRACK_MAX`
    pub session_owners_max: usize,
    /// How long a pairing or key exchange waits for its answer. Protects shard memory from
    /// daemons that do not answer. Reached: forgotten; a late answer is dropped.
    pub pending_request_ttl: Duration,
    /// How long a session without frames keeps its owner. Protects shard memory from sessions that
    /// nobody ends. Reached: forgotten, as with `session_owners_max`.
    pub session_owner_ttl: Duration,
    /// Liveness of connections.
    pub heartbeat: Heartbeat,
    /// How long a scope outlives its last connection, at most: less where such scopes take more
    /// than a sixteenth of memory, or memory is used up. Protects shard memory; what the scope
    /// knows survives a short absence. Reached: evicted, with a log entry and a count.
    /// `RELAY_EMPTY_WORKSPACE_TTL_MS`
    pub empty_scope_ttl: Duration,
    /// How often empty scopes and limiters at rest are looked for, at least 1 ms apart. Protects
    /// the shard's time: what is due may stay this much longer. `RELAY_CLEANUP_INTERVAL_MS`
    pub cleanup_interval: Duration,
    /// How long a peer may take to take what is queued and to answer our close frame. Protects
    /// slots and descriptors. Reached: TCP is cut. `RELAY_CLOSE_TIMEOUT_MS`
    pub close_timeout: Duration,
    /// Bytes of a request head. Protects memory from strangers. Reached: 431. The reference's HTTP
    /// parser has the same bound.
    pub head_bytes_max: usize,
    /// How long a request head may take from its first moment, and then its body, however they
    /// drip. Protects slots from strangers. Reached: the socket is closed unanswered, with a count.
    /// Ours: many round trips of the slowest network, and the reference has none.
    /// `RELAY_HEAD_TIMEOUT_MS`
    pub head_timeout: Duration,
    /// How long a kept-alive HTTP connection may idle between requests. Protects slots. Reached:
    /// the socket is closed. The default of Node's server, on which the reference stands.
    /// `RELAY_KEEP_ALIVE_TIMEOUT_MS`
    pub keep_alive_timeout: Duration,
    /// How long an upgrade or a plain request waits for the control plane. Protects slots when
    /// that is away. Reached: 503, with a count for upgrades. Ours: the configured patience with
    /// the platform and 3 s more, but never less than this.
    pub admission_timeout: Duration,
    /// Connections of one shard that are not admitted yet. Protects slots and memory from
    /// strangers. Reached: the newest is closed unanswered, with a count. Ours: as many as connect
    /// again in a second when a network that failed is back. What they hold is bounded before that
    /// by a quarter of `memory_bytes_max`.
    pub guests_max: usize,
    /// Of these, how many may come from one [`crate::Site`] that is no trusted proxy, which also
    /// has three times as many as are left at most. Protects the places of all others. Reached: as
    /// above. Ours: far more than anybody behind one address needs at once.
    pub guests_per_address_max: u32,
    /// How long a TLS handshake may take, however it drips. Protects slots and the memory of
    /// handshakes from strangers. Reached: close_notify and FIN, with a count. Ours: many round
    /// trips of the slowest network; the reference's server waits 120 s.
    /// `RELAY_TLS_HANDSHAKE_TIMEOUT_MS`
    pub tls_handshake_timeout: Duration,
    /// TLS handshakes going on in one shard. Protects memory, some 20 KiB each, and the shard's
    /// time. Reached: the newest connection is closed unanswered, with a count. Ours: twice a burst
    /// of 1,024; one [`crate::Site`] that is no trusted proxy has three times as many as are left
    /// at most.
    /// `RELAY_TLS_HANDSHAKES_MAX`
    pub tls_handshakes_max: usize,
    /// Bytes that peers may make one shard hold: slots, request heads, messages in pieces, what
    /// waits to be sent, TLS sessions. Protects the process from its peers. Reached: at a quarter
    /// of it for strangers, new ones are closed unanswered; at seven eighths new upgrades are
    /// answered 503 with `Retry-After`; at all of it those who hold most go, strangers first, slow
    /// readers with 4008. Each with a count. The program divides `RELAY_MEMORY_BUDGET`; by itself a
    /// shard has 1 GiB.
    pub memory_bytes_max: usize,
    /// Work of one connection per turn of its shard: bytes received, and 16 KiB for each frame, or
    /// 128 for each step of reading its text where that is more, and 8 for each byte of a text that
    /// is read once more. Protects the latency of all others from one that sends a lot. Reached:
    /// the rest waits for the next turn, behind everybody who sent less, with a count. While quiet
    /// connections are heard a share is a quarter of it. Ours: 64 small frames, some 50 µs; of
    /// larger ones as many as a receive brings in a row.
    pub turn_work_max: usize,
    /// Worker calls in flight per connection. Protects the platform and the controller's memory.
    /// Reached: the call is answered 503, with a count. Ours: a quarter of what the controller
    /// makes at once, so that one worker cannot have all of it.
    pub worker_calls_max: u32,
}

/// Pings and the patience for their answers. All protect slots and memory from peers that have
/// gone without a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// Time from one ping to the next. `RELAY_PING_INTERVAL_MS`
    pub ping_interval: Duration,
    /// Silence after an unanswered ping that is one too long. Reached: TCP is cut, with a count.
    /// `RELAY_PONG_TIMEOUT_MS`
    pub pong_timeout: Duration,
    /// Time without message or pong that is one too long. Reached: TCP is cut, with a count.
    /// `RELAY_IDLE_TIMEOUT_MS`
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
            unrouted_per_minute: 600,
            small_frames_per_minute: 20_000,
            frame_logs_per_minute: 60,
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
            guests_max: 16 << 10,
            guests_per_address_max: 2048,
            tls_handshake_timeout: Duration::from_secs(10),
            tls_handshakes_max: 2048,
            memory_bytes_max: 1 << 30,
            turn_work_max: 1 << 20,
            worker_calls_max: 64,
        }
    }
}
