//! Quiet pairs that send at a fixed rate, whatever becomes of earlier messages, so that a stall of
//! the process under test is not hidden.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use relay_arrival::{self as arrival, Arrived};
use rustix::event::epoll;
use serde::Serialize;

use crate::pair::{Pair, Shape, Side, pair_and_side, token};
use crate::processor;
use crate::readiness;
use crate::subject::Subject;

/// Pairs that send one message each per beat, spread evenly over it.
pub(crate) struct Metronome {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    pairs: Vec<Pair>,
    buffer: Box<[u8]>,
    /// Time from one message to the next, of whichever pair.
    step_ns: u64,
    next_pair: usize,
    /// Nanoseconds from sending a message to its arrival, as the kernel noted it.
    latency: Histogram<u64>,
}

/// Latency of one window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Beat {
    pub(crate) messages: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
}

impl Metronome {
    /// Opens `pair_count` pairs that send `rate` messages per second each.
    pub(crate) fn open(subject: &Subject, pair_count: usize, rate: usize) -> Result<Self> {
        Self::open_from(subject, 0, pair_count, rate)
    }

    /// The same, the first of them number `first` of its kind: for a relay that had others.
    pub(crate) fn open_from(
        subject: &Subject,
        first: usize,
        pair_count: usize,
        rate: usize,
    ) -> Result<Self> {
        let shape = Shape {
            pairs: pair_count,
            payload_bytes: PAYLOAD_BYTES,
            depth: IN_FLIGHT_MAX,
            echo: false,
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut pairs = Vec::with_capacity(pair_count);
        for index in 0..pair_count {
            let pair = Pair::open(subject, FIRST_WORKSPACE + first + index, shape)
                .with_context(|| format!("quiet pair {index}"))?;
            pair.watch(&epoll, |side| token(index, side))?;
            arrival::note_arrivals(pair.socket(Side::Daemon))?;
            pairs.push(pair);
        }
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            pairs,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            step_ns: 1_000_000_000 / (pair_count * rate) as u64,
            next_pair: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
                .context("a histogram of three digits")?,
        })
    }

    /// Sends for `warm_up`, measures for `window`, and waits for what is still under way.
    pub(crate) fn measure(&mut self, warm_up: Duration, window: Duration) -> Result<Beat> {
        self.beat_for(warm_up)?;
        self.latency.reset();
        self.beat_for(window)?;
        self.drain()?;
        Ok(Beat {
            messages: self.latency.len(),
            p50_ns: self.latency.value_at_quantile(0.5),
            p99_ns: self.latency.value_at_quantile(0.99),
            p999_ns: self.latency.value_at_quantile(0.999),
        })
    }

    /// Sends until that is so, and waits for what is still under way.
    pub(crate) fn beat_until(&mut self, mut is_over: impl FnMut() -> bool) -> Result<()> {
        self.beat(|_| is_over())?;
        self.drain()
    }

    fn beat_for(&mut self, time: Duration) -> Result<()> {
        let end = processor::now_ns() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.beat(|due| due >= end)
    }

    /// Sends until it is over at the moment that a message is due.
    fn beat(&mut self, mut is_over: impl FnMut(u64) -> bool) -> Result<()> {
        let mut due = processor::now_ns();
        while !is_over(due) {
            let now = processor::now_ns();
            if now < due {
                self.listen(due - now)?;
                continue;
            }
            due += self.step_ns;
            let index = self.next_pair;
            self.next_pair = (index + 1) % self.pairs.len();
            let pair = &mut self.pairs[index];
            ensure!(pair.in_flight() < IN_FLIGHT_MAX as u64, "quiet pair {index} is stuck");
            pair.prime(1, arrival::now_ns());
            pair.write(&self.epoll, Side::Client, token(index, Side::Client))?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let deadline = processor::now_ns() + LATENCY_NS_MAX;
        while self.pairs.iter().any(|pair| pair.in_flight() > 0) {
            ensure!(processor::now_ns() < deadline, "messages of quiet pairs never arrived");
            self.listen(PATIENCE_NS)?;
        }
        Ok(())
    }

    /// Waits for arrivals, at most so long.
    fn listen(&mut self, patience_ns: u64) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        readiness::wait(&self.epoll, &mut events, patience_ns)?;
        for event in events.drain(..) {
            // Events are packed: fields are copied, not borrowed.
            let (data, flags) = (event.data, event.flags);
            let (index, side) = pair_and_side(data.u64());
            if flags.contains(epoll::EventFlags::OUT) {
                self.pairs[index].write(&self.epoll, side, token(index, side))?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP) {
                self.read(index, side).with_context(|| format!("quiet pair {index}, {side:?}"))?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, index: usize, side: Side) -> Result<()> {
        let pair = &mut self.pairs[index];
        if side == Side::Client {
            let len = pair.read(side, &mut self.buffer)?.unwrap_or(0);
            ensure!(len == 0, "a quiet client was sent what it did not ask for");
            return Ok(());
        }
        let socket = pair.socket(side);
        let Some(Arrived { len, at_ns }) = arrival::read(socket, &mut self.buffer)? else {
            return Ok(());
        };
        for sent_at in pair.arrive(side, &self.buffer[..len], at_ns, false)?.sent_at {
            self.latency.saturating_record(at_ns.saturating_sub(sent_at));
        }
        Ok(())
    }
}

/// Bytes of a quiet pair's message.
const PAYLOAD_BYTES: usize = 256;
/// Messages of one quiet pair that may be under way: seconds of them, so that a stall is measured
/// rather than avoided.
const IN_FLIGHT_MAX: usize = 4096;
/// Workspaces of quiet pairs are numbered from here, away from those of their neighbours.
const FIRST_WORKSPACE: usize = 1_000_000;
/// Bytes of one read, at most.
const READ_BYTES: usize = 64 << 10;
/// Sockets served in one go, at most.
const EVENTS_MAX: usize = 64;
/// The longest latency the histogram tells apart.
const LATENCY_NS_MAX: u64 = 10_000_000_000;
/// How long one wait for what is under way takes.
const PATIENCE_NS: u64 = 20_000_000;
