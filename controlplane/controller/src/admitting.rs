//! The way of an upgrade, and of a fresh token, from being asked to its answer.

use std::sync::Arc;

use relay_admission::Denial;
use relay_contract::{
    AdmissionId, AdmissionRequest, Command, ConnectionId, Counter, Credential, Level, LogEntry,
    Renewal, RenewalRefusal, Secret, UpgradeRequest,
};

use crate::controller::{Controller, Done};
use crate::courtesy::{give_way, politely};
use crate::decide::{Basis, Look, LookedAt, SignedWith};
use crate::facts::{Expiry, Facts, KeyNumber};
use crate::inquiries::{Added, Finished, Question};
use crate::judge::{Accepted, Answer, Decision, Refused, Ruling};
use crate::question::QuestionPrint;
use crate::renewal::Renewing;
use crate::settings::Ending;

/// An upgrade, or a fresh token, whose token is to be looked at.
pub(crate) struct Ticket {
    pub(crate) request: UpgradeRequest,
    pub(crate) token: Secret,
    pub(crate) looked_at: LookedAt,
}

impl Controller {
    pub(crate) fn on_admission_asked(
        &mut self,
        connection: ConnectionId,
        request: AdmissionRequest,
    ) {
        if self.is_leaving() {
            let refused = self.unavailable();
            return self.refuse(connection, refused);
        }
        match self.judge.ask(self.clock.now(), connection, request) {
            Decision::Refuse(refused) => self.refuse(connection, refused),
            Decision::Check { request, token } => self.take_in(connection, request, token),
        }
    }

    /// Begins to find out what a token is worth. [`Self::on_answer`] follows.
    ///
    /// Here a token only takes its place: while events wait, shards send newcomers away.
    pub(crate) fn take_in(
        &mut self,
        connection: ConnectionId,
        request: UpgradeRequest,
        token: Secret,
    ) {
        let (role, workspace_id) = (request.role, request.workspace_id.clone());
        let ticket = Ticket { request, token, looked_at: LookedAt::Never };
        self.unseen.push(connection, role, &workspace_id, ticket);
    }

    /// Holds a few tokens against the key sets, or sees what is to be asked about them.
    pub(crate) fn look_at_tokens(&mut self) {
        self.events_in_a_row = 0;
        let looks = match self.decider.looks_at_tokens() {
            true => LOOKS_PER_TURN,
            false => GLANCES_PER_TURN,
        };
        for _ in 0..looks {
            let Some((connection, ticket)) = self.unseen.pop() else {
                break;
            };
            give_way();
            let Ticket { request, token, looked_at } = ticket;
            match self.decider.look(&request, &token, looked_at) {
                Look::Settled(answer) => self.on_answer(connection, &request, answer),
                Look::Open(basis) => self.inquire(connection, request, token, basis),
                Look::KeysComing(issuer) => {
                    let ticket = Ticket { request, token, looked_at: LookedAt::BeforeNewerKeys };
                    self.await_keys(connection, issuer, ticket);
                }
            }
        }
        self.ask_next();
    }

    /// Asks about those whose turn it is, as many as may be asked about at once.
    pub(crate) fn ask_next(&mut self) {
        while self.inquiries.asked_count() < self.settings.caps.asked_at_once.max(1)
            && let Some((print, question)) = self.inquiries.next()
        {
            if let Basis::Doubtful(kind) = question.basis
                && !self.doubts.may_ask(self.clock.now(), kind)
            {
                self.counters.count(Counter::AdmissionDoubtsRefused);
                self.conclude(print, Answer::Unavailable);
                continue;
            }
            let decider = Arc::clone(&self.decider);
            let call = self.jobs.spawn(politely(async move {
                let Question { request, token, basis } = question;
                let answer = decider.ask(basis, &request, &token).await;
                Done::Decided { print, answer }
            }));
            self.inquiries.asking(print, call);
        }
    }

    /// The platform has answered.
    pub(crate) fn on_decided(&mut self, print: QuestionPrint, answer: Answer) {
        self.conclude(print, answer);
        self.ask_next();
    }

    /// Forgets an upgrade that is gone.
    pub(crate) fn on_abandoned(&mut self, connection: ConnectionId) {
        self.judge.abandon(connection);
        self.stop_finding_out(connection);
        self.ask_next();
    }

    /// Nobody waits for what this one's token is worth any more.
    pub(crate) fn stop_finding_out(&mut self, connection: ConnectionId) {
        self.unseen.remove(&connection);
        self.awaiting_keys.remove(&connection);
        self.inquiries.remove(connection);
    }

    /// A fetch of keys is over: those who waited for it are looked at once more, and connections
    /// under keys that were withdrawn are seen to.
    pub(crate) fn on_keys_settled(&mut self) {
        let Some(ring) = self.keys.clone() else {
            return;
        };
        let back = self.awaiting_keys.extract_if(|_, (issuer, _)| !ring.is_fetching(*issuer));
        for (connection, (_, ticket)) in back {
            let (role, workspace_id) = (ticket.request.role, ticket.request.workspace_id.clone());
            self.unseen.push(connection, role, &workspace_id, ticket);
        }
        self.see_to_withdrawn_keys(&ring);
    }

    /// Refuses those who waited longer for their turn than the longest wait.
    pub(crate) fn expire_waiting(&mut self) {
        let wait = self.settings.caps.admission_wait;
        while let Some(connection) = self.inquiries.expire(self.clock.now(), wait) {
            self.counters.count(Counter::AdmissionWaitExpired);
            self.give_up(connection);
        }
    }

    /// Refuses every upgrade that waits.
    pub(crate) fn refuse_waiting(&mut self) {
        let mut waiting: Vec<_> = self.unseen.keys().collect();
        waiting.extend(self.awaiting_keys.keys());
        waiting.extend(self.inquiries.connections());
        for connection in waiting {
            self.stop_finding_out(connection);
            self.give_up(connection);
        }
    }

    pub(crate) fn refuse(&mut self, connection: ConnectionId, refused: Refused) {
        let Refused { refusal, counter, entry } = refused;
        if let Some(counter) = counter {
            self.counters.count(counter);
        }
        match entry {
            Some(entry) => self.log(entry),
            // The reference says nothing of these; there may be very many.
            None if self.journal.wants(Level::Debug) => {
                let entry = LogEntry::new(Level::Debug, "upgrade_refused")
                    .with("counter", counter.map(Counter::name))
                    .about(connection);
                self.log(entry.ours());
            }
            None => {}
        }
        self.send(connection, Command::Refuse { connection, refusal });
    }

    /// What the ledger is to remember of a token, and what its grant says of it.
    pub(crate) fn facts(&mut self, accepted: &Accepted) -> Facts {
        let Accepted { claims, credential, key } = accepted;
        let prints = self.names.prints(credential, claims.client_id.as_deref());
        let expiry = Expiry::at(credential.expires_at_secs);
        Facts { key: self.key_number(*key, credential), prints, expiry }
    }

    /// The relay could not ask; worth another attempt, later the more there are who wait.
    fn unavailable(&self) -> Refused {
        Refused::unavailable(self.judge.pending_count())
    }

    fn inquire(
        &mut self,
        connection: ConnectionId,
        request: UpgradeRequest,
        token: Secret,
        basis: Basis,
    ) {
        let print = self.printer.print(&request, &token);
        let (now, now_secs) = (self.clock.now(), self.now_secs());
        if let Some(accepted) = self.decisions.find(now, now_secs, &print) {
            let answer = Answer::Accepted(Box::new(accepted.clone()));
            self.counters.count(Counter::AdmissionDecisionsReused);
            return self.on_answer(connection, &request, answer);
        }
        let question = Question { request, token, basis };
        if self.inquiries.add(now, connection, print, question) == Added::Shared {
            self.counters.count(Counter::AdmissionsShared);
        }
        self.ask_next();
    }

    /// Waits until a newer key set is there, or is not.
    fn await_keys(
        &mut self,
        connection: ConnectionId,
        issuer: crate::jwks::IssuerNumber,
        ticket: Ticket,
    ) {
        // A part of those who may wait at all: tokens with invented keys leave room for others.
        if self.awaiting_keys.len() >= (self.settings.caps.pending_admissions_max / 4).max(1) {
            return self.on_answer(connection, &ticket.request, Answer::Unavailable);
        }
        self.awaiting_keys.insert(connection, (issuer, ticket));
        // It may have been over before we began to wait.
        if self.keys.as_ref().is_some_and(|ring| !ring.is_fetching(issuer)) {
            self.on_keys_settled();
        }
    }

    /// Answers everybody who asked this.
    fn conclude(&mut self, print: QuestionPrint, answer: Answer) {
        let Some(finished) = self.inquiries.finish(print) else {
            return;
        };
        let Finished { request, basis, connections } = finished;
        let now = self.clock.now();
        if let (Basis::Doubtful(kind), Answer::Accepted(_) | Answer::Denied(_)) = (basis, &answer) {
            self.doubts.learn(now, kind, matches!(answer, Answer::Accepted(_)));
        }
        if let Answer::Accepted(accepted) = &answer {
            self.decisions.keep(now, print, accepted);
        }
        let mut connections = connections.into_iter();
        let last = connections.next_back();
        for connection in connections {
            self.on_answer(connection, &request, answer.clone());
        }
        if let Some(connection) = last {
            self.on_answer(connection, &request, answer);
        }
    }

    /// It is known what a token is worth.
    fn on_answer(&mut self, connection: ConnectionId, request: &UpgradeRequest, answer: Answer) {
        let (answer, facts) = match answer {
            Answer::Accepted(accepted) => {
                let facts = self.facts(&accepted);
                match self.objection(request, &accepted.credential, facts) {
                    Some(denial) => (Answer::Denied(denial), facts),
                    None => (Answer::Accepted(accepted), facts),
                }
            }
            other => (other, Facts::default()),
        };
        if let Some(renewing) = self.renewing.remove(&connection) {
            return self.answer_renewal(connection, renewing, answer, facts);
        }
        match self.judge.answer(connection, answer, facts) {
            Some(Ruling::Admit { grant, home }) => {
                let admission = grant.admission;
                let admit = Command::Admit { connection, grant, home };
                self.counters.count(Counter::AdmissionOk);
                if self.send(connection, admit) {
                    self.watch_expiry(admission, facts.expiry);
                } else {
                    self.judge.release(admission);
                }
            }
            Some(Ruling::Refuse(refused)) => self.refuse(connection, refused),
            None => {}
        }
    }

    /// Why an admission that the token is good for is refused all the same.
    fn objection(
        &mut self,
        request: &UpgradeRequest,
        credential: &Credential,
        facts: Facts,
    ) -> Option<Denial> {
        if self.revocations.covers(self.now_secs(), &request.workspace_id, credential) {
            self.counters.count(Counter::AdmissionsRevoked);
            return Some(Denial::new("TOKEN_REVOKED", UNAUTHORIZED));
        }
        let since = self.book.withdrawn_since(facts.key)?;
        let is_over = match self.settings.jwks.as_ref()?.withdrawn {
            Ending::Ignore => false,
            Ending::Grace(grace) => self.clock.now().since(since) >= grace,
            Ending::Close => true,
        };
        is_over.then(|| Denial::new("TOKEN_KEY_WITHDRAWN", UNAUTHORIZED))
    }

    fn key_number(&mut self, key: Option<SignedWith>, credential: &Credential) -> KeyNumber {
        if self.book.wants_reclaiming(self.clock.now()) {
            let used = self.judge.seated().map(|seated| seated.facts.key).collect();
            self.book.reclaim(self.clock.now(), &used);
            if self.book.wants_room() {
                self.log(LogEntry::new(Level::Warn, "key_book_full").ours());
            }
        }
        let numbered = match (key, credential.key_id.as_deref()) {
            (Some(key), id) => self.book.number_of(key, id),
            (None, Some(id)) => self.book.number_of_name(id),
            (None, None) => return KeyNumber::NONE,
        };
        if numbered.number == KeyNumber::NONE {
            self.counters.count(Counter::KeysUnnumbered);
        }
        if numbered.is_reused {
            self.judge.forget_key(numbered.number);
            self.withdrawals.retain(|number| *number != numbered.number);
        }
        // Withdrawn while the platform was asked: the next comparison would not know of it.
        if let (Some(SignedWith { issuer, print }), Some(ring)) = (key, &self.keys)
            && ring.lacks(issuer, print)
            && self.book.withdrawn_since(numbered.number).is_none()
        {
            self.book.withdraw(self.clock.now(), numbered.number);
            if self.keys_withdrawn() != Ending::Ignore {
                self.withdrawals.push(numbered.number);
            }
        }
        numbered.number
    }

    /// Tells one who waits that nobody could be asked.
    fn give_up(&mut self, connection: ConnectionId) {
        if self.renewing.remove(&connection).is_some() {
            let outcome = Renewal::Refused(RenewalRefusal::Unavailable);
            self.send(connection, Command::Renewed { connection, outcome, credential: None });
            return;
        }
        self.judge.abandon(connection);
        let refused = self.unavailable();
        self.refuse(connection, refused);
    }

    fn answer_renewal(
        &mut self,
        connection: ConnectionId,
        renewing: Renewing,
        answer: Answer,
        facts: Facts,
    ) {
        let mut outcome = renewing.outcome(&answer);
        let mut credential = None;
        if let (Renewal::Renewed { .. }, Answer::Accepted(accepted)) = (outcome, answer) {
            if self.judge.renew(renewing.admission, facts) {
                self.watch_expiry(renewing.admission, facts.expiry);
                credential = Some(Box::new(accepted.credential));
            } else {
                // Gone meanwhile.
                outcome = Renewal::Refused(RenewalRefusal::Unavailable);
            }
        }
        self.send(connection, Command::Renewed { connection, outcome, credential });
    }

    /// An open connection is gone, and what was found out for it with it.
    pub(crate) fn end_renewal_of(&mut self, admission: AdmissionId) {
        let mut renewing = self.renewing.iter();
        let found = renewing.find(|(_, renewing)| renewing.admission == admission);
        if let Some((&connection, _)) = found {
            self.renewing.remove(&connection);
            self.stop_finding_out(connection);
        }
    }
}

/// Tokens held against the key set before events have their turn: a third of a millisecond of
/// P-256.
const LOOKS_PER_TURN: usize = 8;

/// The same where no signature is checked: about as long.
const GLANCES_PER_TURN: usize = 64;

/// What the peer of a refused upgrade sees.
const UNAUTHORIZED: u16 = 401;
