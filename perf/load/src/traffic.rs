//! One direction of a pair, stamped or truly encrypted.

use std::ops::Range;

use anyhow::Result;

use crate::flow::Flow;
use crate::sealed::SealedFlow;
use crate::wire::Wire;

/// Messages on their way from one socket to another.
pub(crate) enum Traffic {
    /// They look encrypted.
    Stamped(Flow),
    /// They are.
    Sealed(Box<SealedFlow>),
}

impl Traffic {
    /// Lets `count` more messages go at `now`, nanoseconds.
    pub(crate) fn release(&mut self, count: u64, now: u64) -> Result<()> {
        match self {
            Self::Stamped(flow) => {
                flow.release(count, now);
                Ok(())
            }
            Self::Sealed(flow) => flow.release(count, now),
        }
    }

    /// Writes what was released, at most so many bytes at a time. True when all of it went.
    pub(crate) fn write(&mut self, wire: &mut Wire, most: usize) -> Result<bool> {
        match self {
            Self::Stamped(flow) => flow.write(wire, most),
            Self::Sealed(flow) => flow.write(wire),
        }
    }

    /// Compares what arrived with what was sent. Returns the numbers of the messages it completed.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) -> Result<Range<u64>> {
        match self {
            Self::Stamped(flow) => flow.arrive(bytes),
            Self::Sealed(flow) => flow.arrive(bytes),
        }
    }

    /// When a message in flight was released.
    pub(crate) fn sent_at(&self, number: u64) -> u64 {
        match self {
            Self::Stamped(flow) => flow.sent_at(number),
            Self::Sealed(flow) => flow.sent_at(number),
        }
    }

    /// Messages sent and not arrived.
    pub(crate) fn in_flight(&self) -> u64 {
        match self {
            Self::Stamped(flow) => flow.in_flight(),
            Self::Sealed(flow) => flow.in_flight(),
        }
    }

    /// Messages released so far.
    pub(crate) fn released(&self) -> u64 {
        match self {
            Self::Stamped(flow) => flow.released(),
            Self::Sealed(flow) => flow.released(),
        }
    }

    /// Messages that may be in flight.
    pub(crate) fn slots(&self) -> u64 {
        match self {
            Self::Stamped(flow) => flow.slots(),
            Self::Sealed(flow) => flow.slots(),
        }
    }
}
