//! Memory of TLS records that have left, for those to come.

/// Blocks on two shelves, by size: what a slow reader keeps in flight is no larger than it has to
/// be.
#[derive(Debug, Default)]
pub(crate) struct SpareRecords {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

/// Room of a block on the lower shelf: for what most sends carry.
const SMALL_BYTES: usize = 8 << 10;
/// Room of a block on the upper one. What is larger is freed.
const LARGE_BYTES: usize = 64 << 10;
/// More than a record and a change of keys add, where a 64th of the content is not enough.
const RECORD_BYTES: usize = 128;
/// Blocks of a shelf: a turn's worth, 4.5 MiB at most on both.
const SPARES_MAX: usize = 64;

impl SpareRecords {
    /// An empty block for records of about so many bytes: a new one has room for them, and what
    /// they add.
    pub(crate) fn take(&mut self, plain_bytes: usize) -> Vec<u8> {
        let is_small = plain_bytes <= SMALL_BYTES / 2;
        let shelf = if is_small { &mut self.small } else { &mut self.large };
        let room =
            if is_small { SMALL_BYTES } else { plain_bytes + plain_bytes / 64 + RECORD_BYTES };
        shelf.pop().unwrap_or_else(|| Vec::with_capacity(room))
    }

    /// Keeps a block that nobody needs any more, if there is room for it.
    pub(crate) fn put(&mut self, mut block: Vec<u8>) {
        let room = block.capacity();
        if room > LARGE_BYTES {
            return;
        }
        let shelf = if room <= SMALL_BYTES { &mut self.small } else { &mut self.large };
        if shelf.len() < SPARES_MAX {
            block.clear();
            shelf.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_not_given_much_room() {
        let mut spares = SpareRecords::default();
        spares.put(Vec::with_capacity(LARGE_BYTES));
        for _ in 0..2 {
            let block = spares.take(100);
            assert_eq!(block.capacity(), SMALL_BYTES);
            spares.put(block);
        }
        assert_eq!(spares.small.len(), 1, "it is used again");
        assert!(spares.take(40_000).capacity() >= LARGE_BYTES);
    }

    #[test]
    fn blocks_beyond_the_bounds_are_freed() {
        let mut spares = SpareRecords::default();
        spares.put(Vec::with_capacity(LARGE_BYTES * 2));
        (0..SPARES_MAX * 2).for_each(|_| spares.put(vec![0; SMALL_BYTES]));
        assert_eq!((spares.small.len(), spares.large.len()), (SPARES_MAX, 0));
        assert!(spares.small.iter().all(Vec::is_empty));
    }
}
