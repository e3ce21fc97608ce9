//! Peers that make the relay answer, and what one connection may do to another's queue.

use std::time::Duration;

use relay_contract::Limits;
use relay_driver::Driver;
use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, CLOSE, Frame, PONG, TEXT};

/// What answers to pings may wait in one queue: a few receives' worth.
const PONGS_BYTES_MAX: usize = 16 << 10;

fn flood_with_pings(encrypted: bool, reads: bool) {
    let faults = Faults { socket_bytes: 8 << 10, ..Faults::none() };
    let mut bench = Bench::new(Setup { encrypted, faults, ..Setup::default() });
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
        let (last, before) = frames.split_last().expect("the client was told something");
        assert_eq!(*last, Frame::close(4008, "buffer overflow"));
        assert!(before.iter().all(|frame| matches!(frame.opcode, TEXT | PONG)));
    }
}
