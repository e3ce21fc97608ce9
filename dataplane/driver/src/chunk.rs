//! A piece of what is to be sent.

use std::fmt;

use crate::Slice;

/// Bytes from one place. A [`Batch`](crate::Batch) gathers several into one send.
pub enum Chunk {
    /// Received bytes, sent from where they were received.
    Leased(Slice),
    /// A few bytes kept in place, enough for a frame header.
    Inline {
        /// The first `len` of them count.
        bytes: [u8; Chunk::INLINE_MAX],
        /// At most [`Chunk::INLINE_MAX`].
        len: u8,
    },
    /// Bytes of our own.
    Owned {
        /// All of them.
        bytes: Vec<u8>,
        /// Those before it are not sent.
        start: usize,
    },
    /// Bytes of the program.
    Static(&'static [u8]),
}

impl Chunk {
    /// Bytes an inline chunk holds: the longest WebSocket header.
    pub const INLINE_MAX: usize = 14;

    /// Copies a few bytes; `None` if they are more than [`Chunk::INLINE_MAX`].
    pub fn inline(source: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::INLINE_MAX];
        bytes.get_mut(..source.len())?.copy_from_slice(source);
        Some(Self::Inline { bytes, len: source.len() as u8 })
    }

    /// The bytes to send.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Leased(slice) => slice,
            Self::Inline { bytes, len } => &bytes[..usize::from(*len)],
            Self::Owned { bytes, start } => &bytes[*start..],
            Self::Static(bytes) => bytes,
        }
    }

    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, count: usize) {
        match self {
            Self::Leased(slice) => slice.advance(count),
            Self::Inline { bytes, len } => {
                let end = usize::from(*len);
                bytes.copy_within(count..end, 0);
                *len -= count as u8;
            }
            Self::Owned { bytes, start } => {
                assert!(count <= bytes.len() - *start, "only bytes that are there can be passed");
                *start += count;
            }
            Self::Static(bytes) => *bytes = &bytes[count..],
        }
    }
}

impl From<Slice> for Chunk {
    fn from(slice: Slice) -> Self {
        Self::Leased(slice)
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned { bytes, start: 0 }
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

/// Kind and length only: the bytes are a peer's payload.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Leased(_) => "Leased",
            Self::Inline { .. } => "Inline",
            Self::Owned { .. } => "Owned",
            Self::Static(_) => "Static",
        };
        f.debug_struct(kind).field("len", &self.as_bytes().len()).finish_non_exhaustive()
    }
}
