//! What follows from each event and each finished job.

use std::sync::Arc;

use relay_contract::{
    AdmissionId, Command, ConnectionId, ControlRequest, Counter, Detail, Event, Level, LogEntry,
    QueryId, ShardId, ShardReport, Tick, WorkerRequest,
};

use crate::admin::{self, Door, Format, Route};
use crate::admin_listener::{AdminAsked, AdminReply};
use crate::controller::{CallId, Controller, Done};
use crate::courtesy::politely;
use crate::exposition;
use crate::hdr_log;
use crate::journal::Selection;
use crate::metrics::{self, Gauges, Info};
use crate::process::Process;
use crate::protobuf;
use crate::queries::{Answered, Asker, Inquiry, Topic};
use crate::renewal::Fresh;
use crate::settings::Admission;
use crate::state::{self, NodeFacts};
use crate::worker::{self, Called};

impl Controller {
    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::AdmissionAsked { connection, request } => {
                self.on_admission_asked(connection, *request)
            }
            Event::Opened { admission, connection } => self.on_opened(admission, connection),
            Event::RenewalAsked { connection, admission, claims_digest, token } => {
                self.on_renewal_asked(Fresh { connection, admission, claims_digest, token });
            }
            Event::Released { admission } => {
                self.judge.release(admission);
                self.end_calls_of(admission);
                self.end_renewal_of(admission);
            }
            Event::Abandoned { connection } => self.on_abandoned(connection),
            Event::HttpAsked { connection, request } => {
                self.on_http_asked(Asker::Connection(connection), Door::Relay, &request);
            }
            Event::WorkerAsked { connection, admission, request } => {
                self.on_worker_asked(connection, admission, *request)
            }
            Event::Logged { at, entry } => {
                let unix_ms = self.unix_ms_of(at);
                self.record(unix_ms, *entry);
            }
            Event::Reported { query, report } => self.on_reported(query, *report),
            Event::InForce { shard, value, version } => {
                self.acknowledged.note(shard, value, version);
            }
            Event::Moved { workspace_id, from, to, connections, paused } => {
                self.on_moved(workspace_id, (from, to), connections, paused);
            }
            Event::MoveFailed { workspace_id, from, reason } => {
                self.on_move_failed(workspace_id, from, reason);
            }
            Event::Stopped { shard } => self.on_stopped(shard),
        }
    }

    fn on_stopped(&mut self, shard: ShardId) {
        self.running.remove(&shard);
        if !self.stopping {
            let entry = LogEntry::new(Level::Error, "shard_stopped");
            self.log(entry.with("shard", i64::from(shard.0)).ours());
        }
    }

    pub(crate) fn on_done(&mut self, done: Done) {
        match done {
            Done::Decided { print, answer } => self.on_decided(print, answer),
            Done::Kept { changes, outcome } => self.on_kept(changes, outcome),
            Done::Called { call, connection, called } => {
                let Called { response, is_crowded_out, share: _share } = *called;
                if is_crowded_out {
                    self.counters.count(Counter::WorkerCallsLimited);
                }
                // Not there: its worker left in the moment it was answered.
                if let Some((admission, _)) = self.calling.remove(&call) {
                    // It may have moved since it asked.
                    let connection = self.current_name(admission, connection);
                    let response = Box::new(response);
                    self.send(connection, Command::WorkerReply { connection, response });
                }
            }
        }
    }

    fn on_worker_asked(
        &mut self,
        connection: ConnectionId,
        admission: AdmissionId,
        request: WorkerRequest,
    ) {
        let has_place = self.calling.len() < self.settings.caps.worker_calls_max && !self.stopping;
        let share = self.workers.share(&request).filter(|_| has_place);
        let Some(share) = share else {
            self.counters.count(Counter::WorkerCallsLimited);
            let response = Box::new(worker::busy(request.request_id));
            self.send(connection, Command::WorkerReply { connection, response });
            return;
        };
        let call = CallId(self.last_call.0 + 1);
        self.last_call = call;
        let workers = Arc::clone(&self.workers);
        let job = self.jobs.spawn(politely(async move {
            let called = Box::new(workers.call(request, share).await);
            Done::Called { call, connection, called }
        }));
        self.calling.insert(call, (admission, job));
    }

    /// Ends the calls of a worker that is gone: their places are for those who are there.
    ///
    /// Cost: looks at every call in flight, of which `worker_calls_max` bounds the number.
    fn end_calls_of(&mut self, admission: AdmissionId) {
        self.end_calls(|owner| owner == admission);
    }

    /// Ends the calls of everybody who is gone.
    pub(crate) fn end_calls(&mut self, is_gone: impl Fn(AdmissionId) -> bool) {
        self.calling.retain(|_, (owner, job)| {
            let is_over = is_gone(*owner);
            if is_over {
                job.abort();
            }
            !is_over
        });
    }

    pub(crate) fn on_admin_asked(&mut self, asked: AdminAsked) {
        let AdminAsked { request, reply } = asked;
        self.on_http_asked(Asker::Operator(reply), Door::Operator, &request);
    }

    fn on_http_asked(&mut self, asker: Asker, door: Door, request: &ControlRequest) {
        match self.gate.judge(door, request) {
            Ok(Route::Health) => {
                let body = state::health(&self.settings, self.clock.now().since(self.started));
                self.respond(asker, 200, JSON, body);
            }
            Ok(Route::Ready) => self.respond_ready(asker),
            Ok(Route::State) => self.question(Inquiry::Http(Topic::State, asker)),
            Ok(Route::Metrics) => {
                let format = Format::asked(request);
                self.question(Inquiry::Http(Topic::Metrics(format), asker))
            }
            Ok(Route::Histograms) => self.question(Inquiry::Http(Topic::Histograms, asker)),
            Ok(Route::Node { hot }) => self.question(Inquiry::Http(Topic::Node { hot }, asker)),
            Ok(Route::Logs { all, summary }) => {
                let details = self.settings.health_verbose && !summary;
                let body = self.journal.body(Selection { all, details });
                self.respond(asker, 200, JSON, body);
            }
            Err(admin::Refused::NotFound) => self.respond(asker, 404, JSON, NOT_FOUND),
            Err(admin::Refused::Unauthorized) => {
                self.counters.count(Counter::AdminUnauthorized);
                self.respond(asker, 401, JSON, UNAUTHORIZED);
            }
        }
    }

    fn respond_ready(&mut self, asker: Asker) {
        let (status, body) = if self.is_leaving() {
            (503, r#"{"ok":false,"reason":"DRAINING"}"#)
        } else if self.settings.admission == Admission::Jwks && self.key_count().is_none() {
            (503, r#"{"ok":false,"reason":"NO_KEYS"}"#)
        } else {
            (200, r#"{"ok":true}"#)
        };
        self.respond(asker, status, JSON, body);
    }

    /// Asks every shard, so that the answer is of this moment and no older sample.
    pub(crate) fn question(&mut self, inquiry: Inquiry) {
        let detail = match &inquiry {
            Inquiry::Http(Topic::State, _) => Detail::Scopes,
            Inquiry::Http(Topic::Node { hot: true }, _) => Detail::Hottest,
            Inquiry::Http(
                Topic::Node { hot: false } | Topic::Metrics(_) | Topic::Histograms,
                _,
            )
            | Inquiry::Control(_) => Detail::Counts,
        };
        let shards = self.link.shards.ids();
        let query = match self.queries.open(self.clock.now(), inquiry, shards) {
            Ok(query) => query,
            Err(inquiry) => {
                self.counters.count(match &inquiry {
                    Inquiry::Http(..) => Counter::AdminQuestionsRefused,
                    Inquiry::Control(_) => Counter::ControlOverloaded,
                });
                return self.answer_question(Answered { inquiry, reports: None });
            }
        };
        // A shard that cannot be asked will not answer either: the question expires.
        let missed = self.link.shards.broadcast(|| Command::Report { query, detail });
        self.counters.add(Counter::CommandsUndelivered, count(missed.len()));
        self.settle_queries();
    }

    /// Answers what no shard is left to answer.
    pub(crate) fn settle_queries(&mut self) {
        for settled in self.queries.settle() {
            self.answer_question(settled);
        }
    }

    fn on_reported(&mut self, query: QueryId, report: ShardReport) {
        if self.link.shards.are_apart() {
            self.last_reports.note(&report);
        }
        if let Some(answered) = self.queries.report(query, report) {
            self.answer_question(answered);
        }
    }

    pub(crate) fn expire_queries(&mut self) {
        // A data plane may be gone without a word: what is known of it answers for it until that
        // is clear. A shard of this process that is silent hangs, and nothing hides that.
        let told = self.link.shards.are_apart().then_some(&self.last_reports);
        for expired in self.queries.expire(self.clock.now(), told) {
            self.answer_question(expired);
        }
    }

    fn answer_question(&mut self, answered: Answered) {
        let reports = answered.reports.as_deref();
        let (topic, asker, reports) = match (answered.inquiry, reports) {
            (Inquiry::Control(waiting), reports) => {
                return self.on_control_reported(waiting, reports);
            }
            (Inquiry::Http(_, asker), None) => {
                return self.respond(asker, 503, JSON, UNAVAILABLE);
            }
            (Inquiry::Http(topic, asker), Some(reports)) => (topic, asker, reports),
        };
        let unix_ms = self.clock.unix_ms();
        let (content_type, body) = match topic {
            Topic::State => {
                let body = state::state(&self.settings, reports, unix_ms);
                (JSON, body.into_bytes())
            }
            Topic::Node { .. } => {
                let facts = NodeFacts {
                    key_count: self.key_count(),
                    pending_admissions: self.judge.pending_count(),
                    admitted_connections: self.judge.admitted_count(),
                    settings_version: self.acknowledged.least(),
                };
                (JSON, state::node(&self.settings, reports, &facts).into_bytes())
            }
            Topic::Metrics(format) => self.exposition(format, reports),
            Topic::Histograms => (TEXT, hdr_log::text(reports, |_| true, unix_ms).into_bytes()),
        };
        self.respond(asker, 200, content_type, body);
    }

    fn exposition(&self, format: Format, reports: &[ShardReport]) -> (&'static str, Vec<u8>) {
        let mut control = self.counters.clone();
        control.merge(&self.last_reports.counted_before());
        control.add(Counter::PlaneNamesRefused, relay_link::convert::names_refused());
        control.add(Counter::InternalKeyRetries, self.decider.validator.retried());
        control.add(Counter::AdminConnectionsRefused, self.at_door.connections_refused());
        control.add(Counter::AdminQuestionsRefused, self.at_door.questions_refused());
        control.add(Counter::LogEntriesDropped, self.notify.lost());
        let tallies = self.desk.tallies();
        control.add(Counter::ControlConnectionsRefused, tallies.connections_refused());
        control.add(Counter::ControlUnauthorized, tallies.unauthorized());
        control.add(Counter::ControlOverloaded, tallies.overloaded());
        control.add(Counter::ControlUnaudited, tallies.unaudited());
        control.add(Counter::AuditLinesLost, tallies.audit_lines_lost());
        control.add(Counter::ControlWatchRestarts, self.watchers.restarts());
        let (fetches, failures) = self.keys.as_ref().map_or((0, 0), |ring| ring.fetches());
        control.add(Counter::JwksFetches, fetches);
        control.add(Counter::JwksFetchFailures, failures);
        let gauges = Gauges {
            admitted: count(self.judge.admitted_count()),
            pending_admissions: count(self.judge.pending_count()),
            questions_asked: count(self.inquiries.asked_count()),
            questions_waiting: count(self.inquiries.waiting_count()),
            revocations: count(self.revocations.len()),
            keys: count(self.key_count().unwrap_or(0)),
            keys_age_secs: self.keys.as_ref().map_or(0, |ring| ring.age().as_secs()),
            worker_calls: count(self.calling.len()),
            draining: self.is_leaving(),
            data_planes: count(self.attached.len()),
            uptime: self.clock.now().since(self.started),
            started_unix_ms: self.started_unix_ms,
            process: Process::now(),
        };
        let info = Info {
            version: self.settings.version,
            driver: self.settings.driver,
            shards: self.link.shards.count(),
            relay_id: &self.settings.relay_id,
        };
        let caps = &self.settings.caps;
        let families = metrics::families(&control, &gauges, &info, caps, reports);
        match format {
            Format::Text => (PROMETHEUS, exposition::text(&families).into_bytes()),
            Format::Protobuf => (protobuf::CONTENT_TYPE, protobuf::delimited(&families)),
        }
    }

    pub(crate) fn key_count(&self) -> Option<usize> {
        self.keys.as_ref()?.key_count()
    }

    fn respond(
        &mut self,
        asker: Asker,
        status: u16,
        content_type: &'static str,
        body: impl Into<Vec<u8>>,
    ) {
        let body = body.into();
        match asker {
            Asker::Connection(connection) => {
                let body = body.into_boxed_slice();
                self.send(connection, Command::Respond { connection, status, content_type, body });
            }
            Asker::Operator(reply) => {
                // An operator who left does not read.
                let _ = reply.send(AdminReply { status, content_type, body });
            }
        }
    }

    /// Sends a connection's shard a command. When it does not leave, that is counted, and the
    /// connection's own deadline ends its wait; whether it left.
    pub(crate) fn send(&mut self, connection: ConnectionId, command: Command) -> bool {
        let sent = self.link.shards.send(connection.shard, command).is_ok();
        if !sent {
            self.counters.count(Counter::CommandsUndelivered);
        }
        sent
    }

    /// The date of a shard's tick. A clock that does not fit ours (another machine's) is not
    /// believed: then it is the moment of arrival.
    fn unix_ms_of(&self, at: Tick) -> i64 {
        let age = self.clock.now().since(at).as_millis();
        let age_ms = i64::try_from(age).ok().filter(|&ms| ms <= LOG_AGE_MS_MAX);
        self.clock.unix_ms().saturating_sub(age_ms.unwrap_or(0))
    }
}

pub(crate) fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// How late an entry may be. Lanes are milliseconds long; a minute is another clock.
const LOG_AGE_MS_MAX: i64 = 60_000;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const NOT_FOUND: &str = r#"{"ok":false,"reason":"NOT_FOUND"}"#;
const UNAUTHORIZED: &str = r#"{"ok":false,"reason":"ADMIN_UNAUTHORIZED"}"#;
const UNAVAILABLE: &str = r#"{"ok":false,"reason":"UNAVAILABLE"}"#;
