//! The loop that drives pairs: closed, where a frame that has made its way is followed by the next,
//! or open, where frames go when they are due.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll;

use crate::figures::Window;
use crate::outcome::{self, Clocks, Outcome};
use crate::pace::Pace;
use crate::pair::{Pair, Shape, Side, pair_and_side, token};
use crate::processor;
use crate::readiness;
use crate::script::Script;
use crate::silence::{STALL_NS, Silence};
use crate::span::{Sampler, Span};
use crate::subject::Subject;
use crate::target::Target;

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
    bytes: u64,
    /// Nanoseconds from releasing a frame, or from when it was due, to the read that completed it.
    latency: Histogram<u64>,
    /// Frames sent before do not count for latency.
    counted_from_ns: u64,
    /// When frames are due, in an open loop.
    pace: Option<Pace>,
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
        let mut generator = Self::empty(subject.process(), shape.depth)?;
        for index in 0..shape.pairs {
            let pair = Pair::open(subject, first + index, shape)
                .with_context(|| format!("pair {index}"))?;
            generator.add(pair)?;
        }
        Ok(generator)
    }

    /// Opens pairs wherever they are and whatever they say, those of the given numbers; `opened` is
    /// called after each. `process` is what is under test.
    pub(crate) fn open_at(
        target: &Target,
        process: u32,
        numbers: std::ops::Range<usize>,
        script: &Script,
        mut opened: impl FnMut(usize),
    ) -> Result<Self> {
        let mut generator = Self::empty(process, script.depth)?;
        for number in numbers {
            let pair =
                Pair::open_at(target, number, script).with_context(|| format!("pair {number}"))?;
            generator.add(pair)?;
            opened(generator.pairs.len());
        }
        Ok(generator)
    }

    fn empty(process: u32, depth: usize) -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            pairs: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            is_feeding: false,
            frames: 0,
            bytes: 0,
            latency: outcome::histogram(),
            counted_from_ns: 0,
            pace: None,
            process,
            depth,
        })
    }

    fn add(&mut self, pair: Pair) -> Result<()> {
        let index = self.pairs.len();
        pair.watch(&self.epoll, |side| token(index, side))?;
        self.pairs.push(pair);
        Ok(())
    }

    /// Loads the process over a span, in an open loop where a rate is given (frames per second of
    /// all pairs together), and lets everything arrive.
    ///
    /// In an open loop latency counts from when a frame was due. A frame that was due in the window
    /// counts however late it arrives, and one that could not even be sent counts with the time
    /// until the window's end, also where this program did not come to calling for it.
    pub(crate) fn run(
        &mut self,
        span: &Span,
        rate: Option<f64>,
        sampler: &mut Sampler<'_>,
    ) -> Result<Outcome> {
        let sent_before: u64 = self.pairs.iter().map(Pair::released).sum();
        match rate {
            Some(rate) => self.pace = Some(Pace::new(rate, self.pairs.len(), span.start_ns)?),
            None => self.prime()?,
        }
        self.turn_until(span.measure_ns, sampler)?;
        let clocks = Clocks::read(self.process)?;
        (self.frames, self.bytes) = (0, 0);
        self.latency.reset();
        if let Some(pace) = &mut self.pace {
            self.counted_from_ns = span.measure_ns;
            pace.lag.reset();
        }
        self.turn_until(span.end_ns, sampler)?;
        let mut outcome = clocks.passed()?;
        (outcome.frames, outcome.bytes) = (self.frames, self.bytes);
        self.is_feeding = false;
        match self.pace.take() {
            None => {
                outcome.latency = outcome::encode(&self.latency)?;
                self.drain()?;
            }
            Some(mut pace) => {
                self.drain()?;
                pace.close(span.end_ns);
                let unsent = pace.unsent(|pair| self.pairs[pair].released());
                for due in unsent.filter(|&due| due >= span.measure_ns) {
                    self.latency.saturating_record(span.end_ns.saturating_sub(due));
                    outcome.unsent += 1;
                }
                outcome.latency = outcome::encode(&self.latency)?;
                outcome.lag = outcome::encode(&pace.lag)?;
            }
        }
        let sent: u64 = self.pairs.iter().map(Pair::released).sum();
        outcome.verified = sent - sent_before;
        Ok(outcome)
    }

    /// Runs the loop until some moment; fails when nothing arrives any more.
    fn turn_until(&mut self, end_ns: u64, sampler: &mut Sampler<'_>) -> Result<()> {
        let mut silence = Silence::new(self.bytes);
        loop {
            let mut now = processor::now_ns();
            if now >= end_ns {
                return Ok(());
            }
            let mut wake_ns = end_ns.min(sampler.next_ns());
            if self.pace.is_some() {
                self.call_due(now)?;
                now = processor::now_ns();
                wake_ns = wake_ns.min(self.pace.as_ref().map_or(u64::MAX, Pace::next_ns));
            }
            self.turn(wake_ns.saturating_sub(now))?;
            sampler.look(now, self.frames);
            if silence.length(self.bytes, now) > STALL_NS {
                // At a slow pace there may be nothing on its way.
                let is_idle = self.pairs.iter().all(|pair| pair.in_flight() == 0);
                ensure!(is_idle && self.pace.is_some(), "nothing has arrived for 5 s");
                silence = Silence::new(self.bytes);
            }
        }
    }

    /// Sends what is due: a bounded part of it, so that what arrives is looked at as well.
    fn call_due(&mut self, now: u64) -> Result<()> {
        for _ in 0..CALLS_MAX {
            let Some(index) = self.pace.as_mut().and_then(|pace| pace.call(now)) else { break };
            self.pay(index)?;
        }
        Ok(())
    }

    /// Sends what a pair owes, as far as it has room.
    fn pay(&mut self, index: usize) -> Result<()> {
        let Some(pace) = &mut self.pace else { return Ok(()) };
        let pair = &mut self.pairs[index];
        let mut has_new = false;
        while pair.has_room() {
            let Some(due) = pace.pay(index, pair.released()) else { break };
            pair.release(1, due)?;
            has_new = true;
        }
        if has_new { self.write(index, Side::Client) } else { Ok(()) }
    }

    /// Lets the first frames of a closed loop go.
    fn prime(&mut self) -> Result<()> {
        self.is_feeding = true;
        let now = processor::now_ns();
        for index in 0..self.pairs.len() {
            self.pairs[index].prime(self.depth, now);
            self.write(index, Side::Client)?;
        }
        Ok(())
    }

    /// Loads the process for `warm_up`, measures for `window`, and lets everything arrive.
    pub(crate) fn measure(&mut self, warm_up: Duration, window: Duration) -> Result<Window> {
        self.prime()?;
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
        self.prime()?;
        while !stop.load(Ordering::Relaxed) {
            self.turn(PATIENCE_NS)?;
        }
        self.is_feeding = false;
        self.drain()
    }

    /// Runs the loop for some time; fails when nothing arrives any more.
    fn turn_for(&mut self, time: Duration) -> Result<()> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let end = processor::now_ns().saturating_add(nanos);
        let mut silence = Silence::new(self.bytes);
        while processor::now_ns() < end {
            self.turn(PATIENCE_NS)?;
            silence.bear(self.bytes, "everything in flight is missing")?;
        }
        Ok(())
    }

    /// Runs the loop until nothing is in flight.
    fn drain(&mut self) -> Result<()> {
        let mut silence = Silence::new(self.bytes);
        loop {
            let in_flight: u64 = self.pairs.iter().map(Pair::in_flight).sum();
            if in_flight == 0 {
                return Ok(());
            }
            silence.bear(self.bytes, &format!("{in_flight} frames are missing"))?;
            self.turn(PATIENCE_NS)?;
        }
    }

    /// Waits for sockets, at most so long, and serves each that is ready.
    fn turn(&mut self, patience_ns: u64) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        readiness::wait(&self.epoll, &mut events, patience_ns)?;
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
        self.bytes += len as u64;
        for sent_at in arrival.sent_at {
            if sent_at >= self.counted_from_ns {
                self.latency.saturating_record(now.saturating_sub(sent_at));
            }
        }
        if let Some(writer) = arrival.writer {
            self.write(index, writer)?;
        }
        self.pay(index)
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
/// Frames that an open loop calls for in one turn, at most.
const CALLS_MAX: usize = 256;
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 256;
/// How long a turn waits, so that ends of windows are noticed.
const PATIENCE_NS: u64 = 20_000_000;
