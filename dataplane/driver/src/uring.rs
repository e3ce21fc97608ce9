//! The driver that stands on io_uring. Linux 6.1, found out by trying.
//!
//! One ring per driver, one system call per turn. Guests are plain descriptors; residents live in
//! the ring's own table. Received bytes land in one ring of provided buffers that all connections
//! share: finding it empty is normal under load, and such a receive is armed again when buffers
//! return.

mod buffers;
mod complete;
mod connection;
mod ring;
mod token;

#[cfg(test)]
mod faults;

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_mailbox::{Bell, EventFd};

use self::buffers::BufferRing;
use self::connection::{Closing, Connection, Fin, Place, Receiving};
use self::ring::{Done, Ring};
use self::token::{Kind, Token};
use crate::batch::BatchShelf;
use crate::driver::{monotonic, thread_cpu_time};
use crate::spin::Spin;
use crate::starved::Starved;
use crate::table::Table;
use crate::{
    Batch, BufferPool, Completion, Config, Driver, DriverError, DriverStats, End, Key, SendError,
    SendMode, TableFull, accept,
};

/// The ring driver.
pub struct Uring {
    // Field order is drop order; before it, `drop` has the ring cancel everything and waits, so the
    // kernel has let go of buffers and batches. If it has not, they are leaked.
    ring: Ring,
    buffers: BufferRing,
    table: Table<Connection>,
    /// Indices of the descriptor table that were used and are free, then those never used.
    vacant: Vec<u32>,
    next_index: u32,
    table_len: u32,
    listeners: Vec<Listener>,
    /// Tells listeners of one place apart, before and after [`Driver::stop_listening`].
    listeners_generation: u32,
    /// Receives that wait for a buffer.
    starved: Starved,
    /// Completions made without the kernel, for the next turn.
    pending: Vec<Completion<OwnedFd>>,
    /// Descriptors that queued operations may still name; closed when the kernel has seen those.
    retired: Vec<OwnedFd>,
    /// Completions being looked at; empty between turns.
    entries: Vec<Done>,
    completions_max: usize,
    busy_poll: Duration,
    /// Bytes after which a repeated receive is asked for again; zero where the kernel is too old.
    burst_bytes: u32,
    shelf: BatchShelf,
    doorbell: Arc<EventFd>,
    bell: Arc<Bell>,
    stats: DriverStats,
    /// What the next completion of a kind is to say, for tests.
    #[cfg(test)]
    faults: Vec<(Kind, i32)>,
}

/// Why this kernel, or this container, cannot carry the ring driver.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("io_uring is not usable: {reason}")]
pub struct Unsupported {
    /// What was tried and what the kernel said.
    pub reason: String,
}

struct Listener {
    socket: OwnedFd,
    /// When to try again after a failure of ours.
    paused_until: Option<Tick>,
}

impl Uring {
    /// Sets a driver up for the thread that calls.
    ///
    /// # Errors
    /// [`DriverError::Setup`] with the step the kernel refused.
    pub fn open(config: &Config) -> Result<Self, DriverError> {
        let mut buffers =
            BufferRing::new(BufferPool::new(config.buffer_count, config.buffer_bytes));
        let table_len = config.residents_max.clamp(1, descriptor_limit());
        let announced = !config.busy_poll.is_zero();
        let mut ring = Ring::open(config.operations_max, table_len, announced, &buffers)?;
        buffers.publish();
        let bounded = ring.bounds_bursts(BURST_BYTES);
        let doorbell = Arc::new(EventFd::new().map_err(DriverError::setup("eventfd"))?);
        ring.watch(doorbell.as_fd(), Token::of_driver(Kind::Bell));
        Ok(Self {
            ring,
            buffers,
            table: Table::new(),
            vacant: Vec::new(),
            next_index: 0,
            table_len,
            listeners: Vec::new(),
            listeners_generation: 0,
            starved: Starved::default(),
            pending: Vec::new(),
            retired: Vec::new(),
            entries: Vec::new(),
            completions_max: config.completions_max.max(1),
            busy_poll: config.busy_poll,
            burst_bytes: if bounded { BURST_BYTES } else { 0 },
            shelf: BatchShelf::default(),
            bell: Bell::new(Arc::clone(&doorbell)),
            doorbell,
            stats: DriverStats { residents_max: table_len.into(), ..DriverStats::default() },
            #[cfg(test)]
            faults: Vec::new(),
        })
    }

    /// Whether [`open`](Self::open) can work here: sets a small ring up in the same way.
    ///
    /// # Errors
    /// [`Unsupported`] with what stood in the way.
    pub fn probe() -> Result<(), Unsupported> {
        let small = Config {
            buffer_count: 1,
            buffer_bytes: 4096,
            residents_max: 1,
            operations_max: 8,
            ..Config::default()
        };
        match Self::open(&small) {
            Ok(_) => Ok(()),
            Err(error) => Err(Unsupported {
                reason: format!("{error} (needs Linux 6.1 and permission to use io_uring)"),
            }),
        }
    }

    fn arm_accept(&mut self, place: u32) {
        let Some(listener) = self.listeners.get_mut(place as usize) else {
            return;
        };
        listener.paused_until = None;
        let token = accept_token(place, self.listeners_generation);
        self.ring.accept(listener.socket.as_fd(), token);
    }

    /// Accepts again where a pause is over.
    fn resume_accepting(&mut self) {
        if self.listeners.iter().all(|listener| listener.paused_until.is_none()) {
            return;
        }
        let now = monotonic();
        for place in 0..self.listeners.len() {
            if self.listeners[place].paused_until.is_some_and(|until| until <= now) {
                self.arm_accept(place as u32);
            }
        }
    }

    /// Asks for a receive that is wanted and not under way. Whether it was asked for.
    fn arm_receive(&mut self, key: Key) -> bool {
        let Some(connection) = self.table.find(key) else {
            return false;
        };
        if connection.armed || !connection.is_open() {
            return false;
        }
        let token = Token::new(Kind::Receive, key);
        match connection.receiving {
            Receiving::No | Receiving::Pausing => return false,
            Receiving::Once => self.ring.receive_once(connection.target(), token),
            Receiving::Again => self.ring.receive(connection.target(), self.burst_bytes, token),
        }
        connection.armed = true;
        connection.fed = false;
        true
    }

    /// A receive waits for a buffer, once. One that was paused and is wanted again has kept its
    /// place.
    fn starve(&mut self, key: Key, is_fed: bool) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if mem::replace(&mut connection.starved, true) {
            return;
        }
        // Connections that are gone leave their keys behind. Cost: as many as came since.
        if self.starved.len() as u64 > 2 * self.table.occupied() {
            let table = &mut self.table;
            self.starved.retain(|key| table.find(key).is_some());
        }
        self.starved.push(key, is_fed);
    }

    fn start_receiving(&mut self, key: Key, receiving: Receiving) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.receiving != Receiving::No || !connection.is_open() {
            return;
        }
        connection.receiving = receiving;
        if self.starved.is_empty() {
            self.arm_receive(key);
        } else {
            // It would be in the queue ahead of all that wait, and take the buffer that is theirs.
            self.starve(key, false);
        }
    }

    /// Arms starved receives again, as many as there are buffers: more would only starve once more.
    fn feed_starved(&mut self) {
        let mut left = self.buffers.available();
        while left > 0
            && let Some(key) = self.starved.pop()
        {
            if let Some(connection) = self.table.find(key) {
                connection.starved = false;
            }
            left -= usize::from(self.arm_receive(key));
        }
    }

    /// Sends FIN if it is wanted and nothing stands before it.
    fn finish_sending(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.fin != Fin::Wanted || connection.sending.is_some() {
            return;
        }
        match &connection.place {
            Place::Guest(socket) => {
                // A peer that is gone already needs no FIN.
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
                self.stats.system_calls += 1;
                connection.fin = Fin::Sent;
            }
            Place::Resident(index) => {
                self.ring.shutdown(*index, Token::new(Kind::Shutdown, key));
                connection.fin = Fin::InFlight;
            }
        }
    }

    /// Closes the socket of a closing connection once the kernel is done with everything else.
    fn finish_closing(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.closing != Closing::Draining || connection.is_busy() {
            return;
        }
        if let Place::Resident(index) = connection.place {
            self.ring.close(index, Token::new(Kind::Close, key));
            connection.closing = Closing::InFlight;
            return;
        }
        if let Some(Connection { place: Place::Guest(socket), .. }) = self.table.remove(key) {
            self.retired.push(socket);
        }
        self.pending.push(Completion::Closed { key });
    }

    /// How long this turn may wait.
    fn patience(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let fed = !self.starved.is_empty() && self.buffers.available() > 0;
        if fed || !self.pending.is_empty() || self.ring.has_completions() {
            return Some(Duration::ZERO);
        }
        let resume = self.listeners.iter().filter_map(|listener| listener.paused_until).min();
        let pause = resume.map(|until| until.since(monotonic()));
        match (timeout, pause) {
            (Some(timeout), Some(pause)) => Some(timeout.min(pause)),
            (timeout, pause) => timeout.or(pause),
        }
    }

    /// Submits what is queued and waits for a completion, awake at first where that is wanted.
    fn enter(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let Some(spin) = Spin::new(patience, self.busy_poll) else {
            let wanted = u32::from(patience != Some(Duration::ZERO));
            return self.ring.enter(wanted, patience);
        };
        self.ring.enter(0, Some(Duration::ZERO))?;
        while !self.ring.has_completions() {
            if !spin.goes_on() {
                return self.ring.enter(1, spin.rest());
            }
            // Unsubmitted is what the kernel had no memory for: nobody else would try it again.
            if self.ring.has_deferred() || self.ring.has_unsubmitted() {
                self.ring.enter(0, Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    fn refresh_stats(&mut self, completed: usize) {
        self.stats.completions += completed as u64;
        self.stats.system_calls += mem::take(&mut self.ring.system_calls);
        self.stats.operations += mem::take(&mut self.ring.operations);
        self.stats.connections = self.table.occupied();
        self.stats.buffers_in_use = self.buffers.pool().in_use() as u64;
    }
}

impl Driver for Uring {
    type Socket = OwnedFd;

    fn listen(&mut self, listener: OwnedFd) -> Result<(), DriverError> {
        // The ring waits for sockets in blocking mode only; others it asks once.
        rustix::io::ioctl_fionbio(&listener, false)
            .map_err(io::Error::from)
            .map_err(DriverError::setup("blocking mode of the listener"))?;
        accept::without_delay(&listener).map_err(DriverError::setup("TCP_NODELAY"))?;
        let place = u32::try_from(self.listeners.len()).expect("descriptors are fewer");
        self.listeners.push(Listener { socket: listener, paused_until: None });
        self.arm_accept(place);
        Ok(())
    }

    fn stop_listening(&mut self) {
        for (place, listener) in self.listeners.drain(..).enumerate() {
            self.ring.cancel(accept_token(place as u32, self.listeners_generation));
            self.retired.push(listener.socket);
        }
        self.listeners_generation = self.listeners_generation.wrapping_add(1);
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) {
        self.table.insert(key, Connection::guest(socket));
    }

    fn settle(&mut self, key: Key) -> Result<(), TableFull> {
        let Some(connection) = self.table.find(key) else {
            return Ok(());
        };
        let Place::Guest(socket) = &connection.place else {
            return Ok(());
        };
        if !connection.is_open() {
            return Ok(());
        }
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.next_index < self.table_len => {
                self.next_index += 1;
                self.next_index - 1
            }
            None => return Err(TableFull),
        };
        if self.ring.install(index, socket.as_fd()).is_err() {
            self.vacant.push(index);
            return Err(TableFull);
        }
        let place = mem::replace(&mut connection.place, Place::Resident(index));
        if let Place::Guest(socket) = place {
            self.retired.push(socket);
        }
        self.stats.residents += 1;
        Ok(())
    }

    fn release(&mut self, key: Key) -> Option<OwnedFd> {
        let connection = self.table.find(key)?;
        let idle = connection.receiving == Receiving::No && !connection.is_busy();
        if !idle || !connection.is_open() || matches!(connection.place, Place::Resident(_)) {
            return None;
        }
        match self.table.remove(key)?.place {
            Place::Guest(socket) => Some(socket),
            Place::Resident(_) => None,
        }
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
        let is_receiving = matches!(connection.receiving, Receiving::Once | Receiving::Again);
        if !is_receiving || !connection.is_open() {
            return;
        }
        if connection.armed {
            connection.receiving = Receiving::Pausing;
            // It is ahead in the queue of whatever receive is asked for after `Paused`.
            self.ring.cancel(Token::new(Kind::Receive, key));
        } else {
            connection.receiving = Receiving::No;
            self.pending.push(Completion::ReceiveEnded { key, end: End::Paused });
        }
    }

    fn cancel_send(&mut self, key: Key) {
        let connection = self.table.find(key).filter(|connection| connection.is_open());
        if connection.is_some_and(|connection| connection.sending.is_some()) {
            // What was queued in this turn is ahead of its cancellation in the same queue.
            self.ring.cancel(Token::new(Kind::Send, key));
        }
    }

    fn export(&mut self, key: Key) {
        let Some(connection) = self.table.find(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        let is_idle = connection.receiving == Receiving::No && !connection.is_busy();
        let socket = match connection.place {
            Place::Guest(_) | Place::Resident(_) if !is_idle => None,
            Place::Guest(_) => self.release(key),
            Place::Resident(index) if self.ring.exports => {
                connection.exporting = true;
                return self.ring.export(index, Token::new(Kind::Export, key));
            }
            Place::Resident(_) => None,
        };
        let failure = match is_idle {
            true => io::ErrorKind::Unsupported,
            false => io::ErrorKind::ResourceBusy,
        };
        let socket = socket.ok_or_else(|| failure.into());
        self.pending.push(Completion::Exported { key, socket });
    }

    fn batch(&mut self) -> Box<Batch> {
        self.shelf.take()
    }

    fn send(&mut self, key: Key, batch: Box<Batch>, mode: SendMode) {
        let connection = self.table.find(key).filter(|connection| connection.is_open());
        let Some(connection) = connection.filter(|_| !batch.is_empty()) else {
            return self.shelf.put(batch);
        };
        if connection.sending.is_some() {
            let outcome = Err(SendError::Busy);
            return self.pending.push(Completion::Sent { key, batch, outcome });
        }
        let flags = libc::MSG_NOSIGNAL
            | match mode {
                SendMode::Try => libc::MSG_DONTWAIT,
                SendMode::All => libc::MSG_WAITALL,
            };
        let target = connection.target();
        let batch = connection.sending.insert(batch);
        send_batch(&mut self.ring, target, batch, flags, Token::new(Kind::Send, key));
    }

    fn recycle(&mut self, batch: Box<Batch>) {
        self.shelf.put(batch);
    }

    fn shutdown(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if connection.fin == Fin::No && connection.is_open() {
            connection.fin = Fin::Wanted;
            self.finish_sending(key);
        }
    }

    fn close(&mut self, key: Key) {
        let Some(connection) = self.table.find(key) else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        connection.closing = Closing::Draining;
        // Operations queued in this turn are ahead of their cancellation in the same queue.
        if connection.armed {
            self.ring.cancel(Token::new(Kind::Receive, key));
        } else if connection.receiving != Receiving::No {
            self.pending.push(Completion::ReceiveEnded { key, end: End::Cancelled });
        }
        if connection.sending.is_some() {
            self.ring.cancel(Token::new(Kind::Send, key));
        }
        self.finish_closing(key);
    }

    fn turn(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion<OwnedFd>>,
    ) -> io::Result<()> {
        let before = completions.len();
        self.stats.turns += 1;
        self.buffers.publish();
        self.feed_starved();
        self.resume_accepting();
        let patience = self.patience(timeout);
        self.enter(patience)?;
        if !self.ring.has_unsubmitted() {
            self.retired.clear();
        }
        completions.append(&mut self.pending);
        let mut entries = mem::take(&mut self.entries);
        self.ring.drain(self.completions_max, &mut entries);
        for done in entries.drain(..) {
            #[cfg(test)]
            let done = self.tampered(done);
            self.on_done(done, completions);
        }
        self.starved.end_turn();
        self.entries = entries;
        completions.append(&mut self.pending);
        self.refresh_stats(completions.len() - before);
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
        "uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.ring.quiesce() {
            // The kernel may still take buffers, write into them and read from batches: all of that
            // stays for ever.
            self.buffers.leak();
            for connection in self.table.drain() {
                mem::forget(connection.sending);
            }
        }
    }
}

#[allow(unsafe_code)]
fn send_batch(
    ring: &mut Ring,
    target: ring::Target,
    batch: &mut Box<Batch>,
    flags: i32,
    token: Token,
) {
    if let [chunk] = batch.chunks() {
        // SAFETY: the batch stays boxed and untouched in its connection until the completion of
        // this send, or is leaked.
        unsafe { ring.send(target, chunk.as_bytes(), flags, token) };
    } else {
        let header = batch.fill_message();
        // SAFETY: as above; the header lies in the same box as the chunks it points to.
        unsafe { ring.send_message(target, header, flags, token) };
    }
}

/// Bytes a repeated receive brings, in a row if they are there: eight buffers of the default size.
/// Protects the turns of other connections, and their buffers, from a loud one. Reached: it is
/// asked for again in the next turn. Source: with less a stream of 64 KiB frames asks too often;
/// the whole pool is 64 buffers.
const BURST_BYTES: u32 = 256 << 10;

fn accept_token(place: u32, generation: u32) -> Token {
    Token::new(Kind::Accept, Key { slot: place, generation })
}

/// How many descriptors the process may have; the kernel caps the table of a ring by it as well.
fn descriptor_limit() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}
