//! Removing the client mask, and noting on the way which bytes need no second look.
//!
//! The inner loops are written once and compiled once for each set of vector instructions a
//! processor may have; which one runs is found out at the first block.

use std::sync::LazyLock;

use fearless_simd::{Level, dispatch};

/// Removes the client mask in place.
///
/// Shape: `payload[i]` becomes `payload[i] ^ key[(offset + i) % 4]`; `offset` is the number of
/// payload bytes already unmasked, so a frame may arrive in pieces. Cost: one pass, no allocation.
/// Cannot fail. Source: RFC 6455 §5.3.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    for block in payload.chunks_mut(BLOCK_BYTES) {
        unmask_block(block, key);
    }
}

/// What was noticed about one block while it was unmasked.
///
/// Shape: bit `i` of `plain` stands for `block[i * CHUNK_BYTES..][..CHUNK_BYTES]`, a partial last
/// chunk having none. Plain chunks hold only bytes from `0x23` to `0x7f` other than the backslash:
/// inside a JSON string such bytes are content as they stand. A clear bit says nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks {
    plain: u64,
    /// Every byte is below `0x80`.
    ascii: bool,
}

impl Marks {
    /// Nothing is known.
    pub(crate) const NONE: Self = Self { plain: 0, ascii: false };

    /// Bytes from `at` on that are known to be plain. Zero unless the chunk around `at` is plain.
    #[inline]
    pub(crate) fn plain_bytes(self, at: usize) -> usize {
        let chunk = at / CHUNK_BYTES;
        if chunk >= u64::BITS as usize {
            return 0;
        }
        let run = (self.plain >> chunk).trailing_ones() as usize;
        (run * CHUNK_BYTES).saturating_sub(at % CHUNK_BYTES)
    }

    /// Whether the block is known to be ASCII.
    pub(crate) const fn is_ascii(self) -> bool {
        self.ascii
    }
}

/// Unmasks one block of at most [`BLOCK_BYTES`] whose first byte is masked with `key[0]`.
///
/// Cost: one pass; the inner loop has no branch and a fixed length, so the compiler turns it into
/// vector code.
pub(crate) fn unmask_block(block: &mut [u8], key: [u8; 4]) -> Marks {
    dispatch!(*LEVEL, _level => unmask_in_place(block, key))
}

/// What [`unmask_block`] does, for whatever vectors the caller was compiled for.
#[inline(always)]
fn unmask_in_place(block: &mut [u8], key: [u8; 4]) -> Marks {
    let mask = widened(key);
    let (chunks, tail) = block.as_chunks_mut::<CHUNK_BYTES>();
    let mut plain = 0_u64;
    let mut ascii = true;
    for (index, chunk) in chunks.iter_mut().enumerate() {
        let special = unmask_chunk(chunk, &mask);
        plain |= u64::from(!special) << index;
        // Plain chunks are ASCII, so only the others are asked.
        ascii &= !special || chunk.is_ascii();
    }
    unmask_tail(tail, &mask);
    Marks { plain, ascii: ascii && tail.is_ascii() }
}

/// Unmasks the block that begins `shift` bytes into `bytes`, and moves it to their beginning. What
/// follows the block there is unspecified.
///
/// Cost: that of [`unmask_block`]: a chunk is read whole before it is written, to the left, so
/// nothing is overwritten that was not read.
pub(crate) fn unmask_block_left(bytes: &mut [u8], shift: usize, key: [u8; 4]) -> Marks {
    if shift == 0 {
        return unmask_block(bytes, key);
    }
    dispatch!(*LEVEL, _level => unmask_to_the_left(bytes, shift, key))
}

/// What [`unmask_block_left`] does, for whatever vectors the caller was compiled for.
#[inline(always)]
fn unmask_to_the_left(bytes: &mut [u8], shift: usize, key: [u8; 4]) -> Marks {
    let mask = widened(key);
    let len = bytes.len().saturating_sub(shift);
    let mut plain = 0_u64;
    let mut ascii = true;
    let mut at = 0;
    while let Some(&(mut chunk)) = bytes.get(at + shift..).and_then(<[u8]>::first_chunk) {
        let special = unmask_chunk(&mut chunk, &mask);
        plain |= u64::from(!special) << (at / CHUNK_BYTES);
        ascii &= !special || chunk.is_ascii();
        bytes[at..at + CHUNK_BYTES].copy_from_slice(&chunk);
        at += CHUNK_BYTES;
    }
    let tail_len = len - at;
    bytes.copy_within(at + shift.., at);
    let tail = &mut bytes[at..at + tail_len];
    unmask_tail(tail, &mask);
    Marks { plain, ascii: ascii && tail.is_ascii() }
}

/// The key over and over. As whole keys: written byte by byte it would have to be read back in one
/// piece, which the processor stops for.
#[inline(always)]
fn widened(key: [u8; 4]) -> [u8; CHUNK_BYTES] {
    let keys = [key; CHUNK_BYTES / 4];
    *keys.as_flattened().first_chunk().expect("a chunk is whole keys")
}

/// Unmasks what is left of a block behind its last chunk.
#[inline(always)]
fn unmask_tail(tail: &mut [u8], mask: &[u8; CHUNK_BYTES]) {
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Unmasks one chunk. Whether a byte of it is special.
#[inline(always)]
fn unmask_chunk(chunk: &mut [u8; CHUNK_BYTES], mask: &[u8; CHUNK_BYTES]) -> bool {
    let mut special = false;
    for (byte, mask) in chunk.iter_mut().zip(mask) {
        *byte ^= mask;
        special |= is_special(*byte);
    }
    special
}

/// Marks a block that is not masked, or no longer.
pub(crate) fn mark_block(block: &[u8]) -> Marks {
    dispatch!(*LEVEL, _level => mark_as_it_is(block))
}

/// What [`mark_block`] does, for whatever vectors the caller was compiled for.
#[inline(always)]
fn mark_as_it_is(block: &[u8]) -> Marks {
    let (chunks, _) = block.as_chunks::<CHUNK_BYTES>();
    let mut plain = 0_u64;
    for (index, chunk) in chunks.iter().enumerate() {
        let special = chunk.iter().fold(false, |special, &byte| special | is_special(byte));
        plain |= u64::from(!special) << index;
    }
    Marks { plain, ascii: false }
}

/// Whether a byte may end or change a JSON string. One signed comparison covers controls, the
/// quote, and everything beyond ASCII; space and `!` are caught too, which costs prose a slower
/// path and base64 nothing.
#[inline(always)]
pub(crate) const fn is_special(byte: u8) -> bool {
    (byte as i8) < 0x23 || byte == b'\\'
}

/// The vector instructions of this processor. Cost: the features are asked for once, then one load.
static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

/// Bytes that are unmasked, checked and scanned before the next are touched. Fits the first-level
/// cache with room to spare, and has as many chunks as a word has bits.
pub(crate) const BLOCK_BYTES: usize = CHUNK_BYTES * u64::BITS as usize;

/// Bytes that share one mark.
pub(crate) const CHUNK_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unmasking_in_pieces_equals_unmasking_byte_by_byte(
            payload in proptest::collection::vec(any::<u8>(), 0..9000),
            key: [u8; 4],
            cut in 0_usize..9000,
        ) {
            let cut = cut.min(payload.len());
            let expected: Vec<u8> =
                payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
            let mut whole = payload.clone();
            unmask(&mut whole, key, 0);
            prop_assert_eq!(&whole, &expected);
            let mut pieces = payload;
            let (left, right) = pieces.split_at_mut(cut);
            unmask(left, key, 0);
            unmask(right, key, cut);
            prop_assert_eq!(&pieces, &expected);
        }

        #[test]
        fn unmasking_to_the_left_equals_unmasking_in_place(
            block in proptest::collection::vec(
                prop_oneof![60 => 0x23_u8..0x5c, 1 => any::<u8>()],
                0..=BLOCK_BYTES,
            ),
            shift in prop_oneof![0_usize..300, 0_usize..5000],
            key: [u8; 4],
        ) {
            let mut moved = vec![0xee; shift];
            moved.extend_from_slice(&block);
            let marks = unmask_block_left(&mut moved, shift, key);
            let mut stayed = block;
            prop_assert_eq!(marks, unmask_block(&mut stayed, key));
            prop_assert_eq!(&moved[..stayed.len()], &stayed);
        }

        #[test]
        fn a_mark_never_covers_a_special_byte(
            block in proptest::collection::vec(
                prop_oneof![20 => 0x23_u8..0x5c, 1 => any::<u8>()],
                0..=BLOCK_BYTES,
            ),
            at in 0..BLOCK_BYTES,
        ) {
            let mut block = block;
            let marks = unmask_block(&mut block, [0; 4]);
            prop_assert_eq!(marks.is_ascii(), block.is_ascii());
            prop_assert_eq!(marks.plain, mark_block(&block).plain);
            let at = at.min(block.len());
            let plain = marks.plain_bytes(at);
            prop_assert!(at + plain <= block.len());
            prop_assert!(!block[at..at + plain].iter().any(|&byte| is_special(byte)));
        }
    }

    #[test]
    fn a_block_of_base64_is_plain_throughout() {
        let mut block = vec![b'Q'; BLOCK_BYTES];
        let marks = unmask_block(&mut block, [0; 4]);
        assert!(marks.is_ascii());
        assert_eq!(marks.plain_bytes(100), BLOCK_BYTES - 100);
    }
}
