//! What arrives from other shards.

use std::collections::HashMap;

use relay_contract::{Counter, Event};
use relay_driver::{Chunk, Driver};
use relay_switchboard::Input;

use crate::connection::{CloseHandshake, Connection, Open, Phase};
use crate::moves::Stay;
use crate::parcel::{Caravan, Content, Luggage, Parcel, RoomAsked, Unfinished};
use crate::shard::Shard;
use crate::whereabouts::Addressed;

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
                if let Some(id) = self.whereabouts.alias(&order) {
                    self.on_command(order.renamed(id));
                }
            }
            Content::RoomAsked(asked) => self.answer_room(&asked),
            Content::RoomAnswered(has_room) => self.on_room_answered(has_room),
        }
    }

    /// Another shard wants to know whether a workspace would find room here, without anybody having
    /// to go for it. Nothing is set aside: two that ask at one moment may both be told so.
    fn answer_room(&mut self, asked: &RoomAsked) {
        let stats = self.driver.stats();
        let places = stats.residents_max.saturating_sub(stats.residents);
        let has_room = self.stop_deadline.is_none()
            && self.budget.has_room(asked.held_bytes, &self.limits)
            && places >= asked.connections as u64;
        self.forward_parcel(asked.from, Parcel(Content::RoomAnswered(has_room)));
    }

    /// A workspace arrives and goes on. The control plane hears first where it lives, then what its
    /// connections are called: whatever else it hears of their earlier names is older.
    pub(crate) fn land(&mut self, caravan: Caravan<D::Socket>) {
        let Caravan { workspace_id, from, began, household, connections, .. } = caravan;
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
            workspace_id: workspace_id.clone(),
            from,
            to: self.config.shard,
            connections: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            paused: self.now.since(began),
        });
        for &(admission, connection) in &opened {
            self.emit(Event::Opened { admission, connection });
        }
        self.whereabouts.note_came(self.now, &workspace_id, names);
        self.moves.landed(keys);
        let here: Vec<_> = opened.into_iter().map(|(_, connection)| connection).collect();
        if self.stop_deadline.is_some() {
            for connection in here {
                self.consult(Input::Drained { connection, redirect: None });
            }
        } else {
            self.drain_too(here);
        }
    }

    /// Gives a connection a slot, and the driver its socket. It goes on when it is its turn.
    fn unpack(&mut self, luggage: Luggage<D::Socket>) -> relay_driver::Key {
        let Luggage { socket, decoder, unfinished, egress, tls, is_local, .. } = luggage;
        let mut connection = Connection::arriving(tls);
        connection.is_local = is_local;
        let key = self.table.insert(connection);
        self.driver.adopt(key, socket);
        let assembly = unfinished.map(|Unfinished { text, scanner }| {
            let mut assembly = self.spare_assemblies.pop().unwrap_or_default();
            assembly.push(Chunk::from(text), 0, &mut self.blocks);
            assembly.scanner = *scanner;
            assembly
        });
        let open = Open { decoder, assembly, close: CloseHandshake::NotBegun };
        self.enter(key, Phase::Open(open));
        if let Some(connection) = self.table.get_mut(key) {
            connection.stay = Stay::Landing;
            connection.egress = egress.map(|packed| Box::new(packed.unpack()));
        }
        self.charge(key);
        key
    }
}
