//! Memory of messages that will not be sent, given back a little per turn: a slow reader has a
//! thousand of them waiting when it is closed, and freeing them takes longer than a turn may.

use relay_driver::{Chunk, Driver};

use crate::shard::Shard;

/// Chunks that nobody needs. The budget counts them until they are freed.
#[derive(Default)]
pub(crate) struct Discarded {
    chunks: Vec<Chunk>,
    bytes: usize,
}

/// Chunks freed per turn. Protects the latency of messages. Source: freeing one takes a tenth of a
/// microsecond, and giving its pages back to the machine up to one more.
const FREED_MAX: usize = 32;

impl Discarded {
    /// Takes what is no longer needed; `bytes` of it is memory of its own.
    pub(crate) fn add(&mut self, chunk: Chunk, bytes: usize) {
        if bytes > 0 {
            self.bytes += bytes;
            self.chunks.push(chunk);
        }
    }

    /// Whether nothing is left to free.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Memory of its chunks.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Frees so many chunks. Returns their bytes.
    fn free(&mut self, count: usize, bytes_of: impl Fn(&Chunk) -> usize) -> usize {
        let left = self.chunks.len().saturating_sub(count);
        let bytes = self.chunks.drain(left..).map(|chunk| bytes_of(&chunk)).sum();
        self.bytes -= bytes;
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
        bytes
    }
}

impl<D: Driver> Shard<D> {
    /// Frees a little of what was discarded.
    pub(crate) fn free_some(&mut self) {
        self.free_discarded(FREED_MAX);
    }

    /// Frees up to so many chunks. Whether there were any.
    pub(crate) fn free_discarded(&mut self, count: usize) -> bool {
        let was_empty = self.discarded.is_empty();
        let bytes = self.discarded.free(count, crate::egress::owned_len);
        self.budget.release(bytes);
        !was_empty
    }
}
