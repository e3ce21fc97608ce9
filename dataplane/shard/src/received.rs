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

    /// Memory of its own, bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Leased(_) => 0,
            Self::Owned(owned) => owned.bytes.len(),
        }
    }

    /// Whether a part that is split off stays where it lies.
    pub(crate) fn is_leased(&self) -> bool {
        matches!(self, Self::Leased(_))
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
            Self::Leased(lease) => {
                let mut slice = lease.freeze().into_slice();
                slice.truncate(range.end);
                slice.advance(range.start);
                Chunk::Leased(slice)
            }
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

#[cfg(test)]
mod tests {
    use relay_driver::BufferPool;

    use super::*;
    use crate::assembly::Assembly;
    use crate::blocks::Blocks;

    const INPUT_LEN: usize = 16 << 10;

    /// Bytes that stay allocated while what `make` returns is alive.
    fn retained<T>(make: impl FnOnce() -> T) -> i64 {
        let mut made = None;
        let cost = allocation_counter::measure(|| made = Some(make()));
        drop(made);
        cost.bytes_current
    }

    fn split(mut input: Received, part_len: usize) -> Vec<Chunk> {
        let mut parts = Vec::new();
        while !input.bytes_mut().is_empty() {
            parts.push(input.split_to(part_len).into_chunk(0..part_len));
        }
        parts
    }

    #[test]
    fn parts_of_owned_bytes_retain_about_as_much_as_the_whole() {
        for part_len in [16, 128, 1024, INPUT_LEN] {
            let chunks_bytes = (INPUT_LEN / part_len) * size_of::<Chunk>();
            let held = retained(|| split(vec![7; INPUT_LEN].into(), part_len));
            let held = usize::try_from(held).expect("something is held");
            // The vector of parts may have grown to twice its need.
            assert!(held <= 2 * INPUT_LEN + 2 * chunks_bytes, "{held} bytes for {part_len}");
        }
    }

    #[test]
    fn a_message_of_one_byte_pieces_retains_a_few_times_its_payload() {
        let held = retained(|| {
            let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
            for piece in split(vec![b' '; INPUT_LEN].into(), 1) {
                assembly.push(piece, 0, &mut blocks);
            }
            assert_eq!(assembly.len(), INPUT_LEN);
            assembly
        });
        let held = usize::try_from(held).expect("something is held");
        assert!(held <= 4 * INPUT_LEN, "{held} bytes");
    }

    #[test]
    fn a_message_of_one_byte_leased_pieces_retains_a_few_times_its_payload() {
        let pool = BufferPool::new(1, INPUT_LEN as u32);
        let mut lease = pool.lease().expect("it is free");
        lease.fill(b' ');
        let held = retained(|| {
            let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
            for piece in split(Received::Leased(lease), 1) {
                assembly.push(piece, 0, &mut blocks);
            }
            assembly
        });
        let held = usize::try_from(held).expect("something is held");
        assert!(held <= 4 * INPUT_LEN, "{held} bytes");
        assert_eq!(pool.in_use(), 0, "past a few pieces no buffer is held");
    }

    #[test]
    fn parts_come_in_order_and_hold_what_was_received() {
        let input: Vec<u8> = (0..=255).collect();
        let pool = BufferPool::new(1, 256);
        let mut lease = pool.lease().expect("it is free");
        lease.copy_from_slice(&input);
        for received in [Received::from(input.clone()), Received::Leased(lease)] {
            let parts = split(received, 16);
            let joined: Vec<u8> = parts.iter().flat_map(Chunk::as_bytes).copied().collect();
            assert_eq!(joined, input);
        }
    }

    #[test]
    fn skipped_bytes_are_not_seen_again() {
        let mut received = Received::from(b"abcdef".to_vec());
        received.skip(2);
        assert_eq!(received.bytes_mut(), b"cdef");
        let front = received.split_to(2).into_chunk(1..2);
        assert_eq!(front.as_bytes(), b"d");
        assert_eq!(received.bytes_mut(), b"ef");
    }
}
