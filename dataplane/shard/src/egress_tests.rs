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
    blocks: Blocks,
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
            blocks: Blocks::default(),
            wire: Vec::new(),
            left: 0,
            encrypted,
            mode: SendMode::Try,
        }
    }

    fn push(&mut self, name: u8, len: usize, piece: usize) -> usize {
        let frame = bytes(COUNTED, name, len);
        self.egress.push(&mut chunks(&frame, piece, &self.pool), &mut self.blocks);
        frame.len()
    }

    fn start(&mut self) {
        if !self.egress.is_ready() {
            return;
        }
        if self.encrypted {
            let mut records = vec![0; 5];
            let seal = |plain: &[u8]| records.extend_from_slice(plain);
            self.egress.seal(SEND_BYTES_MAX, &mut self.blocks, seal);
            self.wire.extend_from_slice(&records[5..]);
            self.batch.push(records).expect("it is empty");
            self.mode = SendMode::All;
        } else {
            self.mode = self.egress.fill(&mut self.batch, SEND_BYTES_MAX);
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
        self.left += self.egress.sent(&mut self.batch, sent, &mut self.blocks).left;
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
        egress.push(&mut frame(), &mut Blocks::default());
        egress.push(&mut frame(), &mut Blocks::default());
        let mut wire: Vec<u8> = Vec::new();
        while egress.is_ready() {
            egress.fill(&mut batch, SEND_BYTES_MAX);
            assert!(batch.len() <= SEND_BYTES_MAX, "{} bytes in one send", batch.len());
            wire.extend(batch.chunks().iter().flat_map(Chunk::as_bytes));
            let sent = batch.len();
            egress.sent(&mut batch, sent, &mut Blocks::default());
        }
        let expected = [&[7; 10], &payload[..], &[7; 10], &payload[..]].concat();
        assert!(wire == expected, "stalled {stalled}");
    }
}

#[test]
fn an_overflow_drops_nothing_of_a_large_frame_whose_first_block_left() {
    let mut egress = Egress::default();
    let mut batch = Batch::new();
    egress.push(&mut vec![Chunk::from(vec![1; 3 * SEND_BYTES_MAX])], &mut Blocks::default());
    egress.push(&mut vec![Chunk::from(vec![2; 10])], &mut Blocks::default());
    egress.fill(&mut batch, SEND_BYTES_MAX);
    let sent = batch.len();
    egress.sent(&mut batch, sent, &mut Blocks::default());
    assert_eq!(egress.drop_waiting_frames(&mut Discarded::default()), 1);
    assert_eq!(egress.queued_bytes(), 3 * SEND_BYTES_MAX - sent);
}

#[test]
fn an_overflow_keeps_the_frame_that_the_flight_has_begun() {
    let mut line = Line::new(false);
    // More chunks than one batch takes, so the flight ends inside the frame.
    line.push(1, 100, 1);
    line.push(2, 10, 16);
    line.start();
    assert_eq!(line.egress.drop_waiting_frames(&mut Discarded::default()), 1);
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
    assert_eq!(line.egress.drop_waiting_frames(&mut Discarded::default()), 2);
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
    assert_eq!(line.egress.drop_waiting_frames(&mut Discarded::default()), 1);
    line.drain();
    assert_eq!(read(&line.wire), [(COUNTED, 1)]);

    line.push(3, 50, 16);
    line.start();
    line.finish(20);
    line.push(4, 50, 16);
    assert_eq!(line.egress.drop_waiting_frames(&mut Discarded::default()), 1);
    line.drain();
    assert_eq!(read(&line.wire), [(COUNTED, 1), (COUNTED, 3)]);
}

#[test]
fn an_overflow_keeps_what_the_shard_has_to_say() {
    let mut line = Line::new(false);
    line.egress.push_own(bytes(OWN, 1, 9).into());
    line.push(2, 50, 16);
    line.egress.push_own(bytes(OWN, 3, 9).into());
    assert_eq!(line.egress.drop_waiting_frames(&mut Discarded::default()), 1);
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

/// Frames of these lengths as one receive brings them: one behind the other in one buffer.
fn run(pool: &BufferPool, lens: &[usize]) -> Vec<Chunk> {
    let mut lease = pool.lease().expect("a buffer is free");
    let mut chunks = Vec::new();
    for (name, &len) in (0..).zip(lens) {
        let frame = bytes(COUNTED, name, len);
        let mut part = lease.split_to(frame.len());
        part.copy_from_slice(&frame);
        chunks.push(Chunk::Leased(part.freeze().into_slice()));
    }
    chunks
}

#[test]
fn frames_that_lie_one_behind_the_other_leave_as_one_piece() {
    let pool = BufferPool::new(2, 256);
    let mut egress = Egress::default();
    for chunk in run(&pool, &[10, 20, 30]).into_iter().chain(run(&pool, &[10])) {
        egress.push(&mut vec![chunk], &mut Blocks::default());
    }
    let mut batch = Batch::new();
    egress.fill(&mut batch, SEND_BYTES_MAX);
    assert_eq!(batch.chunks().len(), 2, "a piece for each buffer");
    let sent: Vec<u8> = batch.chunks().iter().flat_map(Chunk::as_bytes).copied().collect();
    assert_eq!(read(&sent), [(COUNTED, 0), (COUNTED, 1), (COUNTED, 2), (COUNTED, 0)]);
    let all = batch.len();
    egress.sent(&mut batch, all, &mut Blocks::default());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn frames_that_go_to_different_peers_do_not_join() {
    let pool = BufferPool::new(1, 256);
    let mut queues = [Egress::default(), Egress::default()];
    for (index, chunk) in run(&pool, &[10, 20, 30, 5]).into_iter().enumerate() {
        queues[index % 2].push(&mut vec![chunk], &mut Blocks::default());
    }
    let names = queues.map(|mut egress| {
        let mut batch = Batch::new();
        egress.fill(&mut batch, SEND_BYTES_MAX);
        let sent: Vec<u8> = batch.chunks().iter().flat_map(Chunk::as_bytes).copied().collect();
        read(&sent)
    });
    assert_eq!(names, [[(COUNTED, 0), (COUNTED, 2)], [(COUNTED, 1), (COUNTED, 3)]]);
}

#[test]
fn each_frame_of_a_run_that_is_dropped_counts() {
    let pool = BufferPool::new(1, 256);
    let mut egress = Egress::default();
    egress.push_own(Chunk::from(bytes(OWN, 9, 4)));
    for chunk in run(&pool, &[10, 20, 30]) {
        egress.push(&mut vec![chunk], &mut Blocks::default());
    }
    assert_eq!(egress.drop_waiting_frames(&mut Discarded::default()), 3);
    assert_eq!(pool.in_use(), 0);
    let mut batch = Batch::new();
    egress.fill(&mut batch, SEND_BYTES_MAX);
    assert_eq!(read(batch.chunks()[0].as_bytes()), [(OWN, 9)]);
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
        let dropped = line.egress.drop_waiting_frames(&mut Discarded::default());
        line.drain();
        let arrived = read(&line.wire);
        let counted = arrived.iter().filter(|(kind, _)| *kind == COUNTED).count();
        assert_eq!(counted as u64, pushed - dropped, "seed {start}");
        assert_eq!(arrived.len() - counted, own, "seed {start}");
    }
}

#[test]
fn what_a_slow_reader_owes_lies_in_few_blocks() {
    let mut line = Line::new(false);
    line.egress.stalled = true;
    let sizes = [1000, 10, 4000, 200];
    let pushed: usize =
        (0..200u8).map(|name| line.push(name, sizes[usize::from(name % 4)], 60)).sum();
    let blocks = line.egress.queue.len();
    assert!(blocks <= 1 + pushed / (BLOCK_BYTES - 4003), "{blocks} blocks of {pushed} bytes");
    assert!(line.egress.owned_bytes <= pushed + 2 * BLOCK_BYTES, "{}", line.egress.owned_bytes);
    assert_eq!(line.pool.in_use(), 0);
    line.egress.push_own(Chunk::from(bytes(OWN, 200, 10)));
    line.push(201, 10, 60);
    line.drain();
    let names: Vec<u8> = read(&line.wire).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, (0..=201).collect::<Vec<u8>>(), "all of it, in order");
}

#[test]
fn a_large_frame_for_a_slow_reader_fills_its_blocks() {
    let mut egress = Egress { stalled: true, ..Egress::default() };
    let parts = [10, BLOCK_BYTES, 222].map(|len| Chunk::from(vec![7; len]));
    let len = BLOCK_BYTES + 232;
    egress.push(&mut parts.into(), &mut Blocks::default());
    assert_eq!(egress.queued_bytes(), len);
    assert!(egress.owned_bytes < len + 1024, "{}", egress.owned_bytes);
}

#[test]
fn a_stall_copies_what_waits_into_few_blocks() {
    let mut line = Line::new(false);
    for name in 0..10 {
        line.push(name, 20, 256);
    }
    line.start();
    for name in 10..15 {
        line.push(name, 20, 256);
    }
    line.finish(7);
    assert_eq!(line.pool.in_use(), 0);
    assert_eq!(line.egress.queue.len(), 2, "the rest of the send, and what waited behind it");
    let mut discarded = Discarded::default();
    assert_eq!(line.egress.drop_waiting_frames(&mut discarded), 5);
    line.drain();
    assert_eq!(read(&line.wire).len(), 10);
}

#[test]
fn little_is_what_one_send_takes_within_the_bound() {
    let mut egress = Egress::default();
    assert!(egress.is_small(0));
    egress.push(
        &mut vec![Chunk::from(vec![1; 10]), Chunk::from(vec![2; 90])],
        &mut Blocks::default(),
    );
    assert!(egress.is_small(100) && !egress.is_small(99));
    for _ in 0..Batch::CHUNKS_MAX {
        egress.push(&mut vec![Chunk::from(vec![3; 1])], &mut Blocks::default());
    }
    assert!(!egress.is_small(1 << 20), "more chunks than one send takes");
}

#[test]
fn a_send_in_flight_is_held_with_its_batch_and_the_room_of_its_records() {
    let (mut egress, mut blocks) = (Egress::default(), Blocks::default());
    egress.push_own(Chunk::from(vec![0; 100]));
    let before = egress.held_bytes();
    egress.seal(SEND_BYTES_MAX, &mut blocks, |_| {});
    egress.note_sealed(64 << 10);
    let held = egress.held_bytes();
    let batch = allocation_counter::measure(|| std::mem::forget(Batch::new()));
    let batch_bytes = usize::try_from(batch.bytes_current).expect("it takes memory");
    assert!(held >= before - 100 + batch_bytes + (64 << 10), "{held} bytes");
    egress.sent(&mut Batch::new(), 0, &mut blocks);
    assert!(egress.held_bytes() <= before, "all of it is back");
}
