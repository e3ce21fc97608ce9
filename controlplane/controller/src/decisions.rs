//! What the platform decided a moment ago.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use relay_contract::Tick;

use crate::judge::Accepted;
use crate::question::QuestionPrint;

/// Acceptances kept for a short while, for peers that come back with the same question. Refusals
/// are never kept: a token may be good a moment later. Off unless a lifetime is given.
///
/// No token is kept, only prints that are keyed for this process.
pub(crate) struct Decisions {
    lifetime: Option<Duration>,
    kept: HashMap<QuestionPrint, Kept>,
    /// Which goes next.
    order: VecDeque<(Tick, QuestionPrint)>,
}

struct Kept {
    accepted: Accepted,
    until: Tick,
}

impl Decisions {
    /// Decisions kept. Protects memory: one has the claims of a token. Reached: the oldest goes.
    pub(crate) const KEPT_MAX: usize = 16 << 10;

    pub(crate) fn new(lifetime: Option<Duration>) -> Self {
        Self { lifetime, kept: HashMap::new(), order: VecDeque::new() }
    }

    /// Keeps decisions for so long from now on, those that are kept included: they are forgotten.
    pub(crate) fn set_lifetime(&mut self, lifetime: Option<Duration>) {
        self.lifetime = lifetime;
        self.flush();
    }

    /// What was decided, if that is not too long ago and the token has not expired since.
    pub(crate) fn find(
        &self,
        now: Tick,
        now_secs: i64,
        print: &QuestionPrint,
    ) -> Option<&Accepted> {
        let kept = self.kept.get(print).filter(|kept| now < kept.until)?;
        let expiry = kept.accepted.credential.expires_at_secs;
        expiry.is_none_or(|expiry| now_secs < expiry).then_some(&kept.accepted)
    }

    /// The platform has just accepted this.
    pub(crate) fn keep(&mut self, now: Tick, print: QuestionPrint, accepted: &Accepted) {
        let Some(lifetime) = self.lifetime else {
            return;
        };
        self.forget_old(now);
        let until = now.after(lifetime);
        self.kept.insert(print, Kept { accepted: accepted.clone(), until });
        self.order.push_back((until, print));
        if self.order.len() > Self::KEPT_MAX {
            self.forget_oldest();
        }
    }

    /// Forgets everything: what was decided may not hold any more.
    pub(crate) fn flush(&mut self) {
        self.kept.clear();
        self.order.clear();
    }

    fn forget_old(&mut self, now: Tick) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((until, print)) = self.order.pop_front() else {
            return;
        };
        // Decided anew meanwhile: then it has another place in the order.
        if self.kept.get(&print).is_some_and(|kept| kept.until == until) {
            self.kept.remove(&print);
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_contract::{Claims, Credential, Role, Secret, UpgradeRequest};

    use super::*;
    use crate::question::Printer;

    fn accepted(expires_at_secs: Option<i64>) -> Accepted {
        let credential = Credential { expires_at_secs, ..Credential::default() };
        Accepted { claims: Claims::default(), credential, key: None }
    }

    fn print(printer: &Printer, n: usize) -> QuestionPrint {
        let request =
            UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None };
        printer.print(&request, &Secret::new(format!("token-{n:010}")))
    }

    fn decisions() -> (Decisions, Printer) {
        (Decisions::new(Some(Duration::from_nanos(10))), Printer::new())
    }

    #[test]
    fn a_decision_is_kept_for_its_time() {
        let (mut decisions, printer) = decisions();
        let print = print(&printer, 1);
        decisions.keep(Tick(0), print, &accepted(None));
        assert!(decisions.find(Tick(9), 0, &print).is_some());
        assert!(decisions.find(Tick(10), 0, &print).is_none());
    }

    #[test]
    fn a_decision_never_outlives_its_token() {
        let (mut decisions, printer) = decisions();
        let print = print(&printer, 1);
        decisions.keep(Tick(0), print, &accepted(Some(100)));
        assert!(decisions.find(Tick(1), 99, &print).is_some());
        assert!(decisions.find(Tick(1), 100, &print).is_none());
    }

    #[test]
    fn nothing_is_kept_unless_it_is_switched_on_and_nothing_after_a_flush() {
        let (mut decisions, printer) = decisions();
        let print = print(&printer, 1);
        let mut off = Decisions::new(None);
        off.keep(Tick(0), print, &accepted(None));
        assert!(off.find(Tick(0), 0, &print).is_none());
        decisions.keep(Tick(0), print, &accepted(None));
        decisions.flush();
        assert!(decisions.find(Tick(0), 0, &print).is_none());
    }

    #[test]
    fn another_lifetime_forgets_what_was_kept_for_the_one_before() {
        let (mut decisions, printer) = decisions();
        let print = print(&printer, 1);
        decisions.keep(Tick(0), print, &accepted(None));
        decisions.set_lifetime(Some(Duration::from_nanos(20)));
        assert!(decisions.find(Tick(1), 0, &print).is_none());
        decisions.keep(Tick(1), print, &accepted(None));
        assert!(decisions.find(Tick(20), 0, &print).is_some());
        decisions.set_lifetime(None);
        decisions.keep(Tick(21), print, &accepted(None));
        assert!(decisions.find(Tick(21), 0, &print).is_none());
    }

    #[test]
    fn the_number_of_decisions_is_bounded_and_the_oldest_goes() {
        let (mut decisions, printer) = decisions();
        for n in 0..Decisions::KEPT_MAX + 10 {
            decisions.keep(Tick(0), print(&printer, n), &accepted(None));
        }
        assert_eq!(decisions.kept.len(), Decisions::KEPT_MAX);
        assert!(decisions.find(Tick(0), 0, &print(&printer, 0)).is_none());
        assert!(decisions.find(Tick(0), 0, &print(&printer, 10)).is_some());
        decisions.keep(Tick(10), print(&printer, 0), &accepted(None));
        assert_eq!(decisions.kept.len(), 1, "old ones go without being asked for");
    }
}
