//! How connections end: with a last word, or cut.

use std::time::Duration;

use relay_contract::CloseReason;
use relay_driver::{Driver, Key};
use relay_switchboard::Input;

use crate::connection::{Leaving, Phase};
use crate::shard::Shard;

/// How long a peer may take to answer our FIN. What it still sends is read and dropped meanwhile,
/// so that the last bytes we sent are not destroyed by a reset.
const LINGER: Duration = Duration::from_millis(1000);

impl<D: Driver> Shard<D> {
    /// Closes an open connection with this reason; it is not counted here.
    pub(crate) fn close_for(&mut self, key: Key, reason: CloseReason) {
        let connection = self.table.id(key);
        self.consult(Input::Evicted { connection, reason });
    }

    /// Nothing more is expected of this peer: flush, FIN, then close. Nothing is routed to an open
    /// connection from now on; it keeps its place in the limits as long as it keeps memory.
    pub(crate) fn leave(&mut self, key: Key) {
        self.leave_as(key, false);
    }

    /// The same, of a peer that may have ended its side: then closing ends ours, and no FIN has to
    /// go before it.
    pub(crate) fn leave_as(&mut self, key: Key, peer_ended: bool) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let stranger = connection.stranger();
        let leaving = Leaving { peer_ended, stranger, ..Leaving::default() };
        match connection.phase {
            Phase::Closed | Phase::Leaving(_) => return,
            Phase::Fronted(_) | Phase::Guest(_) | Phase::Waiting(_) => {
                self.enter(key, Phase::Leaving(leaving));
            }
            Phase::Open(_) => {
                self.forget_assembly(key);
                self.enter(key, Phase::Leaving(Leaving { registered: true, ..leaving }));
                let connection = self.table.id(key);
                self.consult(Input::Closing { connection });
            }
        }
        self.begin_farewell(key);
    }

    /// Gives a leaving connection its deadline and its first push.
    pub(crate) fn begin_farewell(&mut self, key: Key) {
        self.set_deadline(key, self.limits.close_timeout);
        self.say_farewell(key);
        if matches!(self.phase_mut(key), Some(Phase::Leaving(leaving)) if !leaving.peer_ended) {
            self.arm(key);
        }
    }

    /// Sends FIN once everything before it has left.
    pub(crate) fn say_farewell(&mut self, key: Key) {
        if !self.is_flushed(key) {
            return;
        }
        let Some(connection) = self.table.get_mut(key) else { return };
        let Phase::Leaving(leaving) = &mut connection.phase else { return };
        if leaving.fin {
            return;
        }
        if let Some(session) = &mut connection.tls
            && !leaving.notified
        {
            leaving.notified = true;
            if session.close_notify() {
                return self.touch(key);
            }
        }
        leaving.fin = true;
        let peer_ended = leaving.peer_ended;
        self.deregister(key);
        if peer_ended {
            return self.close(key);
        }
        self.driver.shutdown(key);
        self.set_deadline(key, LINGER);
    }

    /// The peer's FIN arrived.
    pub(crate) fn on_peer_ended(&mut self, key: Key) {
        match self.phase_mut(key) {
            Some(Phase::Fronted(_)) => self.on_fronted_ended(key),
            Some(Phase::Guest(guest)) => {
                // Requests that came before it are answered.
                guest.peer_ended = true;
                self.advance_guest(key);
            }
            // What was queued for it still goes out: it may have closed one direction only.
            Some(Phase::Open(_)) => self.leave_as(key, true),
            Some(Phase::Leaving(leaving)) => {
                leaving.peer_ended = true;
                if leaving.fin {
                    self.close(key);
                }
            }
            None | Some(Phase::Waiting(_) | Phase::Closed) => {}
        }
    }

    /// Ends it without another word: the socket failed, or the switchboard said so.
    pub(crate) fn cut(&mut self, key: Key) {
        self.forget_assembly(key);
        self.close(key);
    }

    /// Gives the socket back to the driver. The slot is freed when the driver has let go of it.
    pub(crate) fn close(&mut self, key: Key) {
        match self.phase_mut(key) {
            None | Some(Phase::Closed) => return,
            Some(Phase::Waiting(_)) => self.withdraw(key),
            Some(Phase::Fronted(_) | Phase::Guest(_) | Phase::Open(_) | Phase::Leaving(_)) => {}
        }
        self.deregister(key);
        self.forget_backlog(key);
        self.enter(key, Phase::Closed);
        if let Some(connection) = self.table.get_mut(key) {
            connection.egress = None;
            connection.tls = None;
        }
        self.charge(key);
        self.clear_deadline(key);
        self.take_back_to_close(key);
        self.driver.close(key);
    }

    /// Tells the switchboard, once, that an admitted connection holds nothing any more.
    fn deregister(&mut self, key: Key) {
        let registered = match self.phase_mut(key) {
            Some(Phase::Open(_)) => true,
            Some(Phase::Leaving(leaving)) => std::mem::take(&mut leaving.registered),
            None
            | Some(Phase::Fronted(_) | Phase::Guest(_) | Phase::Waiting(_) | Phase::Closed) => {
                false
            }
        };
        if registered {
            let connection = self.table.id(key);
            self.charge(key);
            self.consult(Input::Closed { connection });
        }
    }

    /// The driver has let go of the socket.
    pub(crate) fn on_closed(&mut self, key: Key) {
        self.clear_deadline(key);
        self.forget(key);
    }

    /// Stops accepting and tells everybody to go. What is left at the deadline is cut.
    pub(crate) fn on_stop(&mut self, patience: Duration) {
        self.drain = None;
        if self.stop_deadline.is_none() {
            self.driver.stop_listening();
        }
        self.stop_deadline = Some(self.now.after(patience));
        for key in self.table.keys() {
            match self.phase_mut(key) {
                Some(Phase::Fronted(_)) => self.close(key),
                Some(Phase::Guest(_)) => self.leave(key),
                Some(Phase::Waiting(_)) => self.abandon(key),
                _ => {}
            }
        }
        self.consult(Input::Stop);
    }

    /// Cuts everybody who is left.
    pub(crate) fn cut_all(&mut self) {
        for key in self.table.keys() {
            self.cut(key);
        }
    }
}
