//! Questions to all shards, until all have answered.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_contract::{ConnectionId, QueryId, ShardId, ShardReport, Tick};
use tokio::sync::oneshot;

use crate::admin::Format;
use crate::admin_listener::AdminReply;
use crate::control::Reported;

/// What an operator asked that only the shards together can answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Topic {
    /// `/state`
    State,
    /// `/metrics`
    Metrics(Format),
    /// `/histograms`
    Histograms,
    /// `/node`, with the scopes that have most traffic.
    Node {
        /// `?hot=1`
        hot: bool,
    },
}

/// Who asked, and so where the answer goes.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A connection of the relay's port.
    Connection(ConnectionId),
    /// One who came through the operators' door.
    Operator(oneshot::Sender<AdminReply>),
}

/// What was asked, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// Over HTTP.
    Http(Topic, Asker),
    /// A call of the control API.
    Control(Reported),
}

/// A question on its way.
#[derive(Debug)]
struct Query {
    inquiry: Inquiry,
    deadline: Tick,
    /// By shard: the order they are shown in.
    reports: BTreeMap<ShardId, ShardReport>,
}

/// A question that all shards answered, or that ran out of time.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) inquiry: Inquiry,
    /// In order of shards; `None` when one did not answer in time.
    pub(crate) reports: Option<Vec<ShardReport>>,
}

/// All questions on their way.
#[derive(Debug)]
pub(crate) struct Queries {
    shard_count: usize,
    open: BTreeMap<QueryId, Query>,
    last: u64,
}

impl Queries {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self { shard_count, open: BTreeMap::new(), last: 0 }
    }

    /// Opens a question; the caller sends it to every shard.
    ///
    /// # Errors
    /// What was asked, when too many are open.
    pub(crate) fn open(&mut self, now: Tick, inquiry: Inquiry) -> Result<QueryId, Inquiry> {
        if self.open.len() >= OPEN_MAX {
            return Err(inquiry);
        }
        self.last += 1;
        let id = QueryId(self.last);
        let query = Query { inquiry, deadline: now.after(PATIENCE), reports: BTreeMap::new() };
        self.open.insert(id, query);
        Ok(id)
    }

    /// Takes one shard's answer; the whole when it was the last. Late answers are ignored.
    pub(crate) fn report(&mut self, id: QueryId, report: ShardReport) -> Option<Answered> {
        let query = self.open.get_mut(&id)?;
        query.reports.insert(report.shard, report);
        if query.reports.len() < self.shard_count {
            return None;
        }
        let query = self.open.remove(&id)?;
        let reports = query.reports.into_values().collect();
        Some(Answered { inquiry: query.inquiry, reports: Some(reports) })
    }

    /// Ends the questions whose time is over.
    pub(crate) fn expire(&mut self, now: Tick) -> Vec<Answered> {
        let expired = self.open.extract_if(.., |_, query| query.deadline <= now);
        expired.map(|(_, query)| Answered { inquiry: query.inquiry, reports: None }).collect()
    }

    /// Whether any is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// How long shards may take. They answer between two turns; a second is a shard that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions open at a time. Protects memory from an operator's loop. Reached: 503.
const OPEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(shard: u16) -> ShardReport {
        ShardReport { shard: ShardId(shard), ..ShardReport::default() }
    }

    fn inquiry() -> Inquiry {
        Inquiry::Http(Topic::State, Asker::Connection(ConnectionId::default()))
    }

    fn opened(queries: &mut Queries) -> QueryId {
        queries.open(Tick(0), inquiry()).unwrap()
    }

    #[test]
    fn the_last_shard_completes_the_answer_in_order_of_shards() {
        let mut queries = Queries::new(2);
        let id = opened(&mut queries);
        assert!(queries.report(id, report(1)).is_none());
        let answered = queries.report(id, report(0)).unwrap();
        let shards: Vec<_> = answered.reports.unwrap().iter().map(|r| r.shard.0).collect();
        assert_eq!(shards, [0, 1]);
        assert!(queries.is_empty());
    }

    #[test]
    fn a_shard_that_answers_twice_does_not_stand_for_another() {
        let mut queries = Queries::new(2);
        let id = opened(&mut queries);
        assert!(queries.report(id, report(1)).is_none());
        assert!(queries.report(id, report(1)).is_none());
    }

    #[test]
    fn a_silent_shard_ends_the_question_in_time() {
        let mut queries = Queries::new(2);
        let id = opened(&mut queries);
        queries.report(id, report(0));
        assert!(queries.expire(Tick(0).after(PATIENCE / 2)).is_empty());
        let expired = queries.expire(Tick(0).after(PATIENCE));
        assert!(matches!(expired[..], [Answered { reports: None, .. }]));
        assert!(queries.report(id, report(1)).is_none());
    }

    #[test]
    fn open_questions_are_bounded() {
        let mut queries = Queries::new(1);
        for _ in 0..OPEN_MAX {
            opened(&mut queries);
        }
        assert!(queries.open(Tick(0), inquiry()).is_err());
    }
}
