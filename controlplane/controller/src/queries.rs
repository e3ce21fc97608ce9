//! Questions to all shards, until all have answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relay_contract::{ConnectionId, QueryId, ShardId, ShardReport, Tick};
use tokio::sync::oneshot;

use crate::admin::Format;
use crate::admin_listener::AdminReply;
use crate::control::Reported;
use crate::last_reports::LastReports;

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
    /// Who has not answered.
    missing: BTreeSet<ShardId>,
    /// By shard: the order they are shown in.
    reports: BTreeMap<ShardId, ShardReport>,
}

/// A question that all shards answered, or that ran out of time.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) inquiry: Inquiry,
    /// In order of shards; `None` when one did not answer in time and nothing stands for it.
    pub(crate) reports: Option<Vec<ShardReport>>,
}

impl Inquiry {
    /// Whether no answer stands for that of a shard.
    fn needs_everybody(&self) -> bool {
        matches!(self, Self::Control(Reported::Resumed(_)))
    }
}

impl Query {
    fn answered(self) -> Answered {
        let reports = Some(self.reports.into_values().collect());
        Answered { inquiry: self.inquiry, reports }
    }
}

/// All questions on their way.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    open: BTreeMap<QueryId, Query>,
    last: u64,
}

impl Queries {
    /// Opens a question to these shards; the caller sends it. Without any it is answered at once,
    /// by [`Self::settle`].
    ///
    /// # Errors
    /// What was asked, when too many are open.
    pub(crate) fn open(
        &mut self,
        now: Tick,
        inquiry: Inquiry,
        shards: impl Iterator<Item = ShardId>,
    ) -> Result<QueryId, Inquiry> {
        if self.open.len() >= OPEN_MAX {
            return Err(inquiry);
        }
        self.last += 1;
        let id = QueryId(self.last);
        let deadline = now.after(PATIENCE);
        let query =
            Query { inquiry, deadline, missing: shards.collect(), reports: BTreeMap::new() };
        self.open.insert(id, query);
        Ok(id)
    }

    /// Takes one shard's answer; the whole when it was the last. Late answers are ignored.
    pub(crate) fn report(&mut self, id: QueryId, report: ShardReport) -> Option<Answered> {
        let query = self.open.get_mut(&id)?;
        if query.missing.remove(&report.shard) {
            query.reports.insert(report.shard, report);
        }
        if !query.missing.is_empty() {
            return None;
        }
        self.open.remove(&id).map(Query::answered)
    }

    /// Expects nothing more of shards that are gone, and shows nothing of them.
    pub(crate) fn detach(&mut self, is_gone: impl Fn(ShardId) -> bool) {
        for query in self.open.values_mut() {
            query.missing.retain(|&shard| !is_gone(shard));
            query.reports.retain(|&shard, _| !is_gone(shard));
        }
    }

    /// The questions that nobody has to answer any more.
    pub(crate) fn settle(&mut self) -> Vec<Answered> {
        let settled = self.open.extract_if(.., |_, query| query.missing.is_empty());
        settled.map(|(_, query)| query.answered()).collect()
    }

    /// Ends the questions whose time is over. What silent shards told last, if that is given,
    /// stands for what they do not tell; they are left out where there is nothing.
    pub(crate) fn expire(&mut self, now: Tick, told: Option<&LastReports>) -> Vec<Answered> {
        let expired = self.open.extract_if(.., |_, query| query.deadline <= now);
        let expired = expired.map(|(_, mut query)| match told {
            Some(told) if !query.inquiry.needs_everybody() => {
                let missing = std::mem::take(&mut query.missing).into_iter();
                let known = missing.filter_map(|shard| Some((shard, told.of(shard)?.clone())));
                query.reports.extend(known);
                query.answered()
            }
            _ => Answered { inquiry: query.inquiry, reports: None },
        });
        expired.collect()
    }

    /// Whether any is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// How long shards may take. They answer between two turns; a second is a shard that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions open at a time. Protects memory from an operator's loop. Reached: 503, counted by
/// `relay_admin_questions_refused_total`; in the control API UNAVAILABLE, counted by
/// `relay_control_overloaded_total`.
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

    fn shards(count: u16) -> impl Iterator<Item = ShardId> {
        (0..count).map(ShardId)
    }

    fn opened(queries: &mut Queries, count: u16) -> QueryId {
        queries.open(Tick(0), inquiry(), shards(count)).unwrap()
    }

    #[test]
    fn the_last_shard_completes_the_answer_in_order_of_shards() {
        let mut queries = Queries::default();
        let id = opened(&mut queries, 2);
        assert!(queries.report(id, report(1)).is_none());
        let answered = queries.report(id, report(0)).unwrap();
        let shards: Vec<_> = answered.reports.unwrap().iter().map(|r| r.shard.0).collect();
        assert_eq!(shards, [0, 1]);
        assert!(queries.is_empty());
    }

    #[test]
    fn a_shard_that_answers_twice_does_not_stand_for_another() {
        let mut queries = Queries::default();
        let id = opened(&mut queries, 2);
        assert!(queries.report(id, report(1)).is_none());
        assert!(queries.report(id, report(1)).is_none());
    }

    #[test]
    fn a_silent_shard_ends_the_question_in_time() {
        let mut queries = Queries::default();
        let id = opened(&mut queries, 2);
        queries.report(id, report(0));
        assert!(queries.expire(Tick(0).after(PATIENCE / 2), None).is_empty());
        let expired = queries.expire(Tick(0).after(PATIENCE), None);
        assert!(matches!(expired[..], [Answered { reports: None, .. }]));
        assert!(queries.report(id, report(1)).is_none());
    }

    #[test]
    fn what_a_silent_shard_told_last_stands_for_its_answer() {
        let mut queries = Queries::default();
        let mut last = LastReports::default();
        last.note(&ShardReport { connection_count: 7, ..report(1) });
        let id = opened(&mut queries, 3);
        queries.report(id, report(0));
        let expired = queries.expire(Tick(0).after(PATIENCE), Some(&last));
        let reports = expired[0].reports.as_deref().unwrap();
        let counts = reports.iter().map(|report| (report.shard.0, report.connection_count));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 0), (1, 7)]);
    }

    #[test]
    fn an_order_is_not_carried_out_by_what_was_told_before() {
        let mut queries = Queries::default();
        let mut last = LastReports::default();
        last.note(&report(0));
        let resumed = Inquiry::Control(Reported::Resumed(oneshot::channel().0));
        queries.open(Tick(0), resumed, shards(1)).unwrap();
        let expired = queries.expire(Tick(0).after(PATIENCE), Some(&last));
        assert!(expired[0].reports.is_none());
    }

    #[test]
    fn open_questions_are_bounded() {
        let mut queries = Queries::default();
        for _ in 0..OPEN_MAX {
            opened(&mut queries, 1);
        }
        assert!(queries.open(Tick(0), inquiry(), shards(1)).is_err());
    }

    #[test]
    fn shards_that_are_gone_are_neither_waited_for_nor_shown() {
        let mut queries = Queries::default();
        let id = opened(&mut queries, 3);
        queries.report(id, report(0));
        queries.report(id, report(1));
        assert!(queries.settle().is_empty());
        queries.detach(|shard| shard.0 > 0);
        let settled = queries.settle();
        let reports = settled[0].reports.as_ref().unwrap();
        assert_eq!(reports.iter().map(|report| report.shard.0).collect::<Vec<_>>(), [0]);
        assert!(queries.is_empty());
    }

    #[test]
    fn without_shards_the_answer_is_there_at_once() {
        let mut queries = Queries::default();
        opened(&mut queries, 0);
        assert!(matches!(queries.settle()[..], [Answered { reports: Some(_), .. }]));
    }
}
