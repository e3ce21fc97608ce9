//! What the ring driver knows of one connection.

use std::os::fd::{AsRawFd, OwnedFd};

use super::ring::Target;
use crate::Batch;
use crate::table::slot_bytes;

/// One socket and what is in flight on it.
///
/// Every flag is about the kernel: it is set when an operation is queued and cleared by that
/// operation's last completion. A closing connection is gone when all of them are clear.
pub(super) struct Connection {
    pub(super) place: Place,
    pub(super) receiving: Receiving,
    /// A receive is in flight.
    pub(super) armed: bool,
    /// It has brought something since it was armed.
    pub(super) fed: bool,
    /// It is among the receives that wait for a buffer, whether it is still wanted or not.
    pub(super) starved: bool,
    /// The batch of the send in flight.
    pub(super) sending: Option<Box<Batch>>,
    pub(super) fin: Fin,
    pub(super) closing: Closing,
    /// A plain descriptor is being made for it.
    pub(super) exporting: bool,
}

const _: () = assert!(slot_bytes::<Connection>() <= 32, "half of a cache line");

/// Where the socket is.
pub(super) enum Place {
    Guest(OwnedFd),
    /// Index into the table of direct descriptors.
    Resident(u32),
}

/// What the shard asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Receiving {
    No,
    Once,
    Again,
    /// `Again`, and its cancellation is in flight.
    Pausing,
}

/// ```text
/// No ──shutdown──▶ Wanted ──send done──▶ InFlight ──completion──▶ Sent
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fin {
    No,
    Wanted,
    InFlight,
    Sent,
}

/// ```text
/// No ──close──▶ Draining ──nothing in flight──▶ InFlight ──completion──▶ (gone)
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Closing {
    No,
    Draining,
    InFlight,
}

impl Connection {
    pub(super) fn guest(socket: OwnedFd) -> Self {
        Self {
            place: Place::Guest(socket),
            receiving: Receiving::No,
            armed: false,
            fed: false,
            starved: false,
            sending: None,
            fin: Fin::No,
            closing: Closing::No,
            exporting: false,
        }
    }

    pub(super) fn target(&self) -> Target {
        match &self.place {
            Place::Guest(socket) => Target::Plain(socket.as_raw_fd()),
            Place::Resident(index) => Target::Direct(*index),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.closing == Closing::No
    }

    /// Whether the kernel may still complete something of it.
    pub(super) fn is_busy(&self) -> bool {
        self.armed || self.sending.is_some() || self.fin == Fin::InFlight || self.exporting
    }
}
