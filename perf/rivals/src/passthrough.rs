//! Limits that are not io_uring: bytes from one socket of a pair to the other, and nothing else.
//!
//! No admission, no WebSocket, no JSON. Sockets are paired in the order in which they connect: the
//! first is a daemon, the second its client.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

pub(crate) use copying::Copying;
pub(crate) use splicing::Splicing;

mod copying;
mod splicing;

/// One direction of a pair.
pub(crate) trait Carrier: Sized {
    fn new() -> io::Result<Self>;

    /// Moves what has arrived at `from`, as much as one system call gives.
    fn carry(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<Outcome>;

    /// Moves what `to` did not take before.
    fn resume(&mut self, to: &TcpStream) -> io::Result<Outcome>;
}

/// What became of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Moved,
    /// Some are left: the receiver takes no more at the moment.
    Full,
    /// The sender has ended.
    Ended,
}

/// Forwards between pairs until the process ends.
pub(crate) fn serve<C: Carrier>(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).context("listening")?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let ends = HashMap::new();
    Passthrough::<C> { epoll, listener, ends, next: 0 }.run().context("forwarding")
}

struct Passthrough<C> {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By number; the two of a pair differ in the lowest bit.
    ends: HashMap<u64, End<C>>,
    next: u64,
}

/// One socket, and what carries its bytes to the other.
struct End<C> {
    socket: TcpStream,
    carrier: C,
    /// What epoll watches for.
    interest: EventFlags,
}

impl<C: Carrier> Passthrough<C> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                // Events are packed: fields are copied, not borrowed.
                let (number, flags) = ({ event.data }.u64(), { event.flags });
                if number == LISTENER {
                    self.accept()?;
                    continue;
                }
                if flags.contains(EventFlags::OUT) {
                    self.turn(number ^ 1, C::resume_between)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP) {
                    self.turn(number, C::carry)?;
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let (socket, _) = self.listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let number = self.next;
        self.next += 1;
        let interest = EventFlags::empty();
        epoll::add(&self.epoll, &socket, EventData::new_u64(number), interest)?;
        self.ends.insert(number, End { socket, carrier: C::new()?, interest });
        // A daemon waits for its client.
        if self.ends.contains_key(&(number ^ 1)) {
            self.watch(number, EventFlags::IN, true)?;
            self.watch(number ^ 1, EventFlags::IN, true)?;
        }
        Ok(())
    }

    /// Moves bytes from one end to the other. While that one is full, nothing more is read.
    fn turn(
        &mut self,
        number: u64,
        step: fn(&mut C, &TcpStream, &TcpStream) -> io::Result<Outcome>,
    ) -> io::Result<()> {
        let [from, to] = self.ends.get_disjoint_mut([&number, &(number ^ 1)]);
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(());
        };
        match step(&mut from.carrier, &from.socket, &to.socket) {
            Ok(Outcome::Moved) => {
                self.watch(number, EventFlags::IN, true)?;
                self.watch(number ^ 1, EventFlags::OUT, false)
            }
            Ok(Outcome::Full) => {
                self.watch(number, EventFlags::IN, false)?;
                self.watch(number ^ 1, EventFlags::OUT, true)
            }
            Ok(Outcome::Ended) | Err(_) => {
                // Closing them takes them out of epoll as well.
                self.ends.remove(&number);
                self.ends.remove(&(number ^ 1));
                Ok(())
            }
        }
    }

    /// Watches an end for something, or does so no longer.
    fn watch(&mut self, number: u64, what: EventFlags, is_wanted: bool) -> io::Result<()> {
        let Some(end) = self.ends.get_mut(&number) else {
            return Ok(());
        };
        if end.interest.contains(what) != is_wanted {
            end.interest.set(what, is_wanted);
            epoll::modify(&self.epoll, &end.socket, EventData::new_u64(number), end.interest)?;
        }
        Ok(())
    }
}

/// [`Carrier::resume`] with the arguments of [`Carrier::carry`].
trait ResumeBetween: Carrier {
    fn resume_between(&mut self, _from: &TcpStream, to: &TcpStream) -> io::Result<Outcome> {
        self.resume(to)
    }
}

impl<C: Carrier> ResumeBetween for C {}

const LISTENER: u64 = u64::MAX;
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;

    /// Two connected sockets.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (far, _) = listener.accept().expect("accepts");
        near.set_nonblocking(true).expect("a socket");
        (near, far)
    }

    /// Everything sent into a full receiver arrives once it reads, in order.
    fn carries_everything<C: Carrier>() {
        let ((from, mut sender), (to, mut receiver)) = (connection(), connection());
        let sent: Vec<u8> = (0..8 << 20).map(|index: usize| (index / 7) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || sender.write_all(&sent));
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).map(|_| received)
        });
        let mut carrier = C::new().expect("descriptors");
        let mut is_full = false;
        loop {
            let (socket, flags) = if is_full {
                (&to, rustix::event::PollFlags::OUT)
            } else {
                (&from, rustix::event::PollFlags::IN)
            };
            let mut wanted = [rustix::event::PollFd::new(socket, flags)];
            rustix::event::poll(&mut wanted, None).expect("polls");
            let outcome = if is_full { carrier.resume(&to) } else { carrier.carry(&from, &to) };
            match outcome.expect("both ends live") {
                Outcome::Ended => break,
                outcome => is_full = outcome == Outcome::Full,
            }
        }
        drop(to);
        writer.join().expect("no panic").expect("writes");
        let received = reader.join().expect("no panic").expect("reads");
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    }

    #[test]
    fn copying_carries_everything() {
        carries_everything::<Copying>();
    }

    #[test]
    fn splicing_carries_everything() {
        carries_everything::<Splicing>();
    }
}
