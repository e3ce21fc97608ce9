//! What waits to be sent on one connection.

use std::collections::VecDeque;

use relay_driver::{Batch, Chunk, SendMode};

/// Frames in order, each a run of chunks, and what the socket said about the last attempt.
///
/// While the socket takes what it is given, chunks are sent where they lie. A socket that does not
/// is *stalled*: what waits for it is copied out of the leased buffers, so that a slow reader never
/// keeps one, and is sent block by block with `MSG_WAITALL`.
#[derive(Default)]
pub(crate) struct Egress {
    queue: VecDeque<Queued>,
    /// The send in flight, if any.
    flight: Option<Flight>,
    /// The queue begins in the middle of a frame whose earlier bytes have left.
    front_in_progress: bool,
    stalled: bool,
    /// Whether the shard already knows that there is something new.
    pub(crate) dirty: bool,
    /// Queued bytes the switchboard does not count: pings, pongs, close frames, HTTP.
    uncounted: usize,
}

struct Queued {
    chunk: Chunk,
    /// The last chunk of its frame.
    last: bool,
}

#[derive(Clone, Copy)]
struct Flight {
    /// Whether its last byte ends a frame.
    ends_frame: bool,
    /// Bytes before encryption, where they are encrypted.
    plain: Option<usize>,
}

/// What a finished send means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    /// Bytes copied out of leased buffers because the socket did not take them.
    pub(crate) copied: usize,
    /// Bytes that left, of those the switchboard counts.
    pub(crate) left: usize,
}

/// Bytes gathered into one send. Larger frames go alone. Protects the close of a slow reader from
/// waiting behind more than one block. Source: beyond this, gathering no longer lowers the cost per
/// byte.
const BATCH_BYTES_MAX: usize = 256 << 10;

impl Egress {
    /// Queues one frame. Returns the bytes that had to be copied because the reader is slow.
    pub(crate) fn push(&mut self, frame: &mut Vec<Chunk>) -> usize {
        if self.stalled {
            let block = gather(frame.drain(..));
            let copied = block.len();
            let chunk = Chunk::Owned { bytes: block, start: 0 };
            self.queue.push_back(Queued { chunk, last: true });
            return copied;
        }
        let count = frame.len();
        for (index, chunk) in frame.drain(..).enumerate() {
            self.queue.push_back(Queued { chunk, last: index + 1 == count });
        }
        0
    }

    /// Queues one frame of the shard's own, or a piece of HTTP.
    pub(crate) fn push_own(&mut self, chunk: Chunk) {
        self.uncounted += chunk.as_bytes().len();
        self.queue.push_back(Queued { chunk, last: true });
    }

    /// Whether the peer reads more slowly than it is sent to.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    /// Bytes that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|queued| queued.chunk.as_bytes().len()).sum()
    }

    /// Whether a send is in flight.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether a send can be started.
    pub(crate) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && self.flight.is_none()
    }

    /// Moves what may be sent now into an empty batch and says how to send it. Only when
    /// `is_ready`.
    pub(crate) fn fill(&mut self, batch: &mut Batch) -> SendMode {
        let mut ends_frame = true;
        while let Some(queued) = self.queue.front() {
            let len = queued.chunk.as_bytes().len();
            let fits = batch.is_empty() || batch.len() + len <= BATCH_BYTES_MAX;
            if batch.room() == 0 || !fits {
                break;
            }
            if let Some(queued) = self.queue.pop_front() {
                ends_frame = queued.last;
                batch.push(queued.chunk).expect("there is room");
            }
        }
        self.flight = Some(Flight { ends_frame, plain: None });
        if self.stalled { SendMode::All } else { SendMode::Try }
    }

    /// Hands what may be sent now to `seal`, frame bytes in order, for TLS to make records of.
    /// Those are to be sent as one block with [`SendMode::All`]. Only when nothing is in flight.
    pub(crate) fn seal(&mut self, mut seal: impl FnMut(&[u8])) {
        let mut plain_bytes = 0;
        let mut ends_frame = true;
        while plain_bytes < BATCH_BYTES_MAX {
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            plain_bytes += queued.chunk.as_bytes().len();
            ends_frame = queued.last;
            seal(queued.chunk.as_bytes());
        }
        self.flight = Some(Flight { ends_frame, plain: Some(plain_bytes) });
    }

    /// Takes note of a finished send of which the socket took `sent` bytes; the batch is emptied.
    pub(crate) fn sent(&mut self, batch: &mut Batch, sent: usize) -> Progress {
        let Some(flight) = self.flight.take() else {
            return Progress::default();
        };
        let mut copied = 0;
        if sent < batch.len() {
            self.stalled = true;
            self.front_in_progress = true;
            copied = self.spill(batch, sent, flight.ends_frame);
        } else {
            batch.clear();
            self.front_in_progress = !flight.ends_frame;
        }
        if self.queue.is_empty() {
            self.stalled = false;
        }
        let left = flight.plain.unwrap_or(sent);
        let own = left.min(self.uncounted);
        self.uncounted -= own;
        Progress { copied, left: left - own }
    }

    /// Copies the unsent rest of the batch, and everything queued, out of leased buffers.
    fn spill(&mut self, batch: &mut Batch, sent: usize, ends_frame: bool) -> usize {
        let mut rest = gather(batch.drain());
        rest.drain(..sent);
        let mut copied = rest.len();
        for queued in &mut self.queue {
            if let Chunk::Leased(slice) = &queued.chunk {
                copied += slice.len();
                queued.chunk = Chunk::Owned { bytes: slice.to_vec(), start: 0 };
            }
        }
        let chunk = Chunk::Owned { bytes: rest, start: 0 };
        self.queue.push_front(Queued { chunk, last: ends_frame });
        copied
    }

    /// Drops the whole frames that wait, for a reader that is about to be closed; the frame in
    /// progress is finished. Returns how many frames were dropped.
    pub(crate) fn drop_waiting_frames(&mut self) -> u64 {
        let in_progress = match self.flight {
            Some(flight) => !flight.ends_frame,
            None => self.front_in_progress,
        };
        let keep = if in_progress {
            let end = self.queue.iter().position(|queued| queued.last);
            end.map_or(self.queue.len(), |end| end + 1)
        } else {
            0
        };
        let dropped = self.queue.drain(keep..).filter(|queued| queued.last).count();
        dropped as u64
    }
}

fn gather(chunks: impl Iterator<Item = Chunk>) -> Vec<u8> {
    let mut block = Vec::new();
    for chunk in chunks {
        block.extend_from_slice(chunk.as_bytes());
    }
    block
}
