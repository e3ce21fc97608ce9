//! What shards give each other.

use relay_contract::{Command, ConnectionId, Grant, ShardId, Tick, WorkspaceId};
use relay_switchboard::Household;
use relay_wire::envelope::Scanner;
use relay_wire::websocket::Decoder;

use crate::egress::Packed;
use crate::tls::TlsSession;

/// Something for another shard of the process. Lanes carry parcels in order, which a workspace that
/// moves relies on: who comes after it, finds it there.
pub struct Parcel<S>(pub(crate) Content<S>);

/// What is in a parcel.
pub(crate) enum Content<S> {
    /// A socket on its way to its workspace's home.
    Upgrade(Upgrade<S>),
    /// A workspace on its way to another home.
    Workspace(Box<Caravan<S>>),
    /// An order for a connection that has moved, by the name it had.
    Order(Command),
    /// Whether there is room for a workspace that is about to leave.
    RoomAsked(RoomAsked),
    /// The answer: whether there is.
    RoomAnswered(bool),
}

impl<S> Parcel<S> {
    /// Memory of peers in it.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.0 {
            Content::Workspace(caravan) => caravan.held_bytes,
            Content::Upgrade(upgrade) => upgrade.held_bytes(),
            Content::Order(_) | Content::RoomAsked(_) | Content::RoomAnswered(_) => 0,
        }
    }
}

/// What a workspace would bring along.
pub(crate) struct RoomAsked {
    /// Who wants to know.
    pub(crate) from: ShardId,
    pub(crate) connections: usize,
    /// Memory that they and their scopes hold.
    pub(crate) held_bytes: usize,
}

/// An admitted socket with everything that was read from it but not yet used.
///
/// No operation is in flight on it: the shard that accepted it stopped reading when the request
/// head was complete.
pub(crate) struct Upgrade<S> {
    /// The socket.
    pub(crate) socket: S,
    /// What it may do.
    pub(crate) grant: Box<Grant>,
    /// The answer to the upgrade: 101, or the refusal of its WebSocket headers.
    pub(crate) handshake: Result<Vec<u8>, Vec<u8>>,
    /// Plain bytes after the request head: frames sent before the answer.
    pub(crate) early: Vec<u8>,
    /// The TLS session, where TLS ends here.
    pub(crate) tls: Option<Box<TlsSession>>,
}

impl<S> Upgrade<S> {
    /// Memory of its own.
    fn held_bytes(&self) -> usize {
        let (Ok(answer) | Err(answer)) = &self.handshake;
        let tls = self.tls.as_ref().map_or(0, |session| session.held_bytes());
        answer.capacity() + self.early.capacity() + tls
    }
}

/// A workspace with its connections, none of which has an operation in flight.
pub(crate) struct Caravan<S> {
    pub(crate) workspace_id: WorkspaceId,
    /// The shard it leaves.
    pub(crate) from: ShardId,
    /// Since when its connections are not read.
    pub(crate) began: Tick,
    /// What the switchboard knows.
    pub(crate) household: Household,
    pub(crate) connections: Vec<Luggage<S>>,
    /// Memory that they and their scopes hold.
    pub(crate) held_bytes: usize,
}

/// The beginning of a message.
pub(crate) struct Unfinished {
    pub(crate) text: Vec<u8>,
    /// Has read it, so that nobody needs to again: of a hundred connections that would be a long
    /// turn.
    pub(crate) scanner: Box<Scanner>,
}

/// An open connection on its way.
pub(crate) struct Luggage<S> {
    /// What it was called.
    pub(crate) id: ConnectionId,
    pub(crate) socket: S,
    /// Where in a frame the bytes so far end.
    pub(crate) decoder: Decoder,
    /// What there is of a message whose end has not come.
    pub(crate) unfinished: Option<Unfinished>,
    /// What waits to be sent.
    pub(crate) egress: Option<Packed>,
    /// The TLS session, where TLS ends here.
    pub(crate) tls: Option<Box<TlsSession>>,
    /// Whether it came through a Unix socket.
    pub(crate) is_local: bool,
}
