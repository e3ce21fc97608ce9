//! A workspace leaves for another shard, while its peers notice nothing.
//!
//! ```text
//! Asking ──room──▶ Quieting ──nobody read──▶ Halting ──no send left──▶ Exporting ──▶ gone
//!   └──no room, too late──┴──too late────────────┴──too late───driver cannot──┴──▶ all stay
//! ```
//!
//! First the other shard says whether it has room. Then its connections stop being read; what was
//! received is served to the end. Then sends end, each with what its socket took. Then the driver
//! gives the sockets out. Until that is done the workspace is here, and whatever fails leaves it
//! here. Who is told to go meanwhile, or goes, drops out and ends here. Newcomers wait, and follow
//! in the same lane.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::Duration;

use relay_contract::{
    Command, ConnectionId, Counter, Event, Grant, MoveFailure, ShardId, Tick, WorkspaceId,
};
use relay_driver::{Driver, Key};

use crate::connection::{CloseHandshake, Connection, Open, Phase, Reading};
use crate::parcel::{Caravan, Content, Luggage, Parcel, RoomAsked, Unfinished};
use crate::shard::Shard;
use crate::whereabouts::Addressed;

/// Whether a connection is on its way.
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
    /// It came, and its turn to be settled has not come yet.
    Landing,
}

impl Stay {
    /// Whether nothing may be sent.
    pub(crate) fn is_halted(self) -> bool {
        match self {
            Self::Here | Self::Quiet => false,
            Self::Halted | Self::Recalled | Self::Landing => true,
        }
    }
}

/// Workspaces that leave, and connections that came.
pub(crate) struct Moves<S> {
    ongoing: Option<Box<Departure<S>>>,
    /// Moves that wait for their turn.
    waiting: VecDeque<(WorkspaceId, ShardId)>,
    /// Those who came and are not settled yet.
    landing: VecDeque<Key>,
}

/// A workspace that is about to leave.
struct Departure<S> {
    workspace_id: WorkspaceId,
    to: ShardId,
    /// When it began; once its connections are quieted, since when they are not read.
    began: Tick,
    stage: Stage,
    /// In the order of their slots.
    members: Vec<Key>,
    /// Members whose turn in this stage has not come.
    left: VecDeque<Key>,
    /// Members that keep the stage from being over.
    unsettled: HashSet<Key>,
    /// Members about whose sockets the driver was asked and did not answer.
    awaited: HashSet<Key>,
    sockets: HashMap<Key, S>,
    failure: Option<MoveFailure>,
    /// Newcomers, in order.
    held: Vec<Held<S>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Asking,
    Quieting,
    Halting,
    Exporting,
}

/// Somebody who comes while the workspace leaves.
enum Held<S> {
    /// It waits here, in its slot.
    Admitted(Key, Box<Grant>),
    Arrived(Parcel<S>),
}

/// How long connections may take to come to rest. Protects peers from a pause that they notice.
/// Reached: the workspace stays. Source: a turn ends what is not a slow reader's; the rest is
/// ended by the driver.
const REST_MAX: Duration = Duration::from_secs(2);
/// Moves that may wait. Reached: the move fails.
const WAITING_MAX: usize = 64;
/// Members that a turn pauses, halts, exports or settles, all in all. Protects the latency of
/// messages. Reached: the others follow in the next turn. Source: settling one is a system call,
/// about a microsecond.
const MEMBERS_PER_TURN: usize = 64;

impl<S> Default for Moves<S> {
    fn default() -> Self {
        Self { ongoing: None, waiting: VecDeque::new(), landing: VecDeque::new() }
    }
}

impl<S> Moves<S> {
    /// Whether nothing leaves, waits to, or lands.
    pub(crate) fn is_over(&self) -> bool {
        self.ongoing.is_none() && self.waiting.is_empty() && self.landing.is_empty()
    }

    /// Whether the next turn has something to do whatever happens.
    pub(crate) fn has_work(&self) -> bool {
        !self.landing.is_empty()
            || self.ongoing.as_ref().is_some_and(|ongoing| !ongoing.left.is_empty())
    }

    /// When the move that goes on has taken too long. Sockets that are on their way out come.
    pub(crate) fn due(&self) -> Option<Tick> {
        let ongoing = self.ongoing.as_ref().filter(|ongoing| ongoing.stage != Stage::Exporting)?;
        Some(ongoing.began.after(REST_MAX))
    }

    /// These came, and are settled one after the other.
    pub(crate) fn landed(&mut self, keys: Vec<Key>) {
        self.landing.extend(keys);
    }
}

impl<D: Driver> Shard<D> {
    /// The control plane wants a workspace elsewhere.
    pub(crate) fn on_move(&mut self, workspace_id: WorkspaceId, to: ShardId) {
        let is_known = usize::from(to.0) < self.ports.homes.len() && to != self.config.shard;
        let failure = match () {
            () if self.stop_deadline.is_some() => MoveFailure::Stopping,
            () if !is_known => MoveFailure::NoSuchShard,
            () if self.whereabouts.of(&workspace_id).is_some() => MoveFailure::NotHere,
            () if self.moves.waiting.len() >= WAITING_MAX || self.whereabouts.is_full() => {
                MoveFailure::TooMany
            }
            () => return self.moves.waiting.push_back((workspace_id, to)),
        };
        self.fail_move(workspace_id, failure);
    }

    fn fail_move(&mut self, workspace_id: WorkspaceId, reason: MoveFailure) {
        self.counters.count(Counter::WorkspaceMovesFailed);
        self.counters.count(reason.counter());
        self.emit(Event::MoveFailed { workspace_id, from: self.config.shard, reason });
    }

    /// Takes what leaves a step further. Cost while nothing moves: a look at a few empty lists.
    pub(crate) fn advance_moves(&mut self) {
        if self.moves.is_over() && self.whereabouts.is_empty() && self.mail.is_empty() {
            return;
        }
        self.whereabouts.forget(self.now);
        let mut turns_left = MEMBERS_PER_TURN;
        loop {
            let Some(mut ongoing) = self.moves.ongoing.take() else {
                let Some((workspace_id, to)) = self.moves.waiting.pop_front() else { break };
                self.begin_move(workspace_id, to);
                continue;
            };
            if !self.step(&mut ongoing, &mut turns_left) {
                self.moves.ongoing = Some(ongoing);
                break;
            }
            match ongoing.failure {
                None => self.depart(*ongoing),
                Some(failure) => self.stay(*ongoing, failure),
            }
        }
        self.settle_some();
        self.post_parcels();
        self.relieve();
    }

    fn begin_move(&mut self, workspace_id: WorkspaceId, to: ShardId) {
        if self.whereabouts.of(&workspace_id).is_some() {
            // It left while this order waited.
            return self.fail_move(workspace_id, MoveFailure::NotHere);
        }
        let members = self.board.members_of(&workspace_id);
        let mut members: Vec<_> = members.into_iter().filter_map(|id| self.table.key(id)).collect();
        members.retain(|&key| self.is_member(key));
        let held_bytes = self.held_by(&members) + self.board.household_bytes(&workspace_id);
        let asked = RoomAsked { from: self.config.shard, connections: members.len(), held_bytes };
        self.moves.ongoing = Some(Box::new(Departure {
            workspace_id,
            to,
            began: self.now,
            stage: Stage::Asking,
            members,
            left: VecDeque::new(),
            unsettled: HashSet::new(),
            awaited: HashSet::new(),
            sockets: HashMap::new(),
            failure: None,
            held: Vec::new(),
        }));
        self.forward_parcel(to, Parcel(Content::RoomAsked(asked)));
    }

    /// Memory that these connections hold.
    fn held_by(&mut self, keys: &[Key]) -> usize {
        keys.iter()
            .map(|&key| self.table.get_mut(key).map_or(0, |found| found.charge.bytes()))
            .sum()
    }

    /// The other shard has said whether it has room.
    pub(crate) fn on_room_answered(&mut self, has_room: bool) {
        let asking = self.moves.ongoing.as_mut().filter(|found| found.stage == Stage::Asking);
        let Some(ongoing) = asking else { return };
        if has_room {
            ongoing.began = self.now;
            ongoing.enter(Stage::Quieting);
        } else {
            ongoing.failure = Some(MoveFailure::NoRoom);
        }
    }

    /// Whether the workspace can leave now, or has to stay.
    fn step(&mut self, ongoing: &mut Departure<D::Socket>, turns_left: &mut usize) -> bool {
        self.drop_out(ongoing);
        if self.now >= ongoing.began.after(REST_MAX) {
            ongoing.failure = ongoing.failure.or(Some(MoveFailure::TimedOut));
        }
        if self.stop_deadline.is_some() {
            ongoing.failure = Some(MoveFailure::Stopping);
        }
        loop {
            if ongoing.failure.is_none() {
                self.take_turns(ongoing, turns_left);
            }
            let stage = ongoing.stage;
            ongoing.unsettled.retain(|&key| !self.has_settled(key, stage));
            let is_over = ongoing.left.is_empty()
                && ongoing.unsettled.is_empty()
                && ongoing.awaited.is_empty();
            match (stage, ongoing.failure) {
                // Sockets that are on their way out have to arrive before anything else is done.
                (Stage::Exporting, Some(_)) => return ongoing.awaited.is_empty(),
                (_, Some(_)) => return true,
                (Stage::Asking, None) => return false,
                (_, None) if !is_over => return false,
                (Stage::Quieting, None) => ongoing.enter(Stage::Halting),
                (Stage::Halting, None) => ongoing.enter(Stage::Exporting),
                (Stage::Exporting, None) => return true,
            }
        }
    }

    /// Does what the stage asks for to as many members as this turn may.
    fn take_turns(&mut self, ongoing: &mut Departure<D::Socket>, turns_left: &mut usize) {
        while *turns_left > 0
            && let Some(key) = ongoing.left.pop_front()
        {
            if !self.is_member(key) {
                continue;
            }
            *turns_left -= 1;
            match ongoing.stage {
                Stage::Asking => {}
                Stage::Quieting => self.quieten(ongoing, key),
                Stage::Halting => self.halt(ongoing, key),
                Stage::Exporting => {
                    ongoing.awaited.insert(key);
                    self.driver.export(key);
                }
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
            ongoing.unsettled.remove(&key);
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
            Stage::Asking | Stage::Exporting => true,
        }
    }

    fn quieten(&mut self, ongoing: &mut Departure<D::Socket>, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.stay = Stay::Quiet;
        if matches!(connection.reading, Reading::Once | Reading::Repeatedly) {
            connection.reading = Reading::Pausing;
            self.driver.pause(key);
        }
        ongoing.unsettled.insert(key);
    }

    fn halt(&mut self, ongoing: &mut Departure<D::Socket>, key: Key) {
        self.forget_backlog(key);
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.stay = Stay::Halted;
        if connection.egress.as_mut().is_some_and(|egress| egress.recall()) {
            self.driver.cancel_send(key);
            ongoing.unsettled.insert(key);
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
        let ongoing = self.moves.ongoing.as_mut();
        let Some(ongoing) = ongoing.filter(|ongoing| ongoing.awaited.contains(&key)) else {
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

    /// A connection goes on where it was: at once, or after those who land when its socket has to
    /// be settled again.
    fn put_back(&mut self, key: Key, socket: Option<D::Socket>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.stay = Stay::Here;
        if matches!(connection.phase, Phase::Closed) {
            return;
        }
        if let Some(socket) = socket {
            connection.settled = false;
            self.driver.adopt(key, socket);
        }
        if connection.settled {
            return self.go_on(key);
        }
        connection.stay = Stay::Landing;
        self.moves.landing.push_back(key);
    }

    /// Settles some of those who came, and lets them go on.
    fn settle_some(&mut self) {
        for _ in 0..MEMBERS_PER_TURN {
            let Some(key) = self.moves.landing.pop_front() else { return };
            let Some(connection) = self.table.get_mut(key) else { continue };
            let is_closed = matches!(connection.phase, Phase::Closed);
            if is_closed || connection.stay != Stay::Landing {
                continue;
            }
            connection.stay = Stay::Here;
            // Without room it goes on as a guest, which costs a descriptor.
            connection.settled = self.driver.settle(key).is_ok();
            self.go_on(key);
        }
    }

    /// Reads on, and sends what waits.
    fn go_on(&mut self, key: Key) {
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
                Held::Admitted(key, grant) => self.admit_held(key, grant, self.config.shard),
                Held::Arrived(parcel) => self.on_arrival(parcel),
            }
        }
    }

    /// Everything of the workspace goes, and whoever came meanwhile follows.
    fn depart(&mut self, ongoing: Departure<D::Socket>) {
        let Departure { workspace_id, to, began, members, mut sockets, held, .. } = ongoing;
        let held_bytes = self.held_by(&members) + self.board.household_bytes(&workspace_id);
        let household = self.board.take_out(&workspace_id);
        let mut connections = Vec::with_capacity(members.len());
        let mut ids = Vec::with_capacity(members.len());
        for key in members {
            let id = self.table.id(key);
            let socket = sockets.remove(&key);
            let (Some(socket), Some(luggage)) = (socket, self.pack(key)) else { continue };
            ids.push(id);
            connections.push(luggage(id, socket));
        }
        let from = self.config.shard;
        self.whereabouts.note_left(self.now, workspace_id.clone(), to, ids);
        let caravan = Caravan { workspace_id, from, began, household, connections, held_bytes };
        self.forward_parcel(to, Parcel(Content::Workspace(Box::new(caravan))));
        for held in held {
            match held {
                Held::Admitted(key, grant) => self.admit_held(key, grant, to),
                Held::Arrived(parcel) => self.forward_parcel(to, parcel),
            }
        }
    }

    /// Somebody who had to wait for a move is admitted, if it is still there.
    fn admit_held(&mut self, key: Key, grant: Box<Grant>, home: ShardId) {
        if let Some(Phase::Waiting(waiting)) = self.phase_mut(key) {
            waiting.is_held = false;
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
        let unfinished = self.take_assembly(key).map(|mut assembly| {
            let text = assembly.text();
            self.counters.add(Counter::CopiedBytes, text.len() as u64);
            let scanner = Box::new(std::mem::take(&mut assembly.scanner));
            self.spare_assembly(assembly);
            Unfinished { text, scanner }
        });
        let Connection { phase, egress, tls, is_local, .. } = self.forget(key)?;
        let Phase::Open(Open { decoder, .. }) = phase else { return None };
        let egress = egress.map(|egress| egress.pack());
        Some(move |id, socket| Luggage { id, socket, decoder, unfinished, egress, tls, is_local })
    }

    /// Where somebody has to go whose workspace has left, or `Err` when it is about to.
    fn whereabouts_of(&self, workspace_id: &WorkspaceId) -> Result<Option<ShardId>, ()> {
        let ongoing = self.moves.ongoing.as_ref();
        if ongoing.is_some_and(|ongoing| ongoing.workspace_id == *workspace_id) {
            return Err(());
        }
        Ok(self.whereabouts.of(workspace_id))
    }

    /// The home of somebody who is admitted to a workspace of this shard, or nothing while that is
    /// about to leave: then the newcomer keeps its place among the strangers, its deadline and what
    /// it is charged for.
    pub(crate) fn redirect_admitted(
        &mut self,
        id: ConnectionId,
        grant: Box<Grant>,
    ) -> Option<(Box<Grant>, ShardId)> {
        match self.whereabouts_of(&grant.request.workspace_id) {
            Ok(to) => Some((grant, to.unwrap_or(self.config.shard))),
            Err(()) => {
                let key = self.table.key(id)?;
                if let (Some(Phase::Waiting(waiting)), Some(ongoing)) =
                    (self.table.get_mut(key).map(|found| &mut found.phase), &mut self.moves.ongoing)
                {
                    waiting.is_held = true;
                    ongoing.held.push(Held::Admitted(key, grant));
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
        match self.whereabouts_of(workspace_id) {
            Ok(None) => return Some(parcel),
            Ok(Some(to)) => self.forward_parcel(to, parcel),
            Err(()) => {
                if let Some(ongoing) = &mut self.moves.ongoing {
                    ongoing.held.push(Held::Arrived(parcel));
                }
            }
        }
        None
    }

    /// An order for a connection that has moved follows it; others are given back, for the name
    /// that the connection has here.
    pub(crate) fn redirect_order(&mut self, order: Command) -> Option<Command> {
        if let Some(to) = self.whereabouts.of_order(&order) {
            self.forward_parcel(to, Parcel(Content::Order(order)));
            return None;
        }
        match self.whereabouts.alias(&order) {
            Some(id) => Some(order.renamed(id)),
            None => Some(order),
        }
    }

    /// Gives up who waits for a move, because the shard ends: every grant comes back.
    pub(crate) fn drop_held(&mut self) {
        let ongoing = self.moves.ongoing.as_mut();
        let held = ongoing.map(|ongoing| std::mem::take(&mut ongoing.held)).unwrap_or_default();
        for held in held {
            match held {
                Held::Admitted(_, grant) => {
                    self.emit(Event::Released { admission: grant.admission });
                }
                Held::Arrived(Parcel(content)) => self.give_up(content),
            }
        }
    }
}

impl<S> Departure<S> {
    /// The next stage begins: it is every member's turn once more.
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.left = self.members.iter().copied().collect();
    }
}
