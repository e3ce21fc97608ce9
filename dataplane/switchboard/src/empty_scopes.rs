//! Scopes that nobody is in: how many are kept, and how much is remembered of those that are not.

use relay_contract::{Counter, Level, Limits, LogEntry, Tick};

use crate::directory::Scope;
use crate::household::Generations;
use crate::switchboard::Switchboard;
use crate::{Effect, Effects};

impl Switchboard {
    /// Memory of scopes that nobody is in: no connection is charged for it, and it is the first to
    /// go ([`crate::Input::MemoryShort`]).
    pub fn empty_scopes_bytes(&self) -> usize {
        self.core.directory.empty_scopes_bytes()
    }

    /// Keeps empty scopes within their part where one may have been added; what a move brought
    /// beyond it becomes less then.
    pub(crate) fn settle_empty_scopes(&mut self, now: Tick, effects: &mut Effects) {
        let excess = self.core.directory.empty_excess(&self.limits);
        if excess > 0 {
            self.crowd_out(excess.min(CROWDED_OUT_MAX), now, effects);
        }
    }

    /// Forgets empty scopes that hold so much, as far as there are any, before anybody who is here
    /// has to go. What is remembered of their daemons may take some of that again.
    pub(crate) fn on_memory_short(&mut self, now: Tick, bytes: usize, effects: &mut Effects) {
        self.crowd_out(bytes.div_ceil(EMPTY_SCOPE_BYTES), now, effects);
    }

    /// Forgets so many of those left first, due or not.
    #[cold]
    #[inline(never)]
    fn crowd_out(&mut self, count: usize, now: Tick, effects: &mut Effects) {
        for _ in 0..count {
            if !self.forget_oldest_empty(now, effects) {
                return;
            }
            self.counters.count(Counter::ScopesCrowdedOut);
        }
    }

    /// Forgets those that have been empty long enough. Whether some may be left.
    pub(crate) fn forget_due_scopes(&mut self, now: Tick, effects: &mut Effects) -> bool {
        for _ in 0..DUE_MAX {
            if !self.core.directory.has_due_empty(now, &self.limits) {
                return false;
            }
            self.forget_oldest_empty(now, effects);
        }
        true
    }

    /// Forgets the scope that was left first. Whether there was one.
    #[inline(never)]
    fn forget_oldest_empty(&mut self, now: Tick, effects: &mut Effects) -> bool {
        let Some(scope) = self.core.directory.evict(now, &self.limits) else {
            return false;
        };
        self.counters.count(Counter::WorkspaceEvictions);
        let entry = LogEntry::new(Level::Info, "workspace_evicted");
        effects.push(Effect::Log(Box::new(entry.with("workspaceId", scope.name()))));
        true
    }
}

/// Empty scopes that make room where there are too many. It is one more than what one arrival or
/// departure leaves empty, so that many who came at once, by a move, are fewer from then on.
const CROWDED_OUT_MAX: usize = 2;

/// Empty scopes forgotten at a time because they are due. Protects the latency of messages from
/// what thousands have left behind who went at one moment. Reached: the others follow after a
/// pause. Source: a scope with its log entry takes one or two microseconds.
const DUE_MAX: usize = 32;

/// What an empty scope holds: itself, two names of up to 128 UTF-16 units, each three bytes, and
/// its places in tables.
pub(crate) const EMPTY_SCOPE_BYTES: usize = size_of::<Scope>() + 2 * 3 * 128 + 256;

/// The part of a shard's memory that empty scopes may have. Protects connections from members of
/// very many targets who come and go. Reached: the scope that was left first is forgotten, with a
/// count; of its daemon generation see [`generations_max`]. Source: of 64 MiB it is room for
/// almost three thousand.
const EMPTY_PART: usize = 16;

/// How many empty scopes a shard with so much memory keeps.
pub(crate) fn empty_scopes_max(limits: &Limits) -> usize {
    limits.memory_bytes_max / EMPTY_PART / EMPTY_SCOPE_BYTES
}

/// Room for generations that are remembered after their scopes were forgotten, of which all
/// together have a part of the shard's memory; the one forgotten first goes. Protects shard memory.
/// Source: far more targets than one shard serves in a day.
const GENERATIONS_ROOM_MAX: usize = 65_536;
const GENERATIONS_PART: usize = 16;

/// How many generations a shard with so much memory remembers: as many as a table has room for
/// whose memory is within their part.
pub(crate) fn generations_max(limits: &Limits) -> usize {
    let bytes_max = limits.memory_bytes_max / GENERATIONS_PART;
    let mut room = GENERATIONS_ROOM_MAX;
    while room > 1 && Generations::room_bytes(room) > bytes_max {
        room /= 2;
    }
    // A new one is there before the oldest goes.
    room - 1
}
