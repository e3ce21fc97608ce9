//! The control plane of the simulation: admits by the query, late and not always.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use relay_contract::{
    AdmissionId, Claims, Command, ConnectionId, Event, Grant, Preflight, Profile, Refusal, Role,
    Scope, ShardId,
};
use relay_driver::sim::Seed;
use relay_mailbox::{Receiver, Sender};

/// Plays the control plane for all shards and keeps its ledger.
pub(crate) struct Office {
    commands: Vec<Sender<Command>>,
    events: Vec<Receiver<Event>>,
    /// Decisions on their way, by the round in which they arrive.
    pending: BTreeMap<u64, Vec<(ShardId, Command)>>,
    round: u64,
    admissions: u64,
    /// Admitted and not released.
    open: BTreeSet<AdmissionId>,
    pub(crate) stopped: BTreeSet<ShardId>,
    refusal: u32,
}

impl Office {
    pub(crate) fn new(
        commands: Vec<Sender<Command>>,
        events: Vec<Receiver<Event>>,
        refusal: u32,
    ) -> Self {
        Self {
            commands,
            events,
            pending: BTreeMap::new(),
            round: 0,
            admissions: 0,
            open: BTreeSet::new(),
            stopped: BTreeSet::new(),
            refusal,
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

    /// Reads events and sends the decisions that are due.
    ///
    /// # Errors
    /// A connection was released that was not admitted, or twice.
    pub(crate) fn turn(&mut self, seed: &mut Seed) -> Result<()> {
        self.round += 1;
        let mut events = Vec::new();
        for (shard, lane) in self.events.iter().enumerate() {
            while let Some(event) = lane.receive() {
                events.push((ShardId(shard as u16), event));
            }
        }
        for (shard, event) in events {
            match event {
                Event::AdmissionAsked { connection, request } => {
                    let command = self.decide(connection, &request.preflight, seed);
                    let due = self.round + seed.below(6);
                    self.pending.entry(due).or_default().push((shard, command));
                }
                Event::Released { admission } => {
                    ensure!(self.open.remove(&admission), "{admission:?} was released twice");
                }
                Event::Stopped { shard } => {
                    self.stopped.insert(shard);
                }
                Event::Abandoned { .. }
                | Event::HttpAsked { .. }
                | Event::WorkerAsked { .. }
                | Event::Logged { .. }
                | Event::Reported { .. } => {}
            }
        }
        let later = self.pending.split_off(&(self.round + 1));
        for (shard, command) in std::mem::replace(&mut self.pending, later).into_values().flatten()
        {
            let sent = self.commands[usize::from(shard.0)].send(command);
            ensure!(sent.is_ok(), "the simulation's lanes are wide enough");
        }
        Ok(())
    }

    /// Tells every shard to stop.
    pub(crate) fn stop(&self) -> Result<()> {
        for lane in &self.commands {
            let sent = lane.send(Command::Stop { deadline_ms: 60_000 });
            ensure!(sent.is_ok(), "the simulation's lanes are wide enough");
        }
        Ok(())
    }

    fn decide(
        &mut self,
        connection: ConnectionId,
        preflight: &Preflight,
        seed: &mut Seed,
    ) -> Command {
        let Preflight::Ask { request, .. } = preflight else {
            return Command::Refuse { connection, refusal: Refusal::BadRequest };
        };
        if seed.happens(self.refusal) {
            return Command::Refuse { connection, refusal: Refusal::Unauthorized };
        }
        self.admissions += 1;
        let admission = AdmissionId(self.admissions);
        self.open.insert(admission);
        let workspace = request.workspace_id.as_str();
        let home = workspace.bytes().map(u64::from).sum::<u64>() % self.commands.len() as u64;
        let claims = Claims {
            client_id: (request.role == Role::Client)
                .then(|| format!("client-{admission:?}").into()),
            workspace_id: Some(workspace.into()),
            runtime_target_id: request.target_id.as_ref().map(|target| target.as_str().into()),
            scope: Some(Scope::Runtime),
            e2ee_profile: Some(Profile::NoiseIk),
            ..Claims::default()
        };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let grant = Box::new(Grant { admission, request: request.clone(), claims, address });
        Command::Admit { connection, grant, home: ShardId(home as u16) }
    }
}
