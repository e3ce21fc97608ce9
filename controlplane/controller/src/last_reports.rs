//! What shards of data planes told last: for the moment in which one does not answer, and for the
//! sums when it is gone.

use std::collections::{BTreeMap, VecDeque};

use relay_contract::{Counters, ShardId, ShardReport};
use relay_link::Block;

/// The last report of each shard, without its scopes, and what shards had counted that are gone.
///
/// A counter of the sums never falls: a data plane that goes leaves what it had told last. One that
/// comes back with the same life takes it along again, because it goes on counting where it was.
#[derive(Debug, Default)]
pub(crate) struct LastReports {
    told: BTreeMap<ShardId, ShardReport>,
    /// Data planes that may come back, the one that went first in front: by what each calls itself,
    /// with its shards in order, from its first one on.
    gone: VecDeque<(String, Vec<(u16, ShardReport)>)>,
    /// Of those that are forgotten.
    retired: Counters,
}

impl LastReports {
    /// Takes note of what a shard tells.
    pub(crate) fn note(&mut self, report: &ShardReport) {
        let kept = ShardReport {
            scopes: Vec::new(),
            hottest: Vec::new(),
            histograms: report.histograms.clone(),
            counters: report.counters.clone(),
            load: report.load.clone(),
            ..*report
        };
        self.told.insert(report.shard, kept);
    }

    /// What this shard told last.
    pub(crate) fn of(&self, shard: ShardId) -> Option<&ShardReport> {
        self.told.get(&shard)
    }

    /// A data plane came. Whether it was here before.
    pub(crate) fn attach(&mut self, block: Block, instance_id: &str) -> bool {
        let Some(at) = self.gone.iter().position(|(id, _)| id == instance_id) else {
            return false;
        };
        for (index, report) in self.gone.remove(at).into_iter().flat_map(|(_, reports)| reports) {
            let shard = ShardId(block.first.0.saturating_add(index));
            self.told.insert(shard, ShardReport { shard, ..report });
        }
        true
    }

    /// A data plane is gone.
    pub(crate) fn detach(&mut self, block: Block, instance_id: String) {
        let told = self.told.extract_if(.., |shard, _| block.contains(*shard));
        let told = told.map(|(shard, report)| (shard.0 - block.first.0, report)).collect();
        self.gone.push_back((instance_id, told));
        if self.gone.len() > GONE_MAX
            && let Some((_, reports)) = self.gone.pop_front()
        {
            reports.iter().for_each(|(_, report)| self.retired.merge(&report.counters));
        }
    }

    /// What shards had counted that are gone.
    pub(crate) fn counted_before(&self) -> Counters {
        let mut counters = self.retired.clone();
        let reports = self.gone.iter().flat_map(|(_, reports)| reports);
        reports.for_each(|(_, report)| counters.merge(&report.counters));
        counters
    }
}

/// Data planes that are gone and may come back. Protects memory. Reached: the one that went first
/// is a part of the sums for ever, and is counted twice if it comes back all the same. Source: a
/// fleet that is restarted at one moment.
const GONE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use relay_contract::Counter;

    use super::*;

    fn block(first: u16) -> Block {
        Block { first: ShardId(first), count: 2 }
    }

    fn report(shard: u16, opened: u64) -> ShardReport {
        let mut report = ShardReport { shard: ShardId(shard), ..ShardReport::default() };
        report.counters.add(Counter::WsConnectionsOpened, opened);
        report
    }

    fn before(last: &LastReports) -> u64 {
        last.counted_before().of(Counter::WsConnectionsOpened)
    }

    #[test]
    fn what_a_data_plane_counted_stays_when_it_goes_and_is_not_counted_twice_when_it_is_back() {
        let mut last = LastReports::default();
        assert!(!last.attach(block(4), "a"));
        last.note(&report(4, 3));
        last.note(&report(4, 5));
        last.note(&report(5, 7));
        last.note(&report(9, 100));
        last.detach(block(4), "a".to_owned());
        assert_eq!(before(&last), 12);
        assert!(last.of(ShardId(4)).is_none() && last.of(ShardId(9)).is_some());
        assert!(!last.attach(block(0), "another"));
        assert!(last.attach(block(6), "a"));
        assert_eq!(before(&last), 0);
        let told = last.of(ShardId(7)).unwrap();
        assert_eq!((told.shard, told.counters.of(Counter::WsConnectionsOpened)), (ShardId(7), 7));
    }

    #[test]
    fn data_planes_without_end_take_bounded_memory_and_stay_in_the_sums() {
        let mut last = LastReports::default();
        for n in 0..1000 {
            last.note(&report(0, 1));
            last.detach(block(0), n.to_string());
        }
        assert_eq!((before(&last), last.gone.len()), (1000, GONE_MAX));
        assert!(!last.attach(block(0), "0") && last.attach(block(0), "999"));
    }
}
