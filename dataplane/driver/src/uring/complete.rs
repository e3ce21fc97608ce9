//! What each completion of the ring means.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Uring;
use super::connection::{Connection, Fin, Place, Receiving};
use super::ring::Done;
use super::token::{Kind, Token};
use crate::driver::monotonic;
use crate::{Completion, End, Key, SendError, accept};

impl Uring {
    /// Looks at one completion, and says what the shard has to know of it.
    pub(super) fn on_done(&mut self, done: Done, out: &mut Vec<Completion<OwnedFd>>) {
        let Token { kind, key } = done.token;
        match kind {
            Kind::Accept => self.on_accept(key, done, out),
            Kind::Bell if !done.more() => {
                self.ring.watch(self.doorbell.as_fd(), Token::of_driver(Kind::Bell));
            }
            Kind::Bell | Kind::Cancel => {}
            Kind::Receive => self.on_receive(key, done, out),
            Kind::Send => self.on_send(key, done.result, out),
            Kind::Shutdown => {
                if let Some(connection) = self.table.find(key) {
                    connection.fin = Fin::Sent;
                }
                self.finish_closing(key);
            }
            Kind::Close => self.on_close(key, out),
            Kind::Export => self.on_exported(key, done, out),
            Kind::Vacate => self.vacant.push(key.slot),
        }
    }

    fn on_accept(
        &mut self,
        Key { slot: place, generation }: Key,
        mut done: Done,
        out: &mut Vec<Completion<OwnedFd>>,
    ) {
        if let Some(socket) = done.descriptor.take() {
            self.stats.system_calls += 1;
            match accept::remote_of(&socket) {
                Some(remote) => {
                    self.stats.accepted += 1;
                    out.push(Completion::Accepted { socket, remote });
                }
                None => self.stats.accept_aborted += 1,
            }
        }
        if done.more() || generation != self.listeners_generation {
            return;
        }
        let Some(listener) = self.listeners.get_mut(place as usize) else {
            return;
        };
        let errno = -done.result;
        if errno <= 0 {
            self.arm_accept(place);
        } else if accept::is_of_the_peer(errno) {
            self.stats.accept_aborted += 1;
            self.arm_accept(place);
        } else {
            self.stats.accept_failed += 1;
            listener.paused_until = Some(monotonic().after(accept::PAUSE));
            out.push(Completion::AcceptFailed(io::Error::from_raw_os_error(errno)));
        }
    }

    fn on_receive(&mut self, key: Key, done: Done, out: &mut Vec<Completion<OwnedFd>>) {
        let result = done.result;
        let received = usize::try_from(result).unwrap_or(0);
        // Whatever follows, the buffer has to come home: the lease sees to that.
        let lease = done.buffer().map(|id| self.buffers.lease(id, received));
        let Some(connection) = self.table.find(key) else {
            return;
        };
        let last = !done.more();
        if last {
            connection.armed = false;
        }
        if !connection.is_open() {
            if last {
                connection.receiving = Receiving::No;
                out.push(Completion::ReceiveEnded { key, end: End::Cancelled });
                self.finish_closing(key);
            }
            return;
        }
        match lease {
            Some(lease) if received > 0 => {
                self.stats.received_bytes += received as u64;
                connection.fed = true;
                out.push(Completion::Received { key, lease });
                match connection.receiving {
                    Receiving::Once => connection.receiving = Receiving::No,
                    // Behind those who wait for a buffer: it has just had some.
                    Receiving::Again if last && !self.starved.is_empty() => self.starve(key, true),
                    Receiving::Again if last => {
                        self.arm_receive(key);
                    }
                    Receiving::Pausing if last => self.on_paused(key, out),
                    Receiving::No | Receiving::Again | Receiving::Pausing => {}
                }
            }
            _ if connection.receiving == Receiving::Pausing
                && (is_of_the_moment(result) || result == -libc::ECANCELED) =>
            {
                self.on_paused(key, out);
            }
            // A repeated receive that goes on by itself needs no help.
            _ if is_of_the_moment(result) && !last => {}
            _ if is_of_the_moment(result) => {
                self.stats.receive_starved += 1;
                let is_fed = connection.fed;
                self.starve(key, is_fed);
            }
            _ => {
                connection.receiving = Receiving::No;
                let end = if result == 0 { End::Eof } else { End::from_errno(-result) };
                out.push(Completion::ReceiveEnded { key, end });
            }
        }
    }

    /// The last completion of a receive that was to be paused.
    fn on_paused(&mut self, key: Key, out: &mut Vec<Completion<OwnedFd>>) {
        if let Some(connection) = self.table.find(key) {
            connection.receiving = Receiving::No;
            out.push(Completion::ReceiveEnded { key, end: End::Paused });
        }
    }

    fn on_send(&mut self, key: Key, result: i32, out: &mut Vec<Completion<OwnedFd>>) {
        let Some(batch) = self.table.find(key).and_then(|connection| connection.sending.take())
        else {
            return;
        };
        let outcome = match usize::try_from(result) {
            Ok(sent) => Ok(sent),
            Err(_) if is_of_the_moment(result) => Ok(0),
            Err(_) => Err(SendError::from_errno(-result)),
        };
        self.stats.sent_bytes += outcome.unwrap_or(0) as u64;
        out.push(Completion::Sent { key, batch, outcome });
        self.finish_sending(key);
        self.finish_closing(key);
    }

    /// A plain descriptor was made, or could not be. The direct one goes; the socket stays.
    fn on_exported(&mut self, key: Key, done: Done, out: &mut Vec<Completion<OwnedFd>>) {
        let result = done.result;
        let mut socket = done.descriptor.ok_or_else(|| io::Error::from_raw_os_error(-result));
        let Some(connection) = self.table.find(key) else {
            return;
        };
        connection.exporting = false;
        if !connection.is_open() {
            return self.finish_closing(key);
        }
        if connection.is_busy() {
            // Something was asked for meanwhile, and the kernel holds memory of ours for it.
            socket = Err(io::ErrorKind::ResourceBusy.into());
        }
        if socket.is_ok()
            && let Some(Connection { place: Place::Resident(index), .. }) = self.table.remove(key)
        {
            let place = Key { slot: index, generation: 0 };
            self.ring.close(index, Token::new(Kind::Vacate, place));
            self.stats.residents -= 1;
        }
        out.push(Completion::Exported { key, socket });
    }

    fn on_close(&mut self, key: Key, out: &mut Vec<Completion<OwnedFd>>) {
        if let Some(Connection { place: Place::Resident(index), .. }) = self.table.remove(key) {
            self.vacant.push(index);
            self.stats.residents -= 1;
        }
        out.push(Completion::Closed { key });
    }
}

/// Whether an operation failed for want of a buffer, of memory or of room, as it may not when it is
/// tried again. Whoever waits for that is bounded elsewhere: a queue that does not drain closes its
/// connection.
fn is_of_the_moment(result: i32) -> bool {
    matches!(-result, libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN)
}
