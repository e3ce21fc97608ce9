//! Blocks for bytes that are copied, used again and again.
//!
//! A long message takes thirty of them and gives them back a moment later. From the allocator each
//! would come page by page as it is written to, and go back to the machine as often.

use relay_driver::Chunk;

/// Bytes of one block of copied chunks. A send takes whole chunks, so this is the least that the
/// bytes of a send can be bounded to. Source: the kernel copies and, on loopback, delivers them in
/// about 10 µs, and as much again while it finds memory for them.
pub(crate) const BLOCK_BYTES: usize = 32 << 10;

/// Whole blocks kept for the next message. Protects the shard's own memory: 4 MiB. Reached: what is
/// given back is freed. Source: what a reader may owe before it is too slow.
const SPARES_MAX: usize = 128;

/// Whole blocks that nobody uses.
#[derive(Default)]
pub(crate) struct Blocks {
    spares: Vec<Vec<u8>>,
}

impl Blocks {
    /// An empty block with room for `bytes`, at most [`BLOCK_BYTES`]; a whole one when it is to be
    /// more than half full.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        if bytes <= BLOCK_BYTES / 2 {
            return Vec::with_capacity(bytes);
        }
        self.spares.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    /// Makes room for `more` bytes behind those of a block that is not a whole one yet, twice as
    /// much at least as it had; together they are at most [`BLOCK_BYTES`].
    pub(crate) fn make_room(&mut self, block: &mut Vec<u8>, more: usize) {
        let needed = block.len() + more;
        if needed > block.capacity() {
            let mut larger = self.take(needed.max(2 * block.capacity()).min(BLOCK_BYTES));
            larger.extend_from_slice(block);
            *block = larger;
        }
    }

    /// Keeps the whole blocks among chunks that have left; the others go.
    pub(crate) fn reclaim(&mut self, chunks: impl Iterator<Item = Chunk>) {
        for chunk in chunks {
            if let Chunk::Owned { mut bytes, .. } = chunk
                && bytes.capacity() == BLOCK_BYTES
                && self.spares.len() < SPARES_MAX
            {
                bytes.clear();
                self.spares.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_come_back_empty() {
        let mut blocks = Blocks::default();
        let mut block = blocks.take(BLOCK_BYTES / 2 + 1);
        assert_eq!(block.capacity(), BLOCK_BYTES);
        block.extend_from_slice(b"abc");
        let address = block.as_ptr();
        blocks.reclaim([Chunk::from(block)].into_iter());
        let again = blocks.take(BLOCK_BYTES);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn little_bytes_take_little_memory() {
        let mut blocks = Blocks::default();
        blocks.reclaim([Chunk::from(Vec::with_capacity(BLOCK_BYTES))].into_iter());
        assert_eq!(blocks.take(100).capacity(), 100);
        assert_eq!(blocks.take(BLOCK_BYTES / 2).capacity(), BLOCK_BYTES / 2);
    }

    #[test]
    fn a_block_grows_to_a_whole_one_and_no_further() {
        let mut blocks = Blocks::default();
        let mut block = blocks.take(10);
        block.extend_from_slice(&[7; 10]);
        while block.len() + 10 <= BLOCK_BYTES {
            blocks.make_room(&mut block, 10);
            assert!(block.capacity() <= BLOCK_BYTES.min(4 * block.len()), "{}", block.len());
            block.extend_from_slice(&[7; 10]);
        }
        assert_eq!(block.capacity(), BLOCK_BYTES);
        assert!(block.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut blocks = Blocks::default();
        let many = (0..2 * SPARES_MAX).map(|_| Chunk::from(Vec::with_capacity(BLOCK_BYTES)));
        blocks.reclaim(many);
        blocks.reclaim([Chunk::from(Vec::with_capacity(2 * BLOCK_BYTES))].into_iter());
        assert_eq!(blocks.spares.len(), SPARES_MAX);
        assert!(blocks.spares.iter().all(|block| block.capacity() == BLOCK_BYTES));
    }
}
