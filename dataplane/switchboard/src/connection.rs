//! The connections of a shard and the states they go through.

use std::sync::Arc;

use relay_contract::{AdmissionId, ConnectionId, Profile, Scope, ShardId};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::key::Key;
use crate::liveness::Liveness;
use crate::wheel::TimerId;

/// Where a connection stands. One that was never opened here, or whose socket is gone, has no
/// state.
///
/// ```text
/// opened ──accepted──▶ Open ──close, stop, fault──▶ Closing ──timeout──▶ Cut
///    │                  │                            ▲                   ▲ │
///    └──refused─────────┼────────────────────────────┘                   │ │
///                       └──no pong, silence──────────────────────────────┘ │
///                                                                          ▼
///                          socket gone, in any state ───────────────────▶ (none)
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum State {
    /// Registered in its scope; messages are routed to it and from it.
    Open(Member),
    /// A close frame was sent or received. It is in no scope any more and is not listened to.
    Closing {
        leaver: Leaver,
        /// Fires when the peer takes too long.
        #[serde(skip)]
        timer: TimerId,
    },
    /// TCP is being cut.
    Cut { leaver: Leaver },
}

impl State {
    /// The one deadline a connection has, unless it is beyond deadlines.
    pub(crate) fn timer_mut(&mut self) -> Option<&mut TimerId> {
        match self {
            Self::Open(member) => Some(&mut member.timer),
            Self::Closing { timer, .. } => Some(timer),
            Self::Cut { .. } => None,
        }
    }
}

/// What must still be done when the socket is gone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Leaver {
    pub(crate) admission: AdmissionId,
    /// Whether it was ever open, and so counts as closed in the end.
    pub(crate) registered: bool,
}

/// An open connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) admission: AdmissionId,
    /// From its grant; a fresh token has to have the same.
    pub(crate) claims_digest: u64,
    /// Grows with every opened connection: the order of connection.
    pub(crate) sequence: u64,
    /// Index of its scope in the directory.
    pub(crate) scope: u32,
    /// Bytes ordered to be sent that have not left yet, frame headers included; 4 GiB and more
    /// count as that.
    pub(crate) queued_bytes: u32,
    pub(crate) liveness: Liveness,
    #[serde(skip)]
    pub(crate) timer: TimerId,
    /// Pays for frames that reach nobody.
    pub(crate) unrouted: Bucket,
    /// Pays for pings, pongs and small fragments.
    pub(crate) small_frames: Bucket,
    /// Pays for log entries about its frames.
    pub(crate) frame_logs: Bucket,
    pub(crate) part: Part,
}

/// What a member does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Daemon {
        machine_id: Option<Arc<str>>,
        /// The handshake its frames must at least use.
        profile: Option<Profile>,
    },
    Client(Client),
    Worker(Worker),
}

/// A client's claims, as far as its frames are judged by them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) id: Option<Box<str>>,
    pub(crate) machine_id: Option<Arc<str>>,
    pub(crate) scope: Scope,
    /// The handshake its frames must use.
    pub(crate) profile: Option<Profile>,
    /// Workspace and client.
    pub(crate) key: Key,
    /// Workspace, client and the site it comes from.
    pub(crate) origin: Key,
    /// Session event channels it may subscribe to; absent for all but clients of that scope.
    pub(crate) channels: Option<Box<[Channel]>>,
}

/// One channel of a client's claims.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Channel {
    pub(crate) key: Key,
    pub(crate) subscribed: bool,
}

/// A worker's claim, and its calls the platform has not answered yet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) executor_id: Option<Box<str>>,
    pub(crate) call_count: u32,
}

impl Client {
    /// Its name in logs and reports.
    pub(crate) fn name(&self) -> &str {
        self.id.as_deref().unwrap_or(CLIENT_UNKNOWN)
    }
}

/// A connection and its state, in the seat of its slot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Tells it from others in the same slot.
    generation: u32,
    pub(crate) state: State,
}

/// All connections of a shard, under the slots the shard gave them.
///
/// Shape: by slot, in one piece of memory: a seat is one step from its slot, and an empty one costs
/// as much as one that is taken, which slots that are used again soon make up for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connections {
    shard: ShardId,
    seats: Vec<Option<Connection>>,
}

/// Memory of one seat.
pub(crate) const SEAT_BYTES: usize = size_of::<Option<Connection>>();
const _: () = assert!(SEAT_BYTES <= 192, "half a million idle connections have a seat each");

/// Seats that there are from the start, touched or not. A table of this size is mapped for itself,
/// and grows without leaving smaller copies of itself behind in the heap.
const SEATS_MIN: usize = 1 << 10;

impl Connections {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, seats: Vec::with_capacity(SEATS_MIN) }
    }

    /// Seats a connection; who sat there before is forgotten.
    pub(crate) fn seat(&mut self, id: ConnectionId, state: State) {
        let slot = id.slot as usize;
        if slot >= self.seats.len() {
            self.seats.resize_with(slot + 1, || None);
        }
        self.seats[slot] = Some(Connection { generation: id.generation, state });
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.seats[id.slot as usize].take()
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.seats.get(id.slot as usize)?.as_ref()?;
        (connection.generation == id.generation && id.shard == self.shard).then_some(connection)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let shard = self.shard;
        let connection = self.at_mut(id.slot)?;
        (connection.generation == id.generation && id.shard == shard).then_some(connection)
    }

    /// A slot's seat, taken or not. Looks at nothing but where it is.
    pub(crate) fn get_ahead(&self, slot: u32) -> Option<&Option<Connection>> {
        self.seats.get(slot as usize)
    }

    /// Who sits in a slot now.
    pub(crate) fn id_at(&self, slot: u32) -> Option<ConnectionId> {
        let connection = self.seats.get(slot as usize)?.as_ref()?;
        Some(ConnectionId { shard: self.shard, slot, generation: connection.generation })
    }

    /// The connection in a slot, whoever that is now.
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.seats.get_mut(slot as usize)?.as_mut()
    }

    /// The open connection of that id.
    pub(crate) fn member(&self, id: ConnectionId) -> Option<&Member> {
        match &self.get(id)?.state {
            State::Open(member) => Some(member),
            State::Closing { .. } | State::Cut { .. } => None,
        }
    }

    pub(crate) fn member_mut(&mut self, id: ConnectionId) -> Option<&mut Member> {
        match &mut self.get_mut(id)?.state {
            State::Open(member) => Some(member),
            State::Closing { .. } | State::Cut { .. } => None,
        }
    }

    /// All connections, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> + '_ {
        let seats = (0..).zip(&self.seats);
        seats.filter_map(|(slot, seat)| Some((self.id_at(slot)?, seat.as_ref()?)))
    }

    /// How many slots there ever were.
    pub(crate) fn slot_count(&self) -> u32 {
        u32::try_from(self.seats.len()).expect("slots are numbered by u32")
    }
}

/// What a client without an id is called. Source: the reference relay.
pub(crate) const CLIENT_UNKNOWN: &str = "client_unknown";

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
