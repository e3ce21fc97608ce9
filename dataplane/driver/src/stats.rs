//! What a driver counts.

/// Plain counts since the driver was opened, and a few current values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DriverStats {
    /// System calls of the driver's thread, those of setting up excepted.
    pub system_calls: u64,
    /// Turns taken.
    pub turns: u64,
    /// Operations given to the kernel.
    pub operations: u64,
    /// Completions handed to the shard.
    pub completions: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes the kernel took for sending.
    pub sent_bytes: u64,
    /// Receives that found no free buffer and were armed again.
    pub receive_starved: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that were gone before they could be accepted.
    pub accept_aborted: u64,
    /// Failures to accept for a reason of ours.
    pub accept_failed: u64,
    /// Connections the driver holds now.
    pub connections: u64,
    /// Those among them that are residents.
    pub residents: u64,
    /// How many residents there is room for.
    pub residents_max: u64,
    /// Buffers leased now.
    pub buffers_in_use: u64,
}
