//! The switchboard itself.

use std::sync::Arc;

use relay_contract::{Counters, Limits, ShardId, ShardReport, Tick};

use crate::{Effects, Input};

/// Who is connected on one shard, and what follows from what they do.
#[derive(Debug)]
pub struct Switchboard {
    shard: ShardId,
    counters: Counters,
    limits: Arc<Limits>,
}

impl Switchboard {
    /// A switchboard without connections. Peer-chosen identifiers are stored under a keyed hash;
    /// `hash_key` must be unpredictable for peers.
    pub fn new(shard: ShardId, hash_key: [u8; 16], limits: Arc<Limits>) -> Self {
        let _ = hash_key;
        Self {
            shard,
            counters: Counters::default(),
            limits,
        }
    }

    /// Decides what follows from one input. Push order is the order to perform.
    ///
    /// `now` never goes backwards. Allocates nothing once `effects` and the tables have grown to
    /// their working size, texts of the relay's own and log entries aside.
    pub fn handle(&mut self, now: Tick, input: Input<'_>, effects: &mut Effects) {
        let _ = (now, effects);
        if let Input::SetLimits(limits) = input {
            self.limits = limits;
        }
    }

    /// When [`Input::Elapsed`] is due.
    pub fn next_deadline(&self) -> Option<Tick> {
        None
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the switchboard holds; the scopes themselves only when asked for. The counters and the
    /// clock are the shard's to fill in.
    pub fn report(&self, scopes: bool) -> ShardReport {
        let _ = scopes;
        ShardReport {
            shard: self.shard,
            ..ShardReport::default()
        }
    }

    /// The whole state, for [`Switchboard::restore`] in another process with the same clock.
    pub fn write_down(&self) -> Vec<u8> {
        Vec::new()
    }

    /// A switchboard that goes on where another was written down.
    ///
    /// # Errors
    /// When the bytes are of another version, or damaged.
    pub fn restore(state: &[u8], limits: Arc<Limits>) -> Result<Self, RestoreError> {
        let _ = state;
        Ok(Self::new(ShardId::default(), [0; 16], limits))
    }
}

/// Why written-down state cannot be taken up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a release with another layout.
    #[error("state has version {found}, this release reads {expected}")]
    Version {
        /// What the bytes say.
        found: u16,
        /// What this release writes.
        expected: u16,
    },
    /// Not what any release writes.
    #[error("state is damaged")]
    Damaged,
}
