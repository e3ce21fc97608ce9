//! What lies between shards and the control plane: lanes, or the link between two processes, which
//! delays, cuts and forgets.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context, Result, ensure};
use relay_contract::{AdmissionId, Command, Event, ShardId, Tick};
use relay_driver::sim::Seed;
use relay_link::convert::Frame;
use relay_link::{Arrived, Berth, Cord, Identity, Versions};
use relay_mailbox::{Receiver, Sender};

/// The shards' lanes and, where the planes are apart, the link behind them.
pub(crate) struct Line {
    commands: Vec<Sender<Command>>,
    events: Vec<Receiver<Event>>,
    apart: Option<Apart>,
    pub(crate) stopped: BTreeSet<ShardId>,
}

/// What the control plane hears.
pub(crate) enum Told {
    /// A shard tells something.
    Event(Event),
    /// The data plane offers what it holds.
    Attached(Vec<Offered>),
    /// What is known of it means nothing any more.
    Detached,
}

/// A connection of a data plane that is back.
pub(crate) struct Offered {
    /// Its new number here.
    pub(crate) admission: AdmissionId,
    pub(crate) workspace: String,
    /// Where that lives.
    pub(crate) home: ShardId,
}

/// How often the link did its worst.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Severed {
    pub(crate) cuts: u64,
    pub(crate) resumed: u64,
    pub(crate) restarts: u64,
    pub(crate) inventories: u64,
}

/// The link: both ends of production, and a stream between them.
struct Apart {
    cord: Cord,
    /// What the control plane knows of the data plane, if it does.
    berth: Option<Berth>,
    attached: bool,
    life: u64,
    /// Orders that wait until the berth takes them.
    orders: VecDeque<(ShardId, Command)>,
    /// On their way, by the round in which they arrive.
    up: VecDeque<(u64, UpMessage)>,
    down: VecDeque<(u64, DownMessage)>,
    connected: bool,
    round: u64,
    /// When the data plane looks for the control plane again.
    again: u64,
    seed: Seed,
    shard_count: u16,
    severed: Severed,
}

type UpMessage = relay_grpc::plane::v1::FromDataPlane;
type DownMessage = relay_grpc::plane::v1::FromControlPlane;

/// The id of shard 0 at the control plane that is apart: others than the data plane's own.
const FIRST: u16 = 40;

/// Rounds from one beat to the next.
const BEAT_ROUNDS: u64 = 40;

impl Line {
    /// `apart` says what happens on the way, if the planes are apart.
    pub(crate) fn new(
        commands: Vec<Sender<Command>>,
        events: Vec<Receiver<Event>>,
        memory_bytes_max: usize,
        apart: Option<Seed>,
    ) -> Self {
        let shard_count = u16::try_from(commands.len()).unwrap_or(u16::MAX);
        let apart = apart.map(|seed| {
            let identity = Identity {
                instance_id: "simulated".to_owned(),
                shard_count,
                memory_bytes_max,
                versions: Versions::CURRENT,
                driver: "sim",
            };
            Apart {
                cord: Cord::new(identity),
                berth: None,
                attached: false,
                life: 1,
                orders: VecDeque::new(),
                up: VecDeque::new(),
                down: VecDeque::new(),
                connected: false,
                round: 0,
                again: 0,
                seed,
                shard_count,
                severed: Severed::default(),
            }
        });
        Self { commands, events, apart, stopped: BTreeSet::new() }
    }

    /// The id of the first shard, as the control plane knows it.
    pub(crate) fn first(&self) -> u16 {
        if self.apart.is_some() { FIRST } else { 0 }
    }

    pub(crate) fn shard_count(&self) -> u64 {
        self.commands.len() as u64
    }

    pub(crate) fn severed(&self) -> Severed {
        self.apart.as_ref().map_or_else(Severed::default, |apart| apart.severed)
    }

    /// Whether the data plane hears orders at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.apart.as_ref().is_some_and(|apart| !apart.connected)
    }

    /// Connections that the data plane would offer, where the planes are apart and know each other.
    pub(crate) fn offered(&self) -> Option<usize> {
        let apart = self.apart.as_ref().filter(|apart| apart.attached)?;
        Some(apart.cord.connections())
    }

    /// Orders something; whether that is on its way.
    pub(crate) fn order(&mut self, shard: ShardId, command: Command) -> Result<bool> {
        let Some(apart) = &mut self.apart else {
            give(&self.commands, shard, command)?;
            return Ok(true);
        };
        if apart.attached {
            apart.orders.push_back((shard, command));
        }
        Ok(apart.attached)
    }

    /// Tells every shard to stop, as its own process does.
    pub(crate) fn stop(&self) -> Result<()> {
        for lane in &self.commands {
            let sent = lane.send(Command::Stop { deadline_ms: 60_000 });
            ensure!(sent.is_ok(), "the simulation's lanes are wide enough");
        }
        Ok(())
    }

    /// What the control plane hears in this round. `numbers` counts admissions.
    pub(crate) fn turn(&mut self, calm: bool, numbers: &mut u64) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        for lane in &self.events {
            while self.apart.as_ref().is_none_or(|apart| apart.cord.takes_events())
                && let Some(event) = lane.receive()
            {
                if let Event::Stopped { shard } = event {
                    self.stopped.insert(shard);
                }
                match &mut self.apart {
                    None => told.push(Told::Event(event)),
                    Some(apart) => {
                        let frame = apart.frame(0);
                        apart.cord.take(&frame, event);
                    }
                }
            }
        }
        if let Some(apart) = &mut self.apart {
            apart.turn(calm, numbers, &mut told)?;
            while let Some((shard, command)) = apart.cord.next_command() {
                // What was on its way when the shard ended.
                if !self.stopped.contains(&shard) {
                    give(&self.commands, shard, command)?;
                }
            }
        }
        Ok(told)
    }
}

fn give(lanes: &[Sender<Command>], shard: ShardId, command: Command) -> Result<()> {
    let lane = lanes.get(usize::from(shard.0)).context("an order for a shard there is not")?;
    ensure!(lane.send(command).is_ok(), "the simulation's lanes are wide enough");
    Ok(())
}

impl Apart {
    fn frame(&self, first: u16) -> Frame {
        Frame { first, count: self.shard_count, now: Tick::default(), unix_ms: 0 }
    }

    fn turn(&mut self, calm: bool, numbers: &mut u64, told: &mut Vec<Told>) -> Result<()> {
        self.round += 1;
        if !calm && self.connected && self.seed.happens(CUTS) {
            self.severed.cuts += 1;
            self.cut();
        }
        if !calm && self.seed.happens(RESTARTS) {
            self.severed.restarts += 1;
            self.cut();
            self.give_up(told);
            self.life += 1;
        }
        if !self.connected && self.round >= self.again {
            self.connect(told);
        }
        self.send();
        self.deliver(numbers, told)?;
        if self.round.is_multiple_of(BEAT_ROUNDS) {
            let frame = self.frame(0);
            self.cord.beat(&frame);
            if self.cord.is_silent() {
                self.cut();
            }
            if let Some(berth) = &mut self.berth {
                berth.beat();
                if berth.is_gone() {
                    self.give_up(told);
                }
            }
        }
        Ok(())
    }

    /// What is on its way is lost.
    fn cut(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
        self.cord.disconnect();
        // Sometimes beyond the time after which the other side counts as gone.
        let longest = if self.seed.below(4) == 0 { 12 * BEAT_ROUNDS } else { BEAT_ROUNDS };
        self.again = self.round + self.seed.below(longest);
    }

    fn give_up(&mut self, told: &mut Vec<Told>) {
        self.berth = None;
        self.orders.clear();
        if std::mem::take(&mut self.attached) {
            told.push(Told::Detached);
        }
    }

    fn connect(&mut self, told: &mut Vec<Told>) {
        let hello = self.cord.connect();
        let knows = matches!(
            &hello.message,
            Some(relay_grpc::plane::v1::from_data_plane::Message::Hello(hello))
                if hello.control_life == self.life
        );
        let resumed = knows && self.berth.as_mut().is_some_and(|b| b.resume(hello.received));
        if !resumed {
            self.give_up(told);
        }
        self.severed.resumed += u64::from(resumed);
        let berth = self.berth.get_or_insert_default();
        let welcome = berth.welcome(1, self.life, resumed);
        self.down.push_back((self.round, welcome));
        self.connected = true;
    }

    /// Puts on its way what both sides have to say. Streams keep their order.
    fn send(&mut self) {
        let (frame, there) = (self.frame(0), self.frame(FIRST));
        if !self.connected {
            return;
        }
        let after = |due: Option<u64>, round: u64, seed: &mut Seed| {
            due.unwrap_or_default().max(round + seed.below(8))
        };
        while let Some(message) = self.cord.next_message(&frame) {
            let due = after(self.up.back().map(|(due, _)| *due), self.round, &mut self.seed);
            self.up.push_back((due, message));
        }
        let Some(berth) = &mut self.berth else { return };
        while berth.takes_orders()
            && let Some((shard, command)) = self.orders.pop_front()
        {
            berth.order(&there, shard, command);
        }
        while let Some(message) = berth.next_message() {
            let due = after(self.down.back().map(|(due, _)| *due), self.round, &mut self.seed);
            self.down.push_back((due, message));
        }
    }

    fn deliver(&mut self, numbers: &mut u64, told: &mut Vec<Told>) -> Result<()> {
        let (frame, there) = (self.frame(0), self.frame(FIRST));
        while let Some((_, message)) = self.up.pop_front_if(|(due, _)| *due <= self.round) {
            let berth = self.berth.as_mut().context("a stream without a berth")?;
            match berth.receive(&there, message)?.transpose()? {
                None => {}
                Some(Arrived::Event(event)) => told.push(Told::Event(event)),
                Some(Arrived::Goodbye) => self.give_up(told),
                Some(Arrived::Inventory(inventory)) => {
                    self.severed.inventories += 1;
                    self.attached = true;
                    let offered = inventory.holdings.iter().map(|holding| {
                        *numbers += 1;
                        let admission = AdmissionId(*numbers);
                        let workspace = holding.request.workspace_id.as_str().to_owned();
                        (holding.admission, Offered { admission, workspace, home: holding.home })
                    });
                    let offered: Vec<_> = offered.collect();
                    berth.adopt(offered.iter().map(|(theirs, own)| (*theirs, own.admission)));
                    told.push(Told::Attached(offered.into_iter().map(|(_, own)| own).collect()));
                    let waiting = inventory.waiting.into_iter();
                    let asked = waiting.map(|(connection, request)| {
                        Told::Event(Event::AdmissionAsked { connection, request })
                    });
                    told.extend(asked);
                }
            }
        }
        while let Some((_, message)) = self.down.pop_front_if(|(due, _)| *due <= self.round) {
            self.cord.receive(&frame, message)?;
        }
        Ok(())
    }
}

/// How likely the stream is cut, in millionths per round.
const CUTS: u32 = 40_000;
/// How likely the control plane is another one, in millionths per round.
const RESTARTS: u32 = 3_000;
