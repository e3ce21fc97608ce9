//! Bytes as they came in: leased from the driver's buffers, or owned where TLS or the request head
//! had them.

use std::ops::Range;

use relay_driver::{Chunk, Lease};

/// Exclusive access to received bytes; pieces are split off its front as frames are found.
pub(crate) enum Received {
    /// Still where the kernel put them. Splitting and sending costs a reference count.
    Leased(Lease),
    /// In memory of their own. Sending a part of them copies it.
    Owned(Vec<u8>),
}

impl Received {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Leased(lease) => lease,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Splits the first `len` bytes off; `self` keeps the rest.
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        match self {
            Self::Leased(lease) => Self::Leased(lease.split_to(len)),
            Self::Owned(bytes) => {
                let rest = bytes.split_off(len);
                Self::Owned(std::mem::replace(bytes, rest))
            }
        }
    }

    /// Gives up the right to change the bytes for something that can be sent.
    pub(crate) fn into_chunk(self, range: Range<usize>) -> Chunk {
        match self {
            Self::Leased(lease) => Chunk::Leased(lease.freeze().slice(range)),
            Self::Owned(mut bytes) => {
                bytes.truncate(range.end);
                Chunk::Owned { bytes, start: range.start }
            }
        }
    }
}
