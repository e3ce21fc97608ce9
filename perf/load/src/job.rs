//! What a process of the load is told to do.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::flow::Between;
use crate::script::{Portion, Script};
use crate::secured::Trust;
use crate::span::{Sample, Span};
use crate::target::Target;

/// One process's part of a load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    pub(crate) address: SocketAddr,
    pub(crate) is_relay: bool,
    /// Whose certificate to trust, where the address speaks TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Loopback addresses to connect from; none in particular when zero.
    pub(crate) sources: usize,
    /// The process under test.
    pub(crate) subject: u32,
    /// The processor to run on.
    pub(crate) processor: usize,
    pub(crate) work: Work,
}

/// What is done on the connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Work {
    /// Pairs of a client and a daemon that send messages.
    Pairs(PairsWork),
    /// Rooms in which one speaks and all others hear.
    Rooms(RoomsWork),
    /// Daemons that do not read what their clients send.
    SlowReaders(SlowWork),
}

/// Pairs of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PairsWork {
    pub(crate) numbers: Range<usize>,
    pub(crate) portions: Vec<Portion>,
    pub(crate) depth: usize,
    pub(crate) echo: bool,
    pub(crate) e2ee: bool,
    /// Frames per second of all pairs of this process; a closed loop where none is given.
    pub(crate) rate: Option<f64>,
}

/// Rooms of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RoomsWork {
    pub(crate) numbers: Range<usize>,
    /// Connections that hear, beside the one that speaks.
    pub(crate) listeners: usize,
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
}

/// Slow readers of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SlowWork {
    pub(crate) numbers: Range<usize>,
    pub(crate) bytes: usize,
}

/// What a process of the load says, a line each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Line {
    /// So many connections or pairs are open.
    Opened(usize),
    /// All are; it waits for the time to begin.
    Ready,
    /// Counts so far.
    Sample(Sample),
    /// It is done.
    Done(Box<crate::outcome::Outcome>),
}

/// What a process of the load is told when all are ready.
pub(crate) type Go = Span;

impl Job {
    /// Where the connections go.
    pub(crate) fn target(&self) -> Result<Target> {
        let between = if self.is_relay { Between::Relay } else { Between::Passthrough };
        let trust = self.certificate.as_deref().map(Trust::of).transpose()?;
        Ok(Target { address: self.address, between, trust, sources: self.sources })
    }
}

impl PairsWork {
    /// What the pairs say.
    pub(crate) fn script(&self) -> Result<Script> {
        Script::mixed(&self.portions, self.depth, self.echo, self.e2ee)
    }
}
