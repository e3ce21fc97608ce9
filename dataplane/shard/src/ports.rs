//! The shard's ends of its lanes.

use std::sync::Arc;

use relay_contract::{Command, Event};
use relay_mailbox::{Receiver, Sender};
use rustls::ServerConfig;

use crate::Parcel;

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
    /// TLS for connections accepted from then on, where TLS ends here at all.
    pub tls: Receiver<Arc<ServerConfig>>,
}
