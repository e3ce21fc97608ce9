//! What one send carries.

use std::fmt;

use crate::Chunk;
use crate::message::Message;

/// Up to [`Batch::CHUNKS_MAX`] chunks that leave in one send, in order.
///
/// Shape: always boxed, because the kernel reads from its inline chunks and its message while the
/// send is in flight; the box does not move. Cost: reused over and over, it allocates nothing.
pub struct Batch {
    chunks: Vec<Chunk>,
    bytes: usize,
    message: Message,
}

/// The batch had no room; the chunk comes back.
#[derive(Debug)]
pub struct BatchFull(pub Chunk);

impl Batch {
    /// Chunks of one batch. Gathering fewer costs more sends; more brought nothing.
    pub const CHUNKS_MAX: usize = 64;

    /// Memory of one that has been sent, its chunks' own aside.
    pub const BYTES: usize =
        size_of::<Self>() + Self::CHUNKS_MAX * (size_of::<Chunk>() + Message::PIECE_BYTES);

    /// An empty one. Drivers keep a free list: see [`Driver::batch`](crate::Driver::batch).
    pub fn new() -> Box<Self> {
        Box::new(Self {
            chunks: Vec::with_capacity(Self::CHUNKS_MAX),
            bytes: 0,
            message: Message::default(),
        })
    }

    /// Adds a chunk behind the others. An empty one is dropped at once.
    ///
    /// # Errors
    /// [`BatchFull`] with the chunk when there are [`Batch::CHUNKS_MAX`].
    pub fn push(&mut self, chunk: impl Into<Chunk>) -> Result<(), BatchFull> {
        let chunk = chunk.into();
        let len = chunk.as_bytes().len();
        if len == 0 {
            return Ok(());
        }
        if self.chunks.len() == Self::CHUNKS_MAX {
            return Err(BatchFull(chunk));
        }
        self.bytes += len;
        self.chunks.push(chunk);
        Ok(())
    }

    /// Bytes in all chunks together.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Chunks that still fit.
    pub fn room(&self) -> usize {
        Self::CHUNKS_MAX - self.chunks.len()
    }

    /// The chunks, in order; none is empty.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Forgets the first `count` bytes, which the kernel has taken; chunks passed whole let go of
    /// their buffers.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "only bytes that are there can be passed");
        self.bytes -= count;
        let mut left = count;
        let whole = self
            .chunks
            .iter()
            .take_while(|chunk| {
                let len = chunk.as_bytes().len();
                let passed = len <= left;
                left -= if passed { len } else { 0 };
                passed
            })
            .count();
        self.chunks.drain(..whole);
        if left > 0 {
            self.chunks[0].advance(left);
        }
    }

    /// Takes all chunks out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Chunk> + '_ {
        self.bytes = 0;
        self.chunks.drain(..)
    }

    /// What the kernel needs to send all chunks; valid until they change or the batch goes.
    pub(crate) fn fill_message(&mut self) -> *const libc::msghdr {
        self.message.fill(&self.chunks)
    }

    /// Drops all chunks.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.chunks.clear();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.bytes)
            .field("chunk_count", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

/// Batches waiting to be used again.
#[derive(Debug, Default)]
pub(crate) struct BatchShelf {
    #[expect(clippy::vec_box, reason = "they travel boxed: the kernel knows their addresses")]
    batches: Vec<Box<Batch>>,
}

impl BatchShelf {
    pub(crate) fn take(&mut self) -> Box<Batch> {
        self.batches.pop().unwrap_or_else(Batch::new)
    }

    pub(crate) fn put(&mut self, mut batch: Box<Batch>) {
        batch.clear();
        if self.batches.len() < SHELF_MAX {
            self.batches.push(batch);
        }
    }
}

/// Batches kept for reuse, about 4 KiB each: a turn's worth. More are freed.
const SHELF_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(batch: &Batch) -> Vec<u8> {
        batch.chunks().iter().flat_map(|chunk| chunk.as_bytes()).copied().collect()
    }

    fn mixed() -> Box<Batch> {
        let mut batch = Batch::new();
        batch.push(Chunk::inline(b"ab").unwrap()).unwrap();
        batch.push(b"cde".to_vec()).unwrap();
        batch.push(&b"fg"[..]).unwrap();
        batch
    }

    #[test]
    fn advancing_by_any_count_leaves_exactly_the_rest() {
        for count in 0..=7 {
            let mut batch = mixed();
            batch.advance(count);
            assert_eq!(bytes_of(&batch), &b"abcdefg"[count..]);
            assert_eq!(batch.len(), 7 - count);
        }
    }

    #[test]
    fn a_full_batch_gives_the_chunk_back() {
        let mut batch = Batch::new();
        for _ in 0..Batch::CHUNKS_MAX {
            batch.push(&b"x"[..]).unwrap();
        }
        assert_eq!(batch.room(), 0);
        let BatchFull(chunk) = batch.push(&b"y"[..]).unwrap_err();
        assert_eq!(chunk.as_bytes(), b"y");
    }

    #[test]
    fn an_empty_chunk_takes_no_place() {
        let mut batch = Batch::new();
        batch.push(Vec::new()).unwrap();
        assert!(batch.is_empty());
        assert_eq!(batch.room(), Batch::CHUNKS_MAX);
    }

    #[test]
    fn an_inline_chunk_refuses_what_does_not_fit() {
        assert!(Chunk::inline(&[0; Chunk::INLINE_MAX]).is_some());
        assert!(Chunk::inline(&[0; Chunk::INLINE_MAX + 1]).is_none());
    }

    #[test]
    fn a_shelved_batch_lets_go_of_its_chunks() {
        let mut shelf = BatchShelf::default();
        shelf.put(mixed());
        assert!(shelf.take().is_empty());
    }
}
