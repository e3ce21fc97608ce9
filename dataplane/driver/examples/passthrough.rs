//! What forwarding costs the thread of a driver, without any protocol.
//!
//! ```text
//! cargo run --release -p relay-driver --example passthrough -- \
//!     <uring|epoll> [pairs] [depth] [bytes] [seconds]
//! ```
//!
//! Half of the connections write messages, each pass-through goes to the other half, which answers
//! in the same way. The driver's thread only joins a connection to its partner: bytes are sent from
//! the buffers they were received into, what a full socket leaves over is copied. CPU time is that
//! of the driver's thread alone; the load comes from a thread of its own.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay_driver::{AnyDriver, Batch, Choice, Chunk, Completion, Config, Driver, Key, SendMode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let choice: Choice = arguments.first().map_or(Ok(Choice::Auto), |name| name.parse()).unwrap();
    let number = |index: usize, otherwise: usize| {
        arguments.get(index).map_or(otherwise, |text| text.parse().unwrap())
    };
    let plan = Plan { pairs: number(1, 64), depth: number(2, 16), bytes: number(3, 256) };
    let time = Duration::from_secs(number(4, 5) as u64);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = Arc::new(Run::default());
    let load = {
        let run = Arc::clone(&run);
        std::thread::spawn(move || plan.load(address, &run))
    };
    let mut forwarder = Forwarder::new(choice);
    forwarder.driver.listen(listener.into()).unwrap();
    forwarder.accept(plan.pairs * 2);
    forwarder.go_on_for(Duration::from_secs(1));
    forwarder.measure(plan, time, &run);
    run.over.store(true, Ordering::Relaxed);
    while !load.is_finished() {
        forwarder.go_on_for(Duration::from_millis(20));
    }
    load.join().unwrap();
}

/// The load: every pair keeps `depth` messages of `bytes` under way in each direction.
#[derive(Clone, Copy)]
struct Plan {
    pairs: usize,
    depth: usize,
    bytes: usize,
}

#[derive(Default)]
struct Run {
    over: AtomicBool,
    received_bytes: AtomicU64,
}

impl Plan {
    fn load(self, address: SocketAddr, run: &Run) {
        let streams: Vec<_> = (0..self.pairs * 2)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect();
        let messages = vec![b'm'; self.depth * self.bytes];
        for stream in &streams {
            (&*stream).write_all(&messages).unwrap();
        }
        let mut buffer = vec![0; 256 << 10];
        while !run.over.load(Ordering::Relaxed) {
            let mut watched: Vec<_> =
                streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            poll(&mut watched, Some(&wait)).unwrap();
            let ready: Vec<_> =
                watched.iter().map(|watched| !watched.revents().is_empty()).collect();
            for (stream, _) in streams.iter().zip(ready).filter(|(_, ready)| *ready) {
                match (&*stream).read(&mut buffer) {
                    Ok(0) => return,
                    Ok(received) => {
                        run.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
                        // Whatever came goes back; sockets hold more than a pair has under way.
                        (&*stream).write_all(&buffer[..received]).unwrap();
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// The driver's thread: connection `2n` and connection `2n + 1` are partners.
struct Forwarder {
    driver: AnyDriver,
    completions: Vec<Completion<std::os::fd::OwnedFd>>,
    lanes: Vec<Lane>,
    dirty: Vec<u32>,
    copied_bytes: u64,
}

/// What waits for one connection.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Chunk>,
    sending: bool,
    dirty: bool,
    /// The next send insists: its bytes were copied because the socket was full.
    spilled: bool,
}

impl Forwarder {
    fn new(choice: Choice) -> Self {
        let opened = relay_driver::open(choice, &Config::default()).unwrap();
        if let Some(fallback) = &opened.fallback {
            println!("fallback: {}", fallback.reason);
        }
        Self {
            driver: opened.driver,
            completions: Vec::new(),
            lanes: Vec::new(),
            dirty: Vec::new(),
            copied_bytes: 0,
        }
    }

    fn accept(&mut self, count: usize) {
        while self.lanes.len() < count {
            self.turn(None);
        }
        for slot in 0..count as u32 {
            self.driver.receive(key(slot));
        }
    }

    fn go_on_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(Some(Duration::from_millis(10)));
        }
    }

    fn measure(&mut self, plan: Plan, time: Duration, run: &Run) {
        let stats = self.driver.stats().clone();
        let bytes = run.received_bytes.load(Ordering::Relaxed);
        let copied = self.copied_bytes;
        let cpu = thread_cpu();
        self.go_on_for(time);
        let cpu = thread_cpu() - cpu;
        let bytes = run.received_bytes.load(Ordering::Relaxed) - bytes;
        let messages = bytes as f64 / plan.bytes as f64;
        let now = self.driver.stats();
        println!(
            "{:5} {} pairs, depth {}, {} B: {:.3} us CPU per message, {:.0} messages/s, \
             {:.3} system calls per message, {} starved, {:.0} % copied",
            self.driver.name(),
            plan.pairs,
            plan.depth,
            plan.bytes,
            cpu.as_secs_f64() * 1e6 / messages,
            messages / time.as_secs_f64(),
            (now.system_calls - stats.system_calls) as f64 / messages,
            now.receive_starved - stats.receive_starved,
            (self.copied_bytes - copied) as f64 * 100.0 / bytes as f64,
        );
    }

    fn turn(&mut self, timeout: Option<Duration>) {
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.turn(timeout, &mut completions).unwrap();
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { socket, .. } => {
                    let slot = self.lanes.len() as u32;
                    self.driver.adopt(key(slot), socket);
                    self.driver.settle(key(slot)).unwrap();
                    self.lanes.push(Lane::default());
                }
                Completion::Received { key, lease } => {
                    let partner = key.slot ^ 1;
                    let lane = &mut self.lanes[partner as usize];
                    lane.waiting.push_back(lease.freeze().into_slice().into());
                    if !lane.dirty {
                        lane.dirty = true;
                        self.dirty.push(partner);
                    }
                }
                Completion::Sent { key, batch, outcome } => {
                    self.on_sent(key.slot, batch, outcome.unwrap_or(0));
                }
                Completion::ReceiveEnded { key, .. } => self.driver.close(key),
                Completion::Exported { .. } | Completion::Closed { .. } => {}
                Completion::AcceptFailed(error) => panic!("{error}"),
            }
        }
        self.completions = completions;
        for slot in std::mem::take(&mut self.dirty) {
            self.lanes[slot as usize].dirty = false;
            self.send(slot);
        }
    }

    fn on_sent(&mut self, slot: u32, mut batch: Box<Batch>, sent: usize) {
        let lane = &mut self.lanes[slot as usize];
        lane.sending = false;
        if sent < batch.len() {
            batch.advance(sent);
            let rest: Vec<u8> =
                batch.chunks().iter().flat_map(|chunk| chunk.as_bytes()).copied().collect();
            self.copied_bytes += rest.len() as u64;
            lane.waiting.push_front(rest.into());
            lane.spilled = true;
        }
        self.driver.recycle(batch);
        self.send(slot);
    }

    fn send(&mut self, slot: u32) {
        let lane = &mut self.lanes[slot as usize];
        if lane.sending || lane.waiting.is_empty() {
            return;
        }
        let mut batch = self.driver.batch();
        let most = if lane.spilled { 1 } else { Batch::CHUNKS_MAX };
        for chunk in lane.waiting.drain(..most.min(lane.waiting.len())) {
            batch.push(chunk).unwrap();
        }
        let mode = if lane.spilled { SendMode::All } else { SendMode::Try };
        lane.spilled = false;
        lane.sending = true;
        self.driver.send(key(slot), batch, mode);
    }
}

fn key(slot: u32) -> Key {
    Key { slot, generation: 0 }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
