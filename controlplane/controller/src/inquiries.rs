//! Questions that wait for the platform, or that it is being asked.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use relay_contract::{ConnectionId, Secret, Tick, UpgradeRequest};
use tokio::task::AbortHandle;

use crate::decide::Basis;
use crate::fair_queue::FairQueue;
use crate::question::QuestionPrint;

/// One question, as it is put to the platform.
pub(crate) struct Question {
    pub(crate) request: UpgradeRequest,
    pub(crate) token: Secret,
    /// What the keys in force say.
    pub(crate) basis: Basis,
}

/// All of them. Who asks the same question as somebody before shares the answer: a page that opens
/// ten connections with one token costs one call.
///
/// ```text
///   add ──▶ waiting ──next──▶ asked ──finish──▶ answered to everybody who shares it
///             │ expire, everybody gone  └ everybody gone: the call is ended
///             └▶ refused
/// ```
///
/// Its bound is that of all upgrades that wait, which the judge keeps.
pub(crate) struct Inquiries {
    /// By what they ask.
    open: HashMap<QuestionPrint, Inquiry>,
    /// What each connection waits for.
    prints: HashMap<ConnectionId, QuestionPrint>,
    waiting: FairQueue<QuestionPrint, ()>,
    asked: usize,
    /// When each connection came, the first first; among them at most as many that do not wait any
    /// more as there are that do, and [`EMPTY_PLACES`].
    arrivals: VecDeque<(Tick, ConnectionId)>,
}

struct Inquiry {
    request: UpgradeRequest,
    basis: Basis,
    /// Until it is asked.
    token: Option<Secret>,
    connections: Vec<ConnectionId>,
    /// The call, once it is made.
    call: Option<AbortHandle>,
}

/// How a connection came to its question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Added {
    /// Nobody asked this before.
    First,
    /// Somebody did, and both get the answer.
    Shared,
}

/// A question that is answered.
pub(crate) struct Finished {
    pub(crate) request: UpgradeRequest,
    pub(crate) basis: Basis,
    pub(crate) connections: Vec<ConnectionId>,
}

impl Inquiries {
    pub(crate) fn new() -> Self {
        Self {
            open: HashMap::new(),
            prints: HashMap::new(),
            waiting: FairQueue::new(),
            asked: 0,
            arrivals: VecDeque::new(),
        }
    }

    /// Questions being asked.
    pub(crate) fn asked_count(&self) -> usize {
        self.asked
    }

    /// Questions that wait.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// A connection waits for the answer to this question from now on.
    pub(crate) fn add(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        print: QuestionPrint,
        question: Question,
    ) -> Added {
        self.prints.insert(connection, print);
        self.arrivals.push_back((now, connection));
        if let Some(inquiry) = self.open.get_mut(&print) {
            inquiry.connections.push(connection);
            return Added::Shared;
        }
        let Question { request, token, basis } = question;
        self.waiting.push(print, request.role, &request.workspace_id, ());
        let (token, connections) = (Some(token), vec![connection]);
        let inquiry = Inquiry { request, basis, token, connections, call: None };
        self.open.insert(print, inquiry);
        Added::First
    }

    /// Whose turn it is to be asked about. [`Self::asking`] follows, or [`Self::finish`].
    pub(crate) fn next(&mut self) -> Option<(QuestionPrint, Question)> {
        let (print, ()) = self.waiting.pop()?;
        let inquiry = self.open.get_mut(&print).expect("what waits is open");
        let token = inquiry.token.take().expect("what waits was not asked");
        let (request, basis) = (inquiry.request.clone(), inquiry.basis);
        Some((print, Question { request, token, basis }))
    }

    /// The call is made.
    pub(crate) fn asking(&mut self, print: QuestionPrint, call: AbortHandle) {
        let inquiry = self.open.get_mut(&print).expect("it was taken to be asked");
        inquiry.call = Some(call);
        self.asked += 1;
    }

    /// The answer is there. `None` when nobody waits for it any more.
    pub(crate) fn finish(&mut self, print: QuestionPrint) -> Option<Finished> {
        let Inquiry { request, basis, connections, call, .. } = self.open.remove(&print)?;
        self.asked -= usize::from(call.is_some());
        for connection in &connections {
            self.prints.remove(connection);
        }
        self.clear_away();
        Some(Finished { request, basis, connections })
    }

    /// Forgets a connection that is gone. With the last that waits for it a question goes too, and
    /// the call that asks it ends.
    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        let Some(print) = self.prints.remove(&connection) else {
            return;
        };
        self.clear_away();
        let inquiry = self.open.get_mut(&print).expect("somebody waits for it");
        inquiry.connections.retain(|other| *other != connection);
        if !inquiry.connections.is_empty() {
            return;
        }
        match inquiry.call.take() {
            Some(call) => {
                call.abort();
                self.asked -= 1;
            }
            None => {
                self.waiting.remove(&print);
            }
        }
        self.open.remove(&print);
    }

    /// Forgets when those came who do not wait any more, once they are the most. Otherwise the
    /// memory of everybody who came within the time that one may wait would be kept for good.
    /// Cost: O(1), amortised.
    fn clear_away(&mut self) {
        if self.arrivals.len() > 2 * self.prints.len() + EMPTY_PLACES {
            self.arrivals.retain(|(_, connection)| self.prints.contains_key(connection));
        }
    }

    /// One connection that has waited so long, and whose question is not even asked yet. It is
    /// forgotten. Cost: O(1), amortised.
    pub(crate) fn expire(&mut self, now: Tick, wait: Duration) -> Option<ConnectionId> {
        while let Some((came, connection)) = self.arrivals.front().copied() {
            if now.since(came) < wait {
                return None;
            }
            self.arrivals.pop_front();
            let print = self.prints.get(&connection);
            let inquiry = print.and_then(|print| self.open.get(print));
            // What is asked has its own deadline.
            if inquiry.is_some_and(|inquiry| inquiry.call.is_none()) {
                self.remove(connection);
                return Some(connection);
            }
        }
        None
    }

    /// Everybody who waits for an answer, first those whose question is not asked yet: then nobody
    /// takes the place of one whose is.
    pub(crate) fn connections(&self) -> Vec<ConnectionId> {
        let of = |is_asked| {
            let inquiries = self.open.values();
            inquiries.filter(move |inquiry| inquiry.call.is_some() == is_asked)
        };
        let both = of(false).chain(of(true));
        both.flat_map(|inquiry| inquiry.connections.iter().copied()).collect()
    }

    /// Whether anybody's time may run out.
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty()
    }
}

/// Arrivals of those who left, beyond as many as there are of others, before they are cleared away.
const EMPTY_PLACES: usize = 64;

#[cfg(test)]
mod tests {
    use relay_contract::Role;

    use super::*;
    use crate::question::Printer;

    struct Bench {
        inquiries: Inquiries,
        printer: Printer,
    }

    fn bench() -> Bench {
        Bench { inquiries: Inquiries::new(), printer: Printer::new() }
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, ..ConnectionId::default() }
    }

    impl Bench {
        fn add(&mut self, at: u64, slot: u32, token: &str) -> Added {
            let token = Secret::from(token);
            let request =
                UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None };
            let print = self.printer.print(&request, &token);
            let question = Question { request, token, basis: Basis::Unchecked };
            self.inquiries.add(Tick(at), connection(slot), print, question)
        }

        /// Asks the next question.
        fn ask(&mut self, tasks: &tokio::runtime::Runtime) -> QuestionPrint {
            let (print, _) = self.inquiries.next().unwrap();
            let call = tasks.spawn(std::future::pending::<()>());
            self.inquiries.asking(print, call.abort_handle());
            print
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn who_asks_the_same_shares_the_answer() {
        let (mut bench, tasks) = (bench(), runtime());
        assert_eq!(bench.add(0, 1, "token-a"), Added::First);
        let print = bench.ask(&tasks);
        assert_eq!(bench.add(0, 2, "token-a"), Added::Shared);
        assert_eq!(bench.add(0, 3, "token-b"), Added::First);
        let finished = bench.inquiries.finish(print).unwrap();
        assert_eq!(finished.connections, [connection(1), connection(2)]);
        assert_eq!(bench.inquiries.asked_count(), 0);
        assert!(bench.inquiries.finish(print).is_none());
        assert_eq!(bench.inquiries.connections(), [connection(3)]);
    }

    #[test]
    fn a_call_goes_on_until_the_last_who_waits_for_it_is_gone() {
        let (mut bench, tasks) = (bench(), runtime());
        bench.add(0, 1, "token-a");
        bench.add(0, 2, "token-a");
        let print = bench.ask(&tasks);
        bench.inquiries.remove(connection(1));
        assert_eq!(bench.inquiries.asked_count(), 1);
        bench.inquiries.remove(connection(2));
        bench.inquiries.remove(connection(2));
        assert_eq!(bench.inquiries.asked_count(), 0);
        assert!(bench.inquiries.finish(print).is_none());
        assert!(bench.inquiries.open.is_empty() && bench.inquiries.prints.is_empty());
    }

    #[test]
    fn who_is_answered_leaves_nothing_behind() {
        let (mut bench, tasks) = (bench(), runtime());
        for slot in 0..10_000 {
            bench.add(0, slot, &format!("token-{slot}"));
            let print = bench.ask(&tasks);
            bench.inquiries.finish(print).unwrap();
        }
        assert!(bench.inquiries.arrivals.capacity() <= 2 * EMPTY_PLACES);
    }

    #[test]
    fn who_waits_too_long_is_named_once_and_who_is_asked_about_is_not() {
        let (mut bench, tasks) = (bench(), runtime());
        bench.add(0, 1, "token-a");
        bench.ask(&tasks);
        bench.add(1, 2, "token-b");
        bench.add(2, 3, "token-c");
        bench.add(9, 4, "token-d");
        bench.inquiries.remove(connection(3));
        let wait = Duration::from_nanos(5);
        assert_eq!(bench.inquiries.expire(Tick(9), wait), Some(connection(2)));
        assert_eq!(bench.inquiries.expire(Tick(9), wait), None);
        assert_eq!(bench.inquiries.waiting_count(), 1);
        assert!(bench.inquiries.has_arrivals());
    }
}
