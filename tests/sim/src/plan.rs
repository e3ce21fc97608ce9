//! What one seed is going to do.

use std::time::Duration;

use relay_contract::{Heartbeat, Limits};
use relay_driver::Config;
use relay_driver::sim::{Faults, Seed};

/// Everything that is decided before the first turn.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The sequence for everything after this.
    pub(crate) seed: Seed,
    pub(crate) shards: u16,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) driver: Config,
    /// One daemon each.
    pub(crate) workspaces: usize,
    /// Clients of each workspace.
    pub(crate) clients: usize,
    /// Rounds in which peers act; then they fall silent and everything has to arrive.
    pub(crate) rounds: u32,
    /// Longest ciphertext; a frame may have as many bytes beside it.
    pub(crate) ciphertext_bytes_max: usize,
    /// How likely peers misbehave, in millionths per round: close, cut, stop reading, speak
    /// nonsense.
    pub(crate) mischief: u32,
    /// How likely a peer sends a burst of pings, in millionths per round.
    pub(crate) pings: u32,
    /// Whether each connection of a client has its own name, and so its own limits.
    pub(crate) unique_clients: bool,
    /// How likely the control plane refuses an upgrade, in millionths.
    pub(crate) refusal: u32,
    /// What happens on the way between shards and control plane, where these are apart.
    pub(crate) link: Option<Seed>,
}

impl Plan {
    /// Draws a plan; the same seed gives the same plan.
    pub(crate) fn draw(seed: u64) -> Self {
        // Its own sequence: what else a seed does stays as it was.
        let mut link = Seed::new(!seed);
        let mut seed = Seed::new(seed);
        let frame_bytes_max = 4096usize << seed.below(6);
        let gentle = seed.below(3) == 0;
        let faults = if gentle { Faults::none() } else { Faults::drawn(&mut seed) };
        let crowded = seed.below(4) == 0;
        let mut guests = seed.fork();
        let strict = seed.below(4) == 0;
        let mut memory = seed.fork();
        let is_short = memory.below(4) == 0;
        let mut rates = seed.fork();
        // In strict plans each rate is low or not a limit at all.
        let mut rate = |most: u64| {
            if strict && rates.below(3) > 0 { 1 + rates.below(most) as u32 } else { RATE_UNLIMITED }
        };
        let mut shares = seed.fork();
        let unshared = shares.below(3) == 0;
        let limits = Limits {
            turn_work_max: if unshared { 192 << 10 } else { 1 << (9 + shares.below(8)) },
            frame_bytes_max,
            egress_bytes_max: 2048 << seed.below(10),
            runtime_per_minute: rate(200),
            runtime_per_minute_workspace: rate(600),
            daemon_per_minute: rate(1000),
            key_exchange_per_minute: rate(6),
            pairing_per_minute: rate(20),
            guests_max: if crowded { 1 + guests.below(8) as usize } else { 4096 },
            guests_per_address_max: if crowded { 1 + guests.below(2) as u32 } else { 2048 },
            memory_bytes_max: if is_short { 64 << (10 + memory.below(5)) } else { 1 << 30 },
            worker_calls_max: 1 + seed.below(6) as u32,
            pending_requests_max: 4 + seed.below(64) as usize,
            session_owners_max: 64 + seed.below(64) as usize,
            heartbeat: Heartbeat {
                ping_interval: Duration::from_millis(100 + seed.below(900)),
                pong_timeout: Duration::from_millis(2000 + seed.below(3000)),
                idle_timeout: Duration::from_secs(60),
            },
            empty_scope_ttl: Duration::from_millis(200),
            cleanup_interval: Duration::from_millis(100),
            close_timeout: Duration::from_secs(3),
            ..Limits::default()
        };
        let driver = Config {
            buffer_count: 4 + seed.below(61) as u16,
            buffer_bytes: 256 << seed.below(8),
            completions_max: 4 + seed.below(60) as usize,
            ..Config::default()
        };
        Self {
            shards: 1 + seed.below(3) as u16,
            faults,
            limits,
            driver,
            workspaces: 1 + seed.below(WORKSPACES_MAX as u64) as usize,
            clients: 1 + seed.below(5) as usize,
            rounds: 200 + seed.below(400) as u32,
            ciphertext_bytes_max: 1 + seed.below((frame_bytes_max as u64 - 600) / 2) as usize,
            mischief: if gentle { 0 } else { seed.below(3000) as u32 },
            pings: seed.below(20_000) as u32,
            unique_clients: seed.below(2) == 0,
            refusal: seed.below(100_000) as u32,
            link: (link.below(2) == 0).then_some(link),
            seed,
        }
    }
}

/// Workspaces of a run at most.
pub(crate) const WORKSPACES_MAX: usize = 4;
/// More than any run sends.
const RATE_UNLIMITED: u32 = 1_000_000_000;
