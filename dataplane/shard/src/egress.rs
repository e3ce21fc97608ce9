//! What waits to be sent on one connection.

use std::collections::VecDeque;

use relay_driver::{Batch, Chunk, SendMode, Slice};

use crate::arrivals::Arrivals;
use crate::blocks::{BLOCK_BYTES, Blocks};
use crate::discarded::Discarded;

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
    /// Whether it waits for a turn that has bytes left for those who have much to send.
    pub(crate) waits_in_bulk: bool,
    /// Bytes queued or in flight that the switchboard does not count: pings, pongs, close frames,
    /// HTTP.
    own_bytes: usize,
    /// Pongs in the queue.
    pong_count: usize,
    /// Memory of queued chunks that lie in blocks of their own.
    owned_bytes: usize,
    /// When the messages in the queue and in flight came in.
    pub(crate) arrivals: Arrivals,
}

struct Queued {
    chunk: Chunk,
    /// The last chunk of its frame.
    last: bool,
    /// Whole frames that it is made of; none when it is part of one.
    frame_count: u32,
    /// Made by the shard, so unknown to the switchboard's account and never dropped.
    own: bool,
    /// Answers a ping.
    pong: bool,
}

impl Queued {
    /// Part of a message.
    fn part(chunk: Chunk, last: bool) -> Self {
        Self { chunk, last, frame_count: 0, own: false, pong: false }
    }

    /// A message of one chunk.
    fn whole(chunk: Chunk) -> Self {
        Self { frame_count: 1, ..Self::part(chunk, true) }
    }

    /// A frame of the shard's own.
    fn own(chunk: Chunk) -> Self {
        Self { own: true, ..Self::whole(chunk) }
    }
}

#[derive(Clone, Copy)]
struct Flight {
    /// Memory of its chunks that lie in blocks of their own.
    owned_bytes: usize,
    /// Whether its last byte ends a frame.
    ends_frame: bool,
    /// Bytes before encryption, where they are encrypted.
    plain: Option<usize>,
    /// We asked for its end.
    recalled: bool,
}

/// What a finished send means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    /// Bytes copied out of leased buffers because the socket did not take them.
    pub(crate) copied: usize,
    /// Bytes that left, of those the switchboard counts.
    pub(crate) left: usize,
}

/// Bytes of one send, of which a connection has one per turn. Protects the turns of all others: the
/// kernel copies these bytes, and on loopback delivers them, while the shard waits. Protects the
/// close of a slow reader from waiting behind more than one block as well. Reached: the rest goes
/// with the next turn's send. Source: beyond this, gathering no longer lowers the cost per byte.
pub(crate) const SEND_BYTES_MAX: usize = 256 << 10;

/// Pongs that may wait. Reached: the last of them makes room for the answer to a later ping, which
/// answers the earlier one too (RFC 6455 §5.5.3). Protects memory from peers that ping faster than
/// they read: a pong has at most 127 bytes.
const PONGS_MAX: usize = 8;

/// Entries a queue keeps room for when it is put aside for another connection.
const SPARE_QUEUE_LEN: usize = 64;

impl Egress {
    /// Queues one frame. Returns the bytes that had to be copied because the reader is slow.
    pub(crate) fn push(&mut self, frame: &mut Vec<Chunk>, blocks: &mut Blocks) -> usize {
        // While records are on their way nobody knows when the next can be made: a leased buffer
        // must not wait for that.
        let is_sealing = self.flight.is_some_and(|flight| flight.plain.is_some());
        if self.stalled || is_sealing {
            let copied = frame.iter().map(leased_len).sum();
            self.copy_frame(frame, blocks);
            frame.clear();
            return copied;
        }
        if let [Chunk::Leased(_)] = frame[..] {
            if let Some(Chunk::Leased(slice)) = frame.pop() {
                self.enqueue_whole(slice);
            }
            return 0;
        }
        let count = frame.len();
        for (index, chunk) in frame.drain(..).enumerate() {
            self.enqueue(chunk, index + 1 == count);
        }
        0
    }

    /// Queues a copy of one frame.
    fn copy_frame(&mut self, frame: &[Chunk], blocks: &mut Blocks) {
        let parts = || frame.iter().map(Chunk::as_bytes);
        let mut left: usize = parts().map(<[u8]>::len).sum();
        if left <= BLOCK_BYTES {
            return self.copy_whole(parts, 1, blocks);
        }
        let mut block = blocks.take(BLOCK_BYTES);
        for mut part in parts() {
            while !part.is_empty() {
                let (front, rest) = part.split_at(part.len().min(BLOCK_BYTES - block.len()));
                block.extend_from_slice(front);
                part = rest;
                left -= front.len();
                if block.len() == BLOCK_BYTES && left > 0 {
                    let next = blocks.take(left.min(BLOCK_BYTES));
                    self.enqueue(std::mem::replace(&mut block, next).into(), false);
                }
            }
        }
        self.enqueue(block.into(), true);
    }

    /// Queues a copy of `frame_count` whole frames, at most a block of them. They share a block
    /// with those before them while there is room: freeing a thousand pieces takes longer than a
    /// turn may.
    fn copy_whole<'a, Parts: Iterator<Item = &'a [u8]>>(
        &mut self,
        parts: impl Fn() -> Parts,
        frame_count: u32,
        blocks: &mut Blocks,
    ) {
        let len: usize = parts().map(<[u8]>::len).sum();
        match self.queue.back_mut() {
            Some(Queued {
                chunk: Chunk::Owned { bytes, start: 0 },
                frame_count: before,
                own,
                ..
            }) if !*own && *before > 0 && bytes.len() + len <= BLOCK_BYTES => {
                *before += frame_count;
                self.owned_bytes -= bytes.capacity();
                blocks.make_room(bytes, len);
                self.owned_bytes += bytes.capacity();
                parts().for_each(|part| bytes.extend_from_slice(part));
            }
            _ => {
                let mut block = blocks.take(len);
                parts().for_each(|part| block.extend_from_slice(part));
                self.owned_bytes += block.capacity();
                let chunk = block.into();
                self.queue.push_back(Queued { frame_count, ..Queued::whole(chunk) });
            }
        }
    }

    /// Queues one frame that lies in one place. Frames that lie one behind the other become one
    /// entry, and so one piece of a send.
    fn enqueue_whole(&mut self, slice: Slice) {
        let len = slice.len();
        let last = self.queue.back_mut().filter(|last| last.frame_count > 0 && !last.own);
        let slice = match last {
            Some(Queued { chunk: Chunk::Leased(run), frame_count, .. })
                if run.len() + len <= SEND_BYTES_MAX =>
            {
                match run.join(slice) {
                    Ok(()) => return *frame_count += 1,
                    Err(slice) => slice,
                }
            }
            _ => slice,
        };
        if len > SEND_BYTES_MAX {
            return self.enqueue(slice.into(), true);
        }
        self.queue.push_back(Queued::whole(slice.into()));
    }

    /// Queues one chunk of a frame, in blocks that one send each can take.
    fn enqueue(&mut self, chunk: Chunk, last: bool) {
        if chunk.as_bytes().len() <= BLOCK_BYTES {
            self.owned_bytes += owned_len(&chunk);
            return self.queue.push_back(Queued::part(chunk, last));
        }
        // Only what had to be copied anyway comes in larger pieces.
        let mut blocks = chunk.as_bytes().chunks(BLOCK_BYTES).peekable();
        while let Some(block) = blocks.next() {
            let last = last && blocks.peek().is_none();
            self.owned_bytes += block.len();
            self.queue.push_back(Queued::part(block.to_vec().into(), last));
        }
    }

    /// Queues one frame of the shard's own, or a piece of HTTP.
    pub(crate) fn push_own(&mut self, chunk: Chunk) {
        self.own_bytes += chunk.as_bytes().len();
        self.owned_bytes += owned_len(&chunk);
        self.queue.push_back(Queued::own(chunk));
    }

    /// Queues one control frame of the shard's own before the messages that wait: only the frame in
    /// progress comes first, so that a peer is not taken for dead because it reads slowly.
    pub(crate) fn push_urgent(&mut self, chunk: Chunk) {
        self.push_first(Queued::own(chunk));
    }

    /// Queues a pong like [`Self::push_urgent`]. Returns whether it took the place of an earlier
    /// one.
    pub(crate) fn push_pong(&mut self, chunk: Chunk) -> bool {
        if self.pong_count < PONGS_MAX {
            self.pong_count += 1;
            self.push_first(Queued { pong: true, ..Queued::own(chunk) });
            return false;
        }
        // Pongs precede messages, so the search is short.
        let first = self.in_progress_len();
        let urgent = self.queue.iter_mut().skip(first);
        let last = urgent.take_while(|queued| queued.own).filter(|queued| queued.pong).last();
        if let Some(last) = last {
            self.own_bytes += chunk.as_bytes().len();
            self.own_bytes -= last.chunk.as_bytes().len();
            self.owned_bytes += owned_len(&chunk);
            self.owned_bytes -= owned_len(&last.chunk);
            last.chunk = chunk;
        }
        true
    }

    fn push_first(&mut self, urgent: Queued) {
        self.own_bytes += urgent.chunk.as_bytes().len();
        self.owned_bytes += owned_len(&urgent.chunk);
        let at = self.queue.iter().skip(self.in_progress_len()).take_while(|queued| queued.own);
        let at = self.in_progress_len() + at.count();
        self.queue.insert(at, urgent);
    }

    /// Takes the first of the queue.
    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.pong_count -= usize::from(queued.pong);
        Some(queued)
    }

    /// Bytes that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|queued| queued.chunk.as_bytes().len()).sum()
    }

    /// Memory of its own: the queue, every chunk that does not lie in a receive buffer, and the
    /// batch of the send in flight.
    pub(crate) fn held_bytes(&self) -> usize {
        let flight = self.flight.map_or(0, |flight| Batch::BYTES + flight.owned_bytes);
        let lists = self.queue.capacity() * size_of::<Queued>() + self.arrivals.held_bytes();
        size_of::<Self>() + lists + self.owned_bytes + flight
    }

    /// Bytes that wait, and memory of those in flight that do not lie in a receive buffer.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.queued_bytes() + self.flight.map_or(0, |flight| flight.owned_bytes)
    }

    /// Whether a send is in flight.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Takes note that the send in flight is to end as it is. Whether there is one.
    pub(crate) fn recall(&mut self) -> bool {
        if let Some(flight) = &mut self.flight {
            flight.recalled = true;
        }
        self.is_in_flight()
    }

    /// Whether the send in flight was to end as it is.
    pub(crate) fn is_recalled(&self) -> bool {
        self.flight.is_some_and(|flight| flight.recalled)
    }

    /// Whether the socket did not take what it was given.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether a send can be started.
    pub(crate) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && self.flight.is_none()
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    /// Whether one send takes all that waits, and it is no more than so many bytes. Cost: one
    /// batch's worth of chunks at most.
    pub(crate) fn is_small(&self, bytes_max: usize) -> bool {
        if self.queue.len() > Batch::CHUNKS_MAX {
            return false;
        }
        let mut left = bytes_max;
        self.queue.iter().all(|queued| {
            let rest = left.checked_sub(queued.chunk.as_bytes().len());
            left = rest.unwrap_or(0);
            rest.is_some()
        })
    }

    /// Moves what may be sent now, about `bytes_max` at most, into an empty batch and says how to
    /// send it. Only when `is_ready`.
    pub(crate) fn fill(&mut self, batch: &mut Batch, bytes_max: usize) -> SendMode {
        let mut ends_frame = true;
        let mut owned_bytes = 0;
        while let Some(queued) = self.queue.front() {
            let len = queued.chunk.as_bytes().len();
            let fits = batch.is_empty() || batch.len() + len <= bytes_max;
            if batch.room() == 0 || !fits {
                break;
            }
            if let Some(queued) = self.pop() {
                ends_frame = queued.last;
                owned_bytes += owned_len(&queued.chunk);
                batch.push(queued.chunk).expect("there is room");
            }
        }
        self.owned_bytes -= owned_bytes;
        self.flight = Some(Flight { owned_bytes, ends_frame, plain: None, recalled: false });
        if self.stalled { SendMode::All } else { SendMode::Try }
    }

    /// Hands what may be sent now, about `bytes_max` at most, to `seal`, frame bytes in order,
    /// for TLS to make records of. Those are to be sent as one block with [`SendMode::All`], and
    /// their memory is to be noted. Only when nothing is in flight.
    pub(crate) fn seal(
        &mut self,
        bytes_max: usize,
        blocks: &mut Blocks,
        mut seal: impl FnMut(&[u8]),
    ) {
        let mut plain_bytes = 0;
        let mut ends_frame = true;
        while plain_bytes < bytes_max {
            let Some(queued) = self.pop() else { break };
            plain_bytes += queued.chunk.as_bytes().len();
            self.owned_bytes -= owned_len(&queued.chunk);
            ends_frame = queued.last;
            seal(queued.chunk.as_bytes());
            blocks.reclaim(std::iter::once(queued.chunk));
        }
        let plain = Some(plain_bytes);
        self.flight = Some(Flight { owned_bytes: 0, ends_frame, plain, recalled: false });
    }

    /// Takes note of the memory that the records of the send in flight lie in.
    pub(crate) fn note_sealed(&mut self, owned_bytes: usize) {
        if let Some(flight) = &mut self.flight {
            flight.owned_bytes = owned_bytes;
        }
    }

    /// Takes note of a finished send of which the socket took `sent` bytes; the batch is emptied,
    /// its whole blocks into `blocks` when all of it has left.
    pub(crate) fn sent(&mut self, batch: &mut Batch, sent: usize, blocks: &mut Blocks) -> Progress {
        let Some(flight) = self.flight.take() else { return Progress::default() };
        let mut copied = 0;
        if sent < batch.len() {
            self.stalled = true;
            self.front_in_progress = true;
            copied = self.spill(batch, sent, flight.ends_frame, blocks);
        } else {
            blocks.reclaim(batch.drain());
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

    /// Queues the unsent rest of the batch again, and copies it and everything queued out of leased
    /// buffers.
    fn spill(
        &mut self,
        batch: &mut Batch,
        sent: usize,
        ends_frame: bool,
        blocks: &mut Blocks,
    ) -> usize {
        batch.advance(sent);
        let mut copied = 0;
        let (mut rest, mut block) = (Vec::new(), Vec::new());
        for chunk in batch.drain() {
            if let Chunk::Owned { .. } = chunk {
                rest.extend((!block.is_empty()).then(|| std::mem::take(&mut block).into()));
                rest.push(chunk);
            } else {
                copied += leased_len(&chunk);
                block.extend_from_slice(chunk.as_bytes());
            }
        }
        rest.extend((!block.is_empty()).then(|| Chunk::from(block)));
        for queued in std::mem::take(&mut self.queue) {
            let Chunk::Leased(slice) = &queued.chunk else {
                self.queue.push_back(queued);
                continue;
            };
            copied += slice.len();
            if queued.frame_count > 0 && !queued.own && slice.len() <= BLOCK_BYTES {
                self.copy_whole(|| std::iter::once(&**slice), queued.frame_count, blocks);
            } else {
                self.owned_bytes += slice.len();
                self.queue.push_back(Queued { chunk: slice.to_vec().into(), ..queued });
            }
        }
        // What the rest is made of is in progress now; nobody drops or counts it any more.
        let mut last = ends_frame;
        for chunk in rest.into_iter().rev() {
            self.owned_bytes += owned_len(&chunk);
            self.queue.push_front(Queued::part(chunk, last));
            last = false;
        }
        copied
    }

    /// Drops the whole messages that wait, for a reader that is about to be closed; the frame in
    /// progress is finished, and what the shard itself has to say is kept. Returns how many
    /// messages were dropped; their chunks go to `discarded`.
    pub(crate) fn drop_waiting_frames(&mut self, discarded: &mut Discarded) -> u64 {
        let mut keep = self.in_progress_len();
        let mut dropped = 0;
        self.queue.retain_mut(|queued| {
            if keep > 0 {
                keep -= 1;
                return true;
            }
            if !queued.own {
                dropped += if queued.last { u64::from(queued.frame_count.max(1)) } else { 0 };
                let chunk = std::mem::replace(&mut queued.chunk, Chunk::Static(b""));
                let bytes = owned_len(&chunk);
                discarded.add(chunk, bytes);
            }
            queued.own
        });
        self.queue.shrink_to(SPARE_QUEUE_LEN);
        self.owned_bytes = self.queue.iter().map(|queued| owned_len(&queued.chunk)).sum();
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

    /// Takes the queue along to another shard: what lies in receive buffers is copied. Only when
    /// nothing is in flight.
    pub(crate) fn pack(self) -> Packed {
        let frames = self.queue.into_iter().map(|queued| PackedFrame {
            bytes: match queued.chunk {
                Chunk::Owned { bytes, start: 0 } => bytes,
                chunk => chunk.as_bytes().to_vec(),
            },
            last: queued.last,
            frame_count: queued.frame_count,
            own: queued.own,
            pong: queued.pong,
        });
        Packed {
            frames: frames.collect(),
            front_in_progress: self.front_in_progress,
            stalled: self.stalled,
            own_bytes: self.own_bytes,
            arrivals: self.arrivals,
        }
    }

    /// Makes an idle queue like new, for another connection; keeps a little of its memory.
    pub(crate) fn renew(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        queue.shrink_to(SPARE_QUEUE_LEN);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        arrivals.renew();
        *self = Self { queue, arrivals, ..Self::default() };
    }
}

/// A queue on its way to another shard.
pub(crate) struct Packed {
    frames: Vec<PackedFrame>,
    front_in_progress: bool,
    stalled: bool,
    own_bytes: usize,
    /// The clock is that of all shards.
    arrivals: Arrivals,
}

struct PackedFrame {
    bytes: Vec<u8>,
    last: bool,
    frame_count: u32,
    own: bool,
    pong: bool,
}

impl Packed {
    /// The queue as it was.
    pub(crate) fn unpack(self) -> Egress {
        let mut egress = Egress {
            front_in_progress: self.front_in_progress,
            stalled: self.stalled,
            own_bytes: self.own_bytes,
            arrivals: self.arrivals,
            ..Egress::default()
        };
        for PackedFrame { bytes, last, frame_count, own, pong } in self.frames {
            let chunk = Chunk::from(bytes);
            egress.owned_bytes += owned_len(&chunk);
            egress.pong_count += usize::from(pong);
            egress.queue.push_back(Queued { chunk, last, frame_count, own, pong });
        }
        egress
    }
}

/// Memory of a chunk in a block of its own.
pub(crate) fn owned_len(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Owned { bytes, .. } => bytes.capacity(),
        Chunk::Leased(_) | Chunk::Inline { .. } | Chunk::Static(_) => 0,
    }
}

fn leased_len(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Leased(slice) => slice.len(),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
