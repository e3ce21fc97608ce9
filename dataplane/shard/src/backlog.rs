//! Who sends more than a share of a turn has to wait for the next one.
//!
//! ```text
//! quiet ──share used up──▶ loud ──backlog served, little more came──▶ quiet
//!   └──much came in company──▶ ┘  └──backlog served, the company is gone──▶ quiet
//! ```
//!
//! What a quiet connection sent is served as it comes. Loud ones are served when the quiet ones are
//! done, each at most its share at a time, and receive one buffer at a time, only when they have
//! none left: what more they send waits in the kernel, and their peers with it. Nothing is lost,
//! copied or reordered.

use std::collections::VecDeque;

use relay_contract::Counter;
use relay_driver::{Driver, End, Key, Lease};

use crate::connection::{Connection, Reading};
use crate::received::Received;
use crate::shard::Shard;

/// What a loud connection sent and what was not served yet.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The rest of what was being read when the quantum was used up.
    rest: Option<Received>,
    /// Received behind it, under TLS still encrypted. Bounded by the driver's buffers.
    leases: VecDeque<Received>,
    /// How the stream ended behind all that.
    end: Option<End>,
    /// Whether the last receive brought so much that more is likely to follow.
    more: bool,
    /// Whether it is loud only because of company: it never used up more than a share in company.
    in_company: bool,
    /// Whether the shard's round names this connection, to serve it or to let it receive.
    queued: bool,
    /// Whether this is an errand and its connection is not loud.
    is_errand: bool,
}

/// How much of its share a connection has used in the turn that is named.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    turn: u32,
    work: u32,
}

/// Loud connections, in the order of their service.
///
/// ```text
/// served ──nothing left──▶ thirsty ──there is room──▶ receiving ──bytes came──▶ keys ──▶ served
/// ```
#[derive(Default)]
pub(crate) struct Round {
    /// Those with a backlog.
    keys: VecDeque<Key>,
    /// Those whose backlog is served: they receive when their turn comes.
    thirsty: VecDeque<Key>,
    /// Buffers that wait in all backlogs.
    leases: usize,
    /// Free list, so that the steady state allocates nothing.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    spares: Vec<Box<Backlog>>,
}

/// What one frame costs on top of its bytes, in bytes: on the way through, 3 KiB of a large frame
/// take about as long as a small frame. Source: BENCHMARKS.md, "forwarding a frame".
pub(crate) const FRAME_WORK: usize = 16 << 10;
/// What a step of reading its text costs, where that is more than its frame's work. Source: a
/// frame takes about as long as a hundred steps.
pub(crate) const STEP_WORK: usize = 128;
/// What a byte of a whole message costs that is read once more, or copied for one more viewer.
/// Source: gathering a megabyte and reading its members takes half a millisecond and more, which is
/// several hundred frames; BENCHMARKS.md, "What do a worker's large calls do to others?"
pub(crate) const REREAD_WORK: usize = 8;
/// Who was loud is quiet again when a receive fills less than this part of its buffer.
const QUIET_PART: usize = 8;
/// Spare backlogs kept.
const SPARES_MAX: usize = 64;

impl Backlog {
    /// Memory of its own that it holds: what lies in receive buffers is the driver's. Under TLS it
    /// is one record at most, of a stranger one receive.
    pub(crate) fn held_bytes(&self) -> usize {
        let errand = self.leases.front().filter(|_| self.is_errand);
        self.rest.as_ref().or(errand).map_or(0, Received::held_bytes)
    }

    /// Adds to an errand, or begins one. Whether it has to be lined up.
    pub(crate) fn join_errand(&mut self, bytes: Option<Received>, end: Option<End>) -> bool {
        self.is_errand = true;
        self.leases.extend(bytes);
        self.end = self.end.or(end);
        !std::mem::replace(&mut self.queued, true)
    }

    /// Whether the content of what was looked at last has to wait.
    pub(crate) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether something is left to serve.
    pub(crate) fn is_waiting(&self) -> bool {
        self.rest.is_some() || !self.leases.is_empty() || self.end.is_some()
    }
}

impl Spent {
    /// Adds work in a turn. Whether the share of that turn is used up.
    pub(crate) fn add(&mut self, turn: u32, work: usize, quantum: usize) -> bool {
        let work = self.work_in(turn).saturating_add(work).min(quantum);
        *self = Self { turn, work: u32::try_from(work).unwrap_or(u32::MAX) };
        work >= quantum
    }

    /// Work in a turn so far.
    fn work_in(self, turn: u32) -> usize {
        if self.turn == turn { self.work as usize } else { 0 }
    }
}

impl Connection {
    /// Takes what waits as an errand, which a loud connection's backlog is not.
    pub(crate) fn take_errand(&mut self) -> Option<Box<Backlog>> {
        self.backlog.take_if(|backlog| backlog.is_errand)
    }
}

impl Round {
    /// A backlog to fill.
    pub(crate) fn spare(&mut self) -> Box<Backlog> {
        self.spares.pop().unwrap_or_default()
    }

    /// Empties an errand's backlog and keeps it for the next.
    pub(crate) fn shelve(&mut self, mut backlog: Box<Backlog>) -> (Option<Received>, Option<End>) {
        let (bytes, end) = (backlog.leases.pop_front(), backlog.end.take());
        self.keep(backlog);
        (bytes, end)
    }

    fn keep(&mut self, mut backlog: Box<Backlog>) {
        backlog.leases.clear();
        *backlog = Backlog { leases: std::mem::take(&mut backlog.leases), ..Backlog::default() };
        if self.spares.len() < SPARES_MAX {
            self.spares.push(backlog);
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.thirsty.is_empty()
    }

    /// Buffers that wait in all backlogs.
    pub(crate) fn leases(&self) -> usize {
        self.leases
    }
}

impl<D: Driver> Shard<D> {
    /// Received bytes of a loud connection join its backlog. Gives those of a quiet one back.
    pub(crate) fn put_aside(&mut self, key: Key, lease: Lease) -> Option<Lease> {
        let backlog = self.table.get_mut(key).and_then(|found| found.backlog.as_mut());
        let Some(backlog) = backlog else {
            return Some(lease);
        };
        backlog.more = lease.len() >= lease.buffer_bytes() / QUIET_PART;
        backlog.leases.push_back(Received::Leased(lease));
        self.round.leases += 1;
        self.line_up(key);
        None
    }

    /// From here on the connection is loud.
    pub(crate) fn begin_backlog(&mut self, key: Key) {
        let in_company = self.is_in_company();
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        self.counters.count(Counter::ReceivesDeferred);
        if let Some(backlog) = &mut connection.backlog {
            backlog.in_company &= in_company;
            return;
        }
        let mut backlog = self.round.spare();
        (backlog.more, backlog.in_company) = (true, in_company);
        connection.backlog = Some(backlog);
        if connection.reading == Reading::Repeatedly {
            connection.reading = Reading::Pausing;
            self.driver.pause(key);
        }
    }

    /// The end of a loud connection's stream joins its backlog. Whether it is to be acted on now.
    pub(crate) fn put_end_aside(&mut self, key: Key, end: End) -> bool {
        let backlog = self.table.get_mut(key).and_then(|found| found.backlog.as_mut());
        let Some(backlog) = backlog else {
            return true;
        };
        if end != End::Paused {
            backlog.end = Some(end);
        }
        self.line_up(key);
        false
    }

    /// The connection's share of this turn is used up: what is left of its input waits.
    pub(crate) fn defer(&mut self, key: Key, rest: Received) {
        self.begin_backlog(key);
        let connection = self.table.get_mut(key);
        if let Some(backlog) = connection.and_then(|found| found.backlog.as_mut()) {
            backlog.rest = Some(rest);
        }
        self.charge(key);
        self.line_up(key);
    }

    /// What is left behind records that were looked at waits: behind their content, where that was
    /// deferred.
    pub(crate) fn defer_records(&mut self, key: Key, input: Received) {
        let connection = self.table.get_mut(key);
        if let Some(backlog) = connection.and_then(|found| found.backlog.as_mut()) {
            backlog.leases.push_front(input);
            self.round.leases += 1;
        }
    }

    /// Whether loud connections hold so many buffers that quiet ones would soon find none.
    pub(crate) fn is_crowded(&self) -> bool {
        self.round.leases > self.buffers_for_loud()
    }

    /// Buffers that loud connections may hold together.
    fn buffers_for_loud(&self) -> usize {
        self.config.receive_buffers / 2
    }

    /// Serves those who wait: one share of a turn between them. Nobody quiet being there who would
    /// wait for the turn's end, it is a share each when they hold so many buffers that somebody who
    /// comes would find none.
    pub(crate) fn serve_backlogs(&mut self) {
        let crowded = self.is_crowded() && !self.is_in_company();
        let share = self.pace().loud_work;
        let mut work = 0;
        for _ in 0..self.round.keys.len() {
            if work >= share && !crowded {
                break;
            }
            let Some(key) = self.round.keys.pop_front() else {
                break;
            };
            self.serve_backlog(key);
            let turn = self.turn_number;
            work += self.table.get_mut(key).map_or(0, |found| found.spent.work_in(turn));
        }
        self.let_thirsty_receive();
    }

    /// Lets as many of those who wait for it receive as may hold a buffer each, the longest waiting
    /// first.
    fn let_thirsty_receive(&mut self) {
        if self.is_crowded() {
            return;
        }
        // One that finds nothing to receive holds no buffer, so one more may try at any time.
        let room = (self.buffers_for_loud() - self.round.leases).max(1);
        for _ in 0..room {
            let Some(key) = self.round.thirsty.pop_front() else {
                return;
            };
            let connection = self.table.get_mut(key);
            if let Some(backlog) = connection.and_then(|found| found.backlog.as_mut()) {
                backlog.queued = false;
                self.arm(key);
            }
        }
    }

    fn serve_backlog(&mut self, key: Key) {
        loop {
            let connection = self.table.get_mut(key);
            let Some(backlog) = connection.and_then(|found| found.backlog.as_mut()) else {
                return;
            };
            backlog.queued = false;
            if let Some(rest) = backlog.rest.take() {
                self.on_open_bytes(key, rest);
                self.charge(key);
            } else if let Some(received) = backlog.leases.pop_front() {
                self.round.leases -= 1;
                self.serve(key, received);
            } else {
                return self.end_backlog(key);
            }
            self.relieve();
            let (turn, quantum) = (self.turn_number, self.pace().work);
            let connection = self.table.get_mut(key);
            if connection.is_some_and(|connection| connection.spent.add(turn, 0, quantum)) {
                return self.line_up(key);
            }
        }
    }

    /// Everything that was received is served: the stream has ended, or more may be received.
    fn end_backlog(&mut self, key: Key) {
        let has_company = self.is_in_company();
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let Some(backlog) = &mut connection.backlog else {
            return;
        };
        if let Some(end) = backlog.end.take() {
            self.forget_backlog(key);
            return self.on_receive_ended(key, end);
        }
        match connection.reading {
            // What it brings, or its end, goes on from here.
            Reading::Once | Reading::Pausing | Reading::Repeatedly => {}
            Reading::Idle if !backlog.more || backlog.in_company && !has_company => {
                self.forget_backlog(key);
                self.arm(key);
            }
            Reading::Idle => {
                backlog.queued = true;
                self.round.thirsty.push_back(key);
            }
        }
    }

    /// Gives the connection its place in the round, if it has none.
    pub(crate) fn line_up(&mut self, key: Key) {
        let connection = self.table.get_mut(key);
        if let Some(backlog) = connection.and_then(|found| found.backlog.as_mut())
            && !std::mem::replace(&mut backlog.queued, true)
        {
            self.round.keys.push_back(key);
        }
    }

    /// Drops what waits; the connection is quiet.
    pub(crate) fn forget_backlog(&mut self, key: Key) {
        let connection = self.table.get_mut(key);
        if let Some(backlog) = connection.and_then(|found| found.backlog.take()) {
            if !backlog.is_errand {
                self.round.leases -= backlog.leases.len();
            }
            self.round.keep(backlog);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_within_one_turn_only() {
        let mut spent = Spent::default();
        assert!(!spent.add(1, 60, 100));
        assert!(spent.add(1, 60, 100));
        assert!(spent.add(1, 0, 100));
        assert!(!spent.add(2, 60, 100));
        assert!(!spent.add(3, 60, 100));
    }
}
