//! The data plane's end of the link, without the network: what to send, what to make of what comes,
//! and what to do while there is nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, Command, ConnectionId, Counter, Counters, Event, Level, LogEntry, Refusal,
    Renewal, RenewalRefusal, ShardId, Versioned,
};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};

use crate::convert::{BadMessage, DrainInForce, Drained, Frame, InForce, parts};
use crate::exchange::{Exchange, ExchangeError, Heard};
use crate::held::{self, Held};
use crate::version::{Apart, Versions};

/// Sits between the shards' lanes and a stream to the control plane.
///
/// ```text
///          connected           welcome
///   Down ─────────────▶ Greeting ─────▶ Joined ─┐ not resumed: inventory, then events
///    ▲ ▲                   │              │     │ resumed: everything after what was received
///    │ └───────cut─────────┘              │◀────┘
///    └─────────────────cut────────────────┘
/// ```
///
/// While it is not joined, newcomers are refused at once with 503 and everything else goes on.
/// What the control plane has to hear waits, up to a bound; beyond it the data plane offers its
/// inventory when it comes back.
#[derive(Debug)]
pub struct Cord {
    identity: Identity,
    stream: Stream,
    /// Beats since the control plane was heard, whatever streams were tried meanwhile.
    away: u32,
    /// The control plane it knows and can go on with, as long as nothing was forgotten.
    known: Option<u64>,
    exchange: Exchange<v1::FromDataPlane>,
    /// What is left of the inventory.
    listing: Option<Listing>,
    held: Held,
    /// Versions in force.
    in_force: BTreeMap<(ShardId, Versioned), u64>,
    /// The newest order to let everybody go, or to admit again.
    drain: Option<(u64, Option<Drained>)>,
    /// Log entries for the next control plane.
    entries: VecDeque<v1::Event>,
    commands: VecDeque<(ShardId, Command)>,
    counters: Counters,
    /// Whether this data plane is about to end.
    leaving: bool,
}

/// What a data plane is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// One life of its process.
    pub instance_id: String,
    /// Its shards.
    pub shard_count: u16,
    /// Bytes that peers may make one shard hold: this machine's, not the control plane's.
    pub memory_bytes_max: usize,
    /// What it speaks.
    pub versions: Versions,
    /// What moves its bytes, for display.
    pub driver: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stream {
    Down,
    Greeting,
    Joined,
}

#[derive(Debug)]
struct Listing {
    admissions: Vec<AdmissionId>,
    waiting: Vec<ConnectionId>,
}

/// The control plane said what it may not say. The stream is to be cut; on the next one the data
/// plane offers its inventory.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CordError {
    /// It is too old, or too new.
    #[error(transparent)]
    Apart(#[from] Apart),
    /// Its numbers do not fit.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It greets twice, or speaks before it greets.
    #[error("it does not keep to the order of the protocol")]
    Disorder,
}

impl Cord {
    /// One that is not connected.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            stream: Stream::Down,
            away: 0,
            known: None,
            exchange: Exchange::new(),
            listing: None,
            held: Held::default(),
            in_force: BTreeMap::new(),
            drain: None,
            entries: VecDeque::new(),
            commands: VecDeque::new(),
            counters: Counters::default(),
            leaving: false,
        }
    }

    /// There is a stream. Returns what is said first.
    pub fn connect(&mut self) -> v1::FromDataPlane {
        self.stream = Stream::Greeting;
        self.exchange.begin_silence();
        let hello = v1::Hello {
            protocol_version: self.identity.versions.own(),
            instance_id: self.identity.instance_id.clone(),
            shard_count: self.identity.shard_count.into(),
            control_life: self.known.unwrap_or(0),
            driver: self.identity.driver.to_owned(),
        };
        let message = Some(up::Message::Hello(hello));
        v1::FromDataPlane { message, number: 0, received: self.exchange.received() }
    }

    /// The stream is gone.
    pub fn disconnect(&mut self) {
        match self.stream {
            Stream::Joined => {
                self.counters.count(Counter::ControlPlaneLost);
                self.exchange.begin_silence();
            }
            // Nobody was there before either.
            Stream::Greeting | Stream::Down => {}
        }
        self.stream = Stream::Down;
    }

    /// Something came on the stream.
    ///
    /// # Errors
    /// [`CordError`]; [`Self::disconnect`] is to follow.
    pub fn receive(
        &mut self,
        frame: &Frame,
        message: v1::FromControlPlane,
    ) -> Result<(), CordError> {
        let v1::FromControlPlane { message, number, received } = message;
        let is_welcome = matches!(message, Some(down::Message::Welcome(_)));
        match self.stream {
            Stream::Greeting if is_welcome => {}
            Stream::Joined if !is_welcome => {}
            _ => return Err(self.forget(CordError::Disorder)),
        }
        if let Some(down::Message::Welcome(welcome)) = message {
            self.exchange.begin_silence();
            return self.on_welcome(welcome, received).map_err(|e| self.forget(e));
        }
        let heard = self.exchange.hear(number, received).map_err(|e| self.forget(e.into()))?;
        self.away = 0;
        if heard == Heard::Again {
            return Ok(());
        }
        if let Some(down::Message::Command(command)) = message {
            let admission = frame.admission_of(&command);
            match frame.command_in(command) {
                Ok((shard, command)) => self.on_command(frame, shard, command),
                Err(bad) => self.on_unreadable(frame, admission, bad),
            }
        }
        Ok(())
    }

    /// An order cannot be read: it is passed over, but for an admission, which is given back.
    fn on_unreadable(
        &mut self,
        frame: &Frame,
        admission: Option<(AdmissionId, Option<ConnectionId>)>,
        bad: BadMessage,
    ) {
        self.counters.count(Counter::PlaneMessagesRejected);
        let entry = LogEntry::new(Level::Error, "plane_order_rejected");
        let entry = Box::new(entry.with("reason", bad.to_string()).ours());
        self.take(frame, Event::Logged { at: frame.now, entry });
        let Some((admission, connection)) = admission else { return };
        if let Some(connection) = connection.filter(|id| self.held.end_wait(*id)) {
            self.refuse(connection);
        }
        self.tell(frame, Event::Released { admission });
    }

    fn on_welcome(&mut self, welcome: v1::Welcome, received: u64) -> Result<(), CordError> {
        self.identity.versions.agree(welcome.protocol_version)?;
        self.stream = Stream::Joined;
        self.away = 0;
        if welcome.resumed {
            if self.known != Some(welcome.control_life) {
                return Err(CordError::Disorder);
            }
            self.exchange.resume(received).map_err(ExchangeError::from)?;
            self.counters.count(Counter::ControlPlaneResumed);
            return Ok(());
        }
        self.counters.count(Counter::InventoriesOffered);
        self.known = Some(welcome.control_life);
        self.forget_outbox();
        // Whoever was asked does not know it any more.
        for connection in self.held.take_asked() {
            self.commands.push_back((connection.shard, unanswered(connection)));
        }
        self.answer_for_it();
        self.held.forget_late();
        self.listing = Some(Listing {
            admissions: self.held.admissions(),
            waiting: self.held.waiting().collect(),
        });
        Ok(())
    }

    /// Answers whoever waits for what a control plane says that is not there.
    fn answer_for_it(&mut self) {
        for connection in self.held.take_renewing() {
            self.commands.push_back((connection.shard, not_renewed(connection)));
        }
        for (worker, response) in self.held.take_calls() {
            let reply = Command::WorkerReply { connection: worker, response };
            self.commands.push_back((worker.shard, reply));
        }
    }

    /// Going on is not possible any more.
    fn forget(&mut self, error: CordError) -> CordError {
        self.known = None;
        self.forget_outbox();
        error
    }

    /// Of what waits, log entries alone mean something to another control plane.
    fn forget_outbox(&mut self) {
        for message in self.exchange.restart() {
            if let Some(up::Message::Event(event)) = message.message
                && matches!(event.event, Some(v1::event::Event::Logged(_)))
            {
                self.keep_entry(event);
            }
        }
    }

    fn keep_entry(&mut self, event: v1::Event) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
            self.counters.count(Counter::LogEntriesDropped);
        }
        self.entries.push_back(event);
    }

    /// Whether the shards' next event can be taken in now. Otherwise it waits in its lane.
    pub fn takes_events(&self) -> bool {
        match self.stream {
            Stream::Joined => self.listing.is_none() && !self.exchange.outbox().is_half_full(),
            // There is a welcome or an end to this within moments.
            Stream::Greeting | Stream::Down => true,
        }
    }

    /// Whether the control plane is there.
    pub fn is_joined(&self) -> bool {
        matches!(self.stream, Stream::Joined)
    }

    /// A shard tells something.
    pub fn take(&mut self, frame: &Frame, event: Event) {
        let is_joined = self.is_joined();
        match &event {
            Event::AdmissionAsked { connection, .. } if !is_joined => {
                return self.refuse(*connection);
            }
            Event::HttpAsked { connection, .. } if !is_joined => {
                let answer = unanswered(*connection);
                return self.commands.push_back((connection.shard, answer));
            }
            Event::HttpAsked { connection, request } if self.leaving && &*request.path == READY => {
                let answer = unavailable(*connection, DRAINING);
                return self.commands.push_back((connection.shard, answer));
            }
            Event::WorkerAsked { connection, request, .. } if !is_joined => {
                let response = held::call_failed(request.request_id.clone());
                let reply = Command::WorkerReply { connection: *connection, response };
                return self.commands.push_back((connection.shard, reply));
            }
            Event::RenewalAsked { connection, .. } if !is_joined => {
                return self.commands.push_back((connection.shard, not_renewed(*connection)));
            }
            Event::RenewalAsked { connection, admission, .. } => {
                self.held.renew(*admission, *connection);
            }
            // Nobody waits for it any more.
            Event::Reported { .. } if !is_joined => return,
            // The program sees to its own shards.
            Event::Stopped { .. } => return,
            Event::AdmissionAsked { connection, request } => {
                self.held.wait(*connection, request.clone());
            }
            Event::Abandoned { connection } => {
                self.held.end_wait(*connection);
            }
            Event::Released { admission } => self.held.release(*admission),
            Event::HttpAsked { connection, .. } => self.held.ask(*connection),
            Event::WorkerAsked { connection, admission, request } => {
                self.held.call(*admission, *connection, &request.request_id);
            }
            Event::Opened { admission, connection } => self.held.open(*admission, *connection),
            Event::InForce { shard, value, version } => {
                self.in_force.insert((*shard, *value), *version);
            }
            Event::Moved { .. }
            | Event::MoveFailed { .. }
            | Event::Logged { .. }
            | Event::Reported { .. } => {}
        }
        self.tell(frame, event);
    }

    /// Puts an event on its way, or aside.
    fn tell(&mut self, frame: &Frame, mut event: Event) {
        if let Event::Reported { report, .. } = &mut event
            && report.shard == ShardId(0)
        {
            // What is counted here shows among what the first shard counts.
            report.counters.merge(&self.counters);
        }
        let is_entry = matches!(event, Event::Logged { .. });
        if self.known.is_none() && !is_entry {
            // The inventory will say how things are.
            return;
        }
        let event = frame.event_out(shard_of(&event), event);
        if is_entry && (self.known.is_none() || self.listing.is_some()) {
            return self.keep_entry(event);
        }
        for part in parts(event) {
            self.push(up::Message::Event(part));
        }
        if self.exchange.outbox().is_full() && !self.is_joined() {
            self.counters.count(Counter::PlaneResendExceeded);
            self.known = None;
            self.forget_outbox();
        }
    }

    fn push(&mut self, message: up::Message) {
        let message = Some(message);
        self.exchange.push(v1::FromDataPlane { message, number: 0, received: 0 });
    }

    /// Nobody can be asked.
    fn refuse(&mut self, connection: ConnectionId) {
        self.counters.count(Counter::AdmissionUnavailable);
        let refusal = Refusal::Unavailable { retry_after_secs: RETRY_AFTER_SECS };
        self.commands.push_back((connection.shard, Command::Refuse { connection, refusal }));
    }

    fn on_command(&mut self, frame: &Frame, shard: ShardId, command: Command) {
        let command = match command {
            Command::Admit { connection, grant, home } => {
                if !self.held.end_wait(connection) {
                    // It left, or was refused while there was nobody to ask.
                    let admission = grant.admission;
                    return self.tell(frame, Event::Released { admission });
                }
                self.held.admit(&grant, home);
                Command::Admit { connection, grant, home }
            }
            Command::Refuse { connection, .. } if !self.held.end_wait(connection) => return,
            Command::Respond { connection, .. } if !self.held.answer(connection) => return,
            // Whoever waited has had an answer.
            Command::WorkerReply { connection, ref response }
                if self.held.is_late(connection, Some(&response.request_id)) =>
            {
                return;
            }
            Command::Renewed { connection, .. } if self.held.is_late(connection, None) => return,
            Command::WorkerReply { connection, response } => {
                self.held.called(connection, &response.request_id);
                Command::WorkerReply { connection, response }
            }
            Command::Renewed { connection, outcome, credential } => {
                self.held.renewed(connection, outcome, credential);
                Command::Renewed { connection, outcome, credential: None }
            }
            Command::SetLimits(mut limits) => {
                let own = Arc::make_mut(&mut limits);
                own.memory_bytes_max = self.identity.memory_bytes_max;
                Command::SetLimits(limits)
            }
            // Its own end goes before whatever anybody else wants.
            Command::Drain { .. } | Command::Resume { .. } if self.leaving => return,
            Command::Drain { version, window_ms, redirect } => {
                let drained = Drained { window_ms, redirect: redirect.clone() };
                self.note_drain(version, Some(drained));
                Command::Drain { version, window_ms, redirect }
            }
            Command::Resume { version } => {
                self.note_drain(version, None);
                Command::Resume { version }
            }
            command => command,
        };
        self.commands.push_back((shard, command));
    }

    /// The next order for a shard.
    pub fn next_command(&mut self) -> Option<(ShardId, Command)> {
        self.commands.pop_front()
    }

    /// A shard did not take an order: the admission it meant, if it meant one, is given back.
    pub fn on_undelivered(&mut self, frame: &Frame, admitted: Option<AdmissionId>) {
        self.counters.count(Counter::CommandsUndelivered);
        if let Some(admission) = admitted {
            self.held.release(admission);
            self.tell(frame, Event::Released { admission });
        }
    }

    /// Whether there is something to send.
    pub fn has_message(&self) -> bool {
        self.is_joined() && (self.exchange.has_message() || self.can_list())
    }

    fn can_list(&self) -> bool {
        self.listing.is_some() && !self.exchange.outbox().is_half_full()
    }

    /// The next message to send.
    pub fn next_message(&mut self, frame: &Frame) -> Option<v1::FromDataPlane> {
        if !self.is_joined() {
            return None;
        }
        if !self.exchange.outbox().has_unsent() && self.can_list() {
            self.list(frame);
        }
        self.exchange.next_message()
    }

    /// Puts the next part of the inventory on its way; after the last one, what was put aside.
    fn list(&mut self, frame: &Frame) {
        let Some(listing) = &mut self.listing else { return };
        let mut part = v1::Inventory::default();
        let from = listing.admissions.len().saturating_sub(PART_MAX);
        // Those that ended since, nobody has heard of.
        let admissions = listing.admissions.drain(from..);
        let holdings = admissions.filter_map(|admission| self.held.holding(admission));
        part.holdings.extend(holdings.map(|holding| frame.holding_out(holding)));
        if listing.admissions.is_empty() {
            let from = listing.waiting.len().saturating_sub(PART_MAX);
            for connection in listing.waiting.drain(from..) {
                let request = self.held.request_of(connection).cloned();
                part.waiting.extend(request.map(|request| frame.asked_out(connection, request)));
            }
        }
        part.complete = listing.admissions.is_empty() && listing.waiting.is_empty();
        if part.complete {
            self.listing = None;
            // An older control plane cannot read versions of a drain among the others.
            let in_force =
                self.in_force.iter().filter(|((_, value), _)| *value != Versioned::Drain);
            let in_force =
                in_force.map(|(&(shard, value), &version)| InForce { shard, value, version });
            part.in_force.extend(in_force.map(|in_force| frame.in_force_out(in_force)));
            part.drain = self.drain_in_force().map(|drain| frame.drain_out(drain));
        }
        let complete = part.complete;
        self.push(up::Message::Inventory(part));
        if complete {
            for entry in std::mem::take(&mut self.entries) {
                self.push(up::Message::Event(entry));
            }
        }
    }

    /// Whether the shards are drained, and which of them know it.
    fn drain_in_force(&self) -> Option<DrainInForce> {
        let (version, drained) = self.drain.clone()?;
        let keeps = |shard: &ShardId| {
            self.in_force.get(&(*shard, Versioned::Drain)).is_some_and(|&held| held >= version)
        };
        let shards = (0..self.identity.shard_count).map(ShardId).filter(keeps).collect();
        Some(DrainInForce { version, drained, shards })
    }

    /// Remembers what the control plane wants, for the next one.
    fn note_drain(&mut self, version: u64, drained: Option<Drained>) {
        let is_newer = self.drain.as_ref().is_none_or(|(held, _)| *held < version);
        if version > 0 && is_newer {
            self.drain = Some((version, drained));
        }
    }

    /// Time has passed; to be called every [`BEAT`].
    pub fn beat(&mut self, frame: &Frame) {
        self.exchange.beat();
        self.away += 1;
        if !self.is_joined() && self.away > AWAY_BEATS {
            for connection in self.held.take_waiting() {
                self.refuse(connection);
                self.tell(frame, Event::Abandoned { connection });
            }
            self.answer_for_it();
        }
    }

    /// Whether nothing was heard for so long that the stream counts as cut.
    pub fn is_silent(&self) -> bool {
        self.stream != Stream::Down && self.exchange.is_silent()
    }

    /// The data plane is about to end: it is not ready any more.
    pub fn prepare_to_leave(&mut self) {
        self.leaving = true;
    }

    /// Says goodbye: the data plane ends.
    pub fn leave(&mut self) {
        if self.is_joined() {
            self.push(up::Message::Goodbye(v1::Goodbye {}));
        }
    }

    /// Whether everything it has to say was sent and received.
    pub fn is_quiet(&self) -> bool {
        !self.is_joined() || self.exchange.outbox().is_empty()
    }

    /// Connections it holds.
    pub fn connections(&self) -> usize {
        self.held.len()
    }
}

/// Who tells it. Of some events nobody needs to know.
fn shard_of(event: &Event) -> ShardId {
    match event {
        Event::AdmissionAsked { connection, .. }
        | Event::Abandoned { connection }
        | Event::HttpAsked { connection, .. }
        | Event::WorkerAsked { connection, .. }
        | Event::Opened { connection, .. }
        | Event::RenewalAsked { connection, .. } => connection.shard,
        Event::Reported { report, .. } => report.shard,
        Event::Stopped { shard }
        | Event::InForce { shard, .. }
        | Event::Moved { to: shard, .. }
        | Event::MoveFailed { from: shard, .. } => *shard,
        Event::Released { .. } | Event::Logged { .. } => ShardId(0),
    }
}

/// A plain request that nobody can answer.
fn unanswered(connection: ConnectionId) -> Command {
    unavailable(connection, AWAY)
}

/// A fresh token that nobody can judge.
fn not_renewed(connection: ConnectionId) -> Command {
    let outcome = Renewal::Refused(RenewalRefusal::Unavailable);
    Command::Renewed { connection, outcome, credential: None }
}

fn unavailable(connection: ConnectionId, body: &[u8]) -> Command {
    let content_type = "application/json";
    Command::Respond { connection, status: 503, content_type, body: body.into() }
}

const READY: &str = "/ready";
const DRAINING: &[u8] = br#"{"ok":false,"reason":"DRAINING"}"#;
const AWAY: &[u8] = br#"{"ok":false,"reason":"CONTROL_PLANE_AWAY"}"#;

/// How often each side says that it is there.
pub const BEAT: Duration = Duration::from_millis(250);

/// Beats that upgrades, fresh tokens and calls wait for a control plane that is away: 2 s.
const AWAY_BEATS: u32 = 8;

/// When a peer may come back that nobody could be asked about.
const RETRY_AFTER_SECS: u16 = 2;

/// Connections in one part of an inventory.
const PART_MAX: usize = 256;

/// Log entries kept for the next control plane. Protects memory while there is none. Reached: the
/// oldest goes, with a count.
const ENTRIES_MAX: usize = 1024;
