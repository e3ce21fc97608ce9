//! Everybody who is open is told to reconnect, evenly over a while.

use std::collections::VecDeque;
use std::time::Duration;

use relay_contract::{ConnectionId, Counter, Tick, Versioned};
use relay_driver::{Driver, Key};
use relay_switchboard::Input;

use crate::connection::Phase;
use crate::shard::Shard;
use crate::upgrade::UNAVAILABLE;

/// A drain that goes on until it is taken back, or the shard stops.
pub(crate) struct Drain {
    began: Tick,
    window: Duration,
    /// Those who were not told yet, in the order of their turns.
    waiting: VecDeque<ConnectionId>,
    told: usize,
    /// How many there are in all.
    count: usize,
    /// Where the turns of this shard lie between those of the others, in parts of the distance
    /// between two: numerator and denominator.
    phase: (u32, u32),
    /// Where clients are sent, if another relay is known.
    redirect: Option<Box<str>>,
}

/// Peers told in one turn. Protects the latency of those whose time has not come. Reached: the
/// others follow in the next turn. Source: a close takes as long as an answer to a ping.
const TOLD_MAX: usize = 32;

impl Drain {
    /// When the next is told; nothing when everybody was.
    fn due(&self) -> Option<Tick> {
        self.waiting.front()?;
        let (part, parts) = self.phase;
        // Nanoseconds of a window and a number of connections are far from 128 bits.
        let turns = self.told as u128 * u128::from(parts) + u128::from(part);
        let all = (self.count as u128 * u128::from(parts)).max(1);
        let after = self.window.as_nanos() * turns / all;
        Some(self.began.after(Duration::from_nanos(u64::try_from(after).unwrap_or(u64::MAX))))
    }
}

impl<D: Driver> Shard<D> {
    /// Whether an order to drain, or to admit again, is to be followed. Says which one is in force
    /// then.
    fn is_newer_drain(&mut self, version: u64) -> bool {
        if version == 0 {
            return true;
        }
        let is_newer = version > self.drain_version;
        if is_newer {
            self.drain_version = version;
        } else {
            self.counters.count(Counter::StaleVersionsRefused);
        }
        self.acknowledge(Versioned::Drain);
        is_newer
    }

    /// Begins a drain, or gives one that goes on another window and address.
    pub(crate) fn on_drain(&mut self, version: u64, window: Duration, redirect: Option<Box<str>>) {
        if !self.is_newer_drain(version) || self.stop_deadline.is_some() {
            return;
        }
        let waiting = VecDeque::from(self.board.leaving_order());
        let shards = u32::try_from(self.ports.homes.len().max(1)).unwrap_or(u32::MAX);
        self.drain = Some(Box::new(Drain {
            began: self.now,
            window,
            count: waiting.len(),
            waiting,
            told: 0,
            phase: (u32::from(self.config.shard.0).min(shards - 1), shards),
            redirect,
        }));
        for key in self.table.keys() {
            match self.phase_mut(key) {
                Some(Phase::Waiting(_)) => self.abandon(key),
                // It is refused instead of asked about.
                Some(Phase::Guest(guest)) if guest.held_back_since().is_some() => {
                    self.ask_admission(key);
                }
                _ => {}
            }
        }
    }

    /// Takes a drain back: who was not told stays, and upgrades are asked about again.
    pub(crate) fn on_resume(&mut self, version: u64) {
        if self.is_newer_drain(version) {
            self.drain = None;
        }
    }

    /// When somebody has to be told.
    pub(crate) fn drain_due(&self) -> Option<Tick> {
        self.drain.as_ref()?.due()
    }

    /// Tells those whose time has come, a few of them.
    pub(crate) fn tell_some(&mut self) {
        let Some(mut drain) = self.drain.take() else { return };
        for _ in 0..TOLD_MAX {
            if drain.due().is_none_or(|due| due > self.now) {
                break;
            }
            let Some(connection) = drain.waiting.pop_front() else { break };
            drain.told += 1;
            self.consult(Input::Drained { connection, redirect: drain.redirect.as_deref() });
        }
        if drain.waiting.is_empty() {
            drain.waiting = VecDeque::new();
        }
        self.drain = Some(drain);
    }

    /// Those who came from another shard go too, behind all others.
    pub(crate) fn drain_too(&mut self, connections: Vec<ConnectionId>) {
        if let Some(drain) = &mut self.drain {
            drain.count += connections.len();
            drain.waiting.extend(connections);
        }
    }

    /// Answers an upgrade 503 that the control plane was asked about.
    pub(crate) fn abandon(&mut self, key: Key) {
        self.withdraw(key);
        self.counters.count(Counter::AdmissionUnavailable);
        self.counters.add(Counter::DrainRefused, u64::from(self.drain.is_some()));
        self.on_refuse(key, UNAVAILABLE);
    }
}
