//! The kernel's view of a batch: a message header and its vector of pieces.
//!
//! Safe code will not do: both are made of raw pointers, read by the kernel later.
#![allow(unsafe_code)]

use crate::Chunk;

/// A `msghdr` with its `iovec`s, kept beside the chunks they point to.
///
/// Everything in it is stale except between [`Message::fill`] and the end of that send.
pub(crate) struct Message {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

impl Message {
    /// Memory of what it says of each chunk.
    pub(crate) const PIECE_BYTES: usize = size_of::<libc::iovec>();

    /// Points the message at `chunks` and returns the header.
    ///
    /// The caller keeps the chunks and the message in place until the kernel is done with the
    /// header.
    pub(crate) fn fill(&mut self, chunks: &[Chunk]) -> *const libc::msghdr {
        self.pieces.clear();
        self.pieces.extend(chunks.iter().map(|chunk| {
            let bytes = chunk.as_bytes();
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = self.pieces.len() as _;
        &raw const self.header
    }
}

impl Default for Message {
    fn default() -> Self {
        // SAFETY: a msghdr is integers and raw pointers, for which all zeroes is a valid value: no
        // name, no pieces, no control data. It has private padding on some systems, hence no
        // literal.
        let header = unsafe { std::mem::zeroed() };
        Self { header, pieces: Vec::new() }
    }
}
