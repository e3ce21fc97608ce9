//! Shards that are turned by hand, with the control plane's ends of their lanes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, Command, ConnectionId, Counter, Credential, Detail,
    Event, Grant, Histogram, Limits, Measure, MoveFailure, Preflight, QueryId, Refusal, Scope,
    ShardId, ShardReport, Tick, Value, Versioned, WorkerRequest,
};
use relay_driver::sim::{Faults, Seed, SimDriver, World};
use relay_driver::{Config, Driver};
use relay_mailbox::{Bell, Receiver, Ring, Sender, lane};
use relay_shard::{
    Audit, DoorNews, DoorRules, HealthFacts, Parcel, Ports, Shard, ShardConfig, Turn,
};
use relay_wire::http1::{TrustedProxies, UpgradeRules};
use rustls::{ClientConnection, ServerConfig};

use crate::frames;
use crate::socket::Socket;
use crate::tls;

/// What a bench is made of.
pub(crate) struct Setup {
    pub(crate) shard_count: u16,
    pub(crate) limits: Limits,
    pub(crate) driver: Config,
    pub(crate) faults: Faults,
    pub(crate) encrypted: bool,
    /// TLS of the shards when encrypted, if not the usual.
    pub(crate) server: Option<Arc<ServerConfig>>,
    pub(crate) events_max: usize,
    pub(crate) parcels_max: usize,
    /// Trusted proxies, as configured.
    pub(crate) proxies: &'static str,
    /// Whether these send PROXY headers.
    pub(crate) proxy_protocol: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let limits = Limits {
            runtime_per_minute: u32::MAX,
            runtime_per_minute_workspace: u32::MAX,
            daemon_per_minute: u32::MAX,
            close_timeout: Duration::from_secs(2),
            ..Limits::default()
        };
        let driver = Config { buffer_count: 16, buffer_bytes: 4096, ..Config::default() };
        Self {
            shard_count: 1,
            limits,
            driver,
            faults: Faults::none(),
            encrypted: false,
            server: None,
            events_max: 1024,
            parcels_max: 8,
            proxies: "",
            proxy_protocol: false,
        }
    }
}

/// How the control plane answers by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Office {
    /// Admits every upgrade and answers every request.
    Admits,
    /// Refuses every upgrade.
    Refuses(Refusal),
    /// Takes note and says nothing.
    Silent,
    /// Does not even look.
    Away,
}

/// An upgrade the control plane was asked about.
pub(crate) struct Asked {
    pub(crate) connection: ConnectionId,
    pub(crate) request: Box<AdmissionRequest>,
}

/// What the control plane heard and granted.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) asked: Vec<Asked>,
    pub(crate) http_asked: Vec<ConnectionId>,
    pub(crate) granted: Vec<AdmissionId>,
    /// Where admitted connections live, in the order they told.
    pub(crate) opened: Vec<(AdmissionId, ConnectionId)>,
    /// Fresh tokens.
    pub(crate) renewals: Vec<(ConnectionId, AdmissionId, String)>,
    pub(crate) in_force: Vec<(ShardId, Versioned, u64)>,
    pub(crate) released: Vec<AdmissionId>,
    pub(crate) abandoned: Vec<ConnectionId>,
    pub(crate) stopped: Vec<ShardId>,
    /// Moves that were made, from where to where.
    pub(crate) moved: Vec<(ShardId, ShardId)>,
    /// Why others were not.
    pub(crate) stayed: Vec<MoveFailure>,
    pub(crate) reports: Vec<ShardReport>,
    /// What workers asked for.
    pub(crate) calls: Vec<WorkerRequest>,
    pub(crate) logged: Vec<&'static str>,
    /// What log entries say, in order.
    pub(crate) details: Vec<(&'static str, Value)>,
}

struct Desk {
    /// Gone once the shard said that it is done.
    shard: Option<Shard<SimDriver>>,
    commands: Sender<Command>,
    events: Receiver<Event>,
    door: Sender<DoorNews>,
}

/// Names one socket of a bench.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SocketId(usize);

pub(crate) struct Bench {
    world: World,
    desks: Vec<Desk>,
    sockets: Vec<Socket>,
    encrypted: bool,
    pub(crate) office: Office,
    /// Where workspaces live.
    pub(crate) home: ShardId,
    /// Whether the claims it grants are for the workspace that was asked for.
    pub(crate) claims_fit: bool,
    /// The generation that grants name.
    pub(crate) generation: Option<u64>,
    /// Where peers connect from.
    pub(crate) from: Ipv4Addr,
    /// A shard that takes no turns.
    pub(crate) stuck: Option<usize>,
    pub(crate) ledger: Ledger,
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl Bench {
    pub(crate) fn new(setup: Setup) -> Self {
        let world = World::new(Seed::new(7), setup.faults.clone());
        let shards = usize::from(setup.shard_count);
        let drivers: Vec<_> = (0..shards).map(|_| world.driver(&setup.driver)).collect();
        let (homes, arrivals): (Vec<_>, Vec<_>) = drivers
            .iter()
            .map(|driver| lane::<Parcel<_>>(setup.parcels_max, driver.bell()))
            .unzip();
        let mut desks = Vec::new();
        for (index, (driver, arrivals)) in drivers.into_iter().zip(arrivals).enumerate() {
            let (commands, orders) = lane(64, driver.bell());
            let (to_control, events) = lane(setup.events_max, Bell::new(Silent));
            let config = ShardConfig {
                shard: ShardId(index as u16),
                limits: Arc::new(setup.limits.clone()),
                hash_key: [3; 16],
                upgrade_rules: UpgradeRules::default(),
                trusted_proxies: TrustedProxies::parse(setup.proxies).expect("a list"),
                proxy_protocol: setup.proxy_protocol,
                health: HealthFacts { started: Tick::default(), verbose: None },
                unix_ms_at_origin: 0,
                receive_buffers: usize::from(setup.driver.buffer_count),
                tls: setup
                    .encrypted
                    .then(|| setup.server.clone().unwrap_or_else(tls::server_config)),
            };
            let homes = homes.clone();
            let (news, door) = lane(1, driver.bell());
            let ports = Ports { commands: orders, events: to_control, arrivals, homes, door };
            let mut shard = Shard::new(config, driver, ports);
            shard.driver_mut().listen(world.listener()).expect("a fresh driver");
            desks.push(Desk { shard: Some(shard), commands, events, door: news });
        }
        Self {
            world,
            desks,
            sockets: Vec::new(),
            encrypted: setup.encrypted,
            office: Office::Admits,
            claims_fit: true,
            generation: None,
            home: ShardId(0),
            from: Ipv4Addr::LOCALHOST,
            stuck: None,
            ledger: Ledger::default(),
        }
    }

    /// One turn of every shard, then `time` passes.
    pub(crate) fn step_by(&mut self, time: Duration) {
        for socket in &mut self.sockets {
            socket.pump();
        }
        let moving = self.desks.iter_mut().enumerate().filter(|(at, _)| self.stuck != Some(*at));
        for (_, desk) in moving {
            if let Some(shard) = &mut desk.shard
                && shard.turn(Some(Duration::ZERO)).expect("a simulated kernel turns") == Turn::Done
            {
                desk.shard = None;
            }
            if let Some(shard) = &mut desk.shard {
                let audit = shard.audit();
                assert_eq!(audit.charged_bytes, audit.held_bytes, "the budget keeps true accounts");
            }
        }
        if self.office != Office::Away {
            self.hear();
        }
        self.world.advance(time);
    }

    /// One turn of every shard, then a millisecond passes.
    pub(crate) fn step(&mut self) {
        self.step_by(Duration::from_millis(1));
    }

    pub(crate) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Time since the simulated clock's origin.
    pub(crate) fn now(&self) -> Duration {
        self.world.now().since(Tick::default())
    }

    /// Lets that much time pass in small steps.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.world.now().after(time);
        while self.world.now() < end {
            self.step_by(Duration::from_millis(50));
        }
    }

    /// Steps until `reached`; at most two seconds.
    pub(crate) fn until(&mut self, what: &str, reached: impl FnMut(&mut Self) -> bool) {
        self.until_by(Duration::from_millis(1), 2000, what, reached);
    }

    /// Steps of that length until `reached`; at most so many.
    pub(crate) fn until_by(
        &mut self,
        time: Duration,
        steps: usize,
        what: &str,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) {
        for _ in 0..steps {
            if reached(self) {
                return;
            }
            self.step_by(time);
        }
        panic!("not reached: {what}");
    }

    /// Like `until`, for what takes seconds: at most a minute.
    pub(crate) fn until_slowly(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        for _ in 0..1200 {
            if reached(self) {
                return;
            }
            self.step_by(Duration::from_millis(50));
        }
        panic!("not reached: {what}");
    }

    /// Changes what goes wrong from now on.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.world.set_faults(faults);
    }

    fn hear(&mut self) {
        for index in 0..self.desks.len() {
            while let Some(event) = self.desks[index].events.receive() {
                self.on_event(event);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::AdmissionAsked { connection, request } => {
                let can_be_asked = matches!(request.preflight, Preflight::Ask { .. });
                self.ledger.asked.push(Asked { connection, request });
                let last = self.ledger.asked.len() - 1;
                match self.office {
                    Office::Admits if can_be_asked => self.admit(last),
                    Office::Admits => self.refuse(connection, Refusal::BadRequest),
                    Office::Refuses(refusal) => self.refuse(connection, refusal),
                    Office::Silent | Office::Away => {}
                }
            }
            Event::HttpAsked { connection, .. } => {
                self.ledger.http_asked.push(connection);
                if self.office == Office::Admits {
                    self.respond(connection);
                }
            }
            Event::Opened { admission, connection } => {
                self.ledger.opened.push((admission, connection));
            }
            Event::RenewalAsked { connection, admission, claims_digest: _, token } => {
                self.ledger.renewals.push((connection, admission, token.expose().to_owned()));
            }
            Event::InForce { shard, value, version } => {
                self.ledger.in_force.push((shard, value, version));
            }
            Event::Released { admission } => self.ledger.released.push(admission),
            Event::Abandoned { connection } => self.ledger.abandoned.push(connection),
            Event::Moved { from, to, .. } => self.ledger.moved.push((from, to)),
            Event::MoveFailed { reason, .. } => self.ledger.stayed.push(reason),
            Event::Stopped { shard } => self.ledger.stopped.push(shard),
            Event::Logged { entry, .. } => {
                self.ledger.logged.push(entry.event);
                self.ledger.details.extend(entry.details);
            }
            Event::Reported { report, .. } => self.ledger.reports.push(*report),
            Event::WorkerAsked { request, .. } => self.ledger.calls.push(*request),
        }
    }

    /// Admits the upgrade that was asked about at that place of the ledger, once more each time.
    pub(crate) fn admit(&mut self, index: usize) {
        let asked = &self.ledger.asked[index];
        let connection = asked.connection;
        let address = asked.request.address;
        let Preflight::Ask { request, .. } = asked.request.preflight.clone() else {
            panic!("the upgrades of these tests can be asked about");
        };
        let workspace = if self.claims_fit { request.workspace_id.as_str() } else { "elsewhere" };
        let claims = Claims {
            workspace_id: Some(workspace.into()),
            runtime_target_id: request.target_id.as_ref().map(|target| target.as_str().into()),
            client_id: Some("c".into()),
            managed_executor_id: Some("ex".into()),
            daemon_issue_generation: self.generation,
            scope: Some(Scope::Runtime),
            ..Claims::default()
        };
        let admission = AdmissionId(self.ledger.granted.len() as u64 + 1);
        self.ledger.granted.push(admission);
        let grant = Box::new(Grant {
            admission,
            request,
            claims,
            claims_digest: 0,
            credential: Credential::default(),
            address,
        });
        self.command(connection.shard, Command::Admit { connection, grant, home: self.home });
    }

    fn refuse(&mut self, connection: ConnectionId, refusal: Refusal) {
        self.command(connection.shard, Command::Refuse { connection, refusal });
    }

    /// Answers a plain request.
    pub(crate) fn respond(&mut self, connection: ConnectionId) {
        let body = Box::from(*b"{}");
        let content_type = "application/json";
        let command = Command::Respond { connection, status: 200, content_type, body };
        self.command(connection.shard, command);
    }

    pub(crate) fn command(&mut self, shard: ShardId, command: Command) {
        // Orders for a shard that is done have nobody to go to.
        let sent = self.try_command(shard, command);
        let gone = self.desks[usize::from(shard.0)].shard.is_none();
        assert!(sent || gone, "the lane has room");
    }

    /// Sends an order; whether the lane had room.
    pub(crate) fn try_command(&mut self, shard: ShardId, command: Command) -> bool {
        self.desks[usize::from(shard.0)].commands.send(command).is_ok()
    }

    /// Tells a shard to stop.
    pub(crate) fn stop(&mut self, shard: u16, patience: Duration) {
        let deadline_ms = patience.as_millis() as u64;
        self.command(ShardId(shard), Command::Stop { deadline_ms });
    }

    /// How many scopes the first shard knows.
    pub(crate) fn scope_count(&mut self) -> u64 {
        let query = QueryId(self.ledger.reports.len() as u64);
        self.command(ShardId(0), Command::Report { query, detail: Detail::Scopes });
        self.steps(2);
        self.ledger.reports.last().expect("it was answered").scope_count
    }

    /// Connects to the shard of that number.
    pub(crate) fn connect_to(&mut self, shard: usize) -> SocketId {
        let port = 1024 + (self.sockets.len() % 60_000) as u16;
        let from = SocketAddr::from((self.from, port));
        let peer = self.world.connect(shard, from).expect("it listens");
        self.sockets.push(Socket::new(peer, self.encrypted));
        SocketId(self.sockets.len() - 1)
    }

    /// Connects to the first shard from that address.
    pub(crate) fn connect_from(&mut self, address: IpAddr) -> SocketId {
        let from = SocketAddr::from((address, 4000));
        let peer = self.world.connect(0, from).expect("it listens");
        self.sockets.push(Socket::new(peer, self.encrypted));
        SocketId(self.sockets.len() - 1)
    }

    /// Connects to the first shard through a Unix socket.
    pub(crate) fn connect_locally(&mut self) -> SocketId {
        let peer = self.world.connect_locally(0).expect("it listens");
        self.sockets.push(Socket::new(peer, false));
        SocketId(self.sockets.len() - 1)
    }

    pub(crate) fn connect(&mut self) -> SocketId {
        self.connect_to(0)
    }

    /// Connects without TLS, whatever the relay expects, and says nothing.
    pub(crate) fn connect_plain(&mut self) -> SocketId {
        self.connect_plain_to(0)
    }

    /// The same to the shard of that number.
    pub(crate) fn connect_plain_to(&mut self, shard: usize) -> SocketId {
        let encrypted = std::mem::replace(&mut self.encrypted, false);
        let id = self.connect_to(shard);
        self.encrypted = encrypted;
        id
    }

    /// Connects with a TLS session of the test's own.
    pub(crate) fn connect_with(&mut self, session: ClientConnection) -> SocketId {
        let id = self.connect_plain();
        self.socket(id).start_tls(session);
        id
    }

    /// Gives every shard another TLS configuration.
    pub(crate) fn renew_certificate(&mut self, server: &Arc<ServerConfig>) {
        for desk in &self.desks {
            let sent = desk.door.send(DoorNews::Tls(Arc::clone(server)));
            assert!(sent.is_ok(), "a turn empties the lane");
        }
    }

    /// Gives every shard other rules for those who are not admitted yet.
    pub(crate) fn change_rules(&mut self, rules: &Arc<DoorRules>) {
        for desk in &self.desks {
            let sent = desk.door.send(DoorNews::Rules(Arc::clone(rules)));
            assert!(sent.is_ok(), "a turn empties the lane");
        }
    }

    /// Connects and sends.
    pub(crate) fn request(&mut self, bytes: impl AsRef<[u8]>) -> SocketId {
        let id = self.connect();
        self.socket(id).send(bytes.as_ref());
        id
    }

    /// Opens a WebSocket and takes the 101 off its bytes.
    pub(crate) fn open(&mut self, role: &str, target: &str) -> SocketId {
        let id = self.request(frames::upgrade(role, target));
        assert_eq!(self.answer(id).0, 101, "it was admitted");
        id
    }

    /// A daemon and a client of the same target.
    pub(crate) fn pair(&mut self, target: &str) -> (SocketId, SocketId) {
        (self.open("workspace-daemon", target), self.open("client", target))
    }

    /// Steps until a whole answer is there.
    pub(crate) fn answer(&mut self, id: SocketId) -> (u16, String) {
        let mut answer = None;
        self.until("an answer", |bench| {
            answer = frames::take_answer(&mut bench.socket(id).incoming);
            answer.is_some()
        });
        answer.expect("it was reached")
    }

    pub(crate) fn socket(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0]
    }

    /// Forgets all sockets but keeps their connections: peers that hold on and do nothing.
    pub(crate) fn forget_sockets(&mut self) {
        self.sockets.clear();
    }

    /// Every peer cuts its connection.
    pub(crate) fn reset_all(&mut self) {
        for socket in &self.sockets {
            socket.reset();
        }
    }

    /// The shard of that number, which has to be running.
    pub(crate) fn shard(&mut self, shard: usize) -> &mut Shard<SimDriver> {
        self.desks[shard].shard.as_mut().expect("it is not done")
    }

    pub(crate) fn is_done(&self, shard: usize) -> bool {
        self.desks[shard].shard.is_none()
    }

    /// What the first shard holds.
    pub(crate) fn audit(&mut self) -> Audit {
        self.shard(0).audit()
    }

    /// What the first shard counted.
    pub(crate) fn counted(&mut self, counter: Counter) -> u64 {
        self.shard(0).counters().of(counter)
    }

    /// How what the first shard measured is distributed.
    pub(crate) fn measured(&mut self, measure: Measure) -> Histogram {
        self.shard(0).histograms().of(measure).clone()
    }

    /// Receive buffers of the first shard that are not back in the pool.
    pub(crate) fn buffers_in_use(&mut self) -> usize {
        self.shard(0).driver().buffers_in_use()
    }

    /// Everything is as before anybody connected, and what was granted came back exactly once.
    pub(crate) fn assert_nothing_is_left(&mut self, what: &str) {
        self.assert_all_released(what);
        for desk in &mut self.desks {
            if let Some(shard) = &mut desk.shard {
                // Scopes stay for a while after their members.
                let audit = Audit { empty_scopes_bytes: 0, ..shard.audit() };
                assert_eq!(audit, Audit::default(), "{what}");
                assert_eq!(shard.driver().stats().connections, 0, "{what}");
                assert_eq!(shard.driver().stats().residents, 0, "{what}");
                assert_eq!(shard.driver().buffers_in_use(), 0, "{what}");
            }
        }
    }

    /// What was granted came back exactly once.
    pub(crate) fn assert_all_released(&mut self, what: &str) {
        self.ledger.released.sort_unstable();
        assert_eq!(self.ledger.released, self.ledger.granted, "{what}");
    }
}
