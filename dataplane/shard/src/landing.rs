//! What arrives from other shards.

use std::collections::HashMap;

use relay_contract::{Command, Counter, Event};
use relay_driver::{Chunk, Driver};
use relay_switchboard::Input;

use crate::connection::{CloseHandshake, Connection, Open, Phase};
use crate::moves::Memory;
use crate::parcel::{Caravan, Content, Luggage, Parcel};
use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    /// Something arrives.
    pub(crate) fn on_arrival(&mut self, parcel: Parcel<D::Socket>) {
        match parcel.0 {
            Content::Upgrade(upgrade) => {
                let workspace_id = upgrade.grant.request.workspace_id.clone();
                let parcel = Parcel(Content::Upgrade(upgrade));
                if let Some(Parcel(Content::Upgrade(upgrade))) =
                    self.redirect_arrived(&workspace_id, parcel)
                {
                    self.on_upgrade_arrived(upgrade);
                }
            }
            Content::Workspace(caravan) => self.land(*caravan),
            Content::Order(order) => {
                let name = order.open_connection();
                let alias = name.and_then(|id| self.moves.aliases.get(&id).copied());
                if let Some(id) = alias {
                    self.on_command(order.renamed(id));
                }
            }
        }
    }

    /// A workspace arrives and goes on. The control plane hears first where it lives, then what its
    /// connections are called: whatever else it hears of their earlier names is older.
    fn land(&mut self, caravan: Caravan<D::Socket>) {
        let Caravan { workspace_id, from, began, household, connections } = caravan;
        self.moves.welcome(&workspace_id);
        let mut names = HashMap::with_capacity(connections.len());
        let mut keys = Vec::with_capacity(connections.len());
        for luggage in connections {
            let id = luggage.id;
            let key = self.unpack(luggage);
            names.insert(id, self.table.id(key));
            keys.push(key);
        }
        let opened: Vec<_> = household
            .connections()
            .filter_map(|(id, admission)| Some((admission, *names.get(&id)?)))
            .collect();
        self.board.take_in(self.now, household, &names);
        self.counters.count(Counter::WorkspacesMoved);
        self.counters.add(Counter::ConnectionsMoved, keys.len() as u64);
        self.emit(Event::Moved {
            workspace_id,
            from,
            to: self.config.shard,
            connections: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            paused: self.now.since(began),
        });
        for &(admission, connection) in &opened {
            self.emit(Event::Opened { admission, connection });
        }
        self.moves.remember(self.now, Memory::Came(names.keys().copied().collect()));
        self.moves.aliases.extend(names);
        for key in keys {
            self.go_on(key);
        }
        let here: Vec<_> = opened.into_iter().map(|(_, connection)| connection).collect();
        if self.stop_deadline.is_some() {
            for connection in here {
                self.consult(Input::Drained { connection, redirect: None });
            }
        } else {
            self.drain_too(here);
        }
    }

    /// Gives a connection a slot, and the driver its socket.
    fn unpack(&mut self, luggage: Luggage<D::Socket>) -> relay_driver::Key {
        let Luggage { socket, decoder, unfinished, egress, tls, is_local, .. } = luggage;
        let mut connection = Connection::arriving(tls);
        connection.is_local = is_local;
        let key = self.table.insert(connection);
        self.driver.adopt(key, socket);
        // Without room it goes on as a guest, which costs a descriptor.
        let settled = self.driver.settle(key).is_ok();
        let assembly = unfinished.map(|text| {
            let mut assembly = self.spare_assemblies.pop().unwrap_or_default();
            assembly.push(Chunk::from(text));
            assembly.rescan();
            assembly
        });
        let open = Open { decoder, assembly, close: CloseHandshake::NotBegun };
        self.enter(key, Phase::Open(open));
        if let Some(connection) = self.table.get_mut(key) {
            connection.settled = settled;
            connection.egress = egress.map(|packed| Box::new(packed.unpack()));
        }
        self.charge(key);
        key
    }
}

/// What only moves ask of an order.
pub(crate) trait Addressed: Sized {
    /// The open connection it is for, if it is for one.
    fn open_connection(&self) -> Option<relay_contract::ConnectionId>;
    /// The same for that connection.
    fn renamed(self, id: relay_contract::ConnectionId) -> Self;
}

impl Addressed for Command {
    fn open_connection(&self) -> Option<relay_contract::ConnectionId> {
        match self {
            Self::WorkerReply { connection, .. }
            | Self::Close { connection, .. }
            | Self::Renewed { connection, .. } => Some(*connection),
            _ => None,
        }
    }

    fn renamed(mut self, id: relay_contract::ConnectionId) -> Self {
        if let Self::WorkerReply { connection, .. }
        | Self::Close { connection, .. }
        | Self::Renewed { connection, .. } = &mut self
        {
            *connection = id;
        }
        self
    }
}
