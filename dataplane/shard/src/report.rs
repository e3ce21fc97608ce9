//! What this shard holds, for whoever asks.

use relay_contract::{Counter, Counters, Detail, Event, Histograms, QueryId, ShardLoad};
use relay_driver::Driver;

use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    pub(crate) fn answer_report(&mut self, query: QueryId, detail: Detail) {
        let mut report = self.board.report(detail == Detail::Scopes);
        if detail == Detail::Hottest {
            report.hottest = self.board.hottest(self.now);
        }
        report.shard = self.config.shard;
        report.now = self.now;
        report.load = self.load();
        report.histograms = self.measures.clone();
        report.memory_bytes_max = self.limits.memory_bytes_max as u64;
        report.memory_used_bytes = self.budget.used_bytes() as u64;
        report.counters = self.board.counters().clone();
        report.counters.merge(&self.counters);
        report.counters.add(Counter::ReceiveStarved, self.driver.stats().receive_starved);
        self.emit(Event::Reported { query, report: Box::new(report) });
    }

    fn load(&self) -> ShardLoad {
        let stats = self.driver.stats();
        ShardLoad {
            uptime: self.now.since(self.config.health.started),
            cpu: self.driver.cpu_time(),
            system_calls: stats.system_calls,
            received_bytes: stats.received_bytes,
            sent_bytes: stats.sent_bytes,
            residents: stats.residents,
            residents_max: stats.residents_max,
            buffers_in_use: stats.buffers_in_use,
            buffers_max: self.config.receive_buffers as u64,
            turn_cost: self.turn_costs.sums().clone(),
        }
    }

    /// Everything measured since start.
    pub fn histograms(&self) -> &Histograms {
        &self.measures
    }

    /// Everything counted since start, by the shard, its switchboard and its driver.
    pub fn counters(&self) -> Counters {
        let mut counters = self.board.counters().clone();
        counters.merge(&self.counters);
        counters.add(Counter::ReceiveStarved, self.driver.stats().receive_starved);
        counters
    }
}
