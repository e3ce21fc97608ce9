//! A doorbell that a kernel wait can watch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::Ring;

/// A non-blocking eventfd: readable from a [`ring`](Ring::ring) until [`clear`](Self::clear).
///
/// Source: eventfd(2).
#[derive(Debug)]
pub struct EventFd {
    descriptor: OwnedFd,
}

impl EventFd {
    /// Opens one.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { descriptor })
    }

    /// Makes it unreadable again; whether it was readable.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.descriptor, &mut [0; 8]).is_ok()
    }
}

impl Ring for EventFd {
    fn ring(&self) {
        // The one possible failure is a counter at its maximum, and then it is readable already.
        let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "eventfd needs isolation off")]
    fn many_rings_are_cleared_at_once() {
        let eventfd = EventFd::new().unwrap();
        assert!(!eventfd.clear());
        eventfd.ring();
        eventfd.ring();
        assert!(eventfd.clear());
        assert!(!eventfd.clear());
    }
}
