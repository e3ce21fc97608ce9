//! The control plane of the simulation: admits by the query, late and not always.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, ensure};
use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, Command, ConnectionId, Credential, Event, Grant,
    Preflight, Profile, Refusal, Role, Scope, ShardId, WorkerRequest, WorkerResponse,
};
use relay_driver::sim::Seed;

use crate::line::{Line, Offered, Severed, Told};
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::peer::PAIRING_TOKEN;
use crate::plan::{Plan, WORKSPACES_MAX};
use crate::worker::call_path;

/// Plays the control plane for all shards and keeps its ledger.
pub(crate) struct Office {
    line: Line,
    /// Upgrades that wait for their decision.
    asked: BTreeSet<ConnectionId>,
    /// Decisions on their way, by the round in which they arrive.
    pending: BTreeMap<u64, Vec<(ShardId, Command)>>,
    round: u64,
    admissions: u64,
    /// Workers' calls that wait for their answer, by the round in which they get it.
    calls: BTreeMap<u64, Vec<(ShardId, Call)>>,
    /// How many of those each worker has.
    in_flight: HashMap<ConnectionId, u32>,
    calls_max: u32,
    bytes_max: usize,
    /// Admitted and not released.
    open: BTreeSet<AdmissionId>,
    refusal: u32,
    /// Where workspaces live that were moved.
    homes: HashMap<String, ShardId>,
    /// Workspaces on their way.
    moving: BTreeSet<String>,
    /// Moves so far.
    moves: Moves,
    /// Who sent what it answers, for the oracle.
    numbers: HashMap<ConnectionId, u64>,
    /// Whether each connection of a client counts for itself at the limits.
    unique_clients: bool,
}

/// Workspaces that went to another shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moves {
    pub(crate) made: u64,
    /// Of them, those between planes that are apart.
    pub(crate) apart: u64,
    /// Orders that were given while the link was cut.
    pub(crate) ordered_while_cut: u64,
    /// Moves whose end a control plane heard that had not ordered them, or had forgotten it.
    pub(crate) forgotten: u64,
}

impl Moves {
    pub(crate) fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.apart += other.apart;
        self.ordered_while_cut += other.ordered_while_cut;
        self.forgotten += other.forgotten;
    }
}

/// A worker's call, as far as its answer needs it.
struct Call {
    worker: ConnectionId,
    life: u64,
    request_id: String,
}

impl Office {
    pub(crate) fn new(line: Line, plan: &Plan) -> Self {
        Self {
            line,
            asked: BTreeSet::new(),
            pending: BTreeMap::new(),
            round: 0,
            admissions: 0,
            calls: BTreeMap::new(),
            in_flight: HashMap::new(),
            calls_max: plan.limits.worker_calls_max,
            bytes_max: plan.ciphertext_bytes_max,
            open: BTreeSet::new(),
            refusal: plan.refusal,
            homes: HashMap::new(),
            moving: BTreeSet::new(),
            moves: Moves::default(),
            numbers: HashMap::new(),
            unique_clients: plan.unique_clients,
        }
    }

    /// Upgrades admitted so far.
    pub(crate) fn admissions(&self) -> u64 {
        self.admissions
    }

    /// Admitted connections that were never released.
    pub(crate) fn unreleased(&self) -> usize {
        self.open.len()
    }

    /// Shards that have stopped.
    pub(crate) fn stopped(&self) -> usize {
        self.line.stopped.len()
    }

    /// How often the link did its worst.
    pub(crate) fn severed(&self) -> Severed {
        self.line.severed()
    }

    /// Nothing is on its way: both planes have to count the same connections.
    ///
    /// # Errors
    /// They do not.
    pub(crate) fn expect_accord(&self) -> Result<()> {
        let Some(offered) = self.line.offered() else { return Ok(()) };
        let open = self.open.len();
        ensure!(open == offered, "{open} connections in the ledger, {offered} at the data plane");
        Ok(())
    }

    /// Reads events and sends the decisions that are due. When it is `calm` the link is not cut.
    ///
    /// # Errors
    /// A connection was released that was not admitted, or twice; a worker's call is not what was
    /// sent, or one too many.
    pub(crate) fn turn(&mut self, oracle: &mut Oracle, seed: &mut Seed, calm: bool) -> Result<()> {
        self.round += 1;
        for told in self.line.turn(calm, &mut self.admissions)? {
            let event = match told {
                Told::Event(event) => event,
                Told::Attached(offered) => {
                    for Offered { admission, workspace, home } in offered {
                        self.open.insert(admission);
                        self.homes.insert(workspace, home);
                    }
                    continue;
                }
                Told::Detached => {
                    self.forget();
                    continue;
                }
            };
            match event {
                Event::AdmissionAsked { connection, request } => {
                    let is_new = self.asked.insert(connection);
                    ensure!(is_new, "{connection} asked twice");
                    let command = self.decide(connection, &request, seed);
                    let due = self.round + seed.below(6);
                    self.pending.entry(due).or_default().push((connection.shard, command));
                    // Once more, when it is decided: by then the slot may be somebody else's.
                    let late = due + 1 + seed.below(100);
                    let command = Command::Refuse { connection, refusal: LATE_REFUSAL };
                    self.pending.entry(late).or_default().push((connection.shard, command));
                }
                Event::HttpAsked { connection, request } => {
                    let command = Command::Respond {
                        connection,
                        status: 200,
                        content_type: "text/plain",
                        body: request.query.unwrap_or_default().into_boxed_bytes(),
                    };
                    let due = self.round + seed.below(6);
                    self.pending.entry(due).or_default().push((connection.shard, command));
                }
                Event::WorkerAsked { connection, admission: _, request } => {
                    let call = self.on_call(connection, *request, oracle)?;
                    let due = self.round + seed.below(6);
                    self.calls.entry(due).or_default().push((connection.shard, call));
                }
                Event::Released { admission } => {
                    ensure!(self.open.remove(&admission), "{admission:?} was released twice");
                }
                Event::Abandoned { connection } => {
                    self.asked.remove(&connection);
                }
                Event::Moved { workspace_id, to, .. } => {
                    let workspace = workspace_id.as_str().to_owned();
                    // Apart, one that forgot may hear the end of what it ordered before.
                    let is_ours = self.moving.remove(&workspace);
                    ensure!(is_ours || self.is_apart(), "{workspace} moved by itself");
                    self.homes.insert(workspace, to);
                    self.moves.made += 1;
                    self.moves.apart += u64::from(self.is_apart());
                    self.moves.forgotten += u64::from(!is_ours);
                }
                Event::MoveFailed { workspace_id, .. } => {
                    self.moving.remove(workspace_id.as_str());
                }
                Event::Stopped { .. }
                | Event::Opened { .. }
                | Event::RenewalAsked { .. }
                | Event::InForce { .. }
                | Event::Logged { .. }
                | Event::Reported { .. } => {}
            }
        }
        self.move_one(seed)?;
        self.answer_calls(oracle, seed)?;
        let later = self.pending.split_off(&(self.round + 1));
        for (shard, command) in std::mem::replace(&mut self.pending, later).into_values().flatten()
        {
            self.order(shard, command)?;
        }
        Ok(())
    }

    /// Now and then a workspace goes to another shard.
    fn move_one(&mut self, seed: &mut Seed) -> Result<()> {
        let shards = self.line.shard_count();
        if shards < 2 || self.stopped() > 0 || !seed.happens(MOVES) {
            return Ok(());
        }
        let workspace = format!("w{}", seed.below(WORKSPACES_MAX as u64));
        let to = ShardId(self.line.first() + seed.below(shards) as u16);
        let from = self.home_of(&workspace);
        if from == to || !self.moving.insert(workspace.clone()) {
            return Ok(());
        }
        let workspace_id = workspace.as_str().into();
        let is_cut = self.line.is_cut();
        if self.line.order(from, Command::Move { workspace_id, to })? {
            self.moves.ordered_while_cut += u64::from(is_cut);
        } else {
            self.moving.remove(&workspace);
        }
        Ok(())
    }

    /// Whether the planes are two processes.
    fn is_apart(&self) -> bool {
        self.line.first() > 0
    }

    /// Answers come in order to each name that a worker has; one for its earlier name may be
    /// overtaken by the next while it follows it to another shard.
    fn number(&mut self, worker: ConnectionId) -> u64 {
        let next = OFFICE + self.numbers.len() as u64;
        *self.numbers.entry(worker).or_insert(next)
    }

    fn home_of(&self, workspace: &str) -> ShardId {
        let usual = workspace.bytes().map(u64::from).sum::<u64>() % self.line.shard_count();
        let usual = ShardId(self.line.first() + usual as u16);
        self.homes.get(workspace).copied().unwrap_or(usual)
    }

    /// Moves so far.
    pub(crate) fn moves(&self) -> Moves {
        self.moves
    }

    fn order(&mut self, shard: ShardId, command: Command) -> Result<()> {
        let admission = match &command {
            Command::Admit { connection, grant, .. } => {
                self.asked.remove(connection);
                Some(grant.admission)
            }
            Command::Refuse { connection, .. } => {
                self.asked.remove(connection);
                None
            }
            _ => None,
        };
        if !self.line.order(shard, command)?
            && let Some(admission) = admission
        {
            self.open.remove(&admission);
        }
        Ok(())
    }

    /// Whatever was known of the data plane, it offers anew.
    fn forget(&mut self) {
        self.open.clear();
        self.asked.clear();
        self.pending.clear();
        self.calls.clear();
        self.in_flight.clear();
        self.homes.clear();
        self.moving.clear();
    }

    fn on_call(
        &mut self,
        worker: ConnectionId,
        request: WorkerRequest,
        oracle: &mut Oracle,
    ) -> Result<Call> {
        let life = oracle.receive(Actor::Office, request.body.as_deref().unwrap_or_default())?;
        let own = request.request_id.starts_with(&format!("c{life}-"));
        ensure!(own, "connection {life} called with {}", request.request_id);
        ensure!(&*request.method == "POST", "a call became {}", request.method);
        let known = (0..WORKSPACES_MAX).any(|workspace| request.path == call_path(workspace));
        ensure!(known, "a call went to {}", request.path);
        let in_flight = self.in_flight.entry(worker).or_default();
        *in_flight += 1;
        ensure!(*in_flight <= self.calls_max, "{in_flight} calls of one worker in flight");
        Ok(Call { worker, life, request_id: request.request_id })
    }

    /// Answers what is due. Answers get their numbers as they leave.
    fn answer_calls(&mut self, oracle: &mut Oracle, seed: &mut Seed) -> Result<()> {
        let later = self.calls.split_off(&(self.round + 1));
        for (shard, call) in std::mem::replace(&mut self.calls, later).into_values().flatten() {
            let Call { worker, life, request_id } = call;
            *self.in_flight.entry(worker).or_insert(1) -= 1;
            let response = WorkerResponse {
                request_id,
                status: 200,
                headers: Vec::new(),
                body: oracle.send(self.number(worker), Actor::Client(life), seed, self.bytes_max),
                forwarded: true,
            };
            let response = Box::new(response);
            self.order(shard, Command::WorkerReply { connection: worker, response })?;
        }
        Ok(())
    }

    /// Tells every shard to stop.
    pub(crate) fn stop(&self) -> Result<()> {
        self.line.stop()
    }

    fn decide(
        &mut self,
        connection: ConnectionId,
        asked: &AdmissionRequest,
        seed: &mut Seed,
    ) -> Command {
        let Preflight::Ask { request, token } = &asked.preflight else {
            return Command::Refuse { connection, refusal: Refusal::BadRequest };
        };
        if seed.happens(self.refusal) {
            return Command::Refuse { connection, refusal: Refusal::Unauthorized };
        }
        self.admissions += 1;
        let admission = AdmissionId(self.admissions);
        self.open.insert(admission);
        let workspace = request.workspace_id.as_str();
        let home = self.home_of(workspace);
        let pairing = token.expose() == PAIRING_TOKEN;
        let client = if self.unique_clients {
            format!("client-{}", admission.0)
        } else {
            format!("client-at-{}", asked.address)
        };
        let claims = Claims {
            client_id: (request.role == Role::Client).then(|| client.into()),
            workspace_id: Some(workspace.into()),
            runtime_target_id: request.target_id.as_ref().map(|target| target.as_str().into()),
            scope: Some(if pairing { Scope::Pairing } else { Scope::Runtime }),
            managed_executor_id: (request.role == Role::Worker).then(|| "e".into()),
            e2ee_profile: Some(Profile::NoiseIk),
            ..Claims::default()
        };
        let address = asked.address;
        let grant = Box::new(Grant {
            admission,
            request: request.clone(),
            claims,
            claims_digest: admission.0,
            credential: Credential::default(),
            address,
        });
        Command::Admit { connection, grant, home }
    }
}

/// The first of the numbers that stand for the office; those of peers are below.
const OFFICE: u64 = 1 << 40;

/// That a workspace is moved, in millionths per round.
const MOVES: u32 = 20_000;

/// What comes for connections whose upgrade was decided already. Nobody may see it.
const LATE_REFUSAL: Refusal = Refusal::TooManyRequests;
