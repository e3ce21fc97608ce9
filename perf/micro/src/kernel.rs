//! A kernel that has everything at hand.
//!
//! The simulator's kernel draws delays and orders from a seed, and keeps queues of bytes: more work
//! than the shard's own. This one hands out what it was given and takes whatever is sent at once,
//! so that nearly all that is counted belongs to the shard. It holds what it is told and checks
//! nothing: the simulator does.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_driver::{
    Batch, BufferPool, Completion, Config, Driver, DriverError, DriverStats, End, Key, Remote,
    SendMode, TableFull,
};
use relay_mailbox::{Bell, Ring};

use crate::decisions::TURN;

/// The shard's end.
pub(crate) struct Kernel {
    wires: Rc<RefCell<Wires>>,
    #[expect(clippy::vec_box, reason = "batches travel boxed")]
    shelf: Vec<Box<Batch>>,
    bell: Arc<Bell>,
    stats: DriverStats,
    now: Tick,
}

/// The peers' end of all connections.
pub(crate) struct Wires {
    pool: BufferPool,
    /// What the next turn reports.
    ready: Vec<Completion<usize>>,
    /// The shard's name for each socket.
    keys: Vec<Option<Key>>,
    /// Bytes that were sent to each.
    pub(crate) sent_bytes: Vec<usize>,
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl Kernel {
    pub(crate) fn new(config: &Config) -> Self {
        let wires = Wires {
            pool: BufferPool::new(config.buffer_count, config.buffer_bytes),
            ready: Vec::new(),
            keys: Vec::new(),
            sent_bytes: Vec::new(),
        };
        Self {
            wires: Rc::new(RefCell::new(wires)),
            shelf: Vec::new(),
            bell: Bell::new(Silent),
            stats: DriverStats::default(),
            now: Tick::from_millis(1000),
        }
    }

    /// The peers' end.
    pub(crate) fn wires(&self) -> Rc<RefCell<Wires>> {
        Rc::clone(&self.wires)
    }
}

impl Wires {
    /// Connects somebody.
    pub(crate) fn connect(&mut self) -> usize {
        let socket = self.keys.len();
        self.keys.push(None);
        self.sent_bytes.push(0);
        let remote = Remote::Internet(([127, 0, 0, 1], 4000).into());
        self.ready.push(Completion::Accepted { socket, remote });
        socket
    }

    /// Lets bytes arrive from a socket, in as many receives as they fill buffers.
    ///
    /// # Panics
    /// When nobody knows the socket, or all buffers are leased: the case is set up wrongly.
    pub(crate) fn arrive(&mut self, socket: usize, bytes: &[u8]) {
        let key = self.keys[socket].expect("the shard has adopted it");
        for part in bytes.chunks(self.pool.buffer_bytes()) {
            let mut lease = self.pool.lease().expect("there are enough buffers");
            lease[..part.len()].copy_from_slice(part);
            lease.truncate(part.len());
            self.ready.push(Completion::Received { key, lease });
        }
    }

    fn socket(&self, key: Key) -> Option<usize> {
        self.keys.iter().position(|known| *known == Some(key))
    }
}

impl Driver for Kernel {
    type Socket = usize;

    fn listen(&mut self, _listener: usize) -> Result<(), DriverError> {
        Ok(())
    }

    fn stop_listening(&mut self) {}

    fn adopt(&mut self, key: Key, socket: usize) {
        self.wires.borrow_mut().keys[socket] = Some(key);
    }

    fn settle(&mut self, _key: Key) -> Result<(), TableFull> {
        Ok(())
    }

    fn release(&mut self, key: Key) -> Option<usize> {
        self.wires.borrow().socket(key)
    }

    fn receive_once(&mut self, _key: Key) {}

    fn receive(&mut self, _key: Key) {}

    fn pause(&mut self, key: Key) {
        self.wires.borrow_mut().ready.push(Completion::ReceiveEnded { key, end: End::Paused });
    }

    fn cancel_send(&mut self, _key: Key) {}

    fn export(&mut self, _key: Key) {}

    fn batch(&mut self) -> Box<Batch> {
        self.shelf.pop().unwrap_or_else(Batch::new)
    }

    fn send(&mut self, key: Key, batch: Box<Batch>, _mode: SendMode) {
        let mut wires = self.wires.borrow_mut();
        let outcome = Ok(batch.len());
        // Slots are given out in order and never again.
        wires.sent_bytes[key.slot as usize] += batch.len();
        wires.ready.push(Completion::Sent { key, batch, outcome });
    }

    fn recycle(&mut self, mut batch: Box<Batch>) {
        batch.clear();
        self.shelf.push(batch);
    }

    fn shutdown(&mut self, _key: Key) {}

    fn close(&mut self, key: Key) {
        self.wires.borrow_mut().ready.push(Completion::Closed { key });
    }

    fn turn(
        &mut self,
        _timeout: Option<Duration>,
        completions: &mut Vec<Completion<usize>>,
    ) -> io::Result<()> {
        completions.append(&mut self.wires.borrow_mut().ready);
        self.now = self.now.after(TURN);
        Ok(())
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    fn now(&self) -> Tick {
        self.now
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }

    fn stats(&self) -> &DriverStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "micro"
    }
}
