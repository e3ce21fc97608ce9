//! One simulated TCP connection: two directions with bounded buffers and bytes under way.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::seed::Seed;
use super::world::Faults;
use crate::Remote;

/// Bytes on their way from one end to the other.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// When it arrives, what it is. Arrival times never go back, so bytes stay in order.
    segments: VecDeque<(u64, Vec<u8>)>,
    /// Bytes in all segments.
    bytes: usize,
    /// The sender has finished; seen when the segments are used up and the time has come.
    fin: Option<u64>,
    last_arrival: u64,
}

impl Direction {
    /// Bytes the sender could hand over now.
    pub(crate) fn room(&self, faults: &Faults) -> usize {
        faults.socket_bytes.saturating_sub(self.bytes)
    }

    pub(crate) fn put(&mut self, bytes: &[u8], now: u64, seed: &mut Seed, faults: &Faults) {
        if bytes.is_empty() {
            return;
        }
        let arrival = self.arrival(now, seed, faults);
        self.segments.push_back((arrival, bytes.to_vec()));
        self.bytes += bytes.len();
    }

    pub(crate) fn finish(&mut self, now: u64, seed: &mut Seed, faults: &Faults) {
        if self.fin.is_none() {
            self.fin = Some(self.arrival(now, seed, faults));
        }
    }

    fn arrival(&mut self, now: u64, seed: &mut Seed, faults: &Faults) -> u64 {
        let delay = faults.delay_ns_min + seed.below(faults.delay_ns_max - faults.delay_ns_min + 1);
        self.last_arrival = self.last_arrival.max(now + delay);
        self.last_arrival
    }

    /// Whether there is something to read.
    pub(crate) fn is_readable(&self, now: u64) -> bool {
        self.segments.front().is_some_and(|(arrival, _)| *arrival <= now)
    }

    /// Whether everything was read and the sender has finished.
    pub(crate) fn is_at_end(&self, now: u64) -> bool {
        self.segments.is_empty() && self.fin.is_some_and(|arrival| arrival <= now)
    }

    /// Reads what has arrived, at most `out.len()` bytes.
    pub(crate) fn take(&mut self, out: &mut [u8], now: u64) -> usize {
        let mut taken = 0;
        while taken < out.len() {
            let Some((arrival, bytes)) = self.segments.front_mut() else {
                break;
            };
            if *arrival > now {
                break;
            }
            let part = bytes.len().min(out.len() - taken);
            out[taken..taken + part].copy_from_slice(&bytes[..part]);
            taken += part;
            if part == bytes.len() {
                self.segments.pop_front();
            } else {
                bytes.drain(..part);
            }
        }
        self.bytes -= taken;
        taken
    }
}

/// Both directions, and how the ends stand.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) to_shard: Direction,
    pub(crate) to_peer: Direction,
    pub(crate) remote: Remote,
    /// Cut: what was under way is lost for both.
    pub(crate) reset: bool,
    /// The shard's side was closed.
    pub(crate) shard_closed: bool,
    /// Alive while some handle of the shard's side is.
    handle: Weak<()>,
}

impl Stream {
    pub(crate) fn new(remote: Remote) -> (Self, Arc<()>) {
        let handle = Arc::new(());
        let stream = Self {
            to_shard: Direction::default(),
            to_peer: Direction::default(),
            remote,
            reset: false,
            shard_closed: false,
            handle: Arc::downgrade(&handle),
        };
        (stream, handle)
    }

    /// The shard's side let go of the socket: like `close(2)`, unread bytes make it a reset.
    pub(crate) fn close_shard_side(&mut self, now: u64, seed: &mut Seed, faults: &Faults) {
        if self.shard_closed {
            return;
        }
        self.shard_closed = true;
        if self.to_shard.bytes > 0 {
            self.reset = true;
        } else {
            self.to_peer.finish(now, seed, faults);
        }
    }

    /// Whether nobody holds the shard's side any more although it was never closed.
    pub(crate) fn is_orphaned(&self) -> bool {
        !self.shard_closed && self.handle.strong_count() == 0
    }
}
