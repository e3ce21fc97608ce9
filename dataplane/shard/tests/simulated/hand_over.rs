//! Sockets that move from the shard that accepted them to their workspace's home.

use std::time::Duration;

use relay_contract::{Counter, ShardId};
use relay_driver::sim::Faults;

use crate::bench::{Bench, Setup};
use crate::frames::{self, PONG};

/// What the network holds: small sockets cut heads, frames and records at other places each.
const SOCKETS_BYTES: [usize; 8] = [101, 203, 307, 401, 509, 601, 709, 64 << 10];

fn two_shards(encrypted: bool, socket_bytes: usize) -> Bench {
    let faults = Faults { socket_bytes, ..Faults::none() };
    let mut bench = Bench::new(Setup { shard_count: 2, encrypted, faults, ..Setup::default() });
    bench.home = ShardId(1);
    bench
}

fn early_frames_survive(encrypted: bool, socket_bytes: usize) {
    let mut bench = two_shards(encrypted, socket_bytes);
    let daemon = bench.open("workspace-daemon", "t");
    let mut bytes = frames::upgrade("client", "t").into_bytes();
    let payloads: Vec<_> = (0..5).map(|seq| frames::envelope(seq, 10 + 100 * seq)).collect();
    for payload in &payloads {
        bytes.extend(frames::text(payload));
    }
    bytes.extend(frames::ping(b"early"));
    // The last frame comes in two parts: one before the hand-over, one after.
    let last = frames::text(&frames::envelope(5, 50));
    let (before, after) = last.split_at(last.len() / 2);
    bytes.extend(before);
    let client = bench.request(bytes);
    assert_eq!(bench.answer(client).0, 101, "the 101 comes first");
    bench.steps(50);
    bench.socket(client).send(after);
    bench.steps(50);
    let pongs = bench.socket(client).take_frames();
    assert_eq!(pongs.len(), 1);
    assert_eq!((pongs[0].opcode, pongs[0].payload.as_slice()), (PONG, &b"early"[..]));
    let arrived: Vec<_> =
        bench.socket(daemon).take_frames().into_iter().map(|frame| frame.payload).collect();
    assert_eq!(arrived[..5], payloads[..]);
    assert_eq!(arrived[5..], [frames::envelope(5, 50)]);
    assert_eq!(bench.counted(Counter::HandedOver), 2);
    assert_eq!(bench.audit().connections, 0, "the shard that accepted them holds nothing");
}

#[test]
fn early_frames_survive_a_hand_over_in_order() {
    for socket_bytes in SOCKETS_BYTES {
        early_frames_survive(false, socket_bytes);
    }
}

#[test]
fn early_frames_survive_a_hand_over_in_order_under_tls() {
    for socket_bytes in SOCKETS_BYTES {
        early_frames_survive(true, socket_bytes);
    }
}

#[test]
fn frames_that_come_during_a_hand_over_are_not_lost() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted, 64 << 10);
        let daemon = bench.open("workspace-daemon", "t");
        let client = bench.request(frames::upgrade("client", "t"));
        for seq in 0..30 {
            bench.socket(client).send(&frames::text(&frames::envelope(seq, 10)));
            bench.step();
        }
        assert_eq!(bench.answer(client).0, 101);
        bench.steps(10);
        let arrived: Vec<_> =
            bench.socket(daemon).take_frames().into_iter().map(|frame| frame.payload).collect();
        let sent: Vec<_> = (0..30).map(|seq| frames::envelope(seq, 10)).collect();
        assert_eq!(arrived, sent);
    }
}

#[test]
fn a_socket_that_moved_is_released_by_its_home() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted, 64 << 10);
        let (daemon, client) = bench.pair("t");
        bench.socket(daemon).reset();
        bench.socket(client).shutdown();
        bench.pass(Duration::from_secs(5));
        bench.assert_nothing_is_left("both moved");
    }
}
