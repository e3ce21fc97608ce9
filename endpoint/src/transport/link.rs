//! The thread of an end: it connects, talks, reconnects, and takes orders meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use relay_contract::{Role, Tick};

use super::Clock;
use super::address::RelayAddress;
use super::bell::{Bell, Button, Interest};
use super::socket::{LinkError, Opening, Socket};
use crate::backoff::Backoff;
use crate::ids::MessageId;
use crate::limits::Limits;
use crate::moment::Moment;

/// What happens on a link, for the end that lives on it.
pub(super) enum LinkInput<'a, Order> {
    Connected,
    /// The connection is gone, or could not be opened.
    Disconnected(&'a LinkError),
    Writable(bool),
    Frame(&'a str),
    Order(Order),
    Expired,
    /// A frame that was given to the socket and may not have left it.
    Lost(MessageId),
    /// The link is about to end.
    Stopped,
}

/// An end, with its user attached.
pub(super) trait Party: Send + 'static {
    /// What users ask of it.
    type Order: Send + 'static;
    const ROLE: Role;

    fn handle(
        &mut self,
        now: Moment,
        input: LinkInput<'_, Self::Order>,
        rng: &mut StdRng,
        outgoing: &mut Outgoing,
    );

    fn deadline(&self) -> Option<Tick>;

    /// Whether its user keeps up; if not, the socket is left alone.
    fn reads(&self) -> bool;
}

/// What an end wants of its link.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) frames: VecDeque<(String, Option<MessageId>)>,
    pub(super) redirect: Option<String>,
}

/// Stops a link and waits for its thread.
pub(super) struct Handle {
    stop: Arc<AtomicBool>,
    button: Button,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.button.press();
        if let Some(thread) = self.thread.take() {
            // A panic in the user's handler has been reported by the thread itself.
            let _ = thread.join();
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a link is made of.
pub(super) struct Link<P: Party> {
    pub(super) party: P,
    pub(super) address: RelayAddress,
    pub(super) orders: Receiver<P::Order>,
    pub(super) limits: Limits,
    pub(super) rng: StdRng,
}

impl<P: Party> Link<P> {
    /// Starts the thread. Errors: the system has none left.
    pub(super) fn start(self, bell: Bell, button: Button) -> io::Result<Handle> {
        let stop = Arc::new(AtomicBool::new(false));
        let running = Running {
            backoff: Backoff::new(self.limits.retry),
            clock: Clock::start(),
            outgoing: Outgoing::default(),
            in_flight: Vec::new(),
            writable: true,
            home: self.address.clone(),
            redirects: 0,
            link: self,
            bell,
            stop: stop.clone(),
        };
        let name = format!("relay-{}", P::ROLE.name());
        let thread = thread::Builder::new().name(name).spawn(move || running.run())?;
        Ok(Handle { stop, button, thread: Some(thread) })
    }
}

struct Running<P: Party> {
    link: Link<P>,
    bell: Bell,
    stop: Arc<AtomicBool>,
    clock: Clock,
    backoff: Backoff,
    outgoing: Outgoing,
    /// Texts the socket has, since it was last empty.
    in_flight: Vec<MessageId>,
    writable: bool,
    /// The address we were given; redirects change the link's own.
    home: RelayAddress,
    /// In a row.
    redirects: u32,
}

impl<P: Party> Running<P> {
    fn run(mut self) {
        while !self.stopped() {
            let error = self.connect();
            self.feed(LinkInput::Disconnected(&error));
            let unsent = self.outgoing.frames.drain(..);
            self.in_flight.extend(unsent.filter_map(|(_, message)| message));
            for message in std::mem::take(&mut self.in_flight) {
                self.feed(LinkInput::Lost(message));
            }
            if matches!(error, LinkError::Redirected) && self.redirects < REDIRECTS_MAX {
                self.redirects += 1;
                continue;
            }
            // Where a redirect led may be gone by now.
            self.link.address = self.home.clone();
            self.redirects = 0;
            let wait = self.backoff.failed(&mut self.link.rng);
            self.rest(Instant::now() + wait);
        }
        while let Ok(order) = self.link.orders.try_recv() {
            self.feed(LinkInput::Order(order));
        }
        self.feed(LinkInput::Stopped);
    }

    /// Connects and talks until that is over.
    fn connect(&mut self) -> LinkError {
        let opening = Opening {
            address: &self.link.address,
            role: P::ROLE,
            time: self.link.limits.handshake_deadline,
            frame_bytes_max: self.link.limits.frame_bytes_max,
            stop: &self.stop,
        };
        let mut socket = match Socket::open(&opening, &mut self.bell) {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        let opened = Instant::now();
        self.writable = true;
        self.feed(LinkInput::Connected);
        let error = self.talk(&mut socket);
        if matches!(error, LinkError::Stopped | LinkError::Redirected) {
            socket.close();
        }
        // One that lasted was a success; a relay that admits and closes at once is not.
        if opened.elapsed() >= self.link.limits.handshake_deadline {
            self.backoff.succeeded();
        }
        error
    }

    fn talk(&mut self, socket: &mut Socket) -> LinkError {
        loop {
            if self.stopped() {
                return LinkError::Stopped;
            }
            match self.turn(socket) {
                Ok(Turn::Again) => {}
                Ok(Turn::Wait) => {
                    let interest =
                        Interest { read: self.link.party.reads(), write: !self.writable };
                    let time = self.until_deadline();
                    let outcome = self.bell.wait(Some((socket.fd(), interest)), time);
                    if let Err(error) = outcome {
                        return error.into();
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Orders in, time, frames out, frames in; each bounded.
    fn turn(&mut self, socket: &mut Socket) -> Result<Turn, LinkError> {
        let mut busy = self.take_orders();
        if self.until_deadline().is_some_and(|left| left.is_zero()) {
            self.feed(LinkInput::Expired);
        }
        self.write(socket)?;
        let mut reads = 0;
        while reads < READS_PER_TURN && self.link.party.reads() {
            let Some(frame) = socket.read()? else { break };
            reads += 1;
            self.feed(LinkInput::Frame(&frame));
        }
        busy |= reads == READS_PER_TURN;
        if let Some(url) = self.outgoing.redirect.take()
            && let Some(address) = self.link.address.redirected(&url)
        {
            self.link.address = address;
            return Err(LinkError::Redirected);
        }
        busy |= !self.outgoing.frames.is_empty();
        Ok(if busy { Turn::Again } else { Turn::Wait })
    }

    fn write(&mut self, socket: &mut Socket) -> Result<(), LinkError> {
        while let Some((frame, message)) = self.outgoing.frames.pop_front() {
            self.in_flight.extend(message);
            socket.send(frame)?;
        }
        let writable = socket.flush()?;
        if writable {
            self.in_flight.clear();
        }
        if writable != self.writable {
            self.writable = writable;
            self.feed(LinkInput::Writable(writable));
        }
        Ok(())
    }

    /// Waits, but not for orders and not for deadlines of the end.
    fn rest(&mut self, until: Instant) {
        while !self.stopped() {
            self.take_orders();
            if self.until_deadline().is_some_and(|left| left.is_zero()) {
                self.feed(LinkInput::Expired);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let time = self.until_deadline().map_or(left, |other| other.min(left));
            if self.bell.wait(None, Some(time)).is_err() {
                return;
            }
        }
    }

    fn take_orders(&mut self) -> bool {
        for _ in 0..ORDERS_PER_TURN {
            let Ok(order) = self.link.orders.try_recv() else {
                return false;
            };
            self.feed(LinkInput::Order(order));
        }
        true
    }

    fn feed(&mut self, input: LinkInput<'_, P::Order>) {
        let now = self.clock.now();
        let (rng, outgoing) = (&mut self.link.rng, &mut self.outgoing);
        self.link.party.handle(now, input, rng, outgoing);
    }

    fn until_deadline(&self) -> Option<Duration> {
        let deadline = self.link.party.deadline()?;
        let now = self.clock.now().tick;
        // Rounded up: waking early would find nothing to do.
        let left = deadline.since(now);
        Some(if left.is_zero() { left } else { left + Duration::from_millis(1) })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

enum Turn {
    Again,
    Wait,
}

/// Bounds the work of one turn, so that neither side starves the other.
const READS_PER_TURN: usize = 64;
const ORDERS_PER_TURN: usize = 64;
/// Redirects followed in a row before we rest: two relays may each believe the other is right.
const REDIRECTS_MAX: u32 = 3;
