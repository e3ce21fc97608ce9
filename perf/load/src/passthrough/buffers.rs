//! The ring of buffers the kernel receives into.

use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types::BufRingEntry};

/// The one buffer group.
pub(super) const GROUP: u16 = 0;

/// 64 buffers of 32 KiB: what measured best for the relay's own driver.
const BUFFERS: u16 = 64;
const BUFFER_BYTES: u32 = 32 << 10;

/// Buffers, and the ring through which they go to the kernel.
///
/// Shape: page-aligned ring entries, the tail inside the first of them. The kernel owns a buffer
/// from [`Self::publish`] until the completion that names it.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: Box<[u8]>,
    tail: u16,
    published: u16,
}

impl Buffers {
    /// Gives all buffers to the kernel.
    pub(super) fn register(ring: &IoUring) -> io::Result<Self> {
        // SAFETY: the layout has a size above zero.
        let block = unsafe { std::alloc::alloc_zeroed(Self::layout()) };
        let entries = NonNull::new(block.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = Self {
            entries,
            memory: vec![0; usize::from(BUFFERS) * BUFFER_BYTES as usize].into_boxed_slice(),
            tail: 0,
            published: 0,
        };
        // SAFETY: the entries are page-aligned, zeroed, and outlive the ring, which is dropped
        // before the buffers.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFERS,
                GROUP,
                0,
            )
        }?;
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Puts a buffer in line; the kernel sees it from the next [`Self::publish`] on.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer, 0) as u64;
        let slot = usize::from(self.tail % BUFFERS);
        // SAFETY: the slot is below BUFFERS, for which the block has room.
        let entry = unsafe { self.entries.as_ptr().add(slot) };
        // SAFETY: the kernel reads entries before the published tail only, and this one is behind
        // it; zeroed bytes are a valid entry.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back. False when that was nothing.
    pub(super) fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        // SAFETY: `entries` is the base address of the ring, which is initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside the block; the kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        true
    }

    /// Where a buffer's byte lies.
    pub(super) fn address(&self, buffer: u16, start: u32) -> *const u8 {
        let at = usize::from(buffer) * BUFFER_BYTES as usize + start as usize;
        self.memory[at..].as_ptr()
    }

    fn layout() -> Layout {
        let bytes = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, 4096).expect("a page is a valid alignment")
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the ring that used it is gone.
        unsafe { std::alloc::dealloc(self.entries.as_ptr().cast(), Self::layout()) };
    }
}
