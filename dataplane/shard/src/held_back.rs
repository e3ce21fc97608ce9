//! Upgrades that wait because the control plane is behind with what it was told.
//!
//! A crowd that comes back at one moment is read faster than it is judged. The lane to the control
//! plane then fills, and whoever comes next waits here, as a guest with its head in memory of its
//! own that it is charged for, until the lane has room again or its time is over. A part of the
//! lane is kept from newcomers: what those who are in cause goes on to be heard.

use std::collections::VecDeque;

use relay_contract::Counter;
use relay_driver::{Driver, Key};
use relay_wire::http1;

use crate::connection::Phase;
use crate::shard::Shard;
use crate::upgrade::UNAVAILABLE;

/// Those held back, in the order they came. Some may be gone or refused since.
///
/// Bounded by `Limits::guests_max`, beside the budget. Reached: the newest is answered 503 with
/// `Retry-After`, with a count.
#[derive(Debug, Default)]
pub(crate) struct HeldBack(VecDeque<Key>);

/// The part of the lane to the control plane that newcomers leave free, over one.
const KEPT_FREE: usize = 4;

impl HeldBack {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<D: Driver> Shard<D> {
    /// The guest's buffer begins with a complete upgrade request: asks the control plane about it,
    /// or lets it wait behind those who do.
    pub(crate) fn ask_in_turn(&mut self, key: Key) {
        let is_closed = self.drain.is_some() || self.budget.is_tight(&self.limits);
        if is_closed || self.held_back.is_empty() && self.has_room_for_newcomers() {
            return self.ask_admission(key);
        }
        self.forget_gone();
        if self.held_back.0.len() >= self.limits.guests_max {
            return self.refuse_held_back(key);
        }
        let now = self.now;
        if let Some(Phase::Guest(guest)) = self.phase_mut(key) {
            guest.hold_back(now);
            self.held_back.0.push_back(key);
            self.counters.count(Counter::UpgradesHeldBack);
            self.set_deadline(key, self.limits.admission_timeout);
        }
    }

    /// Whether somebody waits and can be asked about.
    pub(crate) fn can_ask_held_back(&self) -> bool {
        !self.held_back.is_empty() && self.has_room_for_newcomers()
    }

    /// Asks about the one who has waited longest, if that is possible now. Whether it was.
    pub(crate) fn ask_held_back(&mut self) -> bool {
        self.forget_gone();
        if !self.can_ask_held_back() {
            return false;
        }
        let Some(key) = self.held_back.0.pop_front() else { return false };
        self.ask_admission(key);
        self.charge(key);
        true
    }

    /// It waited too long, or too many do.
    pub(crate) fn refuse_held_back(&mut self, key: Key) {
        self.counters.count(Counter::AdmissionUnavailable);
        self.counters.count(Counter::UpgradesHeldBackRefused);
        self.push(key, http1::refusal_bytes(UNAVAILABLE).into_owned().into());
        self.leave(key);
        self.forget_gone();
    }

    fn has_room_for_newcomers(&self) -> bool {
        let events = &self.ports.events;
        self.is_heard() && events.room() > events.capacity() / KEPT_FREE
    }

    /// Takes those off the front that wait no more: time runs out in the order they came.
    fn forget_gone(&mut self) {
        while let Some(&key) = self.held_back.0.front() {
            let guest = self.phase_mut(key);
            if matches!(guest, Some(Phase::Guest(it)) if it.held_back_since().is_some()) {
                return;
            }
            self.held_back.0.pop_front();
        }
        // A crowd is rare, and its memory is not kept for the next.
        self.held_back.0 = VecDeque::new();
    }
}
