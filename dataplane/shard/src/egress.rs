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
    /// Pongs in the queue.
    pong_count: usize,
    /// Memory of queued chunks that lie in blocks of their own.
    owned_bytes: usize,
}

struct Queued {
    chunk: Chunk,
    /// The last chunk of its frame.
    last: bool,
    /// Made by the shard, so unknown to the switchboard's account and never dropped.
    own: bool,
    /// Answers a ping.
    pong: bool,
}

impl Queued {
    /// Part of a message.
    fn part(chunk: Chunk, last: bool) -> Self {
        Self { chunk, last, own: false, pong: false }
    }

    /// A frame of the shard's own.
    fn own(chunk: Chunk) -> Self {
        Self { chunk, last: true, own: true, pong: false }
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
    pub(crate) fn push(&mut self, frame: &mut Vec<Chunk>) -> usize {
        // While records are on their way nobody knows when the next can be made: a leased buffer
        // must not wait for that.
        let is_sealing = self.flight.is_some_and(|flight| flight.plain.is_some());
        if self.stalled || is_sealing {
            let mut copied = 0;
            let mut block = Vec::new();
            for chunk in frame.drain(..) {
                copied += leased_len(&chunk);
                for part in chunk.as_bytes().chunks(SEND_BYTES_MAX) {
                    if block.len() + part.len() > SEND_BYTES_MAX {
                        self.enqueue(std::mem::take(&mut block).into(), false);
                    }
                    block.extend_from_slice(part);
                }
            }
            self.enqueue(block.into(), true);
            return copied;
        }
        let count = frame.len();
        for (index, chunk) in frame.drain(..).enumerate() {
            self.enqueue(chunk, index + 1 == count);
        }
        0
    }

    /// Queues one chunk of a frame, in blocks that one send each can take.
    fn enqueue(&mut self, chunk: Chunk, last: bool) {
        if chunk.as_bytes().len() <= SEND_BYTES_MAX {
            self.owned_bytes += owned_len(&chunk);
            return self.queue.push_back(Queued::part(chunk, last));
        }
        // Only what had to be copied anyway comes in larger pieces.
        let mut blocks = chunk.as_bytes().chunks(SEND_BYTES_MAX).peekable();
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

    /// Memory of its own: the queue, and every chunk that does not lie in a receive buffer.
    pub(crate) fn held_bytes(&self) -> usize {
        let flight = self.flight.map_or(0, |flight| flight.owned_bytes);
        size_of::<Self>() + self.queue.capacity() * size_of::<Queued>() + self.owned_bytes + flight
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
        let mut owned_bytes = 0;
        while let Some(queued) = self.queue.front() {
            let len = queued.chunk.as_bytes().len();
            let fits = batch.is_empty() || batch.len() + len <= SEND_BYTES_MAX;
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
        self.flight = Some(Flight { owned_bytes, ends_frame, plain: None });
        if self.stalled { SendMode::All } else { SendMode::Try }
    }

    /// Hands what may be sent now to `seal`, frame bytes in order, for TLS to make records of.
    /// Those are to be sent as one block with [`SendMode::All`]. Only when nothing is in flight.
    pub(crate) fn seal(&mut self, mut seal: impl FnMut(&[u8])) {
        let mut plain_bytes = 0;
        let mut ends_frame = true;
        while plain_bytes < SEND_BYTES_MAX {
            let Some(queued) = self.pop() else { break };
            plain_bytes += queued.chunk.as_bytes().len();
            self.owned_bytes -= owned_len(&queued.chunk);
            ends_frame = queued.last;
            seal(queued.chunk.as_bytes());
        }
        // The records are a little longer than what they carry.
        let owned_bytes = plain_bytes;
        self.flight = Some(Flight { owned_bytes, ends_frame, plain: Some(plain_bytes) });
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
                self.owned_bytes += slice.len();
                queued.chunk = slice.to_vec().into();
            }
        }
        // What the block is made of is in progress now; nobody drops or counts it any more.
        self.owned_bytes += rest.capacity();
        self.queue.push_front(Queued::part(rest.into(), ends_frame));
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

    /// Makes an idle queue like new, for another connection; keeps a little of its memory.
    pub(crate) fn renew(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        queue.shrink_to(SPARE_QUEUE_LEN);
        *self = Self { queue, ..Self::default() };
    }
}

/// Memory of a chunk in a block of its own.
fn owned_len(chunk: &Chunk) -> usize {
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
mod tests {
    use relay_driver::BufferPool;
    use relay_driver::sim::Seed;

    use super::*;

    /// First bytes of frames that the switchboard counts, and of the shard's own.
    const COUNTED: u8 = b'c';
    const OWN: u8 = b'o';

    /// A frame that starts with its kind and length and goes on with bytes that name it.
    fn bytes(kind: u8, name: u8, len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len).expect("frames here are small").to_be_bytes();
        [&[kind, high, low][..], &vec![name; len]].concat()
    }

    /// The frame as chunks of at most `piece` bytes, in leased buffers as long as there are some.
    fn chunks(frame: &[u8], piece: usize, pool: &BufferPool) -> Vec<Chunk> {
        let chunk = |part: &[u8]| match pool.lease() {
            Some(mut lease) => {
                lease[..part.len()].copy_from_slice(part);
                Chunk::Leased(lease.freeze().slice(0..part.len()))
            }
            None => Chunk::from(part.to_vec()),
        };
        frame.chunks(piece).map(chunk).collect()
    }

    /// Kinds and names of the whole frames on the wire; panics when one is damaged.
    fn read(mut wire: &[u8]) -> Vec<(u8, u8)> {
        let mut frames = Vec::new();
        while let [kind, high, low, payload @ ..] = wire {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            assert!(payload.len() >= len, "the last frame is cut");
            let name = payload[0];
            assert!(payload[..len].iter().all(|&byte| byte == name), "a frame is damaged");
            frames.push((*kind, name));
            wire = &payload[len..];
        }
        assert!(wire.is_empty(), "the last frame is cut");
        frames
    }

    /// A queue with its socket: what left is on the wire.
    struct Line {
        egress: Egress,
        batch: Box<Batch>,
        pool: BufferPool,
        wire: Vec<u8>,
        left: usize,
        encrypted: bool,
        mode: SendMode,
    }

    impl Line {
        fn new(encrypted: bool) -> Self {
            Self {
                egress: Egress::default(),
                batch: Batch::new(),
                pool: BufferPool::new(16, 256),
                wire: Vec::new(),
                left: 0,
                encrypted,
                mode: SendMode::Try,
            }
        }

        fn push(&mut self, name: u8, len: usize, piece: usize) -> usize {
            let frame = bytes(COUNTED, name, len);
            self.egress.push(&mut chunks(&frame, piece, &self.pool));
            frame.len()
        }

        fn start(&mut self) {
            if !self.egress.is_ready() {
                return;
            }
            if self.encrypted {
                let mut records = vec![0; 5];
                self.egress.seal(|plain| records.extend_from_slice(plain));
                self.wire.extend_from_slice(&records[5..]);
                self.batch.push(records).expect("it is empty");
                self.mode = SendMode::All;
            } else {
                self.mode = self.egress.fill(&mut self.batch);
            }
        }

        /// The socket takes `most` bytes of the flight, or all where it has to.
        fn finish(&mut self, most: usize) {
            if !self.egress.is_in_flight() {
                return;
            }
            let all = self.batch.len();
            let sent = if self.mode == SendMode::All { all } else { most.min(all) };
            if !self.encrypted {
                let flight: Vec<u8> =
                    self.batch.chunks().iter().flat_map(Chunk::as_bytes).copied().collect();
                self.wire.extend_from_slice(&flight[..sent]);
            }
            self.left += self.egress.sent(&mut self.batch, sent).left;
            assert!(self.batch.is_empty(), "the batch goes back empty");
        }

        fn drain(&mut self) {
            while !self.egress.is_idle() {
                self.start();
                self.finish(usize::MAX);
            }
        }
    }

    #[test]
    fn a_large_frame_leaves_in_bounded_sends_whole_and_in_order() {
        for stalled in [false, true] {
            let mut egress = Egress { stalled, ..Egress::default() };
            let mut batch = Batch::new();
            let payload: Vec<u8> = (0..1_000_000u32).map(|index| (index / 251) as u8).collect();
            let frame = || vec![Chunk::from(vec![7; 10]), Chunk::from(payload.clone())];
            egress.push(&mut frame());
            egress.push(&mut frame());
            let mut wire: Vec<u8> = Vec::new();
            while egress.is_ready() {
                egress.fill(&mut batch);
                assert!(batch.len() <= SEND_BYTES_MAX, "{} bytes in one send", batch.len());
                wire.extend(batch.chunks().iter().flat_map(Chunk::as_bytes));
                let sent = batch.len();
                egress.sent(&mut batch, sent);
            }
            let expected = [&[7; 10], &payload[..], &[7; 10], &payload[..]].concat();
            assert!(wire == expected, "stalled {stalled}");
        }
    }

    #[test]
    fn an_overflow_drops_nothing_of_a_large_frame_whose_first_block_left() {
        let mut egress = Egress::default();
        let mut batch = Batch::new();
        egress.push(&mut vec![Chunk::from(vec![1; 3 * SEND_BYTES_MAX])]);
        egress.push(&mut vec![Chunk::from(vec![2; 10])]);
        egress.fill(&mut batch);
        let sent = batch.len();
        egress.sent(&mut batch, sent);
        assert_eq!(egress.drop_waiting_frames(), 1);
        assert_eq!(egress.queued_bytes(), 3 * SEND_BYTES_MAX - sent);
    }

    #[test]
    fn an_overflow_keeps_the_frame_that_the_flight_has_begun() {
        let mut line = Line::new(false);
        // More chunks than one batch takes, so the flight ends inside the frame.
        line.push(1, 100, 1);
        line.push(2, 10, 16);
        line.start();
        assert_eq!(line.egress.drop_waiting_frames(), 1);
        line.drain();
        assert_eq!(read(&line.wire), [(COUNTED, 1)]);
    }

    #[test]
    fn an_overflow_drops_what_is_behind_a_flight_that_ends_a_frame() {
        let mut line = Line::new(false);
        line.push(1, 50, 16);
        line.start();
        line.push(2, 50, 16);
        line.push(3, 50, 16);
        assert_eq!(line.egress.drop_waiting_frames(), 2);
        line.finish(20);
        line.drain();
        assert_eq!(read(&line.wire), [(COUNTED, 1)]);
    }

    #[test]
    fn an_overflow_without_a_flight_keeps_the_rest_of_a_frame_that_was_begun() {
        let mut line = Line::new(false);
        line.push(1, 100, 1);
        line.push(2, 10, 16);
        line.start();
        line.finish(usize::MAX);
        assert!(!line.egress.is_in_flight());
        assert_eq!(line.egress.drop_waiting_frames(), 1);
        line.drain();
        assert_eq!(read(&line.wire), [(COUNTED, 1)]);

        line.push(3, 50, 16);
        line.start();
        line.finish(20);
        line.push(4, 50, 16);
        assert_eq!(line.egress.drop_waiting_frames(), 1);
        line.drain();
        assert_eq!(read(&line.wire), [(COUNTED, 1), (COUNTED, 3)]);
    }

    #[test]
    fn an_overflow_keeps_what_the_shard_has_to_say() {
        let mut line = Line::new(false);
        line.egress.push_own(bytes(OWN, 1, 9).into());
        line.push(2, 50, 16);
        line.egress.push_own(bytes(OWN, 3, 9).into());
        assert_eq!(line.egress.drop_waiting_frames(), 1);
        line.drain();
        assert_eq!(read(&line.wire), [(OWN, 1), (OWN, 3)]);
    }

    #[test]
    fn a_frame_of_more_chunks_than_a_batch_takes_leaves_whole() {
        let mut line = Line::new(false);
        let len = line.push(1, 3 * Batch::CHUNKS_MAX, 1);
        line.start();
        assert!(line.batch.len() < len, "one batch is not enough");
        line.finish(usize::MAX);
        line.egress.push_urgent(bytes(OWN, 2, 4).into());
        line.drain();
        assert_eq!(read(&line.wire), [(COUNTED, 1), (OWN, 2)]);
        assert_eq!(line.left, len);
    }

    #[test]
    fn an_urgent_frame_passes_messages_but_not_its_own_kind() {
        let mut line = Line::new(false);
        line.egress.push_own(bytes(OWN, 1, 4).into());
        line.push(2, 50, 16);
        line.egress.push_urgent(bytes(OWN, 3, 4).into());
        line.drain();
        assert_eq!(read(&line.wire), [(OWN, 1), (OWN, 3), (COUNTED, 2)]);
    }

    #[test]
    fn a_stalled_queue_holds_no_lease() {
        let mut line = Line::new(false);
        line.push(1, 100, 50);
        line.push(2, 100, 50);
        line.start();
        line.push(3, 100, 50);
        line.finish(40);
        assert_eq!(line.pool.in_use(), 0);
        line.push(4, 100, 50);
        assert_eq!(line.pool.in_use(), 0);
        line.drain();
        assert_eq!(read(&line.wire), [1, 2, 3, 4].map(|name| (COUNTED, name)));
    }

    /// Pushes, starts and finishes in an order drawn from the seed.
    fn interleave(seed: &mut Seed, encrypted: bool) {
        let mut line = Line::new(encrypted);
        let mut pushed = 0;
        let mut counted = Vec::new();
        for name in 1..40 {
            let len = seed.length(200);
            match seed.below(9) {
                0..4 => {
                    pushed += line.push(name, len, seed.length(64));
                    counted.push((COUNTED, name));
                }
                4 => line.egress.push_own(bytes(OWN, name, len).into()),
                5 => line.egress.push_urgent(bytes(OWN, name, len).into()),
                7 => drop(line.egress.push_pong(bytes(OWN, name, len).into())),
                6 => line.start(),
                _ => line.finish(seed.below(600) as usize),
            }
            assert!(line.left <= pushed, "more left than was pushed");
        }
        line.drain();
        assert_eq!(line.left, pushed);
        let arrived = read(&line.wire).into_iter().filter(|(kind, _)| *kind == COUNTED);
        assert_eq!(arrived.collect::<Vec<_>>(), counted);
    }

    #[test]
    fn of_more_pings_than_fit_the_latest_is_answered_last() {
        let mut line = Line::new(false);
        line.push(200, 100, 50);
        for name in 0..100 {
            let merged = line.egress.push_pong(bytes(OWN, name, 3 + usize::from(name % 5)).into());
            assert_eq!(merged, usize::from(name) >= PONGS_MAX, "{name}");
        }
        assert!(line.egress.queued_bytes() < 100 + 4 + PONGS_MAX * 12);
        line.drain();
        let names: Vec<_> = read(&line.wire).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, [0, 1, 2, 3, 4, 5, 6, 99, 200]);
        assert_eq!((line.egress.own_bytes, line.egress.pong_count), (0, 0));
    }

    #[test]
    fn counted_bytes_that_left_are_those_that_were_pushed() {
        for start in 0..2000 {
            interleave(&mut Seed::new(start), start % 2 == 0);
        }
    }

    #[test]
    fn an_overflow_at_any_moment_leaves_whole_frames_and_everything_of_the_shard() {
        for start in 0..2000 {
            let mut seed = Seed::new(start);
            let mut line = Line::new(start % 2 == 0);
            let (mut pushed, mut own) = (0, 0);
            for name in 1..20 {
                match seed.below(4) {
                    0 => line.start(),
                    1 => line.finish(seed.below(300) as usize),
                    2 => {
                        line.egress.push_urgent(bytes(OWN, name, 5).into());
                        own += 1;
                    }
                    _ => {
                        line.push(name, seed.length(150), seed.length(40));
                        pushed += 1;
                    }
                }
            }
            let dropped = line.egress.drop_waiting_frames();
            line.drain();
            let arrived = read(&line.wire);
            let counted = arrived.iter().filter(|(kind, _)| *kind == COUNTED).count();
            assert_eq!(counted as u64, pushed - dropped, "seed {start}");
            assert_eq!(arrived.len() - counted, own, "seed {start}");
        }
    }
}
