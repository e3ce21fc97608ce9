//! Where workspaces are that left, and what connections were called before they came.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use relay_contract::{Command, ConnectionId, ShardId, Tick, WorkspaceId};

/// What moves of the last half minute changed.
#[derive(Default)]
pub(crate) struct Whereabouts {
    /// Workspaces that left: where to, and with which departure.
    gone: HashMap<WorkspaceId, (ShardId, u64)>,
    /// Their connections.
    departed: HashMap<ConnectionId, ShardId>,
    /// What connections that came were called, and are called here.
    aliases: HashMap<ConnectionId, ConnectionId>,
    /// When what is remembered of a move is forgotten, soonest first.
    memories: VecDeque<(Tick, Memory)>,
    departures: u64,
}

/// What is remembered of one move.
enum Memory {
    /// A workspace that left with these connections.
    Left { workspace_id: WorkspaceId, departure: u64, connections: Vec<ConnectionId> },
    /// Connections that came, by their earlier names.
    Came(Vec<ConnectionId>),
}

/// How long a shard remembers who left and who came. Source: lanes are milliseconds long.
const MEMORY: Duration = Duration::from_secs(30);
/// Moves that are remembered. Protects memory from an operator's loop. Reached: further moves fail.
/// Source: a shard's workspaces may all be moved at once.
const REMEMBERED_MAX: usize = 4096;

impl Whereabouts {
    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.memories.is_empty()
    }

    /// Whether so many moves are remembered that another would be too many.
    pub(crate) fn is_full(&self) -> bool {
        self.memories.len() >= REMEMBERED_MAX
    }

    /// When the next is forgotten.
    pub(crate) fn due(&self) -> Option<Tick> {
        self.memories.front().map(|(until, _)| *until)
    }

    /// Where a workspace went.
    pub(crate) fn of(&self, workspace_id: &WorkspaceId) -> Option<ShardId> {
        self.gone.get(workspace_id).map(|&(to, _)| to)
    }

    /// A workspace leaves with these connections.
    pub(crate) fn note_left(
        &mut self,
        now: Tick,
        workspace_id: WorkspaceId,
        to: ShardId,
        connections: Vec<ConnectionId>,
    ) {
        self.departures += 1;
        let departure = self.departures;
        self.gone.insert(workspace_id.clone(), (to, departure));
        self.departed.extend(connections.iter().map(|&id| (id, to)));
        let memory = Memory::Left { workspace_id, departure, connections };
        self.memories.push_back((now.after(MEMORY), memory));
    }

    /// A workspace came, or came back: `names` says what its connections were called and are.
    pub(crate) fn note_came(
        &mut self,
        now: Tick,
        workspace_id: &WorkspaceId,
        names: HashMap<ConnectionId, ConnectionId>,
    ) {
        self.gone.remove(workspace_id);
        for id in names.keys() {
            self.departed.remove(id);
        }
        let earlier = names.keys().copied().collect();
        self.memories.push_back((now.after(MEMORY), Memory::Came(earlier)));
        self.aliases.extend(names);
    }

    /// Forgets what is too long ago. A workspace that left once more since stays known.
    pub(crate) fn forget(&mut self, now: Tick) {
        while let Some((_, memory)) = self.memories.pop_front_if(|(until, _)| *until <= now) {
            match memory {
                Memory::Left { workspace_id, departure, connections } => {
                    if self.gone.get(&workspace_id).is_some_and(|&(_, last)| last == departure) {
                        self.gone.remove(&workspace_id);
                    }
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

    /// Where an order goes that is for a connection which has left.
    pub(crate) fn of_order(&self, order: &Command) -> Option<ShardId> {
        if self.departed.is_empty() {
            return None;
        }
        self.departed.get(&order.open_connection()?).copied()
    }

    /// What the connection is called here that an order is for by its earlier name.
    pub(crate) fn alias(&self, order: &Command) -> Option<ConnectionId> {
        if self.aliases.is_empty() {
            return None;
        }
        self.aliases.get(&order.open_connection()?).copied()
    }
}

/// What only moves ask of an order.
pub(crate) trait Addressed: Sized {
    /// The open connection it is for, if it is for one.
    fn open_connection(&self) -> Option<ConnectionId>;
    /// The same for that connection.
    fn renamed(self, id: ConnectionId) -> Self;
}

impl Addressed for Command {
    fn open_connection(&self) -> Option<ConnectionId> {
        match self {
            Self::WorkerReply { connection, .. }
            | Self::Close { connection, .. }
            | Self::Renewed { connection, .. } => Some(*connection),
            _ => None,
        }
    }

    fn renamed(mut self, id: ConnectionId) -> Self {
        if let Self::WorkerReply { connection, .. }
        | Self::Close { connection, .. }
        | Self::Renewed { connection, .. } = &mut self
        {
            *connection = id;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { shard: ShardId(0), slot, generation: 0 }
    }

    #[test]
    fn an_earlier_departure_is_forgotten_without_the_later_one() {
        let (workspace, there) = (WorkspaceId::from("w"), ShardId(1));
        let mut known = Whereabouts::default();
        known.note_left(Tick::from_millis(0), workspace.clone(), there, vec![id(1)]);
        known.note_came(Tick::from_millis(20), &workspace, [(id(2), id(3))].into());
        known.note_left(Tick::from_millis(29_900), workspace.clone(), there, vec![id(3)]);
        known.forget(Tick::from_millis(30_000));
        assert_eq!(known.of(&workspace), Some(there), "it left a moment ago");
        known.forget(Tick::from_millis(59_900));
        assert_eq!(known.of(&workspace), None);
        assert!(known.is_empty() && known.departed.is_empty() && known.aliases.is_empty());
    }
}
