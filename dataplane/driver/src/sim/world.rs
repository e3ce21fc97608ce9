//! The clock, the streams, and what goes wrong with them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;

use super::driver::SimDriver;
use super::peer::Peer;
use super::seed::Seed;
use super::stream::Stream;
use crate::{Config, Remote};

/// What the network and the kernel do to the shards. Probabilities are in millionths.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Shortest way from one end to the other.
    pub delay_ns_min: u64,
    /// Longest way.
    pub delay_ns_max: u64,
    /// Bytes one direction holds before the sender has to wait.
    pub socket_bytes: usize,
    /// That a receive brings fewer bytes than there are.
    pub short_receive: u32,
    /// That a send takes fewer bytes than fit.
    pub short_send: u32,
    /// That a repeated receive goes on in the same turn, again and again.
    pub gulp: u32,
    /// That a receive finds no buffer, as with `ENOBUFS`, and has to be armed again.
    pub starved_receive: u32,
    /// That a readable or writable connection is passed over in a turn, so that others overtake it.
    pub passed_over: u32,
    /// That a connection is cut, per turn and connection.
    pub reset: u32,
    /// That a receive fails for want of memory, as with `ENOMEM`.
    pub failed_receive: u32,
    /// That a send fails for good.
    pub failed_send: u32,
    /// That a send of either mode finds no memory, as with `ENOMEM`: it comes back with what it had
    /// taken until then, and may be tried again.
    pub starved_send: u32,
    /// That a send which was to be ended goes on for a turn, and may be taken whole meanwhile.
    pub late_cancel: u32,
    /// That a resident cannot be exported.
    pub failed_export: u32,
    /// That accepting fails for want of descriptors, per turn in which somebody waits.
    pub failed_accept: u32,
}

/// How often each fault happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Injected {
    /// Pieces of a stream that took their time.
    pub delays: u64,
    /// Connections passed over in a turn, so that others overtook them.
    pub passed_over: u64,
    /// Receives that brought less than there was.
    pub short_receives: u64,
    /// Sends that took less than fitted.
    pub short_sends: u64,
    /// Receives that went on in the same turn.
    pub gulps: u64,
    /// Receives that found no buffer.
    pub starved_receives: u64,
    /// Connections cut.
    pub resets: u64,
    /// Receives that failed.
    pub failed_receives: u64,
    /// Sends that failed.
    pub failed_sends: u64,
    /// Sends that found no memory.
    pub starved_sends: u64,
    /// Turns that sends went on after they were to be ended.
    pub late_cancels: u64,
    /// Exports that failed.
    pub failed_exports: u64,
    /// Failures to accept.
    pub failed_accepts: u64,
}

impl Injected {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        let Self { delays, passed_over, short_receives, short_sends, gulps, .. } = *other;
        self.delays += delays;
        self.passed_over += passed_over;
        self.short_receives += short_receives;
        self.short_sends += short_sends;
        self.gulps += gulps;
        self.starved_receives += other.starved_receives;
        self.resets += other.resets;
        self.failed_receives += other.failed_receives;
        self.failed_sends += other.failed_sends;
        self.starved_sends += other.starved_sends;
        self.late_cancels += other.late_cancels;
        self.failed_exports += other.failed_exports;
        self.failed_accepts += other.failed_accepts;
    }
}

impl Faults {
    /// A network that only takes its time.
    pub fn none() -> Self {
        Self {
            delay_ns_min: 1_000,
            delay_ns_max: 50_000,
            socket_bytes: 64 << 10,
            short_receive: 0,
            short_send: 0,
            gulp: 0,
            starved_receive: 0,
            passed_over: 0,
            reset: 0,
            failed_receive: 0,
            failed_send: 0,
            starved_send: 0,
            late_cancel: 0,
            failed_export: 0,
            failed_accept: 0,
        }
    }

    /// A network drawn from the seed: anything from friendly to hostile.
    pub fn drawn(seed: &mut Seed) -> Self {
        let mut often = |most: u64| {
            if seed.below(3) == 0 { 0 } else { seed.below(most) as u32 }
        };
        let (short_receive, short_send) = (often(700_000), often(500_000));
        let (starved_receive, passed_over) = (often(300_000), often(500_000));
        let reset = often(300);
        let gulp = often(900_000);
        let (failed_receive, failed_send) = (often(1500), often(1500));
        let failed_accept = often(300_000);
        let (starved_send, late_cancel) = (often(100_000), often(900_000));
        let failed_export = often(100_000);
        Self {
            delay_ns_min: 1_000,
            delay_ns_max: 1_000 + seed.below(5_000_000),
            socket_bytes: 2048 << seed.below(7),
            short_receive,
            short_send,
            gulp,
            starved_receive,
            passed_over,
            reset,
            failed_receive,
            failed_send,
            starved_send,
            late_cancel,
            failed_export,
            failed_accept,
        }
    }
}

/// A simulated network with everything that is connected to it. A clone is another handle.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) net: Rc<RefCell<Net>>,
}

#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) seed: Seed,
    pub(crate) faults: Faults,
    pub(crate) injected: Injected,
    pub(crate) streams: Vec<Stream>,
    /// Connections that wait to be accepted, by listener. `None` once a listener is closed.
    pub(crate) backlogs: Vec<Option<VecDeque<Socket>>>,
}

/// The shard's end of a stream, or a listener. Dropped without being adopted it closes.
#[derive(Debug)]
pub struct Socket {
    pub(crate) index: usize,
    pub(crate) _alive: Option<Arc<()>>,
}

impl World {
    /// An empty network at time zero.
    pub fn new(seed: Seed, faults: Faults) -> Self {
        let injected = Injected::default();
        let net = Net { now: 0, seed, faults, injected, streams: Vec::new(), backlogs: Vec::new() };
        Self { net: Rc::new(RefCell::new(net)) }
    }

    /// The kernel's side for one shard.
    pub fn driver(&self, config: &Config) -> SimDriver {
        SimDriver::new(self.clone(), config)
    }

    /// A listening socket, to be given to a driver.
    pub fn listener(&self) -> Socket {
        let mut net = self.net.borrow_mut();
        net.backlogs.push(Some(VecDeque::new()));
        Socket { index: net.backlogs.len() - 1, _alive: None }
    }

    /// Connects to a listener; `None` when it has stopped listening.
    pub fn connect(&self, listener: usize, from: SocketAddr) -> Option<Peer> {
        self.join(listener, Remote::Internet(from))
    }

    /// Connects to a listener as a process of the same host would to a Unix socket.
    pub fn connect_locally(&self, listener: usize) -> Option<Peer> {
        self.join(listener, Remote::Local)
    }

    fn join(&self, listener: usize, from: Remote) -> Option<Peer> {
        let mut net = self.net.borrow_mut();
        let index = net.streams.len();
        let backlog = net.backlogs.get_mut(listener)?.as_mut()?;
        let (stream, alive) = Stream::new(from);
        backlog.push_back(Socket { index, _alive: Some(alive) });
        net.streams.push(stream);
        Some(Peer::new(self.clone(), index))
    }

    /// The time.
    pub fn now(&self) -> Tick {
        Tick(self.net.borrow().now)
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        let mut net = self.net.borrow_mut();
        net.now += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        net.close_orphans();
    }

    /// What went wrong so far.
    pub fn injected(&self) -> Injected {
        self.net.borrow().injected
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.net.borrow_mut().faults = faults;
    }
}

impl Net {
    /// Closes sockets that were dropped.
    fn close_orphans(&mut self) {
        let Self { now, seed, faults, streams, .. } = self;
        for stream in streams.iter_mut().filter(|stream| stream.is_orphaned()) {
            stream.close_shard_side(*now, seed, faults);
        }
    }

    pub(crate) fn close_shard_side(&mut self, index: usize) {
        let Self { now, seed, faults, streams, .. } = self;
        streams[index].close_shard_side(*now, seed, faults);
    }
}
