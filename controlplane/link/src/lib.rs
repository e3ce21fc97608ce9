//! How the control plane reaches the shards, and hears from them.
//!
//! [`local`] builds all lanes of one process: the control side keeps [`Shards`] (commands out) and
//! [`Events`] (events in), each shard gets a [`ShardSide`]. Nothing here waits for a shard: a lane
//! that is full gets a bounded backlog, and a backlog that is full is an error the caller handles.
//! The only thing to wait for is the next event.
#![forbid(unsafe_code)]

mod access;
mod berth;
pub mod convert;
mod cord;
mod dial;
mod door;
mod events;
mod exchange;
mod held;
mod hub;
mod outbox;
mod planes;
mod shards;
mod version;

#[cfg(test)]
mod link_tests;

use std::sync::Arc;

use prost::Message as _;
use relay_contract::{Command, Event, ShardId};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};
use relay_mailbox::{Bell, Receiver, Sender, lane};

pub use access::{Access, Credentials, Notes, Time, Tls, TlsIdentity, Tokens};
pub use berth::{Arrived, Berth, BerthError, Inventory};
pub use cord::{BEAT, Cord, CordError, Identity};
pub use dial::{Address, Dial, DialError, Dialled};
pub use door::{Caller, Connection, Door, DoorSocket, DoorTls, Refused};
pub use events::Events;
pub use exchange::ExchangeError;
pub use hub::{Hub, HubSettings};
pub use outbox::Mistaken;
pub use planes::{Attached, Block, Detached, News, Orders, Planes};
pub use shards::{LinkError, Shards};
pub use version::{Apart, Versions};

impl outbox::Numbered for v1::FromDataPlane {
    fn stamp(&mut self, number: u64, received: u64) {
        (self.number, self.received) = (number, received);
    }

    fn bytes(&self) -> usize {
        self.encoded_len()
    }
}

impl outbox::Numbered for v1::FromControlPlane {
    fn stamp(&mut self, number: u64, received: u64) {
        (self.number, self.received) = (number, received);
    }

    fn bytes(&self) -> usize {
        self.encoded_len()
    }
}

impl exchange::Beating for v1::FromDataPlane {
    fn beat() -> Self {
        Self { message: Some(up::Message::Beat(v1::Beat {})), ..Self::default() }
    }
}

impl exchange::Beating for v1::FromControlPlane {
    fn beat() -> Self {
        Self { message: Some(down::Message::Beat(v1::Beat {})), ..Self::default() }
    }
}

/// The control plane's end of all lanes.
#[derive(Debug)]
pub struct Link {
    /// Commands to the shards.
    pub shards: Shards,
    /// Events of the shards.
    pub events: Events,
    /// Data planes that run apart, if any do.
    pub planes: Planes,
}

/// One shard's end of its two lanes.
#[derive(Debug)]
pub struct ShardSide {
    /// Which shard this is: its place in the list given to [`local`].
    pub shard: ShardId,
    /// What the control plane orders, oldest first. A push rings the bell given to [`local`].
    pub commands: Receiver<Command>,
    /// What happened. A full lane means that the control plane is behind by [`EVENTS_PER_SHARD`].
    pub events: Sender<Event>,
}

/// Builds the lanes between the control plane and the shards of one process.
///
/// Shape: `shard_bells[i]` wakes shard `i`; the sides come back in the same order. Each shard has
/// lanes of its own, so that a busy shard cannot crowd out another. Cost: the lanes' memory, taken
/// here.
pub fn local(shard_bells: Vec<Arc<Bell>>) -> (Link, Vec<ShardSide>) {
    let (wakeup, control_bell) = events::Wakeup::new();
    let mut commands_out = Vec::with_capacity(shard_bells.len());
    let mut events_in = Vec::with_capacity(shard_bells.len());
    let mut sides = Vec::with_capacity(shard_bells.len());
    for (shard, bell) in (0u16..).map(ShardId).zip(shard_bells) {
        let (command_sender, commands) = lane(COMMANDS_PER_SHARD, bell);
        let (events, event_receiver) = lane(EVENTS_PER_SHARD, Arc::clone(&control_bell));
        commands_out.push(command_sender);
        events_in.push(event_receiver);
        sides.push(ShardSide { shard, commands, events });
    }
    let link = Link {
        shards: Shards::new(commands_out),
        events: Events::new(events_in, control_bell, wakeup),
        planes: Planes::none(),
    };
    (link, sides)
}

/// The link of a control plane whose data planes run apart: they come and go with `planes`.
pub fn apart(planes: Planes) -> Link {
    let (wakeup, bell) = events::Wakeup::new();
    Link { shards: Shards::apart(), events: Events::new(Vec::new(), bell, wakeup), planes }
}

/// Commands that wait for one shard before a backlog begins. Protects memory from a shard that
/// hangs; a shard empties its lane every turn, so a full one is a few milliseconds of a storm of
/// upgrades.
pub const COMMANDS_PER_SHARD: usize = 1024;

/// Events of one shard that wait for the control plane. Protects memory from a control plane that
/// hangs. Three quarters of it reached: the shard holds new upgrades back, for as long as they wait
/// for an answer. Reached: it counts the log entries it lost.
pub const EVENTS_PER_SHARD: usize = 4096;
