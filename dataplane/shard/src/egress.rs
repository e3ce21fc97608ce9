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
    /// Bytes queued or in flight that the switchboard does not count: pings, pongs, close frames,
    /// HTTP.
    own_bytes: usize,
}

struct Queued {
    chunk: Chunk,
    /// The last chunk of its frame.
    last: bool,
    /// Made by the shard, so unknown to the switchboard's account and never dropped.
    own: bool,
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

/// Bytes of pongs that may wait. Reached: a ping stays unanswered, which RFC 6455 §5.5.3 allows as
/// long as a later one is. Protects memory from peers that ping faster than they read.
const PONG_BACKLOG_BYTES_MAX: usize = 1024;

/// Entries a queue keeps room for when it is put aside for another connection.
const SPARE_QUEUE_LEN: usize = 64;

impl Egress {
    /// Queues one frame. Returns the bytes that had to be copied because the reader is slow.
    pub(crate) fn push(&mut self, frame: &mut Vec<Chunk>) -> usize {
        if self.stalled {
            let mut copied = 0;
            let mut block = Vec::new();
            for chunk in frame.drain(..) {
                copied += leased_len(&chunk);
                block.extend_from_slice(chunk.as_bytes());
            }
            self.queue.push_back(Queued { chunk: block.into(), last: true, own: false });
            return copied;
        }
        let count = frame.len();
        for (index, chunk) in frame.drain(..).enumerate() {
            self.queue.push_back(Queued { chunk, last: index + 1 == count, own: false });
        }
        0
    }

    /// Queues one frame of the shard's own, or a piece of HTTP.
    pub(crate) fn push_own(&mut self, chunk: Chunk) {
        self.own_bytes += chunk.as_bytes().len();
        self.queue.push_back(Queued { chunk, last: true, own: true });
    }

    /// Queues one control frame of the shard's own before the messages that wait: only the frame in
    /// progress comes first, so that a peer is not taken for dead because it reads slowly.
    pub(crate) fn push_urgent(&mut self, chunk: Chunk) {
        self.own_bytes += chunk.as_bytes().len();
        let urgent = Queued { chunk, last: true, own: true };
        let at = self.queue.iter().skip(self.in_progress_len()).take_while(|queued| queued.own);
        let at = self.in_progress_len() + at.count();
        self.queue.insert(at, urgent);
    }

    /// Whether another pong may wait.
    pub(crate) fn takes_pong(&self) -> bool {
        self.own_bytes < PONG_BACKLOG_BYTES_MAX
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

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
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
            let Some(queued) = self.queue.pop_front() else { break };
            plain_bytes += queued.chunk.as_bytes().len();
            ends_frame = queued.last;
            seal(queued.chunk.as_bytes());
        }
        self.flight = Some(Flight { ends_frame, plain: Some(plain_bytes) });
    }

    /// Takes note of a finished send of which the socket took `sent` bytes; the batch is emptied.
    pub(crate) fn sent(&mut self, batch: &mut Batch, sent: usize) -> Progress {
        let Some(flight) = self.flight.take() else { return Progress::default() };
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
        let own = left.min(self.own_bytes);
        self.own_bytes -= own;
        Progress { copied, left: left - own }
    }

    /// Copies the unsent rest of the batch, and everything queued, out of leased buffers.
    fn spill(&mut self, batch: &mut Batch, sent: usize, ends_frame: bool) -> usize {
        batch.advance(sent);
        let mut copied = 0;
        let mut rest = Vec::with_capacity(batch.len());
        for chunk in batch.drain() {
            copied += leased_len(&chunk);
            rest.extend_from_slice(chunk.as_bytes());
        }
        for queued in &mut self.queue {
            if let Chunk::Leased(slice) = &queued.chunk {
                copied += slice.len();
                queued.chunk = slice.to_vec().into();
            }
        }
        // What the block is made of is in progress now; nobody drops or counts it any more.
        self.queue.push_front(Queued { chunk: rest.into(), last: ends_frame, own: false });
        copied
    }

    /// Drops the whole messages that wait, for a reader that is about to be closed; the frame in
    /// progress is finished, and what the shard itself has to say is kept. Returns how many
    /// messages were dropped.
    pub(crate) fn drop_waiting_frames(&mut self) -> u64 {
        let mut keep = self.in_progress_len();
        let mut dropped = 0;
        self.queue.retain(|queued| {
            if keep > 0 {
                keep -= 1;
                return true;
            }
            dropped += u64::from(queued.last && !queued.own);
            queued.own
        });
        dropped
    }

    /// Entries at the front that belong to a frame whose first bytes have left.
    fn in_progress_len(&self) -> usize {
        let in_progress = match self.flight {
            Some(flight) => !flight.ends_frame,
            None => self.front_in_progress,
        };
        if !in_progress {
            return 0;
        }
        let end = self.queue.iter().position(|queued| queued.last);
        end.map_or(self.queue.len(), |end| end + 1)
    }

    /// Makes an idle queue like new, for another connection; keeps a little of its memory.
    pub(crate) fn renew(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        queue.shrink_to(SPARE_QUEUE_LEN);
        *self = Self { queue, ..Self::default() };
    }
}

fn leased_len(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Leased(slice) => slice.len(),
        _ => 0,
    }
}
