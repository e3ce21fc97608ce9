//! Bad neighbours: what one tenant can do to the latency of another.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::flow::client_frame;
use crate::generator::Generator;
use crate::idle;
use crate::pair::{self, Shape};
use crate::subject::Subject;

/// What kind of neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Neighbour {
    /// Nobody: how far two windows are apart of which none is disturbed.
    Nobody,
    /// A few connections of one tenant that send small messages as fast as they can.
    Flood,
    /// A daemon that never reads what its client sends, over and over.
    SlowReader,
    /// Messages of 1 MiB as fast as they go.
    LargeFrames,
    /// Many connections that do nothing.
    Idle,
}

impl Neighbour {
    /// All kinds.
    pub(crate) const ALL: [Self; 5] =
        [Self::Nobody, Self::Flood, Self::SlowReader, Self::LargeFrames, Self::Idle];

    /// The pairs it is made of, if it is nothing but pairs.
    pub(crate) fn shape(self) -> Option<Shape> {
        let (pairs, payload_bytes, depth) = match self {
            Self::Flood => (4, 256, 256),
            Self::LargeFrames => (1, 1 << 20, 4),
            Self::Nobody | Self::SlowReader | Self::Idle => return None,
        };
        Some(Shape { pairs, payload_bytes, depth, echo: false })
    }

    /// The same through a pass-through, which takes all pairs at once: opens its own, says so by
    /// `opened`, and disturbs from `begin` on until told to stop.
    pub(crate) fn disturb_passthrough(self, subject: &Subject, signals: &Signals) -> Result<()> {
        relay_arrival::run_first(URGENCY);
        let open = |shape| Generator::open_gently(subject, WORKSPACES_PER_TURN, shape);
        let mut generator = self.shape().map(open).transpose()?;
        signals.opened.store(true, Ordering::Release);
        while !signals.begin.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        signals.ready.store(true, Ordering::Release);
        match &mut generator {
            Some(generator) => generator.load_until(&signals.stop),
            None => {
                signals.begin_and_wait();
                Ok(())
            }
        }
    }

    /// Disturbs until told to stop; `ready` is set once it is at it. `turn` numbers the calls, so
    /// that no two share a workspace.
    pub(crate) fn disturb(
        self,
        subject: &Subject,
        turn: usize,
        idle_count: usize,
        signals: &Signals,
    ) -> Result<()> {
        // Only the quiet pairs' own thread measures: it goes first.
        relay_arrival::run_first(URGENCY);
        let first = turn * WORKSPACES_PER_TURN;
        if let Some(shape) = self.shape() {
            let mut generator = Generator::open_gently(subject, first, shape)?;
            signals.ready.store(true, Ordering::Release);
            return generator.load_until(&signals.stop);
        }
        match self {
            Self::Nobody | Self::Flood | Self::LargeFrames => {
                signals.begin_and_wait();
                Ok(())
            }
            Self::SlowReader => stop_reading(subject, first, signals),
            Self::Idle => {
                let holder = idle::hold(subject, turn % 100, idle_count)?;
                signals.begin_and_wait();
                drop(holder);
                // The relay takes note of ten thousand ends: not what the next window is about.
                std::thread::park_timeout(SETTLE);
                Ok(())
            }
        }
    }
}

/// Between the thread that measures and the one that disturbs.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) opened: AtomicBool,
    pub(crate) begin: AtomicBool,
    pub(crate) ready: AtomicBool,
    pub(crate) stop: AtomicBool,
}

impl Signals {
    /// Says that everything is as it is to be, and waits until told to stop.
    fn begin_and_wait(&self) {
        self.ready.store(true, Ordering::Release);
        while !self.stop.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Fills the queue of a daemon that does not read, until the relay gives up on it; then the next.
fn stop_reading(subject: &Subject, first: usize, signals: &Signals) -> Result<()> {
    for index in first.. {
        let (_daemon, client, envelope) =
            pair::open_sockets(subject, index, PAYLOAD_BYTES).context("a slow reader")?;
        client.set_nonblocking(true)?;
        let frames = client_frame(&envelope.text).repeat(FRAMES_PER_WRITE);
        signals.ready.store(true, Ordering::Release);
        overflow(client, &frames, signals)?;
        if signals.stop.load(Ordering::Acquire) {
            break;
        }
    }
    Ok(())
}

/// Sends until the relay says something, which it does when the daemon is gone.
fn overflow(mut client: TcpStream, frames: &[u8], signals: &Signals) -> Result<()> {
    let mut at = 0;
    let mut answer = [0; 512];
    while !signals.stop.load(Ordering::Acquire) {
        match client.read(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Whatever it says: this reader's time is over.
            _ => break,
        }
        match client.write(&frames[at..]) {
            Ok(written) => at = (at + written) % frames.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Behind the thread that measures, on the same processor.
const URGENCY: i32 = 1;
/// Time for the ends of many connections.
const SETTLE: Duration = Duration::from_secs(2);
/// Room for the workspaces of one call.
const WORKSPACES_PER_TURN: usize = 1000;
/// Bytes of a message to a slow reader.
const PAYLOAD_BYTES: usize = 4096;
/// Messages to a slow reader in one write.
const FRAMES_PER_WRITE: usize = 16;
