//! One run of one plan.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use relay_contract::{Command, Counter, Event, ShardId, Tick};
use relay_driver::Driver;
use relay_driver::sim::{Injected, Seed, SimDriver, World};
use relay_mailbox::{Bell, Ring, lane};
use relay_shard::{HealthFacts, Parcel, Ports, Shard, ShardConfig, Turn};
use relay_wire::http1::{TrustedProxies, UpgradeRules};

use crate::cast::Cast;
use crate::line::{Line, Severed};
use crate::office::{Moves, Office};
use crate::oracle::Oracle;
use crate::plan::Plan;

/// Shards, peers and control plane of one run.
pub(crate) struct Run {
    plan: Plan,
    world: World,
    shards: Vec<Option<Shard<SimDriver>>>,
    office: Office,
    cast: Cast,
    oracle: Oracle,
    seed: Seed,
    /// When the state is written down and restored; its own sequence, so that nothing else changes.
    rewrites: Option<Seed>,
    outcome: Outcome,
    /// Connections that shards which ended had opened and closed; one that moved was opened at one
    /// and closed at another.
    opened_and_closed: (u64, u64),
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) connections: u64,
    pub(crate) delivered: u64,
    pub(crate) closes: u64,
    pub(crate) policy_closes: u64,
    pub(crate) rewrites: u64,
    /// Workspaces that went to another shard.
    pub(crate) moves: Moves,
    pub(crate) simulated_ms: u64,
    pub(crate) transcript: u64,
    /// How often a shard let a loud connection wait.
    pub(crate) deferrals: u64,
    pub(crate) injected: Injected,
    pub(crate) deeds: Deeds,
    pub(crate) severed: Severed,
}

/// What peers did to the relay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deeds {
    /// Close frames, wherever in the conversation.
    pub(crate) closes: u64,
    /// Connections cut.
    pub(crate) cuts: u64,
    /// Streams ended, wherever in a frame.
    pub(crate) ends: u64,
    /// Peers that stopped reading for a while.
    pub(crate) stalls: u64,
    /// Bytes that are no frame.
    pub(crate) nonsense: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.delivered += other.delivered;
        self.closes += other.closes;
        self.policy_closes += other.policy_closes;
        self.rewrites += other.rewrites;
        self.moves.add(&other.moves);
        self.simulated_ms += other.simulated_ms;
        self.deferrals += other.deferrals;
        self.injected.add(&other.injected);
        self.severed.cuts += other.severed.cuts;
        self.severed.resumed += other.severed.resumed;
        self.severed.restarts += other.severed.restarts;
        self.severed.inventories += other.severed.inventories;
        self.deeds.closes += other.deeds.closes;
        self.deeds.cuts += other.deeds.cuts;
        self.deeds.ends += other.deeds.ends;
        self.deeds.stalls += other.deeds.stalls;
        self.deeds.nonsense += other.deeds.nonsense;
    }
}

/// Nobody sleeps in the simulation.
struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

const LANE: usize = 4096;

impl Run {
    pub(crate) fn new(mut plan: Plan, rewrite: bool) -> Self {
        let world = World::new(plan.seed.fork(), plan.faults.clone());
        let (shards, office) = build(&plan, &world);
        let seed = plan.seed.fork();
        let rewrites = plan.seed.fork();
        Self {
            world,
            shards,
            office,
            cast: Cast::new(&plan),
            oracle: Oracle::new(plan.link.is_some()),
            seed,
            rewrites: rewrite.then_some(rewrites),
            outcome: Outcome::default(),
            opened_and_closed: (0, 0),
            plan,
        }
    }

    /// Runs it: commotion, silence, stop.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        for _ in 0..self.plan.rounds {
            self.make_mischief();
            self.cast.connect(&self.world, &mut self.seed, self.plan.shards);
            self.round(true)?;
        }
        self.settle().context("while everything should arrive")?;
        self.stop().context("while stopping")?;
        self.outcome.delivered = self.oracle.delivered;
        self.outcome.closes = self.oracle.closes;
        self.outcome.moves = self.office.moves();
        self.outcome.policy_closes = self.oracle.policy_closes;
        self.outcome.connections = self.cast.lives;
        self.outcome.simulated_ms = self.world.now().as_millis();
        self.outcome.injected = self.world.injected();
        self.outcome.severed = self.office.severed();
        self.outcome.transcript = self.oracle.transcript();
        Ok(self.outcome)
    }

    /// Peers act, shards turn, the control plane decides, time passes.
    fn round(&mut self, talk: bool) -> Result<()> {
        self.cast.turn(&mut self.oracle, &mut self.seed, &self.plan, talk)?;
        for index in 0..self.shards.len() {
            self.turn_shard(index)?;
        }
        self.office.turn(&mut self.oracle, &mut self.seed, !talk)?;
        let pause = if self.seed.below(50) == 0 { 50_000_000 } else { 500_000 };
        self.world.advance(Duration::from_nanos(1 + self.seed.below(pause)));
        Ok(())
    }

    fn turn_shard(&mut self, index: usize) -> Result<()> {
        let Some(shard) = &mut self.shards[index] else {
            return Ok(());
        };
        if let Some(seed) = &mut self.rewrites
            && seed.below(20) == 0
        {
            shard.rewrite().context("written-down state could not be read back")?;
            self.outcome.rewrites += 1;
        }
        let turn = shard.turn(Some(Duration::ZERO))?;
        let audit = shard.audit();
        // A queue may pass its budget by the message that was let in, and by what the shard adds
        // itself.
        let limits = &self.plan.limits;
        let bound = limits.egress_bytes_max + limits.frame_bytes_max + OWN_BYTES_MAX;
        ensure!(audit.egress_bytes_max <= bound, "{} bytes queued", audit.egress_bytes_max);
        let (guests, guests_max) = (audit.guests, limits.guests_max);
        ensure!(guests <= guests_max, "{guests} guests where {guests_max} may be");
        let (charged, held) = (audit.charged_bytes, audit.held_bytes);
        ensure!(charged == held, "{charged} bytes charged where {held} are held");
        let memory_max = limits.memory_bytes_max;
        let all = held + audit.empty_scopes_bytes;
        ensure!(all <= memory_max, "{all} bytes held where {memory_max} may be");
        let pins_max = usize::from(self.plan.driver.buffer_count) / 4;
        ensure!(audit.pinned_leases <= pins_max, "{} buffers held", audit.pinned_leases);
        if turn == Turn::Done {
            let shard = self.shards[index].take().context("it just turned")?;
            ensure!(audit.connections == 0, "{} connections left at the end", audit.connections);
            let in_use = shard.driver().stats().connections;
            ensure!(in_use == 0, "the driver holds {in_use} connections at the end");
            check_buffers(&shard)?;
            let counters = shard.counters();
            self.opened_and_closed.0 += counters.of(Counter::WsConnectionsOpened);
            self.opened_and_closed.1 += counters.of(Counter::WsConnectionsClosed);
            self.outcome.deferrals += counters.of(Counter::ReceivesDeferred);
            self.oracle.witness_counters(&counters);
        }
        Ok(())
    }

    /// Peers close, cut, stop reading, speak nonsense or ping.
    fn make_mischief(&mut self) {
        let mischief = self.plan.mischief;
        let pings = self.plan.pings;
        for wire in self.cast.wires() {
            if wire.is_sound() && self.seed.happens(pings) {
                for _ in 0..self.seed.length(40) {
                    wire.send_ping(&mut self.seed);
                }
            }
            if !self.seed.happens(mischief) {
                continue;
            }
            let deeds = &mut self.outcome.deeds;
            match self.seed.below(6) {
                0 => {
                    deeds.closes += 1;
                    wire.send_close(&mut self.seed);
                }
                1 => {
                    deeds.cuts += 1;
                    wire.cut();
                }
                2 => {
                    deeds.stalls += 1;
                    wire.reading = false;
                }
                3 => wire.reading = true,
                4 => {
                    deeds.ends += 1;
                    wire.finish();
                }
                _ => {
                    deeds.nonsense += 1;
                    wire.send_nonsense(&mut self.seed);
                }
            }
        }
    }

    /// Everybody reads and nobody says anything new: what was sent between ends that live has to
    /// arrive.
    fn settle(&mut self) -> Result<()> {
        // A network of tiny buffers takes its time: wait as long as anything still arrives.
        let mut delivered = None;
        for _ in 0..SETTLE_SPELLS_MAX {
            if delivered.replace(self.oracle.delivered) == Some(self.oracle.delivered) {
                break;
            }
            for _ in 0..SETTLE_ROUNDS {
                self.cast.wires().for_each(|wire| wire.reading = true);
                self.round(false)?;
            }
        }
        self.cast.expect_all(&self.oracle)?;
        // Whoever left in the last of these rounds may still be on its way out of the ledger.
        let mut accord = self.office.expect_accord();
        for _ in 0..SETTLE_ROUNDS {
            if accord.is_ok() {
                break;
            }
            self.round(false)?;
            accord = self.office.expect_accord();
        }
        accord?;
        let audits = self.shards.iter_mut().flatten().map(|shard| shard.audit().connections);
        let (held, alive): (usize, usize) = (audits.sum(), self.cast.connections());
        ensure!(held <= alive, "shards hold {held} connections, peers {alive}");
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.office.stop()?;
        for _ in 0..STOP_ROUNDS {
            if self.shards.iter().all(Option::is_none) {
                break;
            }
            self.round(false)?;
        }
        for _ in 0..16 {
            self.office.turn(&mut self.oracle, &mut self.seed, true)?;
        }
        ensure!(self.shards.iter().all(Option::is_none), "a shard did not stop");
        ensure!(self.office.stopped() == usize::from(self.plan.shards), "a shard said nothing");
        let unreleased = self.office.unreleased();
        let admissions = self.office.admissions();
        let (opened, closed) = self.opened_and_closed;
        ensure!(opened == closed, "{opened} connections opened and {closed} closed");
        ensure!(unreleased == 0, "{unreleased} of {admissions} admissions were never released");
        Ok(())
    }
}

/// Every buffer has to be back once every connection is gone.
fn check_buffers(shard: &Shard<SimDriver>) -> Result<()> {
    let in_use = shard.driver().buffers_in_use();
    ensure!(in_use == 0, "{in_use} receive buffers never returned");
    Ok(())
}

fn build(plan: &Plan, world: &World) -> (Vec<Option<Shard<SimDriver>>>, Office) {
    let bell = || Bell::new(Silent);
    let count = usize::from(plan.shards);
    let (homes, arrivals): (Vec<_>, Vec<_>) =
        (0..count).map(|_| lane::<Parcel<_>>(LANE, bell())).unzip();
    let mut commands = Vec::new();
    let mut events = Vec::new();
    let mut shards = Vec::new();
    for (index, arrivals) in arrivals.into_iter().enumerate() {
        let (to_shard, orders) = lane::<Command>(LANE, bell());
        let (to_office, from_shard) = lane::<Event>(LANE, bell());
        commands.push(to_shard);
        events.push(from_shard);
        let config = ShardConfig {
            shard: ShardId(index as u16),
            limits: Arc::new(plan.limits.clone()),
            hash_key: [7; 16],
            upgrade_rules: UpgradeRules::default(),
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
            health: HealthFacts { started: Tick::default(), verbose: None },
            unix_ms_at_origin: 1_700_000_000_000,
            receive_buffers: usize::from(plan.driver.buffer_count),
            tls: None,
        };
        let (_certificates, door) = lane(1, bell());
        let homes = homes.clone();
        let ports = Ports { commands: orders, events: to_office, arrivals, homes, door };
        let mut shard = Shard::new(config, world.driver(&plan.driver), ports);
        let listening = shard.driver_mut().listen(world.listener());
        listening.expect("a fresh driver has no listener");
        shards.push(Some(shard));
    }
    let line = Line::new(commands, events, plan.limits.memory_bytes_max, plan.link.clone());
    (shards, Office::new(line, plan))
}

/// Pings, pongs, close frames and the answer to the upgrade that may lie beside counted messages.
const OWN_BYTES_MAX: usize = 8192;
/// Rounds of one spell of waiting: longer than any pause of the network, and than the largest
/// message takes through the smallest buffers.
const SETTLE_ROUNDS: u32 = 4000;
/// Spells after which everything has to have arrived.
const SETTLE_SPELLS_MAX: u32 = 40;
/// Rounds after which a stop has to be over.
const STOP_ROUNDS: u32 = 20_000;
