//! A message that did not arrive in one piece.

use std::{iter, mem};

use relay_driver::Chunk;
use relay_wire::envelope::Scanner;
use relay_wire::websocket::Decoder;

use crate::backlog::{REREAD_WORK, STEP_WORK};
use crate::blocks::{BLOCK_BYTES, Blocks};
use crate::discarded::Discarded;
use crate::egress::owned_len;
use crate::reread::{PORTION_BYTES, Reread};

/// The pieces so far, without copying them while they are few.
///
/// Pieces lie in leased buffers, which the whole shard shares: past [`LEASES_MAX`], or when the
/// shard needs its buffers back, they are copied into blocks and the leases return. Pieces in
/// memory of their own are always gathered, so memory is that of the payload.
#[derive(Default)]
pub(crate) struct Assembly {
    /// Has read all pieces so far.
    pub(crate) scanner: Scanner,
    /// The payload in order.
    pieces: Vec<Chunk>,
    /// Payload bytes so far.
    len: usize,
    /// How many of the pieces are leased.
    leases: usize,
    /// Where the shard's list of pinning connections names this one.
    pub(crate) pin: Option<usize>,
    /// Whether any leased byte of it was copied.
    pub(crate) copied: bool,
    /// How it is read once more, being whole.
    pub(crate) reread: Option<Reread>,
}

/// Leased pieces one message may hold on to. Protects the shard's receive buffers.
/// Reached: the message is copied and counted. Source: eight buffers of 32 KiB carry the common
/// large frame of 64 KiB at every alignment with room to spare.
pub(crate) const LEASES_MAX: usize = 8;

/// A message that will be longer is copied piece by piece as it comes. Protects the turns of
/// others: copied once it has more than [`LEASES_MAX`], it would be 288 KiB at a time, which takes
/// 0.1 ms. Source: what as many buffers of the default size hold.
const LEASED_BYTES_MAX: usize = LEASES_MAX * (32 << 10);

impl Assembly {
    /// Adds the next piece, behind which `bytes_ahead` more are announced. Returns how many leased
    /// bytes had to be copied to stay within the bounds.
    pub(crate) fn push(&mut self, piece: Chunk, bytes_ahead: usize, blocks: &mut Blocks) -> usize {
        let len = piece.as_bytes().len();
        if len == 0 {
            return 0;
        }
        self.len += len;
        let is_leased = matches!(piece, Chunk::Leased(_));
        if !is_leased && matches!(self.pieces.last(), Some(Chunk::Owned { .. })) {
            append(&mut self.pieces, piece.as_bytes(), 0, blocks);
            return 0;
        }
        self.leases += usize::from(is_leased);
        self.pieces.push(piece);
        let is_long = self.len.saturating_add(bytes_ahead) > LEASED_BYTES_MAX;
        if self.leases > LEASES_MAX || is_long { self.copy(bytes_ahead, blocks) } else { 0 }
    }

    /// Copies leased pieces into memory of its own, so that their buffers return. Returns the bytes
    /// copied.
    pub(crate) fn copy_out(&mut self, blocks: &mut Blocks) -> usize {
        self.copy(0, blocks)
    }

    /// The same, with room for some of the bytes that are announced.
    fn copy(&mut self, bytes_ahead: usize, blocks: &mut Blocks) -> usize {
        let first = self.pieces.iter().position(|piece| matches!(piece, Chunk::Leased(_)));
        let Some(first) = first else {
            return 0;
        };
        // Blocks of an earlier copy stay where they are, so repeated copying is linear.
        let tail = self.pieces.split_off(first);
        for piece in &tail {
            append(&mut self.pieces, piece.as_bytes(), bytes_ahead, blocks);
        }
        self.leases = 0;
        self.copied = true;
        tail.iter().map(|piece| piece.as_bytes().len()).sum()
    }

    /// Payload bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Leased pieces it keeps from returning.
    pub(crate) fn leases(&self) -> usize {
        self.leases
    }

    /// Memory of its own: pieces that do not lie in receive buffers, and what the scanner keeps.
    pub(crate) fn held_bytes(&self) -> usize {
        let owned = self.pieces.iter().map(owned_len);
        size_of::<Self>()
            + self.pieces.capacity() * size_of::<Chunk>()
            + owned.sum::<usize>()
            + self.scanner.held_bytes()
            + self.reread.as_ref().map_or(0, Reread::held_bytes)
    }

    /// The payload in one block.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.len);
        for piece in &self.pieces {
            text.extend_from_slice(piece.as_bytes());
        }
        text
    }

    /// Reads a portion of a worker's call once more, and gives the memory back that nobody needs
    /// then. Returns the work that it was; `None` when all is read.
    pub(crate) fn reread_portion(&mut self, blocks: &mut Blocks) -> Option<usize> {
        let Some(Reread::Call(reader, read)) = &mut self.reread else {
            return None;
        };
        let piece = self.pieces.get_mut(*read)?;
        let bytes = piece.as_bytes();
        let portion = bytes.len().min(PORTION_BYTES);
        reader.feed(&bytes[..portion]);
        let work = portion * REREAD_WORK + reader.take_steps() * STEP_WORK;
        if portion < bytes.len() {
            piece.advance(portion);
        } else {
            let piece = mem::replace(piece, Chunk::Static(b""));
            *read += 1;
            self.leases -= usize::from(matches!(piece, Chunk::Leased(_)));
            blocks.reclaim(iter::once(piece));
        }
        Some(work)
    }

    /// Reads the pieces again, as whoever takes the connection over will; the decoder knows what
    /// they are pieces of. A message that is whole and read once more stays as it is: connections
    /// are taken over when that is done.
    pub(crate) fn rescan(&mut self, decoder: &Decoder) {
        if self.reread.is_some() {
            return;
        }
        self.scanner = Scanner::default();
        for piece in &self.pieces {
            decoder.feed_again(piece.as_bytes(), &mut self.scanner);
        }
    }

    /// Moves the pieces out, in order.
    pub(crate) fn drain_into(&mut self, out: &mut Vec<Chunk>) {
        out.append(&mut self.pieces);
    }

    /// Moves the pieces to what is freed a little at a time.
    pub(crate) fn discard_into(&mut self, discarded: &mut Discarded) {
        for piece in self.pieces.drain(..) {
            let bytes = owned_len(&piece);
            discarded.add(piece, bytes);
        }
    }

    /// Makes this ready for another message; what an unusual one took is given back.
    pub(crate) fn renew(&mut self) {
        self.pieces.clear();
        self.len = 0;
        self.leases = 0;
        self.copied = false;
        self.reread = None;
        self.scanner.reset();
        debug_assert!(self.pin.is_none(), "unpinned before it is reused");
    }
}

/// Copies `bytes` behind the pieces, into blocks that one send each can take. A new one has room
/// for `bytes_ahead` as well, as far as what has come vouches for it.
fn append(pieces: &mut Vec<Chunk>, mut bytes: &[u8], bytes_ahead: usize, blocks: &mut Blocks) {
    while !bytes.is_empty() {
        let room = match pieces.last_mut() {
            Some(Chunk::Owned { bytes: block, .. }) => {
                let part = bytes.len().min(BLOCK_BYTES.saturating_sub(block.len()));
                blocks.make_room(block, part);
                block.extend_from_slice(&bytes[..part]);
                bytes = &bytes[part..];
                part
            }
            _ => 0,
        };
        if room == 0 {
            let block_bytes = (bytes.len() + bytes_ahead.min(bytes.len())).min(BLOCK_BYTES);
            pieces.push(blocks.take(block_bytes).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(text: &str) -> Chunk {
        Chunk::from(text.as_bytes().to_vec())
    }

    #[test]
    fn pieces_keep_their_order_through_copying() {
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        for piece in ["ab", "c", "def"] {
            assert_eq!(assembly.push(owned(piece), 0, &mut blocks), 0);
        }
        assembly.copy_out(&mut blocks);
        assembly.push(owned("gh"), 0, &mut blocks);
        assembly.copy_out(&mut blocks);
        assert_eq!(assembly.text(), b"abcdefgh");
        assert_eq!(assembly.len(), 8);
    }

    #[test]
    fn a_renewed_assembly_starts_over() {
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        assembly.push(owned("abc"), 0, &mut blocks);
        let mut out = Vec::new();
        assembly.drain_into(&mut out);
        assembly.renew();
        assert_eq!((out.len(), assembly.len(), assembly.text().len()), (1, 0, 0));
    }

    #[test]
    fn a_large_message_is_gathered_in_blocks_of_one_send_each() {
        let pool = relay_driver::BufferPool::new(1, 32 << 10);
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        let mut expected = Vec::new();
        for number in 0..33u8 {
            let mut lease = pool.lease().expect("copying gives the buffer back");
            lease.fill(number);
            expected.extend_from_slice(&lease);
            let shared = lease.freeze();
            assembly.push(Chunk::Leased(shared.slice(0..shared.len())), 0, &mut blocks);
            drop(shared);
            assembly.copy_out(&mut blocks);
        }
        assert_eq!(assembly.text(), expected);
        let lens: Vec<_> = assembly.pieces.iter().map(|piece| piece.as_bytes().len()).collect();
        assert!(lens.iter().all(|&bytes| bytes <= BLOCK_BYTES), "{lens:?}");
        assert_eq!(lens.len(), expected.len().div_ceil(BLOCK_BYTES));
    }

    #[test]
    fn a_long_message_is_copied_a_piece_at_a_time() {
        let pool = relay_driver::BufferPool::new(2, 32 << 10);
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        for number in 0..32 {
            let lease = pool.lease().expect("no piece keeps its buffer");
            let piece_bytes = lease.len();
            let bytes_ahead = (31 - number) * piece_bytes;
            let piece = Chunk::Leased(lease.freeze().into_slice());
            let copied = assembly.push(piece, bytes_ahead, &mut blocks);
            assert_eq!((copied, assembly.leases()), (piece_bytes, 0));
        }
        assert_eq!(assembly.len(), 1 << 20);
    }

    #[test]
    fn what_few_buffers_hold_is_not_copied() {
        let pool = relay_driver::BufferPool::new(8, 32 << 10);
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        for number in 0..8 {
            let lease = pool.lease().expect("it is free");
            let bytes_ahead = (7 - number) * lease.len();
            let piece = Chunk::Leased(lease.freeze().into_slice());
            assert_eq!(assembly.push(piece, bytes_ahead, &mut blocks), 0);
        }
        assert_eq!(assembly.leases(), 8);
    }

    #[test]
    fn a_block_that_grows_ends_as_a_whole_one() {
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        for _ in 0..10 {
            assembly.push(Chunk::from(vec![7; 10_000]), 0, &mut blocks);
        }
        assert!(assembly.pieces.iter().all(|piece| owned_len(piece) <= BLOCK_BYTES));
        assert_eq!(assembly.text().len(), 100_000);
    }

    #[test]
    fn tiny_pieces_take_no_more_memory_than_their_bytes() {
        let (mut assembly, mut blocks) = (Assembly::default(), Blocks::default());
        for _ in 0..16_384 {
            assembly.push(owned("x"), 0, &mut blocks);
        }
        assert_eq!(assembly.pieces.len(), 1);
        let Chunk::Owned { bytes, .. } = &assembly.pieces[0] else { panic!("owned stays owned") };
        assert!(bytes.capacity() <= 2 * 16_384);
    }
}
