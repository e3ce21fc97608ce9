//! Sends in the middle of a turn: a reader is judged by what its socket refuses, not by what one
//! turn brings it.

use std::time::Duration;

use relay_driver::{Completion, Driver, Key};

use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    /// Offers the socket what waits for it, before the next message for it is judged.
    ///
    /// What a turn queues is usually sent at its end. A burst may be larger than what may wait for
    /// one connection, and a fast reader would be closed for it; so past that bound, which is its
    /// workspace's own where there is one, the socket is asked at once. What else completes
    /// meanwhile is looked at in the next turn. Cost: a look at the switchboard's account; a system
    /// call for each time the bound is passed.
    pub(crate) fn offer(&mut self, key: Key) {
        let to = self.table.id(key);
        while self.board.is_backed_up(to) {
            let sent = self.completions.iter().position(
                |completion| matches!(completion, Completion::Sent { key: to, .. } if *to == key),
            );
            if let Some(at) = sent {
                if let Completion::Sent { key, batch, outcome } = self.completions.remove(at) {
                    self.on_sent(key, batch, outcome);
                }
                continue;
            }
            if !self.is_eager(key) {
                return;
            }
            self.start_send(key);
            if self.driver.turn(Some(Duration::ZERO), &mut self.completions).is_err() {
                // The next turn meets the error again and reports it.
                return;
            }
        }
    }

    /// Whether something waits that no socket was offered yet, and nothing says that the reader is
    /// slow.
    fn is_eager(&mut self, key: Key) -> bool {
        let connection = self.table.get_mut(key).filter(|found| !found.stay.is_halted());
        let egress = connection.and_then(|connection| connection.egress.as_ref());
        egress.is_some_and(|egress| egress.is_ready() && !egress.is_stalled())
    }
}
