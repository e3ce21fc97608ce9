//! What a shard holds on to, for whoever checks its budgets.

use relay_driver::Driver;

use crate::budget::held_bytes;
use crate::shard::Shard;

/// Sizes at one moment, between two turns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Audit {
    /// Connections in any state.
    pub connections: usize,
    /// Those among them that are not admitted yet.
    pub guests: usize,
    /// TLS handshakes going on.
    pub handshakes: usize,
    /// Bytes queued on the connection that has most of them, the send in flight excepted.
    pub egress_bytes_max: usize,
    /// Receive buffers that open messages hold on to.
    pub pinned_leases: usize,
    /// Bytes the budget says that connections hold.
    pub charged_bytes: usize,
    /// Bytes they hold, and those of what was discarded and is not free yet, or leaves for another
    /// shard, and what scopes remember.
    pub held_bytes: usize,
    /// Bytes of scopes that nobody is in, beside those.
    pub empty_scopes_bytes: usize,
    /// Receive buffers that wait for a loud connection's turn.
    pub deferred_leases: usize,
}

impl<D: Driver> Shard<D> {
    /// Measures. Cost: a walk over every connection.
    pub fn audit(&mut self) -> Audit {
        let keys = self.table.keys();
        let mut audit = Audit {
            connections: keys.len(),
            guests: self.strangers.count(),
            handshakes: self.strangers.handshakes(),
            egress_bytes_max: 0,
            pinned_leases: self.pinned_leases,
            charged_bytes: self.budget.used_bytes(),
            held_bytes: self.table.iter().map(|(_, found)| held_bytes(found)).sum::<usize>()
                + self.discarded.held_bytes()
                + self.mail.held_bytes()
                + self.board.tables_bytes(),
            empty_scopes_bytes: self.board.empty_scopes_bytes(),
            deferred_leases: self.round.leases(),
        };
        for key in keys {
            if let Some(connection) = self.table.get_mut(key) {
                let queued = connection.egress.as_ref().map_or(0, |egress| egress.queued_bytes());
                audit.egress_bytes_max = audit.egress_bytes_max.max(queued);
            }
        }
        audit
    }

    /// How often a stranger's bytes were looked through for a head, since the beginning.
    pub fn heads_looked_for(&self) -> u64 {
        self.heads_looked_for
    }

    /// Lowers the number of records that each TLS key of now may seal: whoever wants to see what
    /// happens then cannot wait for sixteen million.
    pub fn limit_tls_records(&mut self, records_max: u64) {
        for key in self.table.keys() {
            if let Some(session) = self.table.get_mut(key).and_then(|found| found.tls.as_mut()) {
                session.limit_records(records_max);
            }
        }
    }

    /// The driver, to look at what it counts.
    pub fn driver(&self) -> &D {
        &self.driver
    }
}
