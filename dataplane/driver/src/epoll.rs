//! The fallback, for hosts without io_uring: plain system calls told apart by epoll. Safe code
//! only.
//!
//! Edge-triggered: a socket is registered once, and what epoll said last is remembered until a call
//! comes back empty-handed. A connection with something to do waits in a queue for its next try;
//! each gets one receive per turn, so that a loud one cannot keep the others waiting.

mod connection;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_mailbox::{Bell, EventFd};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use rustix::time::Timespec;

use self::connection::{Connection, Receiving, Sending};
use crate::batch::BatchShelf;
use crate::driver::{monotonic, thread_cpu_time};
use crate::spin::Spin;
use crate::starved::Starved;
use crate::table::Table;
use crate::{
    Batch, BufferPool, Completion, Config, Driver, DriverError, DriverStats, End, Key, Remote,
    SendError, SendMode, TableFull, accept,
};

/// The epoll driver.
pub struct Epoll {
    epoll: OwnedFd,
    events: Vec<Event>,
    table: Table<Connection>,
    /// Connections with something to try, in the order in which they came to it.
    queue: VecDeque<Key>,
    /// Those whose receive was asked for since the last turn; empty after its beginning.
    fresh: Vec<Key>,
    /// Receives that wait for a buffer.
    starved: Starved,
    listeners: Vec<Listener>,
    /// Completions made between turns.
    pending: Vec<Completion<OwnedFd>>,
    closing: Vec<Key>,
    /// The last turn returned without asking epoll.
    unpolled: bool,
    residents_max: u32,
    completions_max: usize,
    busy_poll: Duration,
    pool: BufferPool,
    shelf: BatchShelf,
    bell: Arc<Bell>,
    stats: DriverStats,
}

struct Listener {
    socket: OwnedFd,
    /// Somebody may be waiting.
    ready: bool,
    /// When to try again after a failure of ours.
    paused_until: Option<Tick>,
}

impl Listener {
    /// How long a turn may wait because of it; `None` when it asks for nothing.
    fn patience(&self) -> Option<Duration> {
        match self.paused_until {
            Some(until) => Some(until.since(monotonic())),
            None => self.ready.then_some(Duration::ZERO),
        }
    }
}

impl Epoll {
    /// Sets a driver up.
    ///
    /// # Errors
    /// [`DriverError::Setup`] when the process is out of descriptors.
    pub fn open(config: &Config) -> Result<Self, DriverError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(DriverError::setup("epoll_create"))?;
        // Edge-triggered, so each ring is reported although nobody ever reads the counter.
        let doorbell = EventFd::new().map_err(DriverError::setup("eventfd"))?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, doorbell.as_fd(), EventData::new_u64(DOORBELL), flags)
            .map_err(io::Error::from)
            .map_err(DriverError::setup("watch the doorbell"))?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            table: Table::new(),
            queue: VecDeque::new(),
            fresh: Vec::new(),
            starved: Starved::default(),
            listeners: Vec::new(),
            pending: Vec::new(),
            closing: Vec::new(),
            unpolled: false,
            residents_max: config.residents_max,
            completions_max: config.completions_max.max(1),
            busy_poll: config.busy_poll,
            pool: BufferPool::new(config.buffer_count, config.buffer_bytes),
            shelf: BatchShelf::default(),
            bell: Bell::new(doorbell),
            stats: DriverStats {
                residents_max: config.residents_max.into(),
                ..DriverStats::default()
            },
        })
    }

    fn start_receiving(&mut self, key: Key, receiving: Receiving) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.receiving == Receiving::No && !connection.closing {
            connection.receiving = receiving;
            self.fresh.push(key);
        }
    }

    /// Queues the receives asked for since the last turn, behind what epoll knows already: bytes
    /// that came before theirs on other connections are looked at before theirs.
    fn queue_fresh(&mut self) -> io::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        self.poll(Some(Duration::ZERO))?;
        let mut fresh = mem::take(&mut self.fresh);
        for key in fresh.drain(..) {
            self.enqueue(key);
        }
        self.fresh = fresh;
        Ok(())
    }

    /// Puts a connection at the end of the queue if it has something to try.
    fn enqueue(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if !connection.queued && connection.has_work() {
            connection.queued = true;
            self.queue.push_back(key);
        }
    }

    /// Tries everything that may succeed now, one receive per connection.
    fn work(&mut self, room: usize, out: &mut Vec<Completion<OwnedFd>>) {
        let full = out.len() + room;
        self.feed_starved();
        for listener in &mut self.listeners {
            accept_some(listener, &mut self.stats, out);
        }
        for _ in 0..self.queue.len() {
            if out.len() >= full {
                break;
            }
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            let Some(connection) = self.table.find(key) else {
                continue;
            };
            connection.queued = false;
            if let Some(completion) = connection.try_sending(key, &mut self.stats) {
                out.push(completion);
            }
            self.try_receiving(key, out);
            self.enqueue(key);
        }
        // Also when the turn is full: these wait with a descriptor each, and are as many as were
        // closed.
        for key in mem::take(&mut self.closing) {
            self.finish_closing(key, out);
        }
    }

    /// Lets receives that found no buffer go first, the longest waiting before the others.
    fn feed_starved(&mut self) {
        self.starved.end_turn();
        let queued = self.queue.len();
        for _ in 0..self.pool.free() {
            let Some(key) = self.starved.pop() else {
                break;
            };
            if let Some(connection) = self.table.find(key) {
                connection.starved = false;
                self.enqueue(key);
            }
        }
        // Those that came last go in front, in their order.
        self.queue.rotate_left(queued);
    }

    /// Receives while whole buffers come in, a bounded number of times.
    fn try_receiving(&mut self, key: Key, out: &mut Vec<Completion<OwnedFd>>) {
        for received in 0..RECEIVES_MAX {
            let Some(connection) = self.table.find(key).filter(|found| found.may_receive()) else {
                return;
            };
            let Some(lease) = self.pool.lease() else {
                self.stats.receive_starved += 1;
                connection.starved = true;
                self.starved.push(key, received > 0);
                return;
            };
            out.extend(connection.try_receiving(key, lease, &mut self.stats));
        }
    }

    fn finish_closing(&mut self, key: Key, out: &mut Vec<Completion<OwnedFd>>) {
        // It may still stand in the queue: of its send, what the socket takes at once goes out.
        if let Some(connection) = self.table.find(key) {
            out.extend(connection.try_sending(key, &mut self.stats));
        }
        let Some(mut connection) = self.table.remove(key) else {
            return;
        };
        if connection.receiving != Receiving::No {
            out.push(Completion::ReceiveEnded { key, end: End::Cancelled });
        }
        if let Some(sending) = connection.sending.take() {
            let outcome = match sending.sent {
                0 => Err(SendError::Cancelled),
                sent => Ok(sent),
            };
            out.push(Completion::Sent { key, batch: sending.batch, outcome });
        }
        self.stats.residents -= u64::from(connection.resident);
        self.stats.system_calls += 1;
        // Closing the only descriptor of a socket takes it out of epoll as well.
        drop(connection);
        out.push(Completion::Closed { key });
    }

    /// Waits for something to become possible, awake at first where that is wanted.
    fn wait(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let Some(spin) = Spin::new(patience, self.busy_poll) else {
            return self.poll(patience).map(drop);
        };
        while self.poll(Some(Duration::ZERO))? == 0 {
            if !spin.goes_on() {
                return self.poll(spin.rest()).map(drop);
            }
        }
        Ok(())
    }

    /// Asks epoll what has become possible. Returns how much.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| {
            let timeout = timeout.min(WAIT_MAX);
            Timespec {
                tv_sec: timeout.as_secs().cast_signed(),
                tv_nsec: timeout.subsec_nanos().into(),
            }
        });
        self.stats.system_calls += 1;
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let events = mem::take(&mut self.events);
        let count = events.len();
        for event in &events {
            let (flags, token) = (event.flags, event.data.u64());
            match token {
                DOORBELL => {}
                LISTENERS..DOORBELL => {
                    let place = (token - LISTENERS) as usize;
                    if let Some(listener) = self.listeners.get_mut(place) {
                        listener.ready = true;
                    }
                }
                _ => {
                    let key = key_of(token);
                    if let Some(connection) = self.table.find(key) {
                        connection.note(flags);
                        self.enqueue(key);
                    }
                }
            }
        }
        self.events = events;
        Ok(count)
    }

    /// How long this turn may wait.
    fn patience(&self, timeout: Option<Duration>) -> Option<Duration> {
        let fed = !self.starved.is_empty() && self.pool.has_returned();
        if fed || !self.queue.is_empty() || !self.closing.is_empty() {
            return Some(Duration::ZERO);
        }
        let pause = self.listeners.iter().filter_map(Listener::patience).min();
        match (timeout, pause) {
            (Some(timeout), Some(pause)) => Some(timeout.min(pause)),
            (timeout, pause) => timeout.or(pause),
        }
    }
}

impl Driver for Epoll {
    type Socket = OwnedFd;

    fn listen(&mut self, listener: OwnedFd) -> Result<(), DriverError> {
        rustix::io::ioctl_fionbio(&listener, true)
            .map_err(io::Error::from)
            .map_err(DriverError::setup("non-blocking mode of the listener"))?;
        accept::without_delay(&listener).map_err(DriverError::setup("TCP_NODELAY"))?;
        let flags = EventFlags::IN | EventFlags::ET;
        let token = LISTENERS + self.listeners.len() as u64;
        epoll::add(&self.epoll, &listener, EventData::new_u64(token), flags)
            .map_err(io::Error::from)
            .map_err(DriverError::setup("watch the listener"))?;
        self.listeners.push(Listener { socket: listener, ready: false, paused_until: None });
        Ok(())
    }

    fn stop_listening(&mut self) {
        for listener in self.listeners.drain(..) {
            // Others may hold the same listener, and then closing ours would not end the events.
            let _ = epoll::delete(&self.epoll, &listener.socket);
        }
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.stats.system_calls += 1;
        let watched = epoll::add(&self.epoll, &socket, EventData::new_u64(token_of(key)), flags);
        self.table.insert(key, Connection::new(socket, watched.err()));
    }

    fn settle(&mut self, key: Key) -> Result<(), TableFull> {
        let Some(connection) = self.table.find(key) else {
            return Ok(());
        };
        if connection.resident || connection.closing {
            return Ok(());
        }
        if self.stats.residents >= u64::from(self.residents_max) {
            return Err(TableFull);
        }
        connection.resident = true;
        self.stats.residents += 1;
        Ok(())
    }

    fn release(&mut self, key: Key) -> Option<OwnedFd> {
        let connection = self.table.find(key)?;
        let idle = connection.receiving == Receiving::No && connection.sending.is_none();
        if !idle || connection.closing || connection.resident {
            return None;
        }
        let socket = self.table.remove(key)?.socket;
        self.stats.system_calls += 1;
        // A failure means that it was never registered.
        let _ = epoll::delete(&self.epoll, &socket);
        Some(socket)
    }

    fn receive_once(&mut self, key: Key) {
        self.start_receiving(key, Receiving::Once);
    }

    fn receive(&mut self, key: Key) {
        self.start_receiving(key, Receiving::Again);
    }

    fn pause(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.receiving != Receiving::No && !connection.closing {
            connection.receiving = Receiving::No;
            self.pending.push(Completion::ReceiveEnded { key, end: End::Paused });
        }
    }

    fn cancel_send(&mut self, key: Key) {
        let connection = self.table.find(key).filter(|connection| !connection.closing);
        if let Some(Sending { batch, sent, .. }) = connection.and_then(|found| found.sending.take())
        {
            let outcome = if sent == 0 { Err(SendError::Cancelled) } else { Ok(sent) };
            self.pending.push(Completion::Sent { key, batch, outcome });
        }
    }

    fn export(&mut self, key: Key) {
        let Some(connection) = self.table.find(key).filter(|connection| !connection.closing) else {
            return;
        };
        if connection.receiving != Receiving::No || connection.sending.is_some() {
            let socket = Err(io::ErrorKind::ResourceBusy.into());
            return self.pending.push(Completion::Exported { key, socket });
        }
        let Some(connection) = self.table.remove(key) else { return };
        self.stats.residents -= u64::from(connection.resident);
        self.stats.system_calls += 1;
        // A failure means that it was never registered.
        let _ = epoll::delete(&self.epoll, &connection.socket);
        self.pending.push(Completion::Exported { key, socket: Ok(connection.socket) });
    }

    fn batch(&mut self) -> Box<Batch> {
        self.shelf.take()
    }

    fn send(&mut self, key: Key, batch: Box<Batch>, mode: SendMode) {
        let connection = self.table.find(key).filter(|connection| !connection.closing);
        let Some(connection) = connection.filter(|_| !batch.is_empty()) else {
            return self.shelf.put(batch);
        };
        if connection.sending.is_some() {
            let outcome = Err(SendError::Busy);
            return self.pending.push(Completion::Sent { key, batch, outcome });
        }
        connection.sending = Some(Sending { batch, mode, sent: 0 });
        self.enqueue(key);
    }

    fn recycle(&mut self, batch: Box<Batch>) {
        self.shelf.put(batch);
    }

    fn shutdown(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.sending.is_some() {
            connection.fin_wanted = true;
        } else if !connection.closing {
            // A peer that is gone already needs no FIN.
            let _ = rustix::net::shutdown(&connection.socket, Shutdown::Write);
            self.stats.system_calls += 1;
        }
    }

    fn close(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if !connection.closing {
            connection.closing = true;
            self.closing.push(key);
        }
    }

    fn turn(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion<OwnedFd>>,
    ) -> io::Result<()> {
        let before = completions.len();
        self.stats.turns += 1;
        completions.append(&mut self.pending);
        self.queue_fresh()?;
        self.work(self.completions_max, completions);
        let done = completions.len() - before;
        // What was done already is worth handing out at once, but only every other time: epoll has
        // to be asked for news now and then.
        self.unpolled = done > 0 && !self.unpolled;
        if !self.unpolled {
            let patience = if done > 0 { Some(Duration::ZERO) } else { self.patience(timeout) };
            self.wait(patience)?;
            self.work(self.completions_max.saturating_sub(done), completions);
        }
        self.stats.completions += (completions.len() - before) as u64;
        self.stats.connections = self.table.occupied();
        self.stats.buffers_in_use = self.pool.in_use() as u64;
        Ok(())
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    fn now(&self) -> Tick {
        monotonic()
    }

    fn cpu_time(&self) -> Duration {
        thread_cpu_time()
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

/// Accepts those who wait at one listener, a bounded number per turn.
fn accept_some(
    listener: &mut Listener,
    stats: &mut DriverStats,
    out: &mut Vec<Completion<OwnedFd>>,
) {
    if listener.paused_until.is_some_and(|until| until <= monotonic()) {
        listener.paused_until = None;
    }
    for _ in 0..ACCEPTS_MAX {
        if !listener.ready || listener.paused_until.is_some() {
            return;
        }
        stats.system_calls += 1;
        stats.operations += 1;
        match rustix::net::acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC) {
            Ok((socket, address)) => match address.and_then(Remote::read) {
                Some(remote) => {
                    stats.accepted += 1;
                    out.push(Completion::Accepted { socket, remote });
                }
                None => stats.accept_aborted += 1,
            },
            Err(Errno::AGAIN) => listener.ready = false,
            Err(errno) if accept::is_of_the_peer(errno.raw_os_error()) => {
                stats.accept_aborted += 1;
            }
            Err(errno) => {
                stats.accept_failed += 1;
                listener.paused_until = Some(monotonic().after(accept::PAUSE));
                out.push(Completion::AcceptFailed(errno.into()));
            }
        }
    }
}

fn token_of(key: Key) -> u64 {
    u64::from(key.slot) << 32 | u64::from(key.generation)
}

fn key_of(token: u64) -> Key {
    Key { slot: (token >> 32) as u32, generation: token as u32 }
}

// Tokens above those of connections, whose slots end at `Key::SLOT_MAX`. Those of listeners count
// on from the first.
const DOORBELL: u64 = u64::MAX;
const LISTENERS: u64 = 1 << 63;

/// Events taken from epoll at once.
const EVENTS_MAX: usize = 512;

/// Receives of one connection in one go: enough to gather a large message into few sends.
const RECEIVES_MAX: usize = 4;

/// Connections accepted in one go, so that a flood of them does not stall the others.
const ACCEPTS_MAX: usize = 2;

/// The longest wait: the kernel's own limit is 24 days.
const WAIT_MAX: Duration = Duration::from_secs(3600);
