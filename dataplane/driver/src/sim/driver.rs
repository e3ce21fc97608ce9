//! The simulated kernel, as one shard sees it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_mailbox::{Bell, Ring};

use super::world::{Net, Socket, World};
use crate::batch::BatchShelf;
use crate::{
    Batch, BufferPool, Completion, Config, Driver, DriverError, DriverStats, End, Key, SendError,
    SendMode, TableFull,
};

/// A [`Driver`] over a [`World`]. It never waits: whoever runs the world lets time pass.
#[derive(Debug)]
pub struct SimDriver {
    world: World,
    pool: BufferPool,
    shelf: BatchShelf,
    bell: Arc<Bell>,
    listeners: Vec<usize>,
    connections: BTreeMap<u32, Connection>,
    residents_max: u32,
    completions_max: usize,
    /// Completions that need no network.
    ready: Vec<Completion<Socket>>,
    stats: DriverStats,
}

#[derive(Debug)]
struct Connection {
    generation: u32,
    socket: Socket,
    resident: bool,
    receive: Receive,
    send: Option<Send>,
    /// FIN is wanted once nothing is being sent.
    finishing: bool,
    /// It is being given away.
    exporting: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Receive {
    Idle,
    Once,
    Repeatedly,
    /// `Repeatedly` until the kernel notices.
    Pausing,
}

#[derive(Debug)]
struct Send {
    batch: Box<Batch>,
    mode: SendMode,
    sent: usize,
    /// It was to be ended.
    cancelled: bool,
}

impl Send {
    /// How it ends when it is ended.
    fn cancelled(&self) -> Result<usize, SendError> {
        match self.sent {
            0 => Err(SendError::Cancelled),
            sent => Ok(sent),
        }
    }
}

/// The simulation looks at every shard in turn, so nobody has to be woken.
struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl SimDriver {
    pub(crate) fn new(world: World, config: &Config) -> Self {
        Self {
            world,
            pool: BufferPool::new(config.buffer_count, config.buffer_bytes),
            shelf: BatchShelf::default(),
            bell: Bell::new(Silent),
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            residents_max: config.residents_max,
            completions_max: config.completions_max,
            ready: Vec::new(),
            stats: DriverStats {
                residents_max: config.residents_max.into(),
                ..DriverStats::default()
            },
        }
    }

    /// Receive buffers that are not back in the pool.
    pub fn buffers_in_use(&self) -> usize {
        self.pool.in_use()
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(&key.slot)?;
        (connection.generation == key.generation).then_some(connection)
    }

    fn accept(&mut self, net: &mut Net, completions: &mut Vec<Completion<Socket>>) {
        for &listener in &self.listeners {
            let Some(Some(backlog)) = net.backlogs.get_mut(listener) else {
                continue;
            };
            if !backlog.is_empty() && net.seed.happens(net.faults.failed_accept) {
                net.injected.failed_accepts += 1;
                self.stats.accept_failed += 1;
                let error = io::Error::from_raw_os_error(libc::EMFILE);
                completions.push(Completion::AcceptFailed(error));
                continue;
            }
            while completions.len() < self.completions_max {
                let Some(socket) = backlog.pop_front() else {
                    break;
                };
                let remote = net.streams[socket.index].remote;
                self.stats.accepted += 1;
                completions.push(Completion::Accepted { socket, remote });
            }
        }
    }

    fn finish_exporting(&mut self, key: Key, completions: &mut Vec<Completion<Socket>>) {
        if let Some(connection) = self.connections.remove(&key.slot) {
            self.stats.connections -= 1;
            self.stats.residents -= u64::from(connection.resident);
            completions.push(Completion::Exported { key, socket: Ok(connection.socket) });
        }
    }

    /// Looks at one connection: at most one receive and one step of a send per turn.
    fn look(&mut self, slot: u32, net: &mut Net, completions: &mut Vec<Completion<Socket>>) {
        let Some(connection) = self.connections.get_mut(&slot) else {
            return;
        };
        let key = Key { slot, generation: connection.generation };
        let index = connection.socket.index;
        if net.seed.happens(net.faults.reset) {
            net.streams[index].reset = true;
            net.injected.resets += 1;
        }
        if net.seed.happens(net.faults.passed_over) {
            net.injected.passed_over += 1;
            return;
        }
        let busy = connection.receive != Receive::Idle || connection.send.is_some();
        if std::mem::take(&mut connection.exporting) {
            if busy {
                let socket = Err(io::ErrorKind::ResourceBusy.into());
                return completions.push(Completion::Exported { key, socket });
            }
            if connection.resident && net.seed.happens(net.faults.failed_export) {
                net.injected.failed_exports += 1;
                let socket = Err(io::Error::from_raw_os_error(libc::EMFILE));
                return completions.push(Completion::Exported { key, socket });
            }
            return self.finish_exporting(key, completions);
        }
        if connection.receive != Receive::Idle {
            receive(connection, key, net, &self.pool, &mut self.stats, completions);
        }
        // A multishot receive goes on as long as there is something.
        while matches!(connection.receive, Receive::Repeatedly | Receive::Pausing)
            && completions.len() < self.completions_max
            && net.seed.happens(net.faults.gulp)
        {
            let before = completions.len();
            receive(connection, key, net, &self.pool, &mut self.stats, completions);
            net.injected.gulps += (completions.len() - before) as u64;
        }
        if connection.receive == Receive::Pausing {
            connection.receive = Receive::Idle;
            completions.push(Completion::ReceiveEnded { key, end: End::Paused });
        }
        if let Some(send) = &mut connection.send
            && let Some(outcome) =
                step(send, index, net, &mut self.stats).or_else(|| end(send, net))
        {
            let batch = connection.send.take().map(|send| send.batch);
            completions.extend(batch.map(|batch| Completion::Sent { key, batch, outcome }));
        }
        if connection.finishing && connection.send.is_none() {
            connection.finishing = false;
            let Net { streams, seed, faults, now, .. } = net;
            streams[index].to_peer.finish(*now, seed, faults);
        }
    }
}

/// One receive, if there is something to say.
fn receive(
    connection: &mut Connection,
    key: Key,
    net: &mut Net,
    pool: &BufferPool,
    stats: &mut DriverStats,
    completions: &mut Vec<Completion<Socket>>,
) {
    let stream = &mut net.streams[connection.socket.index];
    if stream.reset || stream.to_shard.is_at_end(net.now) {
        let end = if stream.reset { End::Reset } else { End::Eof };
        connection.receive = Receive::Idle;
        return completions.push(Completion::ReceiveEnded { key, end });
    }
    if !stream.to_shard.is_readable(net.now) {
        return;
    }
    if net.seed.happens(net.faults.failed_receive) {
        net.injected.failed_receives += 1;
        connection.receive = Receive::Idle;
        let end = End::Failed(libc::ENOMEM);
        return completions.push(Completion::ReceiveEnded { key, end });
    }
    let starved = net.seed.happens(net.faults.starved_receive);
    net.injected.starved_receives += u64::from(starved);
    let Some(mut lease) = (if starved { None } else { pool.lease() }) else {
        stats.receive_starved += 1;
        return;
    };
    let mut most = lease.len();
    if net.seed.happens(net.faults.short_receive) {
        most = net.seed.length(most.min(64));
        net.injected.short_receives += 1;
    }
    let taken = stream.to_shard.take(&mut lease[..most], net.now);
    lease.truncate(taken);
    stats.received_bytes += taken as u64;
    if connection.receive == Receive::Once {
        connection.receive = Receive::Idle;
    }
    completions.push(Completion::Received { key, lease });
}

/// One step of a send; the outcome when it is over.
fn step(
    send: &mut Send,
    index: usize,
    net: &mut Net,
    stats: &mut DriverStats,
) -> Option<Result<usize, SendError>> {
    let Net { streams, seed, faults, injected, now, .. } = net;
    let stream = &mut streams[index];
    if stream.reset {
        return Some(Err(SendError::Reset));
    }
    if seed.happens(faults.failed_send) {
        injected.failed_sends += 1;
        return Some(Err(SendError::Failed(libc::ETIMEDOUT)));
    }
    // A world without this fault draws nothing for it.
    if faults.starved_send > 0 && seed.happens(faults.starved_send) {
        injected.starved_sends += 1;
        return Some(Ok(send.sent));
    }
    let total = send.batch.len();
    let mut most = (total - send.sent).min(stream.to_peer.room(faults));
    if most > 0 && seed.happens(faults.short_send) {
        most = seed.length(most);
        injected.short_sends += 1;
    }
    let mut skip = send.sent;
    let mut bytes = Vec::with_capacity(most);
    for chunk in send.batch.chunks() {
        let chunk = chunk.as_bytes();
        let skipped = skip.min(chunk.len());
        skip -= skipped;
        let part = (chunk.len() - skipped).min(most - bytes.len());
        bytes.extend_from_slice(&chunk[skipped..skipped + part]);
    }
    stream.to_peer.put(&bytes, *now, seed, faults);
    injected.delays += u64::from(!bytes.is_empty());
    send.sent += most;
    stats.sent_bytes += most as u64;
    let over = send.mode == SendMode::Try || send.sent == total;
    over.then_some(Ok(send.sent))
}

/// Ends a send that was to be ended, unless the kernel takes its time.
fn end(send: &Send, net: &mut Net) -> Option<Result<usize, SendError>> {
    if send.cancelled && net.seed.happens(net.faults.late_cancel) {
        net.injected.late_cancels += 1;
        return None;
    }
    send.cancelled.then(|| send.cancelled())
}

impl Driver for SimDriver {
    type Socket = Socket;

    fn listen(&mut self, listener: Socket) -> Result<(), DriverError> {
        self.listeners.push(listener.index);
        Ok(())
    }

    fn stop_listening(&mut self) {
        for listener in self.listeners.drain(..) {
            self.world.net.borrow_mut().backlogs[listener] = None;
        }
    }

    fn adopt(&mut self, key: Key, socket: Socket) {
        let connection = Connection {
            generation: key.generation,
            socket,
            resident: false,
            receive: Receive::Idle,
            send: None,
            finishing: false,
            exporting: false,
        };
        let before = self.connections.insert(key.slot, connection);
        assert!(before.is_none(), "slot {} is reused only after it was closed", key.slot);
        self.stats.connections += 1;
    }

    fn settle(&mut self, key: Key) -> Result<(), TableFull> {
        let full = self.stats.residents >= u64::from(self.residents_max);
        match self.connection(key) {
            Some(connection) if !connection.resident => {
                if full {
                    return Err(TableFull);
                }
                connection.resident = true;
                self.stats.residents += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn release(&mut self, key: Key) -> Option<Socket> {
        let connection = self.connection(key)?;
        let busy = connection.receive != Receive::Idle || connection.send.is_some();
        if connection.resident || busy || connection.finishing {
            return None;
        }
        self.stats.connections -= 1;
        self.connections.remove(&key.slot).map(|connection| connection.socket)
    }

    fn receive_once(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && connection.receive == Receive::Idle
        {
            connection.receive = Receive::Once;
        }
    }

    fn receive(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && connection.receive == Receive::Idle
        {
            connection.receive = Receive::Repeatedly;
        }
    }

    fn pause(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && matches!(connection.receive, Receive::Repeatedly | Receive::Once)
        {
            connection.receive = Receive::Pausing;
        }
    }

    fn cancel_send(&mut self, key: Key) {
        let world = self.world.clone();
        let mut net = world.net.borrow_mut();
        let Some(connection) = self.connection(key) else { return };
        let outcome = connection.send.as_mut().and_then(|send| {
            send.cancelled = true;
            end(send, &mut net)
        });
        if let Some(outcome) = outcome
            && let Some(Send { batch, .. }) = connection.send.take()
        {
            self.ready.push(Completion::Sent { key, batch, outcome });
        }
    }

    fn export(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        if connection.receive != Receive::Idle || connection.send.is_some() || connection.finishing
        {
            let socket = Err(io::ErrorKind::ResourceBusy.into());
            return self.ready.push(Completion::Exported { key, socket });
        }
        connection.exporting = true;
    }

    fn batch(&mut self) -> Box<Batch> {
        self.shelf.take()
    }

    fn send(&mut self, key: Key, batch: Box<Batch>, mode: SendMode) {
        if batch.is_empty() {
            return self.shelf.put(batch);
        }
        match self.connection(key) {
            Some(connection) if connection.send.is_none() => {
                connection.send = Some(Send { batch, mode, sent: 0, cancelled: false });
            }
            Some(_) => {
                let outcome = Err(SendError::Busy);
                self.ready.push(Completion::Sent { key, batch, outcome });
            }
            None => self.shelf.put(batch),
        }
    }

    fn recycle(&mut self, batch: Box<Batch>) {
        self.shelf.put(batch);
    }

    fn shutdown(&mut self, key: Key) {
        if let Some(connection) = self.connection(key) {
            connection.finishing = true;
        }
    }

    fn close(&mut self, key: Key) {
        if self.connection(key).is_none() {
            return;
        }
        let Some(mut connection) = self.connections.remove(&key.slot) else {
            return;
        };
        self.stats.connections -= 1;
        self.stats.residents -= u64::from(connection.resident);
        let mut net = self.world.net.borrow_mut();
        let index = connection.socket.index;
        // A real kernel meets the queued send before the close: what the socket takes at once goes
        // out.
        let outcome =
            connection.send.as_mut().and_then(|send| step(send, index, &mut net, &mut self.stats));
        net.close_shard_side(index);
        if connection.receive != Receive::Idle {
            self.ready.push(Completion::ReceiveEnded { key, end: End::Cancelled });
        }
        if let Some(send) = connection.send {
            let outcome = outcome.unwrap_or_else(|| send.cancelled());
            let Send { batch, .. } = send;
            self.ready.push(Completion::Sent { key, batch, outcome });
        }
        self.ready.push(Completion::Closed { key });
    }

    fn turn(
        &mut self,
        _timeout: Option<Duration>,
        completions: &mut Vec<Completion<Socket>>,
    ) -> io::Result<()> {
        let world = self.world.clone();
        let mut net = world.net.borrow_mut();
        completions.append(&mut self.ready);
        self.accept(&mut net, completions);
        let mut slots: Vec<u32> = self.connections.keys().copied().collect();
        // Nobody's completions come in the order of their slots.
        for last in (1..slots.len()).rev() {
            slots.swap(last, net.seed.below(last as u64 + 1) as usize);
        }
        for slot in slots {
            if completions.len() >= self.completions_max {
                break;
            }
            self.look(slot, &mut net, completions);
        }
        self.stats.turns += 1;
        self.stats.completions += completions.len() as u64;
        self.stats.buffers_in_use = self.pool.in_use() as u64;
        Ok(())
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    fn now(&self) -> Tick {
        self.world.now()
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}
