//! The closed loop: whenever a frame has made its way, the next one goes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::figures::Window;
use crate::pair::{Pair, Shape, Side, pair_and_side, token};
use crate::processor;
use crate::subject::Subject;

/// Pairs against one process, driven by one thread.
pub(crate) struct Generator {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    pairs: Vec<Pair>,
    /// Read here; frames are compared and forgotten.
    buffer: Box<[u8]>,
    /// Whether frames that have made their way are followed by new ones.
    is_feeding: bool,
    frames: u64,
    /// Nanoseconds from releasing a frame to the read that completed it.
    latency: Histogram<u64>,
    process: u32,
    depth: usize,
}

impl Generator {
    /// Opens the pairs.
    pub(crate) fn open(subject: &Subject, shape: Shape) -> Result<Self> {
        Self::open_from(subject, 0, shape)
    }

    /// Opens pairs whose workspaces are numbered from `first` on. No system call of theirs moves
    /// many bytes, so that another thread of the same processor soon has its turn.
    pub(crate) fn open_gently(subject: &Subject, first: usize, shape: Shape) -> Result<Self> {
        let mut generator = Self::open_from(subject, first, shape)?;
        generator.buffer = vec![0; GENTLE_BYTES].into_boxed_slice();
        generator.pairs.iter_mut().for_each(|pair| pair.write_bytes_max = GENTLE_BYTES);
        Ok(generator)
    }

    fn open_from(subject: &Subject, first: usize, shape: Shape) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut pairs = Vec::with_capacity(shape.pairs);
        for index in 0..shape.pairs {
            let pair = Pair::open(subject, first + index, shape)
                .with_context(|| format!("pair {index}"))?;
            pair.watch(&epoll, |side| token(index, side))?;
            pairs.push(pair);
        }
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            pairs,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            is_feeding: false,
            frames: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
                .context("a histogram of three digits")?,
            process: subject.process(),
            depth: shape.depth,
        })
    }

    /// Loads the process for `warm_up`, measures for `window`, and lets everything arrive.
    pub(crate) fn measure(&mut self, warm_up: Duration, window: Duration) -> Result<Window> {
        self.is_feeding = true;
        let now = processor::now_ns();
        for index in 0..self.pairs.len() {
            self.pairs[index].prime(self.depth, now);
            self.write(index, Side::Client)?;
        }
        self.turn_for(warm_up)?;
        self.frames = 0;
        self.latency.reset();
        let used_before_ns = processor::used_ns(self.process)?;
        let start = processor::now_ns();
        self.turn_for(window)?;
        let elapsed_ns = processor::now_ns() - start;
        let used_ns = processor::used_ns(self.process)? - used_before_ns;
        let result = Window::new(self.frames, elapsed_ns, used_ns, &self.latency);
        self.is_feeding = false;
        self.drain()?;
        Ok(result)
    }

    /// Loads the process until told to stop, and lets everything arrive.
    pub(crate) fn load_until(&mut self, stop: &AtomicBool) -> Result<()> {
        self.is_feeding = true;
        let now = processor::now_ns();
        for index in 0..self.pairs.len() {
            self.pairs[index].prime(self.depth, now);
            self.write(index, Side::Client)?;
        }
        while !stop.load(Ordering::Relaxed) {
            self.turn()?;
        }
        self.is_feeding = false;
        self.drain()
    }

    /// Runs the loop for some time; fails when nothing arrives any more.
    fn turn_for(&mut self, time: Duration) -> Result<()> {
        let mut now = processor::now_ns();
        let end = now + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut last_arrival = now;
        while now < end {
            let before = self.frames;
            self.turn()?;
            now = processor::now_ns();
            if self.frames > before {
                last_arrival = now;
            }
            ensure!(now - last_arrival < STALL_NS, "nothing has arrived for 5 s");
        }
        Ok(())
    }

    /// Runs the loop until nothing is in flight.
    fn drain(&mut self) -> Result<()> {
        let deadline = processor::now_ns() + STALL_NS;
        loop {
            let in_flight: u64 = self.pairs.iter().map(Pair::in_flight).sum();
            if in_flight == 0 {
                return Ok(());
            }
            ensure!(processor::now_ns() < deadline, "{in_flight} frames never arrived");
            self.turn()?;
        }
    }

    /// Waits for sockets and serves each that is ready.
    fn turn(&mut self) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            // Events are packed: fields are copied, not borrowed.
            let (data, flags) = (event.data, event.flags);
            let (index, side) = pair_and_side(data.u64());
            if flags.contains(epoll::EventFlags::OUT) {
                self.write(index, side)?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP) {
                self.read(index, side).with_context(|| format!("pair {index}, {side:?}"))?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, index: usize, side: Side) -> Result<()> {
        let pair = &mut self.pairs[index];
        let Some(len) = pair.read(side, &mut self.buffer)? else { return Ok(()) };
        let now = processor::now_ns();
        let arrival = pair.arrive(side, &self.buffer[..len], now, self.is_feeding)?;
        self.frames += arrival.count;
        for sent_at in arrival.sent_at {
            self.latency.saturating_record(now - sent_at);
        }
        match arrival.writer {
            Some(writer) => self.write(index, writer),
            None => Ok(()),
        }
    }

    fn write(&mut self, index: usize, side: Side) -> Result<()> {
        let pair = &mut self.pairs[index];
        pair.write(&self.epoll, side, token(index, side))
            .with_context(|| format!("pair {index}, {side:?}"))
    }
}

/// Bytes of one read, at most.
const READ_BYTES: usize = 256 << 10;
/// The same, and of one write, of a gentle generator.
const GENTLE_BYTES: usize = 32 << 10;
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 256;
/// The longest latency the histogram tells apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Silence that means frames are lost.
const STALL_NS: u64 = 5_000_000_000;
/// How long a turn waits, so that ends of windows are noticed.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
