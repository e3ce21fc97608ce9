//! Memory of messages that will not be sent, given back a little per turn: a slow reader has
//! megabytes waiting when it is closed, and freeing them takes longer than a turn may.

use relay_driver::{Chunk, Driver};

use crate::blocks::{BLOCK_BYTES, Blocks};
use crate::egress::owned_len;
use crate::shard::Shard;

/// Chunks that nobody needs. The budget counts them until they are freed.
#[derive(Default)]
pub(crate) struct Discarded {
    chunks: Vec<Chunk>,
    bytes: usize,
}

/// Chunks freed per turn. Protects the latency of messages. Source: freeing one takes a tenth of a
/// microsecond.
const FREED_MAX: usize = 32;
/// Bytes of them, beyond which the next ones wait. Source: giving a block's pages back to the
/// machine takes up to two microseconds.
const FREED_BYTES_MAX: usize = 4 * BLOCK_BYTES;

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

    /// Frees chunks until there are so many or so many bytes of them, or hands them to `blocks`.
    /// Returns their bytes.
    fn free(&mut self, count_max: usize, bytes_max: usize, blocks: &mut Blocks) -> usize {
        let mut bytes = 0;
        for _ in 0..count_max {
            let Some(chunk) = self.chunks.pop_if(|_| bytes < bytes_max) else { break };
            bytes += owned_len(&chunk);
            blocks.reclaim(std::iter::once(chunk));
        }
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
        let bytes = self.discarded.free(FREED_MAX, FREED_BYTES_MAX, &mut self.blocks);
        self.budget.release(bytes);
    }

    /// Frees all of it, however long that takes. Whether there was any.
    pub(crate) fn free_all(&mut self) -> bool {
        let was_empty = self.discarded.is_empty();
        let bytes = self.discarded.free(usize::MAX, usize::MAX, &mut self.blocks);
        self.budget.release(bytes);
        !was_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_frees_a_bounded_part() {
        let mut discarded = Discarded::default();
        let mut blocks = Blocks::default();
        for bytes in [[100; 64], [BLOCK_BYTES; 64]].concat() {
            discarded.add(Vec::with_capacity(bytes).into(), bytes);
        }
        let all = discarded.held_bytes();
        let freed = discarded.free(FREED_MAX, FREED_BYTES_MAX, &mut blocks);
        assert_eq!(freed, FREED_BYTES_MAX, "whole blocks");
        let mut left = all - freed;
        while !discarded.is_empty() {
            let freed = discarded.free(FREED_MAX, FREED_BYTES_MAX, &mut blocks);
            assert!(
                (1..FREED_BYTES_MAX + BLOCK_BYTES).contains(&freed),
                "{freed} bytes in one turn"
            );
            left -= freed;
            assert_eq!(discarded.held_bytes(), left);
        }
        assert_eq!(left, 0);
    }
}
