//! What this shard holds, for whoever asks.

use relay_contract::{Counter, Counters, Event, QueryId};
use relay_driver::Driver;

use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    pub(crate) fn answer_report(&mut self, query: QueryId, scopes: bool) {
        let mut report = self.board.report(scopes);
        report.shard = self.config.shard;
        report.now = self.now;
        report.memory_bytes_max = self.limits.memory_bytes_max as u64;
        report.memory_used_bytes = self.budget.used_bytes() as u64;
        report.counters = self.board.counters().clone();
        report.counters.merge(&self.counters);
        report.counters.add(Counter::ReceiveStarved, self.driver.stats().receive_starved);
        self.emit(Event::Reported { query, report: Box::new(report) });
    }

    /// Everything counted since start, by the shard, its switchboard and its driver.
    pub fn counters(&self) -> Counters {
        let mut counters = self.board.counters().clone();
        counters.merge(&self.counters);
        counters.add(Counter::ReceiveStarved, self.driver.stats().receive_starved);
        counters
    }
}
