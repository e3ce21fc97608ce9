//! Bytes as they came in: leased from the driver's buffers, or owned where TLS or the request head
//! had them.

use std::ops::Range;

use relay_driver::{Chunk, Lease};

/// Exclusive access to received bytes; pieces are split off its front as frames are found.
pub(crate) enum Received {
    /// Still where the kernel put them. Splitting costs a reference count.
    Leased(Lease),
    /// In memory of their own. Splitting copies the front, so that no part keeps the whole alive.
    Owned(Owned),
}

/// Bytes of our own, used up from the front.
pub(crate) struct Owned {
    bytes: Vec<u8>,
    start: usize,
}

impl Received {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Leased(lease) => lease,
            Self::Owned(owned) => &mut owned.bytes[owned.start..],
        }
    }

    /// Splits the first `len` bytes off; `self` keeps the rest.
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        match self {
            Self::Leased(lease) => Self::Leased(lease.split_to(len)),
            Self::Owned(owned) => Self::Owned(owned.split_to(len)),
        }
    }

    /// Forgets the first `len` bytes.
    pub(crate) fn skip(&mut self, len: usize) {
        match self {
            Self::Leased(lease) => drop(lease.split_to(len)),
            Self::Owned(owned) => owned.start += len,
        }
    }

    /// Gives up the right to change the bytes for something that can be sent.
    pub(crate) fn into_chunk(self, range: Range<usize>) -> Chunk {
        match self {
            Self::Leased(lease) => Chunk::Leased(lease.freeze().slice(range)),
            Self::Owned(Owned { mut bytes, start }) => {
                bytes.truncate(start + range.end);
                Chunk::Owned { bytes, start: start + range.start }
            }
        }
    }
}

impl Owned {
    fn split_to(&mut self, len: usize) -> Self {
        if len == self.bytes.len() - self.start {
            return std::mem::replace(self, Self { bytes: Vec::new(), start: 0 });
        }
        let front = self.bytes[self.start..self.start + len].to_vec();
        self.start += len;
        Self { bytes: front, start: 0 }
    }
}

impl From<Vec<u8>> for Received {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(Owned { bytes, start: 0 })
    }
}
