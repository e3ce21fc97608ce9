//! Everybody who connects.

use anyhow::{Result, ensure};
use relay_driver::sim::{Seed, World};

use crate::client::Client;
use crate::daemon::Daemon;
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::pairer::Pairer;
use crate::peer::Wire;
use crate::plan::Plan;
use crate::visitor::Visitor;
use crate::worker::Worker;

/// The peers of one run.
pub(crate) struct Cast {
    daemons: Vec<Daemon>,
    clients: Vec<Client>,
    pairers: Vec<Pairer>,
    workers: Vec<Worker>,
    visitors: Vec<Visitor>,
    /// Connections made so far; each is named by its number.
    pub(crate) lives: u64,
}

impl Cast {
    pub(crate) fn new(plan: &Plan) -> Self {
        let clients = 0..plan.workspaces * plan.clients;
        Self {
            daemons: (0..plan.workspaces).map(Daemon::new).collect(),
            clients: clients.map(|index| Client::new(index, index % plan.workspaces)).collect(),
            pairers: (0..plan.workspaces).map(Pairer::new).collect(),
            workers: (0..plan.workspaces).map(Worker::new).collect(),
            visitors: (0..VISITORS).map(Visitor::new).collect(),
            lives: 0,
        }
    }

    /// Connects whoever is not connected, each to a listener of its own choice.
    pub(crate) fn connect(&mut self, world: &World, seed: &mut Seed, listeners: u16) {
        let Self { daemons, clients, pairers, workers, visitors, lives } = self;
        let mut chosen = || seed.below(u64::from(listeners)) as usize;
        for daemon in daemons {
            *lives += u64::from(daemon.connect(world, chosen(), *lives + 1));
        }
        for client in clients {
            *lives += u64::from(client.connect(world, chosen(), *lives + 1));
        }
        for pairer in pairers {
            *lives += u64::from(pairer.connect(world, chosen(), *lives + 1));
        }
        for worker in workers {
            *lives += u64::from(worker.connect(world, chosen(), *lives + 1));
        }
        for visitor in visitors {
            *lives += u64::from(visitor.connect(world, chosen(), *lives + 1));
        }
    }

    /// Everybody reads and, if they may talk, says something new.
    pub(crate) fn turn(
        &mut self,
        oracle: &mut Oracle,
        seed: &mut Seed,
        plan: &Plan,
        talk: bool,
    ) -> Result<()> {
        let bytes_max = plan.ciphertext_bytes_max;
        for client in &mut self.clients {
            let daemon = &self.daemons[client.workspace];
            let talks = talk && daemon.is_open() && seed.below(2) == 0;
            client.turn(oracle, seed, talks.then_some((daemon.life, bytes_max)))?;
        }
        for pairer in &mut self.pairers {
            let daemon = &self.daemons[pairer.workspace];
            let talks = talk && daemon.is_open() && seed.below(4) == 0;
            pairer.turn(oracle, seed, talks.then_some((daemon.life, bytes_max)))?;
        }
        for worker in &mut self.workers {
            let talks = talk && seed.below(8) == 0;
            let talk = talks.then_some(bytes_max);
            worker.turn(oracle, seed, talk, plan.limits.worker_calls_max)?;
        }
        for visitor in &mut self.visitors {
            let talks = talk && seed.below(8) == 0;
            visitor.turn(oracle, seed, talks)?;
        }
        for daemon in &mut self.daemons {
            daemon.turn(oracle, seed, bytes_max)?;
        }
        Ok(())
    }

    /// The WebSocket connections.
    pub(crate) fn wires(&mut self) -> impl Iterator<Item = &mut Wire> {
        let clients = self.clients.iter_mut().filter_map(Client::wire);
        let daemons = self.daemons.iter_mut().filter_map(Daemon::wire);
        let pairers = self.pairers.iter_mut().filter_map(|pairer| pairer.wire.as_mut());
        let workers = self.workers.iter_mut().filter_map(|worker| worker.wire.as_mut());
        clients.chain(daemons).chain(pairers).chain(workers)
    }

    /// Connections that peers hold.
    pub(crate) fn connections(&mut self) -> usize {
        let visitors = self.visitors.iter().filter(|visitor| visitor.is_connected()).count();
        self.wires().count() + visitors
    }

    /// Everybody has read everything: what was sent between ends that live has arrived, and every
    /// question has its answer.
    pub(crate) fn expect_all(&mut self, oracle: &Oracle) -> Result<()> {
        for client in &self.clients {
            let daemon = &self.daemons[client.workspace];
            if !client.is_sound() || !daemon.is_sound() {
                continue;
            }
            if client.daemon_life == Some(daemon.life) {
                oracle.expect_all(client.life, Actor::Daemon(client.workspace))?;
            }
            oracle.expect_all(daemon.life, Actor::Client(client.life))?;
        }
        for pairer in &self.pairers {
            let daemon = &self.daemons[pairer.workspace];
            if daemon.is_sound() {
                pairer.expect_answer(daemon.life)?;
            }
        }
        self.workers.iter().try_for_each(Worker::expect_answers)?;
        self.visitors.iter().try_for_each(Visitor::expect_answers)?;
        let ignored = self.wires().filter(|wire| wire.is_sound() && wire.is_ignored()).count();
        ensure!(ignored == 0, "{ignored} connections never had an answer to a ping");
        Ok(())
    }
}

/// HTTP clients in every run.
const VISITORS: usize = 2;
