//! What is no message of an admitted peer: request heads and handshakes of strangers, upgrades that
//! were held back, ends of streams, and what the control plane orders. A crowd may bring thousands
//! of these at a moment.
//!
//! A few are done per turn, after the messages of quiet connections; the others keep their place.
//! A stranger's bytes wait in memory of its own, which it is charged for, so that no crowd holds
//! receive buffers.

use std::collections::VecDeque;
use std::time::Duration;

use relay_contract::{Command, Tick};
use relay_driver::{Driver, End, Key};

use crate::received::Received;
use crate::shard::Shard;

/// Those with an errand, in the order they came.
#[derive(Default)]
pub(crate) struct Errands {
    keys: VecDeque<Key>,
    /// What the control plane ordered for one connection each.
    orders: VecDeque<Command>,
    /// The same for those who are to go: they precede all others.
    closes: VecDeque<Command>,
    /// Which kind is looked at first next time.
    first: Kind,
    /// Whether the last turn with a choice did errands and let loud connections wait.
    went_last: bool,
    /// Hellos that this turn answered.
    hellos: usize,
    /// Since when each look at them has left some.
    since: Option<Tick>,
}

/// Where errands come from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Kind {
    #[default]
    Command,
    Arrival,
    Connection,
    HeldBack,
}

/// Orders for single connections that left their lane. Protects memory and the length of a turn.
/// Reached: further ones wait in the lane, and those about the whole shard behind them. Source: as
/// many as the control plane keeps for a shard whose lane is full.
const ORDERS_MAX: usize = 4096;
/// Peers that are told to go in one turn, in company too. Protects the latency of messages.
/// Reached: the others follow in the next turn. Source: a close takes as long as an answer to a
/// ping; a revocation of thousands acts within a second.
const CLOSES_MAX: usize = 32;
/// Turns in a row in which others have to wait because quiet connections have something to send.
/// Protects those others from never being served.
const PUT_OFF_MAX: u32 = 4;
/// Kinds of errands.
const KINDS: usize = 4;

impl Kind {
    fn next(self) -> Self {
        match self {
            Self::Command => Self::Arrival,
            Self::Arrival => Self::Connection,
            Self::Connection => Self::HeldBack,
            Self::HeldBack => Self::Command,
        }
    }
}

impl Errands {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.has_no_orders()
    }

    /// Takes note of a TLS hello that was answered, which is the longest errand of all: a key
    /// exchange and a signature.
    pub(crate) fn note_hello(&mut self) {
        self.hellos += 1;
    }

    /// For how long each look at them has left some.
    pub(crate) fn last_for(&self, now: Tick) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Whether nothing is left of what the control plane ordered.
    pub(crate) fn has_no_orders(&self) -> bool {
        self.orders.is_empty() && self.closes.is_empty()
    }
}

impl<D: Driver> Shard<D> {
    /// A stranger's bytes wait until it is its turn.
    pub(crate) fn set_bytes_aside(&mut self, key: Key, bytes: &[u8]) {
        self.add_errand(key, Some(Received::from(bytes.to_vec())), None);
    }

    /// The end of a quiet stream waits until it is its turn.
    pub(crate) fn set_end_aside(&mut self, key: Key, end: End) {
        self.add_errand(key, None, Some(end));
    }

    fn add_errand(&mut self, key: Key, bytes: Option<Received>, end: Option<End>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let backlog = connection.backlog.get_or_insert_with(|| self.round.spare());
        if backlog.join_errand(bytes, end) {
            self.errands.keys.push_back(key);
        }
        self.charge(key);
    }

    /// Empties the control plane's lane. An operator, or the end of a drain, waits for orders about
    /// the whole shard: these are few, and done at once. Some of those who are to go are told.
    /// Others wait for their turn.
    pub(crate) fn take_orders(&mut self) {
        self.empty_lane();
        for _ in 0..CLOSES_MAX {
            let Some(order) = self.errands.closes.pop_front() else { return };
            self.on_command(order);
        }
    }

    fn empty_lane(&mut self) {
        let Errands { orders, closes, .. } = &self.errands;
        for _ in orders.len().max(closes.len())..ORDERS_MAX {
            match self.ports.commands.receive() {
                Some(
                    order @ (Command::Report { .. }
                    | Command::Drain { .. }
                    | Command::Resume { .. }
                    | Command::Move { .. }
                    | Command::Stop { .. }
                    | Command::SetLimits(_)
                    | Command::SetRoutes(_)),
                ) => self.on_command(order),
                Some(order @ Command::Close { .. }) => self.errands.closes.push_back(order),
                Some(order) => self.errands.orders.push_back(order),
                None => return,
            }
        }
    }

    /// Does all that was ordered before the shard ends, so that every grant comes back.
    pub(crate) fn finish_orders(&mut self) {
        let Errands { orders, closes, .. } = &mut self.errands;
        orders.append(closes);
        while let Some(order) = self.errands.orders.pop_front() {
            self.on_command(order);
        }
    }

    /// Serves everybody but quiet connections: errands or loud connections, by turns.
    ///
    /// What quiet connections have to send goes first: it would wait for the end of this work, and
    /// so the work is put off, a few turns at most, while there are any.
    pub(crate) fn serve_others(&mut self) {
        let crowded = self.is_crowded();
        let is_wanted = !self.dirty.is_empty() && self.is_in_company();
        if is_wanted && !crowded && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            return;
        }
        self.put_off = 0;
        let loud_first = self.errands.went_last && !self.round.is_empty();
        self.errands.went_last = !loud_first && self.run_errands();
        if crowded || !self.errands.went_last {
            self.serve_backlogs();
        }
    }

    /// Does a turn's errands. Whether there were any.
    fn run_errands(&mut self) -> bool {
        let pace = self.pace();
        let mut done = 0;
        let mut missed = 0;
        self.errands.hellos = 0;
        while done < pace.errands && self.errands.hellos < pace.hellos && missed < KINDS {
            let kind = self.errands.first;
            self.errands.first = kind.next();
            if self.run_errand(kind) {
                done += 1;
                missed = 0;
                self.relieve();
            } else {
                missed += 1;
            }
        }
        let are_left = done > 0 && self.has_errands();
        self.errands.since = are_left.then(|| self.errands.since.unwrap_or(self.now));
        done > 0
    }

    /// Whether there is one to do.
    pub(crate) fn has_errands(&self) -> bool {
        !self.errands.is_empty() || !self.ports.arrivals.is_empty() || self.can_ask_held_back()
    }

    /// Does the next errand of a kind, if there is one.
    fn run_errand(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Command => {
                let Some(command) = self.errands.orders.pop_front() else { return false };
                self.on_command(command);
            }
            Kind::Arrival => {
                let Some(parcel) = self.ports.arrivals.receive() else { return false };
                self.on_arrival(parcel);
            }
            Kind::Connection => {
                let Some(key) = self.errands.keys.pop_front() else { return false };
                self.run_own(key);
            }
            Kind::HeldBack => return self.ask_held_back(),
        }
        true
    }

    /// Serves what a connection had put aside.
    fn run_own(&mut self, key: Key) {
        let connection = self.table.get_mut(key);
        let Some(backlog) = connection.and_then(|found| found.take_errand()) else {
            return;
        };
        let (bytes, end) = self.round.shelve(backlog);
        if let Some(bytes) = bytes {
            self.serve(key, bytes);
        }
        if let Some(end) = end {
            self.on_receive_ended(key, end);
        }
        self.charge(key);
    }
}
