//! How large a driver is.

use std::time::Duration;

/// The sizes of one driver. Memory: `buffer_count` × `buffer_bytes`, plus about 32 bytes per
/// connection slot in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Receive buffers of the pool, 1 to 32768. All of them are working set, because the kernel
    /// takes them in turn; 1 to 4 MiB in total measured best.
    pub buffer_count: u16,
    /// Bytes of one receive buffer: the most that one receive brings.
    pub buffer_bytes: u32,
    /// Residents the driver may have; the process's descriptor limit caps it for the ring.
    pub residents_max: u32,
    /// Operations that fit into the submission queue; more are submitted early.
    pub operations_max: u32,
    /// Completions one turn hands out; the rest wait for the next.
    pub completions_max: usize,
    /// How long a turn looks out for completions before it sleeps: less latency for a whole core.
    /// Zero sleeps at once.
    pub busy_poll: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffer_count: 64,
            buffer_bytes: 32 << 10,
            residents_max: 64 << 10,
            operations_max: 1024,
            completions_max: 1024,
            busy_poll: Duration::ZERO,
        }
    }
}
