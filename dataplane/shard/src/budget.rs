//! What peers make this shard hold, and what happens before memory runs out.
//!
//! Every connection has a [`Charge`]: its slot, and whatever grows with what its peer does. Charges
//! are brought up to date where a connection changes, so the sum is exact between any two inputs.
//! What does not grow with peers (receive buffers, free lists, tables of limiters) is not here: the
//! program sets it aside before it gives a shard its share. `docs/budgets.md` has the whole sum.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use relay_contract::{CloseReason, Counter, Limits};
use relay_driver::{Driver, Key};
use relay_switchboard::{Input, limiters_bytes_max};
use relay_wire::http1;

use crate::connection::{CloseHandshake, Connection, Open, Phase};
use crate::shard::Shard;
use crate::strangers::Strangers;
use crate::table::SLOT_BYTES;
use crate::upgrade::UNAVAILABLE;

/// The sum of all charges.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used_bytes: usize,
    /// The part of those that are not admitted yet.
    stranger_bytes: usize,
    /// What scopes remember, which is no single connection's.
    tables_bytes: usize,
    /// Scopes that nobody is in. They make way for whoever comes, so they keep nobody out.
    empty_scopes_bytes: usize,
}

/// What one connection was last found to hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    /// Every connection has one, so four bytes less count. What one connection may hold is far
    /// below; if not, it is charged for no more.
    bytes: u32,
    is_stranger: bool,
}

/// Whether it goes before those who are in, what it holds, its slot and generation.
type Weight = (bool, usize, u32, u32);

/// Why somebody has to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Offence {
    /// It is not admitted and holds a request, or a handshake.
    Stranger,
    /// It reads more slowly than it is sent to.
    Backlog,
    /// It has begun a message and not ended it.
    Unfinished,
    /// It was told to go and still holds more than anybody else.
    Lingering,
}

/// A connection's slot in the table and in the driver, and its deadline in the wheel.
const SLOT_EXTRA_BYTES: usize = 192;
/// The switchboard's and the ledger's parts of an admitted connection: seat, claims, a share of its
/// scope. Source: 452 to 476 bytes for all of an idle client, its slot included (BENCHMARKS.md,
/// "What does an idle authenticated connection cost?"); a viewer of 64 channels has 1.1 KiB more.
/// `an_idle_connection_holds_no_more_than_it_is_charged` fails when the charge is too little.
pub(crate) const SEAT_BYTES: usize = 1536;

/// What every connection is charged, whatever it does.
const BARE_CONNECTION_BYTES: usize = SLOT_BYTES + SLOT_EXTRA_BYTES;

/// What the budget counts for an admitted connection without TLS that has nothing to say.
pub const IDLE_CONNECTION_BYTES: usize = BARE_CONNECTION_BYTES + SEAT_BYTES;

/// Free lists at their bounds (4 MiB of blocks, 4.5 of records under TLS, 3.5 of queues, 2 of
/// batches), and lanes.
const SPARES_BYTES: usize = 15 << 20;

/// What a shard holds for itself beside its receive buffers, whoever is there: free lists, lanes,
/// and the tables of limiters with as many keys as they may know.
pub fn base_bytes(limits: &Limits) -> usize {
    SPARES_BYTES + limiters_bytes_max(limits)
}

/// Connections looked for in one walk over the table when somebody has to go.
const OFFENDERS_MAX: usize = 32;
/// Walks per input. Two find enough in all but a storm; the next input walks again.
const WALKS_MAX: usize = 4;

impl Budget {
    /// Brings the account of one connection up to date, and of its site while it is a stranger.
    pub(crate) fn settle(&mut self, connection: &mut Connection, strangers: &mut Strangers) {
        let bytes = u32::try_from(held_bytes(connection)).unwrap_or(u32::MAX);
        let charge = Charge { bytes, is_stranger: connection.is_stranger() };
        if charge.is_stranger {
            strangers.charge(connection, charge);
        }
        self.discharge(connection.charge);
        self.used_bytes += charge.bytes as usize;
        self.stranger_bytes += charge.stranger_bytes();
        connection.charge = charge;
    }

    /// Brings the account of what scopes remember up to date.
    fn settle_tables(&mut self, bytes: usize) {
        if bytes != self.tables_bytes {
            self.used_bytes += bytes;
            self.used_bytes -= std::mem::replace(&mut self.tables_bytes, bytes);
        }
    }

    /// Counts memory that belongs to no connection any more and is not free yet.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.used_bytes += bytes;
    }

    /// Counts such memory as free.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.used_bytes -= bytes;
    }

    fn discharge(&mut self, charge: Charge) {
        self.used_bytes -= charge.bytes as usize;
        self.stranger_bytes -= charge.stranger_bytes();
    }

    /// Bytes that peers make the shard hold, without scopes that nobody is in.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// The same, and what those who are gone have left.
    pub(crate) fn held_bytes(&self) -> usize {
        self.used_bytes + self.empty_scopes_bytes
    }

    /// Whether memory is so short that nobody new is let in: an eighth is left for those who are.
    pub(crate) fn is_tight(&self, limits: &Limits) -> bool {
        !self.has_room(0, limits)
    }

    /// Whether so many bytes more leave it as it is.
    pub(crate) fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        let most = limits.memory_bytes_max - limits.memory_bytes_max / 8;
        self.used_bytes.saturating_add(bytes) < most
    }

    /// Whether another stranger has to stay outside: they may hold a quarter, and nothing at all
    /// past the whole.
    pub(crate) fn refuses_strangers(&self, limits: &Limits) -> bool {
        self.used_bytes >= limits.memory_bytes_max || self.free_for_strangers(limits) == 0
    }

    /// Bytes that those who are not admitted yet may hold beyond what they do.
    pub(crate) fn free_for_strangers(&self, limits: &Limits) -> usize {
        (limits.memory_bytes_max / 4).saturating_sub(self.stranger_bytes)
    }

    /// Whether it would be enough if all of so many strangers went: their slots stay for a while.
    fn strangers_hold_enough(&self, count: usize, limits: &Limits) -> bool {
        let freed = self.stranger_bytes.saturating_sub(count * BARE_CONNECTION_BYTES);
        self.used_bytes.saturating_sub(freed) <= limits.memory_bytes_max
    }

    /// Bytes that have to go.
    fn excess(&self, limits: &Limits) -> usize {
        self.held_bytes().saturating_sub(limits.memory_bytes_max)
    }

    /// Whether something has to go.
    fn is_over(&self, limits: &Limits) -> bool {
        self.excess(limits) > 0
    }
}

impl Charge {
    /// Bytes.
    pub(crate) fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// Bytes, where they count as a stranger's.
    pub(crate) fn stranger_bytes(self) -> usize {
        if self.is_stranger { self.bytes as usize } else { 0 }
    }
}

impl<D: Driver> Shard<D> {
    /// Charges a connection for what it holds now. A stranger that grew while its site holds too
    /// much goes once its input is over. Cost: a few additions; of a stranger two looks into a
    /// table besides.
    pub(crate) fn charge(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let before = connection.charge.bytes;
        self.budget.settle(connection, &mut self.strangers);
        if connection.charge.is_stranger && connection.charge.bytes > before {
            self.watch_growth(key);
        }
    }

    #[inline(never)]
    fn watch_growth(&mut self, key: Key) {
        let connection = self.table.get_mut(key).filter(|connection| connection.is_applicant());
        let applicant = connection.and_then(|connection| connection.stranger());
        let free = self.budget.free_for_strangers(&self.limits);
        if applicant.is_some_and(|address| self.strangers.is_greedy(address, free)) {
            self.overgrown = Some(key);
        }
    }

    /// Charges what scopes are and remember now. Cost: a few additions.
    pub(crate) fn charge_tables(&mut self) {
        self.budget.settle_tables(self.board.tables_bytes());
        self.budget.empty_scopes_bytes = self.board.empty_scopes_bytes();
    }

    /// Frees a connection's slot and what it was charged for.
    pub(crate) fn forget(&mut self, key: Key) -> Option<Connection> {
        let connection = self.table.remove(key)?;
        self.budget.discharge(connection.charge);
        Some(connection)
    }

    /// Keeps the shard within its budget. Scopes that nobody is in go first, then whoever holds
    /// most, of those who are not admitted yet while they hold enough, else of all; if it then
    /// still holds most, it is cut. Called after every input; cost: a few additions while there is
    /// room.
    pub(crate) fn relieve(&mut self) {
        self.charge_tables();
        if self.overgrown.is_some() {
            self.turn_out_overgrown();
        }
        for _ in 0..WALKS_MAX {
            if !self.budget.is_over(&self.limits) {
                return;
            }
            if self.free_all() {
                continue;
            }
            self.forget_empty_scopes();
            if !self.budget.is_over(&self.limits) {
                return;
            }
            let strangers = self.strangers.count();
            let spares_residents = self.budget.strangers_hold_enough(strangers, &self.limits);
            let mut heaviest = self.heaviest(spares_residents);
            while let Some((.., slot, generation)) = heaviest.pop() {
                let key = Key { slot, generation };
                self.evict(key);
                self.free_all();
                // Tables that nobody is left in give their memory back, and then those scopes go.
                self.charge_tables();
                self.forget_empty_scopes();
                if !self.budget.is_over(&self.limits) {
                    return;
                }
                let left = self.table.get_mut(key);
                heaviest.extend(left.and_then(|left| left.weight(key, spares_residents)));
            }
        }
    }

    /// Forgets as many of the scopes that nobody is in as are in the way: again where the
    /// generations of their daemons took what they gave. Cost: a microsecond or two for each. They
    /// hold what the last input made the shard hold, or by how much the table of generations grew
    /// meanwhile, which it does by doubling.
    #[cold]
    fn forget_empty_scopes(&mut self) {
        while self.budget.is_over(&self.limits) && self.budget.empty_scopes_bytes > 0 {
            let bytes = self.budget.excess(&self.limits);
            self.consult(Input::MemoryShort { bytes });
            self.charge_tables();
        }
    }

    /// Turns the stranger out whose site holds too much, unless it is none any more.
    #[cold]
    fn turn_out_overgrown(&mut self) {
        if let Some(key) = self.overgrown.take()
            && self.table.get_mut(key).is_some_and(|found| found.is_applicant())
        {
            self.evict(key);
        }
    }

    /// Those who have to go first. Cost: a walk over every connection.
    fn heaviest(&mut self, spares_residents: bool) -> BinaryHeap<Weight> {
        let mut heaviest = BinaryHeap::with_capacity(OFFENDERS_MAX + 1);
        for (key, connection) in self.table.iter() {
            heaviest.extend(connection.weight(key, spares_residents).map(Reverse));
            if heaviest.len() > OFFENDERS_MAX {
                heaviest.pop();
            }
        }
        heaviest.into_iter().map(|Reverse(weight)| weight).collect()
    }

    /// Makes a connection give its memory back: politely, and if it was told before, at once.
    fn evict(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let offence = match &connection.phase {
            Phase::Closed => return,
            Phase::Fronted(_) | Phase::Guest(_) | Phase::Waiting(_) => Offence::Stranger,
            Phase::Leaving(_) => Offence::Lingering,
            Phase::Open(open) if open.close == CloseHandshake::Sent => Offence::Lingering,
            Phase::Open(open) => {
                let backlog = connection.egress.as_ref().map_or(0, |egress| egress.unsent_bytes());
                // Who holds neither is told of the memory as well.
                if unfinished_bytes(open) >= backlog {
                    Offence::Unfinished
                } else {
                    Offence::Backlog
                }
            }
        };
        self.counters.count(offence.counter());
        match offence {
            Offence::Stranger => self.turn_out(key),
            Offence::Backlog => self.close_for(key, CloseReason::BufferOverflow),
            Offence::Unfinished => self.close_for(key, CloseReason::MemoryBudget),
            Offence::Lingering => self.cut(key),
        }
    }

    /// Answers a stranger that there is no room at the moment, if it has asked anything.
    fn turn_out(&mut self, key: Key) {
        match self.phase_mut(key) {
            // What a peer speaks behind its proxy is not known yet.
            Some(Phase::Fronted(_)) => return self.close(key),
            Some(Phase::Guest(guest)) if !guest.is_owed_an_answer() => return self.leave(key),
            Some(Phase::Waiting(_)) => self.withdraw(key),
            _ => {}
        }
        self.push(key, http1::refusal_bytes(UNAVAILABLE).into_owned().into());
        self.leave(key);
    }
}

impl Connection {
    /// What it weighs among those who may have to go; nothing once it is closed.
    fn weight(&self, key: Key, spares_residents: bool) -> Option<Weight> {
        let is_closed = matches!(self.phase, Phase::Closed);
        let goes_first = spares_residents && self.is_applicant();
        (!is_closed).then_some((goes_first, self.charge.bytes(), key.slot, key.generation))
    }
}

impl Offence {
    const fn counter(self) -> Counter {
        match self {
            Self::Stranger => Counter::BudgetStrangersClosed,
            Self::Backlog => Counter::BudgetSlowReadersClosed,
            Self::Unfinished => Counter::BudgetUnfinishedClosed,
            Self::Lingering => Counter::BudgetCut,
        }
    }
}

/// What a connection holds: fixed parts by their size, the rest by its capacity.
pub(crate) fn held_bytes(connection: &Connection) -> usize {
    let egress = connection.egress.as_ref().map_or(0, |egress| egress.held_bytes());
    let tls = connection.tls.as_ref().map_or(0, |session| session.held_bytes());
    let phase = match &connection.phase {
        Phase::Fronted(fronted) => fronted.held_bytes(),
        Phase::Guest(guest) => guest.held_bytes(),
        Phase::Waiting(waiting) => waiting.held_bytes(),
        Phase::Open(open) => SEAT_BYTES + unfinished_bytes(open),
        Phase::Leaving(leaving) => {
            if leaving.registered {
                SEAT_BYTES
            } else {
                0
            }
        }
        Phase::Closed => 0,
    };
    let backlog = connection.backlog.as_ref().map_or(0, |backlog| backlog.held_bytes());
    BARE_CONNECTION_BYTES + egress + tls + backlog + phase
}

fn unfinished_bytes(open: &Open) -> usize {
    open.assembly.as_ref().map_or(0, |assembly| assembly.held_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_bytes_max: usize) -> Limits {
        Limits { memory_bytes_max, ..Limits::default() }
    }

    #[test]
    fn an_eighth_is_kept_for_those_who_are_in() {
        let budget = |used_bytes| Budget { used_bytes, ..Budget::default() };
        assert!(!budget(699).is_tight(&limits(800)));
        assert!(budget(700).is_tight(&limits(800)));
        assert!(!budget(800).is_over(&limits(800)));
        assert!(budget(801).is_over(&limits(800)));
    }

    #[test]
    fn strangers_hold_a_quarter_at_most() {
        let budget =
            |stranger_bytes| Budget { used_bytes: 300, stranger_bytes, ..Budget::default() };
        assert!(!budget(199).refuses_strangers(&limits(800)));
        assert!(budget(200).refuses_strangers(&limits(800)));
    }
}
