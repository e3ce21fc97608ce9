//! What the epoll driver knows of one connection, and its calls.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::{Batch, Completion, DriverStats, End, Key, Lease, SendError, SendMode};

/// One socket, what the shard wants of it and what epoll said last.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) resident: bool,
    pub(super) receiving: Receiving,
    pub(super) sending: Option<Sending>,
    /// FIN follows the send in flight.
    pub(super) fin_wanted: bool,
    pub(super) closing: bool,
    /// In the driver's queue.
    pub(super) queued: bool,
    /// In the driver's list of receives without a buffer.
    pub(super) starved: bool,
    readable: bool,
    writable: bool,
    /// The peer finished or failed: a short read is not the last one then.
    ending: bool,
    /// Why epoll does not watch it. Calls are tried, but nothing will tell when to try again.
    unwatched: Option<Errno>,
}

/// What the shard asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Receiving {
    No,
    Once,
    Again,
}

/// The send in flight.
pub(super) struct Sending {
    pub(super) batch: Box<Batch>,
    pub(super) mode: SendMode,
    pub(super) sent: usize,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, unwatched: Option<Errno>) -> Self {
        Self {
            socket,
            resident: false,
            receiving: Receiving::No,
            sending: None,
            fin_wanted: false,
            closing: false,
            queued: false,
            starved: false,
            // Registering reports at once what is there to read; most sockets can be written.
            readable: unwatched.is_some(),
            writable: true,
            ending: false,
            unwatched,
        }
    }

    /// Remembers what epoll says.
    pub(super) fn note(&mut self, flags: EventFlags) {
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.ending |= flags.intersects(over);
        self.readable |= flags.intersects(EventFlags::IN | over);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// Whether a call may get somewhere.
    pub(super) fn has_work(&self) -> bool {
        self.may_send() || (self.may_receive() && !self.starved)
    }

    pub(super) fn may_receive(&self) -> bool {
        self.receiving != Receiving::No && self.readable && !self.closing
    }

    /// A send that only tries has its answer even from a full socket.
    fn may_send(&self) -> bool {
        let tries = |sending: &Sending| sending.mode == SendMode::Try;
        self.sending.as_ref().is_some_and(|sending| self.writable || tries(sending))
    }

    /// Receives once into `lease`.
    pub(super) fn try_receiving(
        &mut self,
        key: Key,
        mut lease: Lease,
        stats: &mut DriverStats,
    ) -> Option<Completion<OwnedFd>> {
        stats.system_calls += 1;
        stats.operations += 1;
        let end = match rustix::net::recv(&self.socket, &mut *lease, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => End::Eof,
            Ok((_, received)) => {
                // Fewer bytes than asked for: there are no more, epoll(7) says, unless FIN is next.
                self.readable = received == lease.len() || self.ending || self.unwatched.is_some();
                lease.truncate(received);
                stats.received_bytes += received as u64;
                if self.receiving == Receiving::Once {
                    self.receiving = Receiving::No;
                }
                return Some(Completion::Received { key, lease });
            }
            // Without memory for the moment: it is tried again.
            Err(Errno::INTR | Errno::NOMEM | Errno::NOBUFS) => return None,
            Err(Errno::AGAIN) => match self.unwatched {
                Some(errno) => End::Failed(errno.raw_os_error()),
                None => {
                    self.readable = false;
                    return None;
                }
            },
            Err(errno) => End::from_errno(errno.raw_os_error()),
        };
        self.receiving = Receiving::No;
        Some(Completion::ReceiveEnded { key, end })
    }

    /// Sends what the socket takes; the completion if that was enough, or failed.
    pub(super) fn try_sending(
        &mut self,
        key: Key,
        stats: &mut DriverStats,
    ) -> Option<Completion<OwnedFd>> {
        if !self.may_send() {
            return None;
        }
        let sending = self.sending.as_mut()?;
        let total = sending.batch.len();
        let failure = loop {
            if !self.writable {
                break None;
            }
            stats.system_calls += 1;
            stats.operations += 1;
            match send_rest(&self.socket, &sending.batch, sending.sent) {
                Ok(sent) => {
                    sending.sent += sent;
                    stats.sent_bytes += sent as u64;
                    if sending.sent == total || sending.mode == SendMode::Try {
                        break None;
                    }
                }
                Err(Errno::INTR) => {}
                // Without memory for the moment, with room all the same: it is tried again.
                Err(Errno::NOMEM | Errno::NOBUFS) => break None,
                Err(Errno::AGAIN) => {
                    self.writable = self.unwatched.is_some();
                    break self.unwatched.filter(|_| sending.mode == SendMode::All);
                }
                Err(errno) => break Some(errno),
            }
        };
        let waits = sending.mode == SendMode::All && sending.sent < total;
        if failure.is_none() && waits {
            return None;
        }
        let outcome = match failure {
            // What was taken before the failure counts; the next send meets the failure again.
            Some(errno) if sending.sent == 0 => Err(SendError::from_errno(errno.raw_os_error())),
            _ => Ok(sending.sent),
        };
        let Sending { batch, .. } = self.sending.take()?;
        if self.fin_wanted && !self.closing {
            // A peer that is gone already needs no FIN.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            stats.system_calls += 1;
        }
        Some(Completion::Sent { key, batch, outcome })
    }
}

/// One system call for all of a batch behind its first `skipped` bytes.
fn send_rest(socket: &OwnedFd, batch: &Batch, skipped: usize) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if let [chunk] = batch.chunks() {
        return rustix::net::send(socket, &chunk.as_bytes()[skipped..], flags);
    }
    let mut slices = [IoSlice::new(&[]); Batch::CHUNKS_MAX];
    let mut skipped = skipped;
    let mut count = 0;
    for chunk in batch.chunks() {
        let bytes = chunk.as_bytes();
        let passed = skipped.min(bytes.len());
        skipped -= passed;
        if passed < bytes.len() {
            slices[count] = IoSlice::new(&bytes[passed..]);
            count += 1;
        }
    }
    let mut control = SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket, &slices[..count], &mut control, flags)
}
