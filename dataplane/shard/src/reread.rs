//! Long messages that have to be read once more when they are whole, which takes longer than others
//! may have to wait.
//!
//! ```text
//! whole ──long, and rare or no UTF-8──▶ waits for its connection's next turn
//!   │                                      │ a worker's call: a portion at a time
//!   └────────────────▶ shown ◀─────────────┘
//! ```
//!
//! What follows it on its connection waits behind it, in the backlog.

use relay_driver::{Driver, Key};
use relay_wire::envelope::{CallReader, ColdKind, Envelope};

use crate::assembly::Assembly;
use crate::backlog::{FRAME_WORK, REREAD_WORK};
use crate::connection::{Open, Phase};
use crate::shard::Shard;

/// How a whole message is read once more.
pub(crate) enum Reread {
    /// A worker's call, a portion at a time: so many of its pieces have been read.
    Call(Box<CallReader>, usize),
    /// Another rare one, in one piece when its turn comes.
    Text,
    /// One that is no UTF-8, likewise.
    Binary,
}

/// Longer messages wait for a turn. Protects the turns of others from many that become whole at
/// once. Source: reading so much once more takes ten to thirty microseconds.
const LONG_BYTES: usize = 32 << 10;
/// Bytes of a worker's call that are read at a time, one at least in a turn. Protects the turns of
/// others. Source: they take two microseconds, and twenty where all of them are escapes.
pub(crate) const PORTION_BYTES: usize = 8 << 10;

impl Reread {
    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Call(reader, _) => reader.held_bytes(),
            Self::Text | Self::Binary => 0,
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A message is whole. Whether it waits: then this is to be the last that its connection does
    /// in this turn.
    pub(crate) fn begin_reread(&mut self, key: Key, is_utf8: bool) -> bool {
        let Some(assembly) = self.assembly_mut(key) else { return false };
        if assembly.len() <= LONG_BYTES {
            return false;
        }
        let reread = match (is_utf8, assembly.scanner.finish()) {
            (false, _) => Reread::Binary,
            (true, Ok(Envelope::Cold { kind: ColdKind::Worker, .. })) => {
                Reread::Call(Box::new(CallReader::new(assembly.len())), 0)
            }
            (true, Ok(Envelope::Cold { .. })) => Reread::Text,
            (true, Ok(_) | Err(_)) => return false,
        };
        assembly.reread = Some(reread);
        self.charge(key);
        true
    }

    /// Reads a portion of a message that waits, or all of it where it cannot be divided, and shows
    /// it when it is read. Returns the work that it was.
    pub(crate) fn reread_some(&mut self, key: Key) -> usize {
        let Some(connection) = self.table.get_mut(key) else { return 0 };
        let Phase::Open(Open { assembly: Some(assembly), .. }) = &mut connection.phase else {
            return 0;
        };
        let is_binary = matches!(assembly.reread, Some(Reread::Binary));
        let before = assembly.leases();
        let work = assembly.reread_portion(&mut self.blocks);
        let after = assembly.leases();
        self.pinned_leases = self.pinned_leases + after - before;
        if after == 0 {
            self.unpin(key);
        }
        if let Some(work) = work {
            self.charge(key);
            return work;
        }
        let reread = if is_binary { self.on_binary(key) } else { self.on_assembled(key) };
        reread.saturating_mul(REREAD_WORK).max(FRAME_WORK)
    }
}

impl Assembly {
    /// Who has read a worker's call.
    pub(crate) fn take_call_reader(&mut self) -> Option<Box<CallReader>> {
        match self.reread.take()? {
            Reread::Call(reader, _) => Some(reader),
            Reread::Text | Reread::Binary => None,
        }
    }
}
