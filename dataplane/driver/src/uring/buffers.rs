//! The ring through which the kernel is given receive buffers.
//!
//! Safe code will not do: the ring's memory is shared with the kernel.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::{BufferPool, Lease};

/// A provided-buffer ring over a whole pool. Source: io_uring_register_buf_ring(3); Linux 5.19.
///
/// Buffers wait in the pool when their last handle goes; [`publish`](Self::publish) gives them to
/// the kernel, which takes them in the order published.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    entry_count: u16,
    tail: u16,
    available: usize,
    pool: BufferPool,
    /// The kernel may look at it for ever.
    leaked: bool,
}

impl BufferRing {
    /// The memory for a ring over `pool`, empty and not registered yet.
    ///
    /// # Panics
    /// When the pool has more than 2^15 buffers, the most such a ring holds.
    pub(super) fn new(pool: BufferPool) -> Self {
        let entry_count = u16::try_from(pool.buffer_count().next_power_of_two())
            .expect("a pool for the ring has at most 2^15 buffers");
        let bytes = usize::from(entry_count) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("2^15 entries are 512 KiB");
        // SAFETY: the layout's size is not zero, as a pool has at least one buffer.
        let memory = unsafe { alloc_zeroed(layout) };
        let entries = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout)).cast();
        Self { entries, layout, entry_count, tail: 0, available: 0, pool, leaked: false }
    }

    /// Where the ring is, for its registration.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr().expose_provenance() as u64
    }

    pub(super) fn entry_count(&self) -> u16 {
        self.entry_count
    }

    /// Buffers the kernel has not filled yet, as far as completions were looked at.
    pub(super) fn available(&self) -> usize {
        self.available
    }

    /// Gives the kernel all buffers without handles.
    pub(super) fn publish(&mut self) {
        if !self.pool.has_returned() {
            return;
        }
        while let Some(id) = self.pool.take() {
            let index = self.tail & (self.entry_count - 1);
            // SAFETY: the index is masked to the number of entries.
            let entry = unsafe { self.entries.add(usize::from(index)) };
            // SAFETY: zeroed memory is a valid entry. The kernel reads entries before the tail
            // only, and this one is behind it: there are no more buffers than entries, so the ring
            // cannot be full while one of them is outside.
            let entry = unsafe { &mut *entry.as_ptr() };
            entry.set_addr(self.pool.address(id));
            entry.set_len(self.pool.buffer_bytes() as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            self.available += 1;
        }
        // SAFETY: `entries` is the base of the ring and its first entry is initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is aligned, lives as long as the ring's memory, and everybody who
        // touches it while the ring is registered does so atomically: setters of an entry leave it
        // alone.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel sees the entries before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    /// The lease on a buffer that a completion says the kernel has filled.
    pub(super) fn lease(&mut self, id: u16, len: usize) -> Lease {
        self.available -= 1;
        self.pool.lease_of(id, len)
    }

    pub(super) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Keeps entries and buffers for ever, because operations may be in flight that the kernel does
    /// not end: one of them would take the address of its buffer from whatever lay in freed memory.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
        std::mem::forget(self.pool.clone());
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: allocated in `new` with this layout. The kernel keeps its own reference on the
        // pages until the ring is gone, and takes no buffer without an operation in flight, of
        // which there is none: the ring's owner waited for that, or leaked this.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}

/// The kernel wants the ring at the start of a page.
const PAGE_BYTES: usize = 4096;
