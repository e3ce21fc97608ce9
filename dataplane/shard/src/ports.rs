//! The shard's ends of its lanes.

use relay_contract::{Command, Event};
use relay_mailbox::{Receiver, Sender};

use crate::{DoorNews, Parcel};

/// Everything that enters or leaves a shard besides sockets. All lanes are bounded and ring the
/// shard's bell.
pub struct Ports<S> {
    /// Orders of the control plane.
    pub commands: Receiver<Command>,
    /// What happened, for the control plane.
    pub events: Sender<Event>,
    /// Sockets whose workspace lives here.
    pub arrivals: Receiver<Parcel<S>>,
    /// The other shards, by shard number; the own entry is never used.
    pub homes: Vec<Sender<Parcel<S>>>,
    /// What changes for connections that are not admitted yet.
    pub door: Receiver<DoorNews>,
}
