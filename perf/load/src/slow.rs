//! Daemons that never read, and clients that send to them all the same.
//!
//! A relay has to give up on such a daemon: the frames it had begun arrive whole and in order, then
//! comes 4008, and the client is told. Then the next one takes its place.

use std::os::fd::AsFd;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::flow::{Receiver, Sender};
use crate::job::SlowWork;
use crate::outcome::{Clocks, Outcome};
use crate::pair::{Names, begin_session, envelope};
use crate::processor;
use crate::span::{Sampler, Span};
use crate::target::Target;
use crate::wire::Wire;

/// Slow readers of one process, driven by one thread.
pub(crate) struct SlowReaders<'t> {
    target: &'t Target,
    readers: Vec<SlowReader>,
    subject: u32,
    bytes: usize,
    next_number: usize,
    /// Readers that the relay gave up on.
    closed: u64,
    /// Frames that these got before.
    frames: u64,
}

struct SlowReader {
    daemon: Wire,
    client: Wire,
    sender: Sender,
    receiver: Receiver,
    frame_bytes: usize,
}

impl<'t> SlowReaders<'t> {
    /// Opens all pairs.
    pub(crate) fn open(
        target: &'t Target,
        subject: u32,
        work: &SlowWork,
        opened: impl Fn(usize),
    ) -> Result<Self> {
        let mut readers = Vec::new();
        for number in work.numbers.clone() {
            readers.push(SlowReader::open(target, number, work.bytes)?);
            opened(readers.len());
        }
        let (bytes, next_number) = (work.bytes, work.numbers.end);
        Ok(Self { target, readers, subject, bytes, next_number, closed: 0, frames: 0 })
    }

    /// Sends over a span, and checks how each reader ends.
    pub(crate) fn run(&mut self, span: &Span, sampler: &mut Sampler<'_>) -> Result<Outcome> {
        processor::rest_until(span.start_ns);
        self.send_until(span.measure_ns, sampler)?;
        let clocks = Clocks::read(self.subject)?;
        (self.closed, self.frames) = (0, 0);
        self.send_until(span.end_ns, sampler)?;
        let mut outcome = clocks.passed()?;
        // Every one of them has a budget that is full within a moment.
        ensure!(
            self.closed > 0 || self.readers.is_empty(),
            "none of {} slow readers was closed in the window",
            self.readers.len()
        );
        outcome.counts.insert(SLOW_READERS_CLOSED.to_owned(), self.closed);
        outcome.counts.insert("frames that slow readers got before".to_owned(), self.frames);
        Ok(outcome)
    }

    fn send_until(&mut self, end_ns: u64, sampler: &mut Sampler<'_>) -> Result<()> {
        loop {
            let now = processor::now_ns();
            if now >= end_ns {
                return Ok(());
            }
            // What these daemons get is not what the load is about.
            sampler.look(now, 0);
            let mut is_busy = false;
            for reader in &mut self.readers {
                is_busy |= reader.send()?;
                if let Some(answer) = reader.answer()? {
                    self.frames += reader
                        .finish()
                        .with_context(|| format!("the client was told {answer:?}"))?;
                    self.closed += 1;
                    // Frames of the old client may still be on their way: another workspace.
                    let number = self.next_number;
                    self.next_number += 1;
                    *reader = SlowReader::open(self.target, number, self.bytes)?;
                }
            }
            if !is_busy {
                self.wait()?;
            }
        }
    }

    /// Waits a moment, or until a client is told something.
    fn wait(&self) -> Result<()> {
        let flags = PollFlags::IN;
        let clients = self
            .readers
            .iter()
            .map(|reader| PollFd::from_borrowed_fd(reader.client.as_fd(), flags));
        let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE_NS };
        match rustix::event::poll(&mut clients.collect::<Vec<_>>(), Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl SlowReader {
    fn open(target: &Target, number: usize, bytes: usize) -> Result<Self> {
        let names = Names::of(number);
        let mut daemon = target.open(number, &names.upgrade("workspace-daemon"))?;
        let mut client = target.open(number, &names.upgrade("client"))?;
        begin_session(&mut daemon, &mut client, &names)?;
        client.socket().set_nonblocking(true)?;
        let envelopes = [envelope(&names.session, bytes)?];
        let pattern: Rc<[u8]> = vec![0; FRAMES_PER_WRITE].into();
        Ok(Self {
            daemon,
            client,
            sender: Sender::new(&envelopes, &pattern),
            receiver: Receiver::new(&envelopes, &pattern, target.between),
            frame_bytes: crate::flow::text_frame(envelopes[0].text.as_bytes(), None).len(),
        })
    }

    /// Sends some more. False when nothing goes at the moment.
    fn send(&mut self) -> Result<bool> {
        if !self.sender.has_more() {
            self.sender.release(FRAMES_PER_WRITE as u64);
        }
        self.sender.write(&mut self.client, usize::MAX)
    }

    /// What the client was told, which it is when the daemon is gone.
    fn answer(&mut self) -> Result<Option<String>> {
        let mut buffer = [0; 512];
        match self.client.read_some(&mut buffer) {
            Ok(len) => Ok(Some(String::from_utf8_lossy(&buffer[..len]).into_owned())),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what the daemon got: whole frames as sent, then the close. Returns how many frames.
    /// Meanwhile the client goes on reading what it is told.
    fn finish(&mut self) -> Result<u64> {
        self.daemon.socket().set_nonblocking(true)?;
        let deadline = processor::now_ns() + CLOSE_NS_MAX;
        let mut buffer = vec![0; READ_BYTES];
        let mut bytes = Vec::new();
        while !self.is_closed(&bytes) {
            match self.daemon.read_some(&mut buffer) {
                Ok(0) => break,
                Ok(len) => bytes.extend(&buffer[..len]),
                Err(Errno::AGAIN | Errno::INTR) => {
                    ensure!(processor::now_ns() < deadline, "a slow reader was not closed in 40 s");
                    processor::rest_until(processor::now_ns() + PAUSE_NS);
                }
                Err(error) => return Err(error.into()),
            }
            while self.client.read_some(&mut buffer).is_ok_and(|len| len > 0) {}
        }
        let bytes = bytes.as_slice();
        let whole =
            bytes.chunks_exact(self.frame_bytes).take_while(|frame| frame[0] == TEXT).count();
        let (frames, rest) = bytes.split_at(whole * self.frame_bytes);
        self.receiver.arrive(frames).context("what a slow reader got before the end")?;
        ensure!(
            matches!(rest, [CLOSE, _, 0x0f, 0xa8, ..]),
            "a slow reader was not closed with 4008: {:02x?} after {} frames",
            &rest[..rest.len().min(8)],
            self.receiver.count()
        );
        Ok(self.receiver.count())
    }

    /// Whether a close has arrived behind the last whole frame.
    fn is_closed(&self, bytes: &[u8]) -> bool {
        let rest = &bytes[bytes.len() / self.frame_bytes * self.frame_bytes..];
        matches!(rest, [CLOSE, _, _, _, ..])
    }
}

/// How what is counted of them is called in results.
pub(crate) const SLOW_READERS_CLOSED: &str = "slow readers closed with 4008";
/// First byte of a whole text message, and of a close.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// Frames of one write.
const FRAMES_PER_WRITE: usize = 16;
/// How long a relay may take to close, which it does after `RELAY_CLOSE_TIMEOUT_MS` at the latest.
const CLOSE_NS_MAX: u64 = 40_000_000_000;
/// Between two looks at a daemon that gets nothing.
const PAUSE_NS: u64 = 1_000_000;
/// Bytes of one read, at most.
const READ_BYTES: usize = 64 << 10;
/// How long to wait where nothing goes.
const PATIENCE_NS: i64 = 10_000_000;
