//! Peers that make the relay answer, and what one connection may do to another's queue.

use std::time::Duration;

use relay_contract::{Counter, Limits};
use relay_driver::Driver;
use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, CLOSE, Frame, PONG, TEXT};

/// What answers to pings may wait in one queue: eight pongs, and what is in flight.
const PONGS_BYTES_MAX: usize = 4 << 10;

fn flood_with_pings(encrypted: bool, reads: bool) {
    let faults = Faults { socket_bytes: 8 << 10, ..Faults::none() };
    let limits = Limits { small_frames_per_minute: u32::MAX, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { encrypted, faults, limits, ..Setup::default() });
    let client = bench.open("client", "t");
    bench.socket(client).reads = reads;
    let burst = frames::ping(&[7; 100]).repeat(80);
    for _ in 0..1000 {
        if bench.socket(client).unsent_bytes() < burst.len() {
            bench.socket(client).send(&burst);
        }
        bench.step();
        let _read = bench.socket(client).take_frames();
        let queued = bench.audit().egress_bytes_max;
        assert!(queued <= PONGS_BYTES_MAX, "{queued} bytes wait");
    }
    let received = bench.shard(0).driver().stats().received_bytes;
    assert!(received > 64 << 10, "the flood was read: {received} bytes");
}

#[test]
fn a_ping_flood_of_a_reader_is_bounded() {
    flood_with_pings(false, true);
}

#[test]
fn a_ping_flood_of_a_peer_that_does_not_read_is_bounded() {
    flood_with_pings(false, false);
}

#[test]
fn a_ping_flood_of_a_reader_is_bounded_under_tls() {
    flood_with_pings(true, true);
}

#[test]
fn a_ping_flood_of_a_peer_that_does_not_read_is_bounded_under_tls() {
    flood_with_pings(true, false);
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let mut bench = Bench::new(Setup::default());
    let client = bench.open("client", "t");
    bench.socket(client).send(&frames::ping(b"are you there"));
    bench.steps(10);
    let answers = bench.socket(client).take_frames();
    assert_eq!(answers, [Frame { opcode: PONG, payload: b"are you there".to_vec() }]);
}

#[test]
fn the_last_ping_of_a_flood_is_answered() {
    for encrypted in [false, true] {
        let faults = Faults { socket_bytes: 1 << 10, ..Faults::none() };
        let mut bench = Bench::new(Setup { encrypted, faults, ..Setup::default() });
        let client = bench.open("client", "t");
        bench.socket(client).reads = false;
        for number in 0..600_u32 {
            bench.socket(client).send(&frames::ping(&number.to_be_bytes()));
        }
        bench.until("every ping was read", |bench| bench.socket(client).unsent_bytes() == 0);
        bench.steps(50);
        bench.socket(client).reads = true;
        bench.steps(100);
        let pongs = bench.socket(client).take_frames();
        let last = pongs.last().expect("there are answers");
        assert_eq!(*last, Frame { opcode: PONG, payload: 599_u32.to_be_bytes().to_vec() });
        assert!(pongs.len() < 600, "most were merged: {}", pongs.len());
        let merged = bench.counted(Counter::PongsMerged) as usize;
        assert_eq!(merged, 600 - pongs.len());
    }
}

/// Sends `burst` again and again until the relay closes the connection; returns its close frame.
fn flood_until_closed(bench: &mut Bench, client: SocketId, burst: &[u8]) -> Option<Frame> {
    for _ in 0..2000 {
        if bench.socket(client).unsent_bytes() < burst.len() {
            bench.socket(client).send(burst);
        }
        bench.step();
        let told = bench.socket(client).take_frames();
        if let Some(close) = told.into_iter().find(|frame| frame.opcode == CLOSE) {
            return Some(close);
        }
    }
    None
}

/// Floods beside a pair that is served all the time.
fn a_flood_ends(what: &str, reason: &str, counter: Counter, first: &[u8], burst: &[u8]) {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let client = bench.open("client", "flooded");
        let (daemon, neighbour) = bench.pair("t");
        bench.socket(client).send(first);
        let told = flood_until_closed(&mut bench, client, burst);
        assert_eq!(told, Some(Frame::close(4008, reason)), "{what}");
        assert_eq!(bench.counted(counter), 1, "{what}");
        let payload = frames::envelope(1, 100);
        bench.socket(neighbour).send(&frames::text(&payload));
        bench.steps(5);
        assert_eq!(bench.socket(daemon).take_frames(), [Frame { opcode: TEXT, payload }]);
    }
}

const SMALL: &str = "small frame rate limit exceeded";
const UNROUTED: &str = "unrouted frame rate limit exceeded";

#[test]
fn a_ping_flood_ends_its_connection() {
    let burst = frames::ping(b"").repeat(100);
    a_flood_ends("pings", SMALL, Counter::SmallFramesRateLimited, b"", &burst);
}

#[test]
fn a_pong_flood_ends_its_connection() {
    let burst = frames::masked(0x80 | PONG, b"x").repeat(100);
    a_flood_ends("pongs", SMALL, Counter::SmallFramesRateLimited, b"", &burst);
}

#[test]
fn a_flood_of_messages_in_tiny_fragments_ends_its_connection() {
    let begin = frames::masked(TEXT, b" ");
    let burst = [begin, frames::masked(0, b" ").repeat(97), frames::masked(0x80, b" ")].concat();
    let limits = Setup::default().limits;
    assert!(limits.unrouted_per_minute * 97 > limits.small_frames_per_minute);
    a_flood_ends("tiny fragments", SMALL, Counter::SmallFramesRateLimited, b"", &burst);
}

#[test]
fn a_flood_of_empty_continuations_ends_its_connection() {
    let first = frames::masked(TEXT, b"{");
    let burst = [frames::masked(0, b"").repeat(50), frames::ping(b"").repeat(50)].concat();
    a_flood_ends("continuations", SMALL, Counter::SmallFramesRateLimited, &first, &burst);
}

#[test]
fn a_flood_of_empty_messages_ends_its_connection() {
    let counter = Counter::FramesClientUnroutedRateLimited;
    let burst = frames::text(b"").repeat(50);
    a_flood_ends("empty messages", UNROUTED, counter, b"", &burst);
}

#[test]
fn a_flood_of_binary_messages_ends_its_connection() {
    let counter = Counter::FramesClientUnroutedRateLimited;
    for payload in [&b"\xff"[..], b"{}"] {
        let burst = frames::masked(0x82, payload).repeat(50);
        a_flood_ends("binary messages", UNROUTED, counter, b"", &burst);
    }
}

#[test]
fn fragments_of_a_useful_size_are_never_too_many() {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    let payload = frames::envelope(1, 100_000);
    let parts: Vec<_> = payload.chunks(200).collect();
    let (last, before) = parts.split_last().expect("there are many");
    let mut message = Vec::new();
    for (index, part) in before.iter().enumerate() {
        message.extend(frames::masked(if index == 0 { TEXT } else { 0 }, part));
    }
    message.extend(frames::masked(0x80, last));
    for _ in 0..60 {
        bench.socket(client).send(&message);
        bench.until("it was forwarded", |bench| {
            bench.socket(daemon).take_frames().iter().any(|frame| frame.payload == payload)
        });
    }
    assert_eq!(bench.counted(Counter::SmallFramesRateLimited), 0);
}

#[test]
fn a_flood_of_close_frames_is_one_close() {
    let mut bench = Bench::new(Setup::default());
    let client = bench.open("client", "t");
    bench.socket(client).send(&frames::close(1000).repeat(500));
    bench.steps(30);
    let told = bench.socket(client).take_frames();
    assert_eq!(told, [Frame { opcode: CLOSE, payload: 1000_u16.to_be_bytes().to_vec() }]);
    assert_ne!(bench.socket(client).state(), PeerState::Open);
}

/// A client that the relay closes with 4008 and that does not answer the close.
fn closed_by_the_relay(bench: &mut Bench) -> SocketId {
    let _daemon = bench.open("workspace-daemon", "t");
    let second = bench.open("workspace-daemon", "t");
    bench.until("a close frame", |bench| {
        bench.socket(second).take_frames().iter().any(|frame| frame.opcode == CLOSE)
    });
    second
}

#[test]
fn no_pong_follows_our_close_frame() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let closed = closed_by_the_relay(&mut bench);
        bench.socket(closed).send(&frames::ping(b"x").repeat(10));
        bench.steps(50);
        assert_eq!(bench.socket(closed).take_frames(), []);
    }
}

#[test]
fn pings_do_not_delay_the_end_of_a_closed_connection() {
    let mut bench = Bench::new(Setup::default());
    let closed = closed_by_the_relay(&mut bench);
    for _ in 0..100 {
        bench.socket(closed).send(&frames::ping(b"x"));
        bench.step_by(Duration::from_millis(50));
    }
    assert_ne!(bench.socket(closed).state(), PeerState::Open);
}

#[test]
fn a_shelved_queue_never_silences_another() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let (_daemon, client) = bench.pair("t");
        for index in 0..5 {
            // The pong has left in the turn in which the message is received.
            bench.socket(client).send(&frames::ping(b"x"));
            bench.step();
            bench.socket(client).send(&frames::text(&frames::envelope(index, 100)));
            bench.steps(5);
            let other = bench.open("client", &format!("t{index}"));
            bench.socket(other).send(&frames::ping(b"y"));
            bench.steps(5);
            assert_eq!(bench.socket(other).take_frames().len(), 1, "it is answered");
        }
    }
}

fn early_frames_that_are_answered(encrypted: bool) -> (u16, Vec<Frame>) {
    let limits = Limits { egress_bytes_max: 1, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { encrypted, limits, ..Setup::default() });
    let mut bytes = frames::upgrade("client", "t").into_bytes();
    bytes.extend(frames::text(b"{}").repeat(4));
    bytes.extend(frames::ping(b"x"));
    let client = bench.request(bytes);
    let (status, _) = bench.answer(client);
    bench.steps(20);
    (status, bench.socket(client).take_frames())
}

#[test]
fn the_101_precedes_everything_at_the_smallest_egress_budget() {
    for encrypted in [false, true] {
        let (status, frames) = early_frames_that_are_answered(encrypted);
        assert_eq!(status, 101);
        // Its socket takes everything, so it is no slow reader, however little may wait for it.
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|frame| matches!(frame.opcode, TEXT | PONG)));
    }
}
