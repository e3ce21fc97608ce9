//! A workspace leaves for another shard, while its peers notice nothing.
//!
//! ```text
//! Quieting ──nobody is read──▶ Halting ──no send in flight──▶ Exporting ──all sockets out──▶ gone
//!     └──too late──────────────────┴──too late, driver cannot──────┴──▶ everybody stays
//! ```
//!
//! First its connections stop being read; what was received is served to the end. Then sends end,
//! each with what its socket took. Then the driver gives the sockets out. Until that is done the
//! workspace is here, and whatever fails leaves it here. Who is told to go meanwhile, or goes,
//! drops out and ends here. Newcomers wait, and follow in the same lane.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::Duration;

use relay_contract::{
    Command, ConnectionId, Counter, Event, Grant, MoveFailure, ShardId, Tick, WorkspaceId,
};
use relay_driver::{Driver, Key};
use relay_mailbox::Full;

use crate::connection::{CloseHandshake, Connection, Leaving, Open, Phase, Reading, Waiting};
use crate::landing::Addressed;
use crate::parcel::{Caravan, Content, Luggage, Parcel};
use crate::shard::Shard;

/// Whether a connection is on its way out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Stay {
    /// It is not.
    #[default]
    Here,
    /// It is not read any more.
    Quiet,
    /// Nor is anything sent to it.
    Halted,
    /// It was to go, and ends here instead; its socket is half out of the driver.
    Recalled,
}

impl Stay {
    /// Whether nothing may be sent.
    pub(crate) fn is_halted(self) -> bool {
        matches!(self, Self::Halted | Self::Recalled)
    }
}

/// Workspaces that leave, and where those that left are to be found.
pub(crate) struct Moves<S> {
    ongoing: Option<Box<Departure<S>>>,
    /// Moves that wait for their turn.
    waiting: VecDeque<(WorkspaceId, ShardId)>,
    /// For other shards, in order.
    outbox: VecDeque<(ShardId, Parcel<S>)>,
    /// Workspaces that left.
    gone: HashMap<WorkspaceId, ShardId>,
    /// Their connections.
    departed: HashMap<ConnectionId, ShardId>,
    /// What connections that came were called, and are called here.
    pub(crate) aliases: HashMap<ConnectionId, ConnectionId>,
    /// When what is remembered of a move is forgotten, soonest first.
    memories: VecDeque<(Tick, Memory)>,
}

/// What is remembered of one move.
pub(crate) enum Memory {
    /// A workspace that left with these connections.
    Left(WorkspaceId, Vec<ConnectionId>),
    /// Connections that came, by their earlier names.
    Came(Vec<ConnectionId>),
}

/// A workspace that is about to leave.
struct Departure<S> {
    workspace_id: WorkspaceId,
    to: ShardId,
    began: Tick,
    stage: Stage,
    /// In the order of their slots.
    members: Vec<Key>,
    /// Members that keep the first two stages from being over.
    unsettled: Vec<Key>,
    /// Members about whose sockets the driver was asked and did not answer.
    awaited: HashSet<Key>,
    sockets: HashMap<Key, S>,
    failure: Option<MoveFailure>,
    /// Newcomers, in order.
    held: Vec<Held<S>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Quieting,
    Halting,
    Exporting,
}

/// Somebody who comes while the workspace leaves.
enum Held<S> {
    Admitted(Key, Box<Grant>, Box<Waiting>),
    Arrived(Parcel<S>),
}

/// How long connections may take to come to rest. Protects peers from a pause that they notice.
/// Reached: the workspace stays. Source: a turn ends what is not a slow reader's; the rest is
/// ended by the driver.
const REST_MAX: Duration = Duration::from_secs(2);
/// How long a shard remembers who left and who came. Source: lanes are milliseconds long.
const MEMORY: Duration = Duration::from_secs(30);
/// Moves that may wait. Reached: the move fails.
const WAITING_MAX: usize = 64;

impl<S> Default for Moves<S> {
    fn default() -> Self {
        Self {
            ongoing: None,
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            gone: HashMap::new(),
            departed: HashMap::new(),
            aliases: HashMap::new(),
            memories: VecDeque::new(),
        }
    }
}

impl<S> Moves<S> {
    /// Whether nothing leaves or waits to.
    pub(crate) fn is_over(&self) -> bool {
        self.ongoing.is_none() && self.waiting.is_empty() && self.outbox.is_empty()
    }

    /// Whether something waits for room in a lane.
    pub(crate) fn has_mail(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// When something is due.
    pub(crate) fn due(&self) -> Option<Tick> {
        let rest = self.ongoing.as_ref().map(|ongoing| ongoing.began.after(REST_MAX));
        let memory = self.memories.front().map(|(until, _)| *until);
        rest.into_iter().chain(memory).min()
    }

    /// Remembers for a while what a move changed.
    pub(crate) fn remember(&mut self, now: Tick, memory: Memory) {
        self.memories.push_back((now.after(MEMORY), memory));
    }

    /// A workspace came, or came back.
    pub(crate) fn welcome(&mut self, workspace_id: &WorkspaceId) {
        self.gone.remove(workspace_id);
    }

    fn forget(&mut self, now: Tick) {
        while let Some((_, memory)) = self.memories.pop_front_if(|(until, _)| *until <= now) {
            match memory {
                Memory::Left(workspace_id, connections) => {
                    self.gone.remove(&workspace_id);
                    for id in connections {
                        self.departed.remove(&id);
                    }
                }
                Memory::Came(names) => {
                    for id in names {
                        self.aliases.remove(&id);
                    }
                }
            }
        }
    }
}

impl<D: Driver> Shard<D> {
    /// The control plane wants a workspace elsewhere.
    pub(crate) fn on_move(&mut self, workspace_id: WorkspaceId, to: ShardId) {
        let is_known = usize::from(to.0) < self.ports.homes.len() && to != self.config.shard;
        let failure = match () {
            () if self.stop_deadline.is_some() => MoveFailure::Stopping,
            () if !is_known => MoveFailure::NoSuchShard,
            () if self.moves.gone.contains_key(&workspace_id) => MoveFailure::NotHere,
            () if self.moves.waiting.len() >= WAITING_MAX => MoveFailure::TooMany,
            () => return self.moves.waiting.push_back((workspace_id, to)),
        };
        self.fail_move(workspace_id, failure);
    }

    fn fail_move(&mut self, workspace_id: WorkspaceId, reason: MoveFailure) {
        self.counters.count(Counter::WorkspaceMovesFailed);
        self.emit(Event::MoveFailed { workspace_id, from: self.config.shard, reason });
    }

    /// Takes what leaves a step further. Cost while nothing moves: a look at three empty lists.
    pub(crate) fn advance_moves(&mut self) {
        if self.moves.is_over() && self.moves.memories.is_empty() {
            return;
        }
        self.moves.forget(self.now);
        loop {
            let Some(mut ongoing) = self.moves.ongoing.take() else {
                let Some((workspace_id, to)) = self.moves.waiting.pop_front() else { break };
                self.begin_move(workspace_id, to);
                continue;
            };
            if !self.step(&mut ongoing) {
                self.moves.ongoing = Some(ongoing);
                break;
            }
            match ongoing.failure {
                None => self.depart(*ongoing),
                Some(failure) => self.stay(*ongoing, failure),
            }
        }
        self.post_parcels();
        self.relieve();
    }

    fn begin_move(&mut self, workspace_id: WorkspaceId, to: ShardId) {
        let members = self.board.members_of(&workspace_id);
        let members: Vec<_> = members.into_iter().filter_map(|id| self.table.key(id)).collect();
        for &key in &members {
            let Some(connection) = self.table.get_mut(key) else { continue };
            connection.stay = Stay::Quiet;
            if matches!(connection.reading, Reading::Once | Reading::Repeatedly) {
                connection.reading = Reading::Pausing;
                self.driver.pause(key);
            }
        }
        self.moves.ongoing = Some(Box::new(Departure {
            workspace_id,
            to,
            began: self.now,
            stage: Stage::Quieting,
            members: members.clone(),
            unsettled: members,
            awaited: HashSet::new(),
            sockets: HashMap::new(),
            failure: None,
            held: Vec::new(),
        }));
    }

    /// Whether the workspace can leave now, or has to stay.
    fn step(&mut self, ongoing: &mut Departure<D::Socket>) -> bool {
        self.drop_out(ongoing);
        if self.now >= ongoing.began.after(REST_MAX) {
            ongoing.failure = ongoing.failure.or(Some(MoveFailure::TimedOut));
        }
        if self.stop_deadline.is_some() {
            ongoing.failure = Some(MoveFailure::Stopping);
        }
        loop {
            let stage = ongoing.stage;
            ongoing.unsettled.retain(|&key| !self.has_settled(key, stage));
            // Sockets that are on their way out have to arrive before anything else is done.
            match (stage, ongoing.failure) {
                (Stage::Quieting | Stage::Halting, Some(_)) => return true,
                _ if !ongoing.awaited.is_empty() || !ongoing.unsettled.is_empty() => return false,
                (Stage::Exporting, _) => return true,
                (Stage::Quieting, None) => self.halt(ongoing),
                (Stage::Halting, None) => self.export(ongoing),
            }
        }
    }

    /// Members that are gone, or were told to go, are none any more.
    fn drop_out(&mut self, ongoing: &mut Departure<D::Socket>) {
        let mut gone = Vec::new();
        ongoing.members.retain(|&key| {
            let stays = self.is_member(key);
            if !stays {
                gone.push(key);
            }
            stays
        });
        for key in gone {
            ongoing.unsettled.retain(|&other| other != key);
            let socket = ongoing.sockets.remove(&key);
            if ongoing.awaited.remove(&key) {
                // It is put back when its socket arrives, if it is not closed by then.
                if let Some(connection) = self.table.get_mut(key) {
                    connection.stay = Stay::Recalled;
                }
            } else {
                self.put_back(key, socket);
            }
        }
    }

    fn is_member(&mut self, key: Key) -> bool {
        let is_open = matches!(
            self.phase_mut(key),
            Some(Phase::Open(Open { close: CloseHandshake::NotBegun, .. }))
        );
        is_open && self.board.is_open(self.table.id(key))
    }

    fn has_settled(&mut self, key: Key, stage: Stage) -> bool {
        let Some(connection) = self.table.get_mut(key) else { return true };
        match stage {
            Stage::Quieting => {
                let waits = connection.backlog.as_ref().is_some_and(|found| found.is_waiting());
                connection.reading == Reading::Idle && !waits
            }
            Stage::Halting => {
                connection.egress.as_ref().is_none_or(|egress| !egress.is_in_flight())
            }
            Stage::Exporting => true,
        }
    }

    fn halt(&mut self, ongoing: &mut Departure<D::Socket>) {
        ongoing.stage = Stage::Halting;
        for &key in &ongoing.members {
            self.forget_backlog(key);
            let Some(connection) = self.table.get_mut(key) else { continue };
            connection.stay = Stay::Halted;
            if connection.egress.as_mut().is_some_and(|egress| egress.recall()) {
                self.driver.cancel_send(key);
                ongoing.unsettled.push(key);
            }
        }
    }

    fn export(&mut self, ongoing: &mut Departure<D::Socket>) {
        ongoing.stage = Stage::Exporting;
        ongoing.awaited.extend(&ongoing.members);
        for &key in &ongoing.members {
            self.driver.export(key);
        }
    }

    /// The driver gave a socket out, or could not.
    pub(crate) fn on_exported(&mut self, key: Key, socket: io::Result<D::Socket>) {
        if let Some(Phase::Closed) | None = self.phase_mut(key) {
            // It was closed when the driver no longer knew it.
            return if socket.is_ok() {
                self.on_closed(key)
            };
        }
        let stay = self.table.get_mut(key).map(|connection| connection.stay);
        let ongoing = self.moves.ongoing.as_mut().filter(|_| stay == Some(Stay::Halted));
        let Some(ongoing) = ongoing else {
            return self.put_back(key, socket.ok());
        };
        ongoing.awaited.remove(&key);
        match socket {
            Ok(socket) => drop(ongoing.sockets.insert(key, socket)),
            Err(_) => ongoing.failure = Some(MoveFailure::Driver),
        }
    }

    /// A connection whose socket the driver gave out is closed: the driver closes it all the same.
    pub(crate) fn take_back_to_close(&mut self, key: Key) {
        let ongoing = self.moves.ongoing.as_mut();
        if let Some(socket) = ongoing.and_then(|ongoing| ongoing.sockets.remove(&key)) {
            self.driver.adopt(key, socket);
        }
    }

    /// A connection goes on where it was.
    fn put_back(&mut self, key: Key, socket: Option<D::Socket>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.stay = Stay::Here;
        if matches!(connection.phase, Phase::Closed) {
            return;
        }
        if let Some(socket) = socket {
            self.driver.adopt(key, socket);
            // Without room it goes on as a guest, which costs a descriptor.
            connection.settled = self.driver.settle(key).is_ok();
        }
        self.go_on(key);
    }

    /// Reads on, and sends what waits.
    pub(crate) fn go_on(&mut self, key: Key) {
        self.arm(key);
        if !self.is_flushed(key) {
            self.touch(key);
        }
    }

    /// The move is off: everybody stays.
    fn stay(&mut self, mut ongoing: Departure<D::Socket>, failure: MoveFailure) {
        for key in ongoing.members {
            let socket = ongoing.sockets.remove(&key);
            self.put_back(key, socket);
        }
        self.fail_move(ongoing.workspace_id, failure);
        for held in ongoing.held {
            match held {
                Held::Admitted(key, grant, waiting) => {
                    self.admit_held(key, grant, waiting, self.config.shard);
                }
                Held::Arrived(parcel) => self.on_arrival(parcel),
            }
        }
    }

    /// Everything of the workspace goes, and whoever came meanwhile follows.
    fn depart(&mut self, ongoing: Departure<D::Socket>) {
        let Departure { workspace_id, to, began, members, mut sockets, held, .. } = ongoing;
        let household = self.board.take_out(&workspace_id);
        let mut connections = Vec::with_capacity(members.len());
        let mut ids = Vec::with_capacity(members.len());
        for key in members {
            let id = self.table.id(key);
            let socket = sockets.remove(&key);
            let (Some(socket), Some(luggage)) = (socket, self.pack(key)) else { continue };
            ids.push(id);
            self.moves.departed.insert(id, to);
            connections.push(luggage(id, socket));
        }
        let from = self.config.shard;
        let caravan = Caravan { workspace_id, from, began, household, connections };
        let workspace_id = caravan.workspace_id.clone();
        self.moves.outbox.push_back((to, Parcel(Content::Workspace(Box::new(caravan)))));
        self.moves.gone.insert(workspace_id.clone(), to);
        self.moves.remember(self.now, Memory::Left(workspace_id, ids));
        for held in held {
            match held {
                Held::Admitted(key, grant, waiting) => self.admit_held(key, grant, waiting, to),
                Held::Arrived(parcel) => self.moves.outbox.push_back((to, parcel)),
            }
        }
    }

    /// Somebody who had to wait for a move is admitted, if it is still there.
    fn admit_held(&mut self, key: Key, grant: Box<Grant>, waiting: Box<Waiting>, home: ShardId) {
        if let Some(Phase::Leaving(_)) = self.phase_mut(key) {
            self.enter(key, Phase::Waiting(waiting));
            return self.on_admit(self.table.id(key), grant, home);
        }
        self.emit(Event::Released { admission: grant.admission });
    }

    /// Takes a connection out of the table, with all but its socket.
    fn pack(
        &mut self,
        key: Key,
    ) -> Option<impl FnOnce(ConnectionId, D::Socket) -> Luggage<D::Socket> + use<D>> {
        self.clear_deadline(key);
        let unfinished = self.take_assembly(key).map(|assembly| {
            let text = assembly.text();
            self.counters.add(Counter::CopiedBytes, text.len() as u64);
            self.spare_assembly(assembly);
            text
        });
        let Connection { phase, egress, tls, is_local, .. } = self.forget(key)?;
        let Phase::Open(Open { decoder, .. }) = phase else { return None };
        let egress = egress.map(|egress| egress.pack());
        Some(move |id, socket| Luggage { id, socket, decoder, unfinished, egress, tls, is_local })
    }

    /// Where somebody has to go whose workspace has left, or `Err` when it is about to.
    fn whereabouts(&self, workspace_id: &WorkspaceId) -> Result<Option<ShardId>, ()> {
        let ongoing = self.moves.ongoing.as_ref();
        if ongoing.is_some_and(|ongoing| ongoing.workspace_id == *workspace_id) {
            return Err(());
        }
        Ok(self.moves.gone.get(workspace_id).copied())
    }

    /// The home of somebody who is admitted to a workspace of this shard, or nothing while that is
    /// about to leave: then the newcomer is kept.
    pub(crate) fn redirect_admitted(
        &mut self,
        id: ConnectionId,
        grant: Box<Grant>,
    ) -> Option<(Box<Grant>, ShardId)> {
        match self.whereabouts(&grant.request.workspace_id) {
            Ok(to) => Some((grant, to.unwrap_or(self.config.shard))),
            Err(()) => {
                let key = self.table.key(id)?;
                self.clear_deadline(key);
                // It is decided: whatever else is said of this upgrade is not for it.
                let left = self.enter(key, Phase::Leaving(Leaving::default()));
                if let (Some(Phase::Waiting(waiting)), Some(ongoing)) =
                    (left, &mut self.moves.ongoing)
                {
                    ongoing.held.push(Held::Admitted(key, grant, waiting));
                }
                None
            }
        }
    }

    /// The same for a socket that arrived from another shard: given back when it belongs here.
    pub(crate) fn redirect_arrived(
        &mut self,
        workspace_id: &WorkspaceId,
        parcel: Parcel<D::Socket>,
    ) -> Option<Parcel<D::Socket>> {
        match self.whereabouts(workspace_id) {
            Ok(None) => return Some(parcel),
            Ok(Some(to)) => self.moves.outbox.push_back((to, parcel)),
            Err(()) => {
                if let Some(ongoing) = &mut self.moves.ongoing {
                    ongoing.held.push(Held::Arrived(parcel));
                }
            }
        }
        None
    }

    /// An order for a connection that has moved follows it; others are given back.
    pub(crate) fn redirect_order(&mut self, order: Command) -> Option<Command> {
        if self.moves.departed.is_empty() {
            return Some(order);
        }
        let to = order.open_connection().and_then(|id| self.moves.departed.get(&id).copied());
        let Some(to) = to else { return Some(order) };
        self.moves.outbox.push_back((to, Parcel(Content::Order(order))));
        None
    }

    /// Hands something to another shard, behind what waits for room already.
    pub(crate) fn dispatch(
        &mut self,
        to: ShardId,
        parcel: Parcel<D::Socket>,
    ) -> Result<(), Full<Parcel<D::Socket>>> {
        if !self.moves.outbox.is_empty() {
            self.moves.outbox.push_back((to, parcel));
            return Ok(());
        }
        match self.ports.homes.get(usize::from(to.0)) {
            Some(lane) => lane.send(parcel),
            None => Err(Full(parcel)),
        }
    }

    /// Moves what waits into lanes that have room again.
    pub(crate) fn post_parcels(&mut self) {
        while let Some((to, parcel)) = self.moves.outbox.pop_front() {
            let Some(lane) = self.ports.homes.get(usize::from(to.0)) else { continue };
            if let Err(Full(parcel)) = lane.send(parcel) {
                return self.moves.outbox.push_front((to, parcel));
            }
        }
    }

    /// Gives up what waits for other shards, because this one ends: every grant comes back.
    pub(crate) fn drop_parcels(&mut self) {
        while let Some((_, Parcel(content))) = self.moves.outbox.pop_front() {
            match content {
                Content::Upgrade(upgrade) => {
                    self.emit(Event::Released { admission: upgrade.grant.admission });
                }
                Content::Workspace(caravan) => {
                    let admissions = caravan.household.connections().map(|(_, of)| of);
                    for admission in admissions.collect::<Vec<_>>() {
                        self.counters.count(Counter::WsConnectionsClosed);
                        self.emit(Event::Released { admission });
                    }
                }
                Content::Order(_) => {}
            }
        }
    }
}
