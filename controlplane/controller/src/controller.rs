//! The actor that owns every decision of the control plane.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::hash::RandomState;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, Command, ConnectionId, Counter, Counters, Event, LogEntry, ShardId, Tick,
    WorkspaceId,
};
use relay_link::{Block, Link};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::admin::Gate;
use crate::admin_listener::{AdminAsked, AdminListener, AdminSocket, AdminTallies};
use crate::admitting::Ticket;
use crate::call_bytes::CallBytes;
use crate::clock::Clock;
use crate::control::{ControlApi, Desk, Watchers};
use crate::courtesy::give_way;
use crate::decide::Decider;
use crate::decisions::Decisions;
use crate::doubts::Doubts;
use crate::drain::{DrainVersion, Draining, HURRIED};
use crate::expiry::ExpirySweep;
use crate::facts::{KeyNumber, NamePrinter};
use crate::fair_queue::FairQueue;
use crate::homes::{HomeTable, HomeTableError};
use crate::inquiries::Inquiries;
use crate::journal::{Journal, Unflushed, Written};
use crate::judge::{Answer, Judge};
use crate::jwks::{IssuerNumber, KeyRing, KeyServers};
use crate::keepers::Keepers;
use crate::keeping::Keeping;
use crate::key_book::KeyBook;
use crate::last_reports::LastReports;
use crate::live::{Acknowledged, Order};
use crate::notices::Notices;
use crate::planes::AttachedPlane;
use crate::platform_http::{CallLimits, PlatformHttp};
use crate::platform_tls::PlatformTlsError;
use crate::queries::Queries;
use crate::question::{Printer, QuestionPrint};
use crate::reload::Reloads;
use crate::renewal::Renewing;
use crate::reporter::{Reporter, Reports};
use crate::revocation_file::{RevocationFile, RevocationFileError};
use crate::revocations::Revocations;
use crate::settings::Settings;
use crate::started::{node_started, relay_started};
use crate::undelivered::Undelivered;
use crate::unheard::Unheard;
use crate::validate::{Validator, ValidatorError};
use crate::worker::{Called, WorkerCalls};

/// The control plane of one relay. One task runs it; nothing else writes its state.
pub struct Controller {
    pub(crate) settings: Arc<Settings>,
    pub(crate) link: Link,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) judge: Judge,
    pub(crate) journal: Journal,
    pub(crate) gate: Gate,
    /// When this controller was made, for `/health`.
    pub(crate) started: Tick,
    pub(crate) started_unix_ms: i64,
    /// The operators' door, until it is opened.
    door: Option<(AdminListener, AdminSocket)>,
    /// What is asked there; for ever silent without a door.
    operators: mpsc::Receiver<AdminAsked>,
    pub(crate) at_door: Arc<AdminTallies>,
    /// Where the control API asks.
    pub(crate) desk: Desk,
    pub(crate) watchers: Watchers,
    /// Data planes that run apart and are there, by first shard.
    pub(crate) attached: BTreeMap<ShardId, AttachedPlane>,
    /// Settings that somebody wants in force; for ever silent without an applier.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Who can have the configuration read again, if anybody.
    pub(crate) reloads: Option<Reloads>,
    /// Of the settings in force.
    pub(crate) version: u64,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) queries: Queries,
    /// Of data planes that run apart.
    pub(crate) last_reports: LastReports,
    /// What the control plane itself counts; the shards' counters are added when somebody asks.
    pub(crate) counters: Counters,
    pub(crate) decider: Arc<Decider>,
    pub(crate) workers: Arc<WorkerCalls>,
    /// The key sets, where tokens are checked locally.
    pub(crate) keys: Option<Arc<KeyRing>>,
    pub(crate) keepers: Keepers,
    /// How they call the servers.
    pub(crate) key_servers: KeyServers,
    /// Calls to the platform. Bounded by the judge's pending upgrades and by `worker_calls_max`.
    pub(crate) jobs: JoinSet<Done>,
    /// What the platform is being asked, at most `asked_at_once` questions, and what waits for it.
    /// Bounded by the judge's pending upgrades, as are `unseen` and `awaiting_keys`.
    pub(crate) inquiries: Inquiries,
    /// Tells questions to the platform apart.
    pub(crate) printer: Printer,
    /// What it decided a moment ago.
    pub(crate) decisions: Decisions,
    /// How often it may be asked about tokens that cannot be decided here.
    pub(crate) doubts: Doubts,
    /// Upgrades whose token was not held against the key set yet. A signature takes as long as ten
    /// events, so events come first: while they wait, shards hold newcomers back.
    pub(crate) unseen: FairQueue<ConnectionId, Ticket>,
    /// Upgrades whose token names a key that a newer set may have, while it is fetched.
    pub(crate) awaiting_keys: HashMap<ConnectionId, (IssuerNumber, Ticket)>,
    /// Open connections whose fresh token is being checked. At most `asked_at_once`.
    pub(crate) renewing: HashMap<ConnectionId, Renewing>,
    /// Tells names in tokens apart.
    pub(crate) names: NamePrinter,
    /// The keys that connections were admitted under.
    pub(crate) book: KeyBook,
    pub(crate) revocations: Revocations,
    pub(crate) keeping: Keeping,
    /// Finds tokens that expire.
    pub(crate) sweep: ExpirySweep,
    /// Keys that were withdrawn and whose connections do not all end yet.
    pub(crate) withdrawals: Vec<KeyNumber>,
    /// When their connections were looked through last.
    pub(crate) withdrawals_seen_at: Option<Tick>,
    /// Tells when to look for what time brings about, once the controller runs.
    beat: Option<Interval>,
    /// Connections that are to be told to go and could not be told yet.
    pub(crate) undelivered: Undelivered,
    /// Connections that were told to go, and of which it is not known whether they have heard it.
    pub(crate) unheard: Unheard,
    /// Events handled since anything else had its turn for certain.
    pub(crate) events_in_a_row: usize,
    /// Worker calls in flight, each with the admission of who waits for its answer.
    pub(crate) calling: HashMap<CallId, (AdmissionId, AbortHandle)>,
    pub(crate) last_call: CallId,
    pub(crate) notify: Notices,
    notices: mpsc::Receiver<LogEntry>,
    reporter: Reporter,
    reports: Reports,
    /// Shards that have not said that they stopped.
    pub(crate) running: HashSet<ShardId>,
    /// Workspaces on their way, each with the first shard of its data plane.
    pub(crate) moving: HashSet<(ShardId, WorkspaceId)>,
    /// The drain that goes on.
    pub(crate) draining: Option<Draining>,
    pub(crate) drain_version: DrainVersion,
    /// Whether the process is about to end: from its first SIGTERM on.
    pub(crate) leaving: bool,
    /// Whether the shards were told to stop.
    pub(crate) stopping: bool,
}

/// One worker call in flight.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct CallId(pub(crate) u64);

/// A job that is done.
pub(crate) enum Done {
    /// The platform answered.
    Decided {
        /// What it was asked.
        print: QuestionPrint,
        /// What the token is worth.
        answer: Answer,
    },
    /// A worker call came back.
    Called {
        /// Which.
        call: CallId,
        /// The worker.
        connection: ConnectionId,
        /// What came of it.
        called: Box<Called>,
    },
    /// The revocations are written down, or could not be.
    Kept {
        /// The changes that are in them.
        changes: u64,
        /// How it went.
        outcome: io::Result<()>,
    },
}

/// Why a controller cannot start. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no shard to control.
    #[error("there are no shards")]
    NoShards,
    /// Key checks were asked for without saying where the keys are.
    #[error("RELAY_ADMISSION={0} needs RELAY_JWKS_URL")]
    NoKeySet(&'static str),
    /// The URL of a key set is none that HTTP can call.
    #[error("RELAY_JWKS_URL or RELAY_JWT_ISSUERS has a URL that cannot be called")]
    KeySetUrl,
    /// TLS towards the platform cannot be set up.
    #[error(transparent)]
    PlatformTls(#[from] PlatformTlsError),
    /// Validate calls cannot be made.
    #[error(transparent)]
    Validator(#[from] ValidatorError),
    /// The revocations of an earlier life cannot be had.
    #[error("RELAY_REVOCATIONS_FILE: {0}")]
    Revocations(#[from] RevocationFileError),
    /// The log's thread cannot be started.
    #[error("the log cannot be started: {0}")]
    Log(#[from] io::Error),
}

/// How a controller ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Every shard has stopped.
    Stopped,
    /// The deadline passed with shards still running.
    DeadlinePassed,
}

impl Controller {
    /// A controller that has not started yet. `log` receives one JSON line per event, on a thread
    /// of its own; the program passes stdout. Reads the files of `settings`; opens no
    /// connection.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(
        settings: Settings,
        link: Link,
        clock: Arc<dyn Clock>,
        log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        let shard_count = u16::try_from(link.shards.count()).unwrap_or(u16::MAX);
        if shard_count == 0 && !link.shards.are_apart() {
            return Err(StartError::NoShards);
        }
        let mut judge = Judge::new(settings.caps);
        if shard_count > 0 {
            judge.attach(Block { first: ShardId(0), count: shard_count });
        }
        let (notify, notices) = Notices::channel();
        let (reporter, reports) = Reporter::channel();
        let platform = PlatformHttp::new(settings.platform_tls.clone(), notify.clone())?;
        let platform = Arc::new(platform);
        let mut keepers = Keepers::default();
        let (url, tls) = (&settings.platform, &settings.platform_tls);
        let key_servers = KeyServers::new(&platform, url, tls, notify.clone())?;
        let keys = keepers.ring(None, &settings, &key_servers, &notify)?;
        let decider = Decider {
            admission: settings.admission,
            ring: keys.clone(),
            unknown_keys: settings.jwks.as_ref().map(|jwks| jwks.unknown_keys).unwrap_or_default(),
            hasher: RandomState::new(),
            validator: Arc::new(Validator::new(&settings, notify.clone())?),
            platform: Arc::clone(&platform),
            clock: Arc::clone(&clock),
        };
        let workers = WorkerCalls {
            platform,
            origin: settings.platform.clone(),
            limits: CallLimits {
                timeout: settings.caps.worker_timeout,
                response_bytes_max: settings.caps.worker_response_bytes_max,
            },
            bytes: CallBytes::new(settings.caps.worker_calls_bytes_max),
        };
        let mut revocations = Revocations::default();
        let file = settings.revocations_file.clone().map(RevocationFile::at);
        let keeping = Keeping::open(file, clock.unix_ms().div_euclid(1000), &mut revocations)?;
        Ok(Self {
            judge,
            journal: Journal::new(settings.log, log)?,
            gate: Gate::new(&settings.admin),
            started: clock.now(),
            started_unix_ms: clock.unix_ms(),
            door: None,
            operators: mpsc::channel(1).1,
            at_door: Arc::default(),
            desk: Desk::closed(),
            watchers: Watchers::default(),
            attached: BTreeMap::new(),
            orders: mpsc::channel(1).1,
            reloads: None,
            version: settings.limits.version.max(settings.routes.version),
            acknowledged: Acknowledged::default(),
            queries: Queries::default(),
            last_reports: LastReports::default(),
            counters: Counters::default(),
            decider: Arc::new(decider),
            workers: Arc::new(workers),
            keys,
            keepers,
            key_servers,
            jobs: JoinSet::new(),
            inquiries: Inquiries::new(),
            printer: Printer::new(),
            decisions: Decisions::new(settings.decision_cache),
            doubts: Doubts::new(settings.caps.undecided_per_second, settings.caps.asked_at_once),
            unseen: FairQueue::new(),
            awaiting_keys: HashMap::new(),
            renewing: HashMap::new(),
            names: NamePrinter::default(),
            book: KeyBook::default(),
            revocations,
            keeping,
            sweep: ExpirySweep::default(),
            withdrawals: Vec::new(),
            withdrawals_seen_at: None,
            beat: None,
            undelivered: Undelivered::default(),
            unheard: Unheard::default(),
            events_in_a_row: 0,
            calling: HashMap::new(),
            last_call: CallId(0),
            notify,
            notices,
            reporter,
            reports,
            running: link.shards.ids().collect(),
            moving: HashSet::new(),
            draining: None,
            drain_version: DrainVersion::default(),
            leaving: false,
            stopping: false,
            settings: Arc::new(settings),
            link,
            clock,
        })
    }

    /// Says that workspaces without connections live on other shards than their hash says. One that
    /// has some stays with them: [`Self::move_workspace`] moves it.
    ///
    /// # Errors
    /// [`HomeTableError`]; the table in force stays.
    pub fn set_homes(&mut self, table: HomeTable) -> Result<(), HomeTableError> {
        self.judge.set_homes(table)
    }

    /// Gives operators a door of their own, opened by [`Self::run`].
    pub fn listen_to_operators(&mut self, socket: AdminSocket) {
        let (listener, operators) = AdminListener::channel();
        self.at_door = listener.tallies();
        self.operators = operators;
        self.door = Some((listener, socket));
    }

    /// Lets operators and orchestrators call `relay.control.v1`, served by [`Self::run`].
    ///
    /// # Errors
    /// The audit log cannot be opened.
    pub fn serve_control(&mut self, api: ControlApi) -> io::Result<()> {
        self.desk = Desk::new(api, Arc::clone(&self.clock), self.notify.clone())?;
        Ok(())
    }

    /// Writes a line for people to the log, before any entry.
    pub fn announce(&mut self, line: String) {
        if self.journal.announce(line) == Written::Dropped {
            self.counters.count(Counter::LogEntriesDropped);
        }
    }

    /// Lets operators have the configuration read again, through this.
    pub fn reload_through(&mut self, reloads: Reloads) {
        self.reloads = Some(reloads);
    }

    /// For what the program itself has to tell the operator.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Decides until `shutdown` completes, then lets everybody go, stops the shards and waits for
    /// them, at most the drain time, `STOP_GRACE` and `FLUSH_PATIENCE`. When `hurry` completes
    /// after that, what is left of the drain time is a moment.
    ///
    /// Needs a tokio runtime with time and I/O enabled.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Ended {
        self.log(relay_started(&self.settings));
        self.log(node_started(&self.settings, self.link.shards.count()));
        self.keepers.begin(self.keys.as_deref());
        if self.settings.routes.version > 0 {
            self.tell_routes();
        }
        let doors = [self.open_door(), self.open_control()];
        let [mut pulse, mut beat] = [PULSE, BEAT].map(tokio::time::interval);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.beat = Some(beat);
        tokio::pin!(shutdown);
        let mut ended = None;
        while ended.is_none() {
            tokio::select! {
                () = &mut shutdown => break,
                turn = self.turn(&mut pulse) => ended = turn,
            }
        }
        let ended = match ended {
            Some(ended) => ended,
            None => self.leave(&mut pulse, hurry).await,
        };
        self.keepers.end();
        for door in doors.into_iter().flatten() {
            door.abort();
        }
        self.journal.tell_suppressed(None, self.clock.unix_ms());
        self.journal.finish(FLUSH_PATIENCE);
        ended
    }

    /// One event of many that may have come.
    fn take_event(&mut self, event: Event) {
        self.on_event(event);
        self.events_in_a_row += 1;
        give_way();
    }

    /// Waits for something to do and does it. The end when every shard is gone.
    ///
    /// Dropping the future loses nothing: each wait is whole or has not happened.
    pub(crate) async fn turn(&mut self, pulse: &mut Interval) -> Option<Ended> {
        let has_backlog = self.link.shards.drain();
        self.tell_undelivered();
        match self.journal.unflushed() {
            Unflushed::Due => self.journal.flush(),
            Unflushed::Some if self.link.events.is_empty() => self.journal.flush(),
            Unflushed::Some | Unflushed::Nothing => {}
        }
        let needs_pulse = has_backlog
            || !self.queries.is_empty()
            || self.journal.has_suppressed()
            || !self.watchers.is_empty()
            || self.acknowledged.owes()
            || self.journal.unflushed() != Unflushed::Nothing;
        let needs_beat = self.needs_beat();
        let keys = self.keys.clone();
        let keys_settled = async {
            match &keys {
                Some(keys) => keys.settled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(news) = self.link.planes.next() => self.on_news(news).await,
            event = self.link.events.next(), if !self.link.shards.are_apart() => {
                let Some(event) = event else {
                    return Some(Ended::Stopped);
                };
                self.take_event(event);
                // More of what is there, but not for ever: jobs and shutdown have their turn too.
                for _ in 1..EVENTS_PER_TURN {
                    let Some(event) = self.link.events.try_next() else {
                        break;
                    };
                    self.take_event(event);
                }
                if self.events_in_a_row >= EVENTS_IN_A_ROW_MAX {
                    self.look_at_tokens();
                    // Events alone never let this task rest: sockets and timers need that.
                    tokio::task::yield_now().await;
                }
            }
            Some(done) = self.jobs.join_next() => {
                // An error is a job that was ended because its upgrade is gone.
                if let Ok(done) = done {
                    self.on_done(done);
                    give_way();
                }
            }
            Some(asked) = self.operators.recv() => self.on_admin_asked(asked),
            Some(order) = self.orders.recv() => self.on_order(order),
            Some(asked) = self.desk.asked.recv() => self.on_control_asked(asked),
            Some(entry) = self.notices.recv() => self.log(entry),
            Some(report) = self.reports.next() => {
                if let Some(counter) = report.counter {
                    self.counters.count(counter);
                }
                self.log(report.entry);
            }
            // Yields once, so that sockets and timers have their turn however many tokens wait.
            () = tokio::task::yield_now(), if !self.unseen.is_empty() => self.look_at_tokens(),
            () = keys_settled => self.on_keys_settled(),
            () = tick(&mut self.beat), if needs_beat => self.on_beat(),
            // There is room in lanes again; the next turn tells more of them.
            () = tokio::time::sleep(ROOM), if !self.undelivered.is_empty() => {}
            _ = pulse.tick(), if needs_pulse => {
                self.expire_queries();
                self.tell_owed();
                self.tell_suppressed();
                self.tell_watchers();
            }
        }
        None
    }

    /// Tells every shard to stop and waits for them. Upgrades that wait are refused, those that
    /// come are too; what shards log on their way out is recorded.
    pub(crate) async fn stop(
        &mut self,
        pulse: &mut Interval,
        patience: Duration,
        hurry: impl Future<Output = ()>,
    ) -> Ended {
        self.stopping = true;
        self.refuse_waiting();
        self.order_to_stop(patience);
        tokio::pin!(hurry);
        let mut deadline = tokio::time::Instant::now() + patience + STOP_GRACE;
        let mut hurried = false;
        while !self.running.is_empty() {
            self.journal.flush();
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Ended::DeadlinePassed,
                () = &mut hurry, if !hurried => {
                    hurried = true;
                    self.order_to_stop(HURRIED);
                    let soon = tokio::time::Instant::now() + HURRIED + STOP_GRACE;
                    deadline = deadline.min(soon);
                }
                event = self.link.events.next() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                // A worker may still be there for the answer to its call.
                Some(done) = self.jobs.join_next() => {
                    if let Ok(done) = done {
                        self.on_done(done);
                    }
                }
                Some(asked) = self.operators.recv() => self.on_admin_asked(asked),
                Some(asked) = self.desk.asked.recv() => self.on_control_asked(asked),
                _ = pulse.tick() => {
                    self.link.shards.drain();
                    self.expire_queries();
                    self.tell_watchers();
                }
            }
        }
        Ended::Stopped
    }

    /// Tells every shard to be gone by then. One that cannot be told is not waited for: its lane is
    /// closed or stuck.
    fn order_to_stop(&mut self, patience: Duration) {
        let deadline_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        for shard in self.link.shards.ids() {
            if self.link.shards.send_last(shard, Command::Stop { deadline_ms }).is_err() {
                self.running.remove(&shard);
            }
        }
    }

    fn open_door(&mut self) -> Option<JoinHandle<()>> {
        let (listener, socket) = self.door.take()?;
        let notices = self.notify.clone();
        Some(tokio::spawn(async move {
            if let Err(error) = listener.serve(socket).await {
                notices.warn("admin_listener_failed", error.to_string());
            }
        }))
    }

    fn open_control(&mut self) -> Option<JoinHandle<()>> {
        let api = self.desk.server.take()?;
        let notices = self.notify.clone();
        Some(tokio::spawn(async move {
            if let Err(error) = api.serve().await {
                notices.warn("control_api_failed", error.to_string());
            }
        }))
    }

    /// Records an entry of this moment.
    pub(crate) fn log(&mut self, entry: LogEntry) {
        let now_ms = self.clock.unix_ms();
        self.record(now_ms, entry);
    }

    /// Records an entry of that moment.
    pub(crate) fn record(&mut self, unix_ms: i64, entry: LogEntry) {
        // A window that is over is told before the next begins.
        self.tell_suppressed();
        match self.journal.record(self.clock.now(), unix_ms, entry) {
            Written::AsAsked => {}
            Written::Suppressed => self.counters.count(Counter::LogEntriesSuppressed),
            Written::Dropped => self.counters.count(Counter::LogEntriesDropped),
        }
    }

    fn tell_suppressed(&mut self) {
        if self.journal.has_suppressed() {
            self.journal.tell_suppressed(Some(self.clock.now()), self.clock.unix_ms());
        }
    }
}

/// Waits for the next beat; for ever without any.
async fn tick(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

/// What a shard may take beyond its deadline to end its thread.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What a reader of stdout may take for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked for what time brings about: often enough that a connection ends within a
/// second of its token.
const BEAT: Duration = Duration::from_millis(250);

/// How long lanes that are full are left alone: with a thousand orders in each a revocation of
/// hundreds of thousands is told within a second.
const ROOM: Duration = Duration::from_millis(2);

/// How often backlogs are moved and questions expire, while there are any.
const PULSE: Duration = Duration::from_millis(20);

/// Events handled before jobs and shutdown have their turn.
pub(crate) const EVENTS_PER_TURN: usize = 64;

/// Events handled before tokens, sockets and timers have their turn, however many events wait.
/// Source: a look takes as long as 80 events, so events keep three quarters of the time.
pub(crate) const EVENTS_IN_A_ROW_MAX: usize = 256;
