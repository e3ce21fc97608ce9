//! A running controller and the shards the test plays.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_contract::{
    AdmissionId, AdmissionRequest, CloseReason, Command, ConnectionId, ControlRequest, Detail,
    Event, Grant, Level, Limits, Preflight, QueryId, Refusal, Role, Secret, ShardId, ShardReport,
    Tick, UpgradeRequest,
};
use relay_controller::{
    AdminAccess, AdminSocket, Admission, Applier, BackplaneFacts, Caps, Clock, ControlApi,
    Controller, Ended, Ending, LogFormat, LogSettings, PlatformTls, Settings, TlsFacts,
};
use relay_link::{ShardSide, local};
use relay_mailbox::{Bell, Ring};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use url::Url;

pub(crate) const VALIDATE: &str = "/api/runtime/internal/relay/validate";
pub(crate) const ADMIN: &str = "admin-token";
pub(crate) const TOKEN: &str = "token-0123456789";

/// Settings against a platform at `base`, generous in everything.
pub(crate) fn settings(base: &str) -> Settings {
    Settings {
        version: "0.1.0",
        relay_id: "relay-a".into(),
        mode: "dev",
        host: "127.0.0.1".into(),
        port: 7781,
        server_url: base.into(),
        platform: Url::parse(base).unwrap(),
        validate_url: Url::parse(base).unwrap().join(VALIDATE).unwrap(),
        public_ws_url: "ws://127.0.0.1:7781/ws".into(),
        internal_key: None,
        internal_key_previous: None,
        admission: Admission::Validate,
        jwks: None,
        expiry: Ending::Ignore,
        decision_cache: None,
        revocations_file: None,
        admission_timeout: Duration::from_secs(20),
        admission_response_bytes_max: 4096,
        internal_timeout: Duration::from_secs(20),
        internal_response_bytes_max: 16_384,
        platform_tls: PlatformTls::default(),
        admin: AdminAccess {
            enabled: true,
            token: Some(Secret::from(ADMIN)),
            previous_token: None,
            separate: false,
        },
        health_verbose: true,
        state_includes_client_ids: true,
        log: LogSettings { level: Level::Info, format: LogFormat::Json, entries_max: 400 },
        tls: TlsFacts { host: "relay.getviewport.com".into(), ..TlsFacts::default() },
        backplane: BackplaneFacts {
            mode: "single",
            bus_enabled: false,
            client_redirect_enabled: false,
            bus_poll_interval_ms: 250,
            bus_pull_limit: 200,
            bus_pull_wait_ms: 1000,
        },
        caps: Caps::default(),
        limits: Arc::new(Limits::default()),
        routes: Arc::default(),
        memory_budget_bytes: 1 << 30,
        driver: "test",
        drain: Duration::from_secs(5),
    }
}

/// A clock the test sets. Ticks and date advance together, and the date may jump besides.
#[derive(Default)]
pub(crate) struct TestClock {
    ticks: AtomicU64,
    date_off_by_secs: AtomicI64,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap();
        self.ticks.fetch_add(ns, Ordering::Relaxed);
    }

    /// From now on the date is wrong by so much.
    pub(crate) fn set_date_off_by(&self, secs: i64) {
        self.date_off_by_secs.store(secs, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Tick {
        Tick(self.ticks.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> i64 {
        let right = NOW_SECS * 1000 + i64::try_from(self.now().as_millis()).unwrap();
        let off_by_secs = self.date_off_by_secs.load(Ordering::Relaxed);
        right.saturating_add(off_by_secs.saturating_mul(1000))
    }
}

/// The date at which every test begins, in seconds since 1970.
pub(crate) const NOW_SECS: i64 = 1_769_853_600;

/// What was written, readable from outside.
#[derive(Clone, Default)]
pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Wake(Arc<Notify>);

impl Ring for Wake {
    fn ring(&self) {
        self.0.notify_one();
    }
}

/// One shard, played by the test.
pub(crate) struct Shard {
    side: ShardSide,
    bell: Arc<Bell>,
    wake: Arc<Notify>,
    slots: u32,
    seen: VecDeque<Command>,
}

impl Shard {
    pub(crate) fn id(&self) -> ShardId {
        self.side.shard
    }

    pub(crate) fn tell(&self, event: Event) {
        self.side.events.send(event).unwrap();
    }

    /// Lets the controller hear what it was told.
    pub(crate) async fn heard(&self) {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn connection(&mut self) -> ConnectionId {
        self.slots += 1;
        ConnectionId { shard: self.side.shard, slot: self.slots, generation: 0 }
    }

    /// The next command; fails the test when none comes.
    pub(crate) async fn command(&mut self) -> Command {
        let next = async {
            loop {
                if let Some(command) = self.seen.pop_front() {
                    return command;
                }
                self.seen.extend(self.side.commands.receive());
                if self.seen.is_empty() {
                    self.bell.rest();
                    if self.side.commands.is_empty() {
                        self.wake.notified().await;
                    }
                    self.bell.rise();
                }
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, next).await.expect("a command")
    }

    /// Asks for an upgrade and returns who waits.
    pub(crate) fn upgrade(&mut self, request: UpgradeRequest, token: &str) -> ConnectionId {
        let connection = self.connection();
        self.tell(Event::AdmissionAsked {
            connection,
            request: Box::new(AdmissionRequest {
                address: ADDRESS,
                preflight: Preflight::Ask { request, token: Secret::from(token) },
            }),
        });
        connection
    }

    pub(crate) fn client(&mut self, token: &str) -> ConnectionId {
        self.upgrade(request(Role::Client), token)
    }

    pub(crate) async fn ruling(&mut self) -> (ConnectionId, Result<Box<Grant>, Refusal>) {
        match self.command().await {
            Command::Admit { connection, grant, .. } => (connection, Ok(grant)),
            Command::Refuse { connection, refusal } => (connection, Err(refusal)),
            other => panic!("no ruling: {other:?}"),
        }
    }

    pub(crate) async fn admitted(&mut self) -> Box<Grant> {
        let (_, ruling) = self.ruling().await;
        ruling.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }

    pub(crate) async fn refused(&mut self) -> Refusal {
        let (_, ruling) = self.ruling().await;
        match ruling {
            Ok(grant) => panic!("admitted: {grant:?}"),
            Err(refusal) => refusal,
        }
    }

    /// An admitted connection is open at this place.
    pub(crate) fn open(&mut self, admission: AdmissionId) -> ConnectionId {
        let connection = self.connection();
        self.tell(Event::Opened { admission, connection });
        connection
    }

    /// The next command, which closes a connection; fails the test when it is another.
    pub(crate) async fn closed(&mut self) -> (ConnectionId, CloseReason) {
        match self.command().await {
            Command::Close { connection, reason } => (connection, reason),
            other => panic!("nothing is closed: {other:?}"),
        }
    }

    /// Asks for a path of the operator's, with the right token.
    pub(crate) fn ask(&mut self, target: &str) {
        self.ask_as(target, Some(&format!("Bearer {ADMIN}")));
    }

    pub(crate) fn ask_as(&mut self, target: &str, authorization: Option<&str>) {
        self.ask_accepting(target, authorization, None);
    }

    pub(crate) fn ask_accepting(
        &mut self,
        target: &str,
        authorization: Option<&str>,
        accept: Option<&str>,
    ) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.into())),
            None => (target, None),
        };
        let connection = self.connection();
        self.tell(Event::HttpAsked {
            connection,
            request: Box::new(ControlRequest {
                path: path.into(),
                query,
                authorization: authorization.map(Secret::from),
                admin_token: None,
                accept: accept.map(Into::into),
                address: ADDRESS,
            }),
        });
    }

    pub(crate) async fn response(&mut self) -> (u16, &'static str, String) {
        match self.command().await {
            Command::Respond { status, content_type, body, .. } => {
                let body = String::from_utf8_lossy(&body).into_owned();
                (status, content_type, body)
            }
            other => panic!("no response: {other:?}"),
        }
    }

    pub(crate) async fn asked_for_report(&mut self) -> (QueryId, Detail) {
        match self.command().await {
            Command::Report { query, detail } => (query, detail),
            other => panic!("no question: {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self, report: ShardReport) {
        let (query, _) = self.asked_for_report().await;
        let shard = self.side.shard;
        self.tell(Event::Reported { query, report: Box::new(ShardReport { shard, ..report }) });
    }
}

pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn request(role: Role) -> UpgradeRequest {
    UpgradeRequest { role, workspace_id: "ws1".into(), target_id: Some("rt1".into()) }
}

/// A controller that runs.
pub(crate) struct Relay {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) page: Page,
    pub(crate) applier: Applier,
    stop: oneshot::Sender<()>,
    hurry: oneshot::Sender<()>,
    running: JoinHandle<Ended>,
}

impl Relay {
    /// Starts a controller of `N` shards.
    pub(crate) fn start<const N: usize>(settings: Settings) -> (Self, [Shard; N]) {
        Self::start_with(settings, |_| {})
    }

    /// Starts a controller of one shard, with a door for operators.
    pub(crate) fn with_door(settings: Settings, socket: AdminSocket) -> (Self, Shard) {
        let (relay, [shard]) =
            Self::start_with(settings, |controller| controller.listen_to_operators(socket));
        (relay, shard)
    }

    /// Starts a controller whose control API can be called.
    pub(crate) fn with_api<const N: usize>(
        settings: Settings,
        api: ControlApi,
    ) -> (Self, [Shard; N]) {
        Self::start_with(settings, |controller| controller.serve_control(api).unwrap())
    }

    /// Starts a controller that was told something before.
    pub(crate) fn start_with<const N: usize>(
        settings: Settings,
        prepare: impl FnOnce(&mut Controller),
    ) -> (Self, [Shard; N]) {
        let wakes: Vec<_> = (0..N).map(|_| Arc::new(Notify::new())).collect();
        let bells: Vec<_> = wakes.iter().map(|wake| Bell::new(Wake(Arc::clone(wake)))).collect();
        let (link, sides) = local(bells.clone());
        let clock = Arc::new(TestClock::default());
        let page = Page::default();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let mut controller = Controller::new(settings, link, shared, page.clone()).unwrap();
        prepare(&mut controller);
        let applier = controller.applier();
        let (stop, stopped) = oneshot::channel::<()>();
        let (hurry, hurried) = oneshot::channel::<()>();
        let hurried = async {
            if hurried.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let stopped = async {
            let _ = stopped.await;
        };
        let running = tokio::spawn(controller.run(stopped, hurried));
        let shards: Vec<_> = sides
            .into_iter()
            .zip(bells)
            .zip(wakes)
            .map(|((side, bell), wake)| Shard { side, bell, wake, slots: 0, seen: VecDeque::new() })
            .collect();
        let relay = Self { clock, page, applier, stop, hurry, running };
        let shards = shards.try_into().unwrap_or_else(|_| panic!("{N} shards"));
        (relay, shards)
    }

    pub(crate) fn one(settings: Settings) -> (Self, Shard) {
        let (relay, [shard]) = Self::start(settings);
        (relay, shard)
    }

    /// Begins the shutdown and returns what to wait for.
    pub(crate) fn shut_down(self) -> JoinHandle<Ended> {
        self.shut_down_patiently().0
    }

    /// The same, with what puts it in a hurry.
    pub(crate) fn shut_down_patiently(self) -> (JoinHandle<Ended>, oneshot::Sender<()>) {
        // A relay whose shards are gone has ended already.
        let _ = self.stop.send(());
        (self.running, self.hurry)
    }

    /// Ends the relay with its shard and returns what it logged under this name.
    pub(crate) async fn logged(self, shard: Shard, event: &str) -> Vec<serde_json::Value> {
        let page = self.page.clone();
        let ended = self.shut_down();
        shard.tell(Event::Stopped { shard: ShardId(0) });
        assert_eq!(ended.await.unwrap(), Ended::Stopped);
        let mut lines = page.lines();
        lines.retain(|line| line["event"] == event);
        lines
    }
}
