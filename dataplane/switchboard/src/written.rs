//! State written down and taken up again.

use std::sync::Arc;

use relay_contract::{Counter, Counters, Limits, Routes, Tick};

use crate::connection::{Client, Member, Part, State};
use crate::deadline::Timer;
use crate::switchboard::{Core, Switchboard};
use crate::tenants::Tenants;
use crate::wheel::{TimerId, Wheel};

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

/// What follows the version: counters by name, the wheel's position, its deadlines, the rest.
type Written<N, C> = (Vec<(N, u64)>, Tick, Vec<(Tick, Timer)>, C);

impl Switchboard {
    /// The whole state but limits and routes, for [`Switchboard::restore`] in a process with the
    /// same clock.
    ///
    /// Shape: a version, then postcard. It holds no token and no text of a frame, but the hash key,
    /// which is to be kept from peers. Cost: linear in the state.
    pub fn write_down(&self) -> Vec<u8> {
        let counters: Vec<_> = Counter::ALL
            .iter()
            .map(|&counter| (counter.name(), self.counters.of(counter)))
            .collect();
        let deadlines = self.wheel.pending().collect();
        let written: Written<_, _> = (counters, self.wheel.position(), deadlines, &self.core);
        postcard::to_allocvec(&(VERSION, written)).expect("plain values in memory always serialise")
    }

    /// A switchboard that goes on where another was written down: the same inputs have the same
    /// effects. Counters this release does not know are dropped.
    ///
    /// # Errors
    /// When the bytes are of another version, or damaged.
    pub fn restore(
        state: &[u8],
        limits: Arc<Limits>,
        routes: Arc<Routes>,
    ) -> Result<Self, RestoreError> {
        let (found, rest): (u16, _) =
            postcard::take_from_bytes(state).map_err(|_| RestoreError::Damaged)?;
        if found != VERSION {
            return Err(RestoreError::Version { found, expected: VERSION });
        }
        let (counted, position, deadlines, core): Written<String, Core> =
            postcard::from_bytes(rest).map_err(|_| RestoreError::Damaged)?;
        let mut counters = Counters::default();
        for (name, value) in counted {
            if let Some(&counter) = Counter::ALL.iter().find(|counter| counter.name() == name) {
                counters.add(counter, value);
            }
        }
        let mut board = Self {
            core,
            counters,
            tenants: Tenants::new(Arc::default(), &limits),
            limits,
            wheel: Wheel::new(position),
        };
        board.rearm(deadlines).ok_or(RestoreError::Damaged)?;
        board.check().ok_or(RestoreError::Damaged)?;
        board.share_machine_ids();
        board.settle_tenants(routes);
        Ok(board)
    }

    /// Inserts the deadlines in the order they were written, which is the order of equal ones.
    fn rearm(&mut self, deadlines: Vec<(Tick, Timer)>) -> Option<()> {
        for (at, timer) in deadlines {
            let id = self.wheel.insert(at, timer);
            if let Some(slot) = timer.slot() {
                *self.core.connections.at_mut(slot)?.state.timer_mut()? = id;
            }
        }
        Some(())
    }

    /// Whether the parts agree as far as anything relies on it.
    fn check(&mut self) -> Option<()> {
        let core = &mut self.core;
        core.directory.reindex().then_some(())?;
        let mut deadline_count = usize::from(core.cleanup_armed);
        let mut peer_count = 0;
        let mut present = vec![Present::default(); core.directory.slot_count()];
        for (_, connection) in core.connections.iter() {
            match &connection.state {
                State::Open(member) => {
                    core.directory.contains(member.scope).then_some(())?;
                    deadline_count += 1;
                    let present = &mut present[member.scope as usize];
                    present.members += 1;
                    present.clients += u32::from(matches!(member.part, Part::Client(_)));
                    peer_count += u64::from(!matches!(member.part, Part::Worker(_)));
                }
                State::Closing { .. } => deadline_count += 1,
                State::Cut { .. } => {}
            }
        }
        let counted = core.directory.iter().all(|(at, scope)| {
            let present = present[at as usize];
            scope.member_count() == present.members && scope.client_count == present.clients
        });
        let armed = core.connections.iter().all(|(_, connection)| match &connection.state {
            State::Open(Member { timer, .. }) | State::Closing { timer, .. } => {
                *timer != TimerId::default()
            }
            State::Cut { .. } => true,
        });
        let agree =
            counted && armed && deadline_count == self.wheel.len() && peer_count == core.peer_count;
        agree.then_some(())
    }

    /// Equal machine ids of a scope share their text again.
    fn share_machine_ids(&mut self) {
        for slot in 0..self.core.connections.slot_count() {
            let connection = self.core.connections.at_mut(slot);
            let Some(State::Open(member)) = connection.map(|connection| &mut connection.state)
            else {
                continue;
            };
            let scope = self.core.directory.scope_mut(member.scope);
            if let Part::Client(Client { machine_id: Some(id), .. })
            | Part::Daemon { machine_id: Some(id), .. } = &mut member.part
            {
                *id = scope.share_machine_id(id);
            }
        }
    }
}

/// Who is in a scope, counted anew.
#[derive(Clone, Copy, Default)]
struct Present {
    members: u32,
    clients: u32,
}

/// Grows with every change of the layout.
const VERSION: u16 = 6;

#[cfg(test)]
#[path = "written_tests.rs"]
mod tests;
