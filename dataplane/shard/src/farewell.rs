//! How connections end: with a last word, or cut.

use std::time::Duration;

use relay_contract::{Counter, Refusal};
use relay_driver::{Driver, Key};
use relay_switchboard::Input;

use crate::connection::{Leaving, Phase};
use crate::shard::Shard;

/// How long a peer may take to answer our FIN. What it still sends is read and dropped meanwhile,
/// so that the last bytes we sent are not destroyed by a reset.
const LINGER: Duration = Duration::from_millis(1000);

impl<D: Driver> Shard<D> {
    /// Nothing more is expected of this peer: flush, FIN, then close. An open connection is
    /// deregistered now.
    pub(crate) fn leave(&mut self, key: Key) {
        let patience = self.limits.close_timeout;
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        match connection.phase {
            Phase::Closed => return,
            Phase::Leaving(_) => {}
            Phase::Guest(_) | Phase::Waiting(_) => {
                connection.phase = Phase::Leaving(Leaving::default());
            }
            Phase::Open(_) => {
                self.forget_assembly(key);
                if let Some(phase) = self.phase_mut(key) {
                    *phase = Phase::Leaving(Leaving::default());
                }
                self.guest_count += 1;
                let connection = self.table.id(key);
                self.consult(Input::Closed { connection });
            }
        }
        self.set_deadline(key, patience);
        self.say_farewell(key);
        self.arm(key);
    }

    /// Sends FIN once everything before it has left.
    pub(crate) fn say_farewell(&mut self, key: Key) {
        if !self.is_flushed(key) {
            return;
        }
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let Phase::Leaving(leaving) = &mut connection.phase else {
            return;
        };
        if leaving.fin {
            return;
        }
        if let Some(session) = &mut connection.tls
            && !leaving.notified
        {
            leaving.notified = true;
            session.close_notify();
            return self.touch(key);
        }
        leaving.fin = true;
        if leaving.peer_ended {
            return self.close(key);
        }
        self.driver.shutdown(key);
        self.set_deadline(key, LINGER);
    }

    /// The peer's FIN arrived.
    pub(crate) fn on_peer_ended(&mut self, key: Key) {
        match self.phase_mut(key) {
            // It may still be owed an answer.
            Some(Phase::Guest(guest)) => {
                if !guest.await_last_answer() {
                    self.leave(key);
                }
            }
            Some(Phase::Leaving(leaving)) => {
                leaving.peer_ended = true;
                if leaving.fin {
                    self.close(key);
                }
            }
            // A WebSocket that ends without a close frame has nothing more to hear.
            Some(Phase::Open(_)) => self.cut(key),
            None | Some(Phase::Waiting(_) | Phase::Closed) => {}
        }
    }

    /// Ends it without another word: the socket failed, or the switchboard said so.
    pub(crate) fn cut(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        if connection.is_open() {
            self.forget_assembly(key);
            self.guest_count += 1;
            self.close(key);
            let connection = self.table.id(key);
            self.consult(Input::Closed { connection });
        } else {
            self.close(key);
        }
    }

    /// Gives the socket back to the driver. The slot is freed when the driver has let go of it.
    pub(crate) fn close(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Closed) {
            return;
        }
        connection.phase = Phase::Closed;
        connection.egress = None;
        connection.tls = None;
        self.clear_deadline(key);
        self.driver.close(key);
    }

    /// The driver has let go of the socket.
    pub(crate) fn on_closed(&mut self, key: Key) {
        self.clear_deadline(key);
        if self.table.remove(key).is_some() {
            self.guest_count -= 1;
        }
    }

    /// Stops accepting and tells everybody to go. What is left at the deadline is cut.
    pub(crate) fn on_stop(&mut self, patience: Duration) {
        if self.stop_deadline.is_none() {
            self.driver.stop_listening();
        }
        self.stop_deadline = Some(self.now.after(patience));
        for key in self.table.keys() {
            match self.phase_mut(key) {
                Some(Phase::Guest(_)) => self.leave(key),
                Some(Phase::Waiting(_)) => {
                    self.counters.count(Counter::AdmissionExpired);
                    let connection = self.table.id(key);
                    self.emit(relay_contract::Event::Abandoned { connection });
                    self.on_refuse(key, Refusal::Unavailable { retry_after_secs: 1 });
                }
                _ => {}
            }
        }
        self.consult(Input::Stop);
    }
}
