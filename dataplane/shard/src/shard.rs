//! The loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Counter, Counters, Event, Histograms, Limits, Tick, Versioned};
use relay_driver::{Chunk, Completion, Driver, End, Key, Remote, prefetch};
use relay_mailbox::Bell;
use relay_switchboard::{Effects, Input, Switchboard};
use relay_wire::envelope::Scanner;
use relay_wire::http1::Peer;
use rustls::ServerConfig;

use crate::assembly::Assembly;
use crate::backlog::Round;
use crate::blocks::Blocks;
use crate::budget::Budget;
use crate::company::Company;
use crate::complaint::{Complaint, Complaints};
use crate::config::ShardConfig;
use crate::connection::{Connection, Phase, Reading};
use crate::deadline::Deadlines;
use crate::discarded::Discarded;
use crate::drain::Drain;
use crate::egress::Egress;
use crate::errand::Errands;
use crate::fronted::Fronted;
use crate::guest::Guest;
use crate::held_back::HeldBack;
use crate::histograms::TurnCosts;
use crate::mail::Mail;
use crate::moves::{Moves, Stay};
use crate::ports::Ports;
use crate::spare_records::SpareRecords;
use crate::strangers::Strangers;
use crate::table::Table;
use crate::whereabouts::Whereabouts;

/// One data-plane thread's state. `Shard::run` is the thread.
pub struct Shard<D: Driver> {
    pub(crate) config: ShardConfig,
    pub(crate) limits: Arc<Limits>,
    pub(crate) driver: D,
    pub(crate) board: Switchboard,
    pub(crate) table: Table,
    pub(crate) deadlines: Deadlines,
    pub(crate) ports: Ports<D::Socket>,
    pub(crate) counters: Counters,
    pub(crate) measures: Histograms,
    pub(crate) turn_costs: TurnCosts,
    /// The time of this turn.
    pub(crate) now: Tick,
    /// Sockets that are not admitted yet.
    pub(crate) strangers: Strangers,
    /// When the log last told about a refusal of each kind.
    pub(crate) complaints: Complaints,
    /// TLS for connections accepted from now on, or none.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// How often a stranger's bytes were looked through.
    pub(crate) heads_looked_for: u64,
    /// The stranger that grew last in a site that holds too much.
    pub(crate) overgrown: Option<Key>,
    /// What all connections together hold.
    pub(crate) budget: Budget,
    /// Workspaces that change shards.
    pub(crate) moves: Moves<D::Socket>,
    /// Where those are that changed shards a moment ago.
    pub(crate) whereabouts: Whereabouts,
    /// What waits for room in other shards' lanes.
    pub(crate) mail: Mail<D::Socket>,
    /// Who is told to go, while the shard is drained.
    pub(crate) drain: Option<Box<Drain>>,
    /// Of the newest order to drain, or to admit again.
    pub(crate) drain_version: u64,
    /// When what is left is cut, once the shard was told to stop.
    pub(crate) stop_deadline: Option<Tick>,
    /// Reads messages that arrive in one piece.
    pub(crate) scanner: Scanner,
    pub(crate) effects: Effects,
    /// Whether effects are being performed, so that what follows from one waits for its turn.
    pub(crate) performing: bool,
    /// The message being judged, ready to be sent.
    pub(crate) message: Vec<Chunk>,
    /// Connections whose open messages hold leased buffers, and where to look for the next to copy.
    pub(crate) pins: Vec<Key>,
    pub(crate) pinned_leases: usize,
    pub(crate) pin_hand: usize,
    /// Loud connections, and whose turn it is.
    pub(crate) round: Round,
    /// What is no message, and whose turn it is.
    pub(crate) errands: Errands,
    /// Upgrades that the control plane was too far behind to be asked about.
    pub(crate) held_back: HeldBack,
    /// Turns in a row in which neither was served although somebody waited.
    pub(crate) put_off: u32,
    /// Whether somebody quiet is talking.
    pub(crate) company: Company,
    /// Tells this turn from others, to count shares in.
    pub(crate) turn_number: u32,
    /// What nobody needs and is not free yet.
    pub(crate) discarded: Discarded,
    /// Connections with something new to send.
    pub(crate) dirty: Vec<Key>,
    /// Those with so much to send that it takes more than a turn.
    pub(crate) bulk: VecDeque<Key>,
    /// Free lists, so that the steady state allocates nothing.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    pub(crate) spare_assemblies: Vec<Box<Assembly>>,
    #[allow(clippy::vec_box, reason = "the boxes are what is kept")]
    pub(crate) spare_egress: Vec<Box<Egress>>,
    pub(crate) spare_records: SpareRecords,
    pub(crate) blocks: Blocks,
    /// What completed and was not looked at yet. Between two turns: what came in the middle of the
    /// last.
    pub(crate) completions: Vec<Completion<D::Socket>>,
    /// Events the lane had no room for.
    outbox: VecDeque<Event>,
    bell: Arc<Bell>,
    /// Whether the control plane was told that everything is closed.
    said_stopped: bool,
}

/// Whether there will be another turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Call `turn` again.
    More,
    /// Everything is closed and the control plane knows.
    Done,
}

/// Log entries that may wait for the control plane. Reached: the newest is dropped and counted.
const OUTBOX_LOGS_MAX: usize = 4096;
/// How far ahead of a completion its connection's slot and seat are brought close: each takes a
/// microsecond or more to serve, and memory a tenth of that to come.
const SEATS_AHEAD: usize = 4;
/// The same for its scope, which is found through the seat.
const SCOPES_AHEAD: usize = 2;
/// Spare boxes kept of each kind.
pub(crate) const SPARES_MAX: usize = 1024;
/// Spare boxes for messages in pieces, each with a scanner's working memory.
pub(crate) const SPARE_ASSEMBLIES_MAX: usize = 64;

impl<D: Driver> Shard<D> {
    /// A shard that accepts nothing yet.
    pub fn new(config: ShardConfig, driver: D, ports: Ports<D::Socket>) -> Self {
        let limits = Arc::clone(&config.limits);
        let board = Switchboard::new(config.shard, config.hash_key, Arc::clone(&limits));
        let bell = driver.bell();
        let now = driver.now();
        Self {
            table: Table::new(config.shard),
            limits,
            board,
            deadlines: Deadlines::new(now),
            ports,
            counters: Counters::default(),
            measures: Histograms::default(),
            turn_costs: TurnCosts::default(),
            now,
            strangers: Strangers::default(),
            complaints: Complaints::default(),
            tls: config.tls.clone(),
            heads_looked_for: 0,
            overgrown: None,
            budget: Budget::default(),
            moves: Moves::default(),
            whereabouts: Whereabouts::default(),
            mail: Mail::default(),
            drain: None,
            drain_version: 0,
            stop_deadline: None,
            scanner: Scanner::default(),
            effects: Effects::default(),
            performing: false,
            said_stopped: false,
            message: Vec::new(),
            pins: Vec::new(),
            pinned_leases: 0,
            pin_hand: 0,
            round: Round::default(),
            errands: Errands::default(),
            held_back: HeldBack::default(),
            put_off: 0,
            company: Company::default(),
            turn_number: 0,
            discarded: Discarded::default(),
            dirty: Vec::new(),
            bulk: VecDeque::new(),
            spare_assemblies: Vec::new(),
            spare_egress: Vec::new(),
            spare_records: SpareRecords::default(),
            blocks: Blocks::default(),
            completions: Vec::new(),
            outbox: VecDeque::new(),
            bell,
            config,
            driver,
        }
    }

    /// The driver, to give it listeners before the first turn.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Turns until told to stop and done. Errors: the kernel refused the ring itself; connections
    /// are lost.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn(None)? == Turn::More {}
        Ok(())
    }

    /// One turn: look at what completed, decide, submit what follows with one system call.
    ///
    /// Waits at most `patience`, or until something happens. Bounded work: the driver bounds the
    /// completions, each connection has a share, and errands, deadlines and large sends have
    /// bounds of their own.
    pub fn turn(&mut self, patience: Option<Duration>) -> io::Result<Turn> {
        let timeout = self.timeout(patience);
        self.driver.turn(timeout, &mut self.completions)?;
        self.bell.rise();
        self.now = self.driver.now();
        self.turn_number = self.turn_number.wrapping_add(1);
        self.take_door_news();
        self.measure_completions();
        self.take_completions();
        self.take_orders();
        self.serve_others();
        self.relieve();
        self.expire();
        self.advance_moves();
        self.tell_some();
        self.flush();
        self.free_some();
        // Telling, moving and flushing take memory too.
        self.relieve();
        self.post();
        self.measure_turn();
        Ok(self.verdict())
    }

    /// How long the driver may wait. The bell is armed first, the lanes are looked at after:
    /// whoever fills a lane in between rings.
    fn timeout(&self, patience: Option<Duration>) -> Option<Duration> {
        self.bell.rest();
        let lanes_wait = !self.ports.commands.is_empty() || !self.ports.door.is_empty();
        let is_due = !self.dirty.is_empty()
            || !self.bulk.is_empty()
            || !self.round.is_empty()
            || self.has_errands()
            || !self.discarded.is_empty()
            || self.moves.has_work()
            // What came in the middle of the last turn.
            || !self.completions.is_empty();
        if lanes_wait || is_due {
            return Some(Duration::ZERO);
        }
        let is_full =
            !self.outbox.is_empty() || !self.mail.is_empty() || !self.held_back.is_empty();
        let retry = is_full.then_some(OUTBOX_RETRY);
        let due = self.next_deadline().map(|due| due.since(self.driver.now()));
        [patience, due, retry].into_iter().flatten().min()
    }

    fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        // What left comes first, because readers are judged by what still waits for them.
        let is_sent = |completion: &mut _| matches!(completion, Completion::Sent { .. });
        for completion in completions.extract_if(.., is_sent) {
            self.on_completion(completion);
        }
        let mut rest = completions.drain(..);
        while let Some(completion) = rest.next() {
            self.look_ahead(rest.as_slice());
            self.on_completion(completion);
        }
        drop(rest);
        if self.completions.is_empty() {
            self.completions = completions;
        }
    }

    /// Brings close what is kept of the connections that are heard next: their slots and seats,
    /// whose places are known, and a little later the scopes that the seats name.
    #[inline]
    fn look_ahead(&self, waiting: &[Completion<D::Socket>]) {
        let received = |ahead| match waiting.get(ahead) {
            Some(Completion::Received { key, .. }) => Some(*key),
            _ => None,
        };
        if let Some(key) = received(SEATS_AHEAD) {
            self.table.get_ahead(key).into_iter().for_each(prefetch);
            self.board.seat(self.table.id(key)).into_iter().for_each(prefetch);
        }
        if let Some(key) = received(SCOPES_AHEAD) {
            self.board.place(self.table.id(key)).into_iter().for_each(prefetch);
        }
    }

    fn on_completion(&mut self, completion: Completion<D::Socket>) {
        match completion {
            Completion::Accepted { socket, remote } => self.on_accepted(socket, remote),
            Completion::AcceptFailed(error) => self.on_accept_failed(&error),
            Completion::Received { key, lease } => self.on_received(key, lease),
            Completion::ReceiveEnded { key, end } => self.on_reading_ended(key, end),
            Completion::Sent { key, batch, outcome } => self.on_sent(key, batch, outcome),
            Completion::Exported { key, socket } => self.on_exported(key, socket),
            Completion::Closed { key } => self.on_closed(key),
        }
        self.relieve();
    }

    /// The control plane wants something.
    pub(crate) fn on_command(&mut self, command: Command) {
        let Some(command) = self.redirect_order(command) else { return };
        match command {
            Command::Admit { connection, grant, home } => self.on_admit(connection, grant, home),
            Command::Refuse { connection, refusal } => {
                let key = self.table.key(connection);
                if let Some(key) = key.filter(|&key| !self.is_held(key)) {
                    self.on_refuse(key, refusal);
                }
            }
            Command::Respond { connection, status, content_type, body } => {
                if let Some(key) = self.table.key(connection) {
                    self.on_respond(key, status, content_type, &body);
                }
            }
            Command::WorkerReply { connection, response } => {
                self.consult(Input::WorkerReply { to: connection, response: &response });
            }
            Command::Close { connection, reason } => {
                self.consult(Input::Dismissed { connection, reason });
            }
            Command::Renewed { connection, outcome, credential: _ } => {
                self.consult(Input::Renewed { to: connection, outcome });
            }
            Command::SetLimits(limits) => {
                if limits.version > self.limits.version {
                    self.limits = Arc::clone(&limits);
                }
                self.consult(Input::SetLimits(limits));
                self.acknowledge(Versioned::Limits);
            }
            Command::SetRoutes(routes) => {
                self.consult(Input::SetRoutes(routes));
                self.acknowledge(Versioned::Routes);
            }
            Command::Report { query, detail } => self.answer_report(query, detail),
            Command::Drain { version, window_ms, redirect } => {
                self.on_drain(version, Duration::from_millis(window_ms), redirect);
            }
            Command::Move { workspace_id, to } => self.on_move(workspace_id, to),
            Command::Resume { version } => self.on_resume(version),
            Command::Stop { deadline_ms } => self.on_stop(Duration::from_millis(deadline_ms)),
        }
    }

    /// Says which version of a value is in force.
    pub(crate) fn acknowledge(&mut self, value: Versioned) {
        let version = match value {
            Versioned::Limits => self.limits.version,
            Versioned::Routes => self.board.routes().version,
            Versioned::Drain => self.drain_version,
        };
        self.emit(Event::InForce { shard: self.config.shard, value, version });
    }

    fn on_accepted(&mut self, socket: D::Socket, remote: Remote) {
        let peer = match remote {
            Remote::Internet(address) => self.config.trusted_proxies.peer(address.ip()),
            Remote::Local => Peer::LOCAL,
        };
        if self.stop_deadline.is_some() || !self.strangers.admit(peer, &self.limits) {
            self.counters.count(Counter::GuestsRefused);
            return;
        }
        if self.budget.refuses_strangers(&self.limits)
            || self.strangers.is_greedy(peer.address, self.budget.free_for_strangers(&self.limits))
        {
            self.strangers.remove(peer.address, 0);
            return self.counters.count(Counter::BudgetRefused);
        }
        let is_fronted = peer.is_proxy && self.config.proxy_protocol;
        let mut connection = match is_fronted {
            true => Connection::fronted(Fronted::new(peer)),
            false => Connection::guest(Guest::new(peer)),
        };
        // What comes through a Unix socket never left this host: TLS ends in front of it.
        connection.is_local = remote == Remote::Local;
        let key = self.table.insert(connection);
        self.charge(key);
        self.driver.adopt(key, socket);
        match is_fronted {
            true => self.await_proxy_header(key),
            false => self.greet(key, Vec::new()),
        }
    }

    fn on_accept_failed(&mut self, error: &io::Error) {
        self.complain(None, Complaint::Accept, &error.to_string());
    }

    fn on_reading_ended(&mut self, key: Key, end: End) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        connection.reading = Reading::Idle;
        match end {
            _ if !self.put_end_aside(key, end) => {}
            End::Paused | End::Cancelled => self.on_receive_ended(key, end),
            End::Eof | End::Reset | End::Failed(_) => self.set_end_aside(key, end),
        }
    }

    /// A stream ended, and everything before its end is served.
    pub(crate) fn on_receive_ended(&mut self, key: Key, end: End) {
        match end {
            End::Eof => self.on_peer_ended(key),
            End::Paused => self.arm(key),
            End::Cancelled => {}
            End::Reset | End::Failed(_) => self.cut(key),
        }
    }

    /// Tells the control plane, at once or when its lane has room again.
    ///
    /// Log entries may be lost when the control plane is far behind, and are counted then.
    /// Everything else is bounded by the number of connections and waits.
    pub(crate) fn emit(&mut self, event: Event) {
        if self.outbox.is_empty() {
            if let Err(full) = self.ports.events.send(event) {
                self.outbox.push_back(full.0);
            }
        } else if matches!(event, Event::Logged { .. }) && self.outbox.len() >= OUTBOX_LOGS_MAX {
            self.counters.count(Counter::LogEntriesDropped);
        } else {
            self.outbox.push_back(event);
        }
    }

    fn post(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(full) = self.ports.events.send(event) {
                self.outbox.push_front(full.0);
                return;
            }
        }
    }

    /// Whether a stop is over: everybody has gone, or the deadline has passed and they were cut.
    fn verdict(&mut self) -> Turn {
        let Some(deadline) = self.stop_deadline else { return Turn::More };
        let late = self.now >= deadline;
        if late {
            self.finish_orders();
        }
        if late || self.is_empty_handed() {
            // Whoever sends something from now on keeps it; what was sent before is seen to.
            self.ports.arrivals.close();
            while let Some(parcel) = self.ports.arrivals.receive() {
                self.on_arrival(parcel);
            }
        }
        if late {
            self.drop_held();
            self.drop_parcels();
            self.cut_all();
        }
        if !late && !self.is_empty_handed() {
            return Turn::More;
        }
        if !std::mem::replace(&mut self.said_stopped, true) {
            self.emit(Event::Stopped { shard: self.config.shard });
        }
        if self.outbox.is_empty() { Turn::Done } else { Turn::More }
    }

    /// Whether nobody is here and nothing waits.
    fn is_empty_handed(&self) -> bool {
        self.table.len() == 0
            && self.ports.commands.is_empty()
            && self.errands.has_no_orders()
            && self.moves.is_over()
            && self.mail.is_empty()
            && self.ports.arrivals.is_empty()
    }

    /// Moves a connection to another phase; what it leaves comes back.
    pub(crate) fn enter(&mut self, key: Key, phase: Phase) -> Option<Phase> {
        let connection = self.table.get_mut(key)?;
        let before = connection.stranger();
        let left = std::mem::replace(&mut connection.phase, phase);
        if let Some(address) = before {
            let is_guest = matches!(connection.phase, Phase::Guest(_));
            if !is_guest && std::mem::take(&mut connection.shakes_hands) {
                self.strangers.end_handshake(address);
            }
            if !connection.is_stranger() {
                self.strangers.remove(address, connection.charge.stranger_bytes());
            }
        }
        self.budget.settle(connection, &mut self.strangers);
        Some(left)
    }

    /// Whether the control plane keeps up with what it is told. While it does not, no plain request
    /// is passed on to it.
    pub(crate) fn is_heard(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The phase of a connection that is still there.
    pub(crate) fn phase_mut(&mut self, key: Key) -> Option<&mut Phase> {
        self.table.get_mut(key).map(|connection| &mut connection.phase)
    }

    /// Reads on: once for a guest or when it is loud, again and again for a quiet resident.
    pub(crate) fn arm(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let is_over = matches!(connection.phase, Phase::Closed | Phase::Waiting(_));
        let is_behind = connection.backlog.as_ref().is_some_and(|backlog| backlog.is_waiting());
        let is_moving = connection.stay != Stay::Here;
        if connection.reading != Reading::Idle || is_over || is_behind || is_moving {
            return;
        }
        if connection.settled && connection.backlog.is_none() {
            connection.reading = Reading::Repeatedly;
            self.driver.receive(key);
        } else {
            connection.reading = Reading::Once;
            self.driver.receive_once(key);
        }
    }
}

/// How soon a full event lane is tried again. The control plane drains it without ringing back.
const OUTBOX_RETRY: Duration = Duration::from_millis(1);
