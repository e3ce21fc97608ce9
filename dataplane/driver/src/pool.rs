//! The buffers bytes are received into, and the handles on parts of them.
//!
//! Safe code will not do: the kernel fills these buffers behind the compiler's back, and one buffer
//! is cut into parts that are mutable and shared at the same time. The module keeps two promises.
//! Every byte belongs to at most one [`Lease`], or to any number of [`Slice`]s and no lease. And a
//! buffer is in the kernel's hands only while no handle on it exists.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A fixed number of equal buffers in one piece of memory. A clone is another handle on the same
/// pool.
///
/// Shape: one page-aligned region, never moved, zeroed once. What was never
/// written to takes no memory. Reference counts are plain integers,
/// so neither the pool nor any handle leaves its thread.
#[derive(Clone)]
pub struct BufferPool {
    pool: Rc<Pool>,
}

/// Unique access to received bytes. When the last handle on a buffer goes, the buffer returns.
pub struct Lease {
    region: Region,
}

/// Shared access to received bytes, to be cut into [`Slice`]s.
#[derive(Clone)]
pub struct Shared {
    slice: Slice,
}

/// Shared access to a part of a buffer. Cost of a clone: two increments.
#[derive(Clone)]
pub struct Slice {
    region: Region,
}

struct Pool {
    /// The first buffer, at the beginning of a page.
    memory: NonNull<u8>,
    /// Length of the mapping.
    bytes: usize,
    buffer_bytes: usize,
    /// Handles per buffer.
    references: Box<[Cell<u32>]>,
    /// Buffers without handles that the driver has not taken back yet. Never grows: it was made
    /// with room for all.
    returned: RefCell<Vec<u16>>,
    in_use: Cell<usize>,
}

/// `len` bytes of buffer `id`, from `start`; one of the buffer's references.
struct Region {
    pool: Rc<Pool>,
    start: u32,
    len: u32,
    id: u16,
}

impl BufferPool {
    /// Whether somebody else has it too.
    #[cfg(test)]
    pub(crate) fn is_shared(&self) -> bool {
        Rc::strong_count(&self.pool) > 1
    }

    /// Takes the memory for `count` buffers of `bytes` each.
    ///
    /// # Panics
    /// When either is zero, or the memory is not to be had: nothing can be received without.
    pub fn new(count: u16, bytes: u32) -> Self {
        assert!(count > 0 && bytes > 0, "a pool has at least one byte");
        let buffer_bytes = bytes as usize;
        let bytes = usize::from(count) * buffer_bytes;
        // Not from the allocator: asked for zeros at a page's beginning it writes them itself, and
        // so touches all of it. Here the kernel brings each page when it is first written to.
        let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a mapping at no particular address takes the place of nothing.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, kind) };
        let memory = memory.ok().and_then(|memory| NonNull::new(memory.cast()));
        let pool = Pool {
            memory: memory.expect("a driver without memory for its buffers is of no use"),
            bytes,
            buffer_bytes,
            references: (0..count).map(|_| Cell::new(0)).collect(),
            // The lowest id comes out first.
            returned: RefCell::new((0..count).rev().collect()),
            in_use: Cell::new(0),
        };
        Self { pool: Rc::new(pool) }
    }

    /// Buffers in the pool.
    pub fn buffer_count(&self) -> usize {
        self.pool.references.len()
    }

    /// Bytes of one buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.pool.buffer_bytes
    }

    /// Buffers that some handle points into.
    pub fn in_use(&self) -> usize {
        self.pool.in_use.get()
    }

    /// A whole free buffer, its contents those of its last use.
    pub fn lease(&self) -> Option<Lease> {
        let id = self.take()?;
        Some(self.lease_of(id, self.pool.buffer_bytes))
    }

    /// Takes a buffer without handles out of the pool, for the kernel to fill.
    pub(crate) fn take(&self) -> Option<u16> {
        self.pool.returned.borrow_mut().pop()
    }

    /// Buffers that wait to be taken.
    pub(crate) fn free(&self) -> usize {
        self.pool.returned.borrow().len()
    }

    /// Whether a buffer waits to be taken.
    pub(crate) fn has_returned(&self) -> bool {
        !self.pool.returned.borrow().is_empty()
    }

    /// The first handle on a buffer that was taken; the kernel is done with it and wrote `len`
    /// bytes.
    ///
    /// # Panics
    /// When the buffer has handles, or `len` is more than it holds: the kernel and we disagree then
    /// about who owns the memory.
    pub(crate) fn lease_of(&self, id: u16, len: usize) -> Lease {
        let references = &self.pool.references[usize::from(id)];
        assert_eq!(references.get(), 0, "a taken buffer has no handles");
        assert!(len <= self.pool.buffer_bytes, "a buffer holds no more than its size");
        references.set(1);
        self.pool.in_use.set(self.pool.in_use.get() + 1);
        let len = u32::try_from(len).expect("a buffer's size was given as u32");
        Lease { region: Region { pool: Rc::clone(&self.pool), start: 0, len, id } }
    }

    /// Where the kernel finds a buffer.
    pub(crate) fn address(&self, id: u16) -> u64 {
        self.pool.buffer(id).as_ptr().expose_provenance() as u64
    }
}

impl Lease {
    /// Keeps the first `len` bytes and forgets the rest.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.region.len = len as u32;
        }
    }

    /// Bytes of the whole buffer: how much could have been received.
    pub fn buffer_bytes(&self) -> usize {
        self.region.pool.buffer_bytes
    }

    /// Cuts off the first `at` bytes as a lease of their own; `self` keeps the rest.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Self {
        let front = self.region.part(0..at);
        // From here on the two share no byte, so each remains unique.
        self.region.start += front.len;
        self.region.len -= front.len;
        Self { region: front }
    }

    /// Gives up writing for sharing. Cost: nothing.
    #[inline]
    pub fn freeze(self) -> Shared {
        Shared { slice: Slice { region: self.region } }
    }
}

impl Shared {
    /// A part of it.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        self.slice.slice(range)
    }

    /// All of it.
    #[inline]
    pub fn into_slice(self) -> Slice {
        self.slice
    }
}

impl Slice {
    /// A part of it.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self { region: self.region.part(range) }
    }

    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "only bytes that are there can be passed");
        self.region.start += count as u32;
        self.region.len -= count as u32;
    }
}

impl Slice {
    /// Keeps the first `len` bytes and forgets the rest.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.region.len = len as u32;
        }
    }

    /// Takes in the slice that begins where this one ends, in the same buffer; any other comes
    /// back. Cost: one decrement.
    ///
    /// # Errors
    /// The slice that does not follow.
    #[inline]
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let (mine, other) = (&self.region, &next.region);
        let follows = mine.id == other.id
            && mine.start + mine.len == other.start
            && Rc::ptr_eq(&mine.pool, &other.pool);
        if !follows {
            return Err(next);
        }
        // The other's reference keeps the buffer until here, and ours does from here on. Both are
        // shared, so no lease covers a byte of the sum.
        self.region.len += next.region.len;
        Ok(())
    }
}

impl Region {
    /// Another reference, on a part of the same bytes.
    #[inline]
    fn part(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len as usize,
            "a part lies inside the whole",
        );
        let references = &self.pool.references[usize::from(self.id)];
        references.set(references.get().checked_add(1).expect("memory holds fewer handles"));
        Self {
            pool: Rc::clone(&self.pool),
            start: self.start + range.start as u32,
            len: (range.end - range.start) as u32,
            id: self.id,
        }
    }

    fn address(&self) -> NonNull<u8> {
        let buffer = self.pool.buffer(self.id);
        // SAFETY: `start + len` is at most the buffer's size, so this stays inside the buffer.
        unsafe { buffer.add(self.start as usize) }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are initialised (zeroed once) and inside the pool's memory, which lives
        // as long as `pool`. Nobody writes them while `self` is borrowed: the kernel has no buffer
        // with references, and a lease that could write shares no byte with another region.
        unsafe { std::slice::from_raw_parts(self.address().as_ptr(), self.len as usize) }
    }
}

impl Clone for Region {
    fn clone(&self) -> Self {
        self.part(0..self.len as usize)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let references = &self.pool.references[usize::from(self.id)];
        references.set(references.get() - 1);
        if references.get() == 0 {
            self.pool.in_use.set(self.pool.in_use.get() - 1);
            self.pool.returned.borrow_mut().push(self.id);
        }
    }
}

impl Pool {
    fn buffer(&self, id: u16) -> NonNull<u8> {
        assert!(usize::from(id) < self.references.len(), "buffer ids come from this pool");
        let offset = usize::from(id) * self.buffer_bytes;
        // SAFETY: `memory` has room for as many buffers as there are counts of references.
        unsafe { self.memory.add(offset) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: mapped in `BufferPool::new` with this length; no region is left, as each holds an
        // `Rc` of the pool, and a driver lets go of the kernel's buffers before it drops its own.
        let unmapped = unsafe { munmap(self.memory.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(unmapped, Ok(()), "it was mapped like this");
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.region.bytes()
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let (address, len) = (self.region.address(), self.region.len as usize);
        // SAFETY: as in `Region::bytes`; and no other region covers these bytes, because a lease is
        // made for a buffer without handles and split into parts that share nothing.
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), len) }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.slice
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.region.bytes()
    }
}

// Contents are a peer's payload: no `Debug` shows them.

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("buffer_count", &self.buffer_count())
            .field("buffer_bytes", &self.buffer_bytes())
            .field("in_use", &self.in_use())
            .finish()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(pool: &BufferPool, contents: &[u8]) -> Lease {
        let mut lease = pool.lease().unwrap();
        lease[..contents.len()].copy_from_slice(contents);
        lease.truncate(contents.len());
        lease
    }

    const PAGE_BYTES: usize = 4096;

    /// Pages of the pool that are in memory. Source: mincore(2).
    fn resident_pages(pool: &BufferPool) -> usize {
        let bytes = pool.buffer_count() * pool.buffer_bytes();
        let mut pages = vec![0_u8; bytes.div_ceil(PAGE_BYTES)];
        let start = pool.pool.memory.as_ptr().cast();
        // SAFETY: the vector has a byte for each page of the range, which begins a page.
        let outcome = unsafe { libc::mincore(start, bytes, pages.as_mut_ptr()) };
        assert_eq!(outcome, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn a_buffer_takes_no_memory_before_it_is_written_to() {
        let pool = BufferPool::new(64, 32 << 10);
        assert!(pool.address(0).is_multiple_of(PAGE_BYTES as u64));
        assert_eq!(resident_pages(&pool), 0);
        let _written = lease(&pool, b"a few bytes");
        assert!(resident_pages(&pool) > 0);
    }

    #[test]
    fn a_pool_lends_each_buffer_once() {
        let pool = BufferPool::new(2, 16);
        let first = pool.lease().unwrap();
        let second = pool.lease().unwrap();
        assert!(pool.lease().is_none());
        assert_ne!(first.as_ptr(), second.as_ptr());
        assert_eq!(pool.in_use(), 2);
    }

    #[test]
    fn a_buffer_returns_with_its_last_handle() {
        let pool = BufferPool::new(1, 16);
        let mut rest = lease(&pool, b"headbody");
        let head = rest.split_to(4).freeze();
        let slice = head.slice(1..3);
        let copy = slice.clone();
        drop((rest, head, slice));
        assert!(pool.lease().is_none());
        assert_eq!(&*copy, b"ea");
        drop(copy);
        assert!(pool.lease().is_some());
    }

    #[test]
    fn the_parts_of_a_split_are_written_apart() {
        let pool = BufferPool::new(1, 16);
        let mut back = lease(&pool, b"headbody");
        let mut front = back.split_to(4);
        let frozen = {
            front.make_ascii_uppercase();
            front.freeze()
        };
        back[0] = b'B';
        assert_eq!(&*frozen, b"HEAD");
        assert_eq!(&*back, b"Body");
    }

    #[test]
    fn a_slice_advances_over_its_own_bytes_only() {
        let pool = BufferPool::new(1, 16);
        let shared = lease(&pool, b"abcdef").freeze();
        let mut slice = shared.slice(1..5);
        slice.advance(2);
        assert_eq!(&*slice, b"de");
        assert_eq!(&*shared, b"abcdef");
    }

    #[test]
    fn slices_join_only_where_one_begins_as_the_other_ends() {
        let pool = BufferPool::new(2, 16);
        let mut back = lease(&pool, b"abcdef");
        let front = back.split_to(2).freeze();
        let mut joined = front.into_slice();
        let back = back.freeze();
        assert!(joined.join(back.slice(1..4)).is_err(), "there is a gap");
        assert!(joined.join(joined.clone()).is_err(), "it is the same");
        let other = lease(&pool, b"..cdef").freeze();
        assert!(joined.join(other.slice(2..6)).is_err(), "it is another buffer");
        let elsewhere = BufferPool::new(2, 16);
        let elsewhere = lease(&elsewhere, b"..cdef").freeze();
        assert!(joined.join(elsewhere.slice(2..6)).is_err(), "it is another pool");
        joined.join(back.slice(0..4)).expect("it follows");
        assert_eq!(&*joined, b"abcdef");
        drop((back, other));
        assert_eq!(pool.in_use(), 1, "the sum holds its buffer");
        drop(joined);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    #[should_panic(expected = "a part lies inside the whole")]
    fn a_part_outside_the_whole_is_refused() {
        let pool = BufferPool::new(1, 16);
        let shared = lease(&pool, b"abc").freeze();
        let _ = shared.slice(1..4);
    }

    #[test]
    fn handles_outlive_the_pool_they_came_from() {
        let pool = BufferPool::new(1, 16);
        let shared = lease(&pool, b"abc").freeze();
        drop(pool);
        assert_eq!(&*shared, b"abc");
    }

    #[test]
    fn contents_are_never_debug_printed() {
        let pool = BufferPool::new(1, 16);
        let shared = lease(&pool, b"secret").freeze();
        assert!(!format!("{shared:?} {:?}", shared.slice(0..6)).contains("secret"));
    }
}
