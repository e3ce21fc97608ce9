//! The shard's own deadlines: heads, answers, farewells. Open connections have theirs in the
//! switchboard.

use std::time::Duration;

use relay_contract::Tick;
use relay_driver::{Driver, Key};
use relay_switchboard::{TimerId, Wheel};

use crate::connection::Phase;
use crate::shard::Shard;

/// A running deadline, or by default none.
pub(crate) type Timer = TimerId;

/// Which connection a deadline is for. One per connection.
pub(crate) type Deadlines = Wheel<Key>;

/// Deadlines of the shard's own acted on in one turn. Protects the latency of messages from a crowd
/// that came together and has to go together. Reached: the others wait for the next turn.
const EXPIRED_MAX: usize = 8;

impl<D: Driver> Shard<D> {
    /// Gives the connection this long from now, instead of what it had.
    pub(crate) fn set_deadline(&mut self, key: Key, patience: Duration) {
        self.clear_deadline(key);
        let timer = self.deadlines.insert(self.now.after(patience), key);
        if let Some(connection) = self.table.get_mut(key) {
            connection.timer = timer;
        }
    }

    /// Takes the connection's deadline away.
    pub(crate) fn clear_deadline(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key) {
            self.deadlines.cancel(std::mem::take(&mut connection.timer));
        }
    }

    /// Acts on deadlines up to now, a few of them, and on the switchboard's.
    pub(crate) fn expire(&mut self) {
        for _ in 0..EXPIRED_MAX {
            let Some(key) = self.deadlines.expire(self.now) else {
                break;
            };
            if let Some(connection) = self.table.get_mut(key) {
                connection.timer = Timer::default();
                match connection.phase {
                    Phase::Fronted(_) => self.on_fronted_expired(key),
                    Phase::Guest(_) => self.on_guest_expired(key),
                    Phase::Waiting(_) => self.on_waiting_expired(key),
                    Phase::Leaving(_) => self.close(key),
                    Phase::Open(_) | Phase::Closed => {}
                }
            }
        }
        if self.board.next_deadline().is_some_and(|due| due <= self.now) {
            self.consult(relay_switchboard::Input::Elapsed);
        }
    }

    /// The next moment at which something is due here.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        let stop = self.stop_deadline.filter(|&deadline| deadline > self.now);
        let (moves, memories) = (self.moves.due(), self.whereabouts.due());
        let due = [self.deadlines.next_deadline(), self.board.next_deadline(), stop];
        let others = [self.drain_due(), moves, memories];
        due.into_iter().chain(others).flatten().min()
    }
}
