//! Waiting for sockets.

use std::os::fd::AsFd;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Waits for sockets that are ready, at most so long, and appends their events.
pub(crate) fn wait(
    epoll: impl AsFd,
    events: &mut Vec<epoll::Event>,
    patience_ns: u64,
) -> Result<()> {
    let patience = Timespec {
        tv_sec: (patience_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (patience_ns % 1_000_000_000).cast_signed(),
    };
    match epoll::wait(epoll, spare_capacity(events), Some(&patience)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
