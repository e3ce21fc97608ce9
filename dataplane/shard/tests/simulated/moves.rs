//! Workspaces that move between shards while their peers talk: nobody notices.

use std::time::Duration;

use relay_contract::{CloseReason, Command, Counter, Measure, MoveFailure, ShardId};
use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame};

/// What the network holds: small sockets cut frames and records at other places each.
const SOCKETS_BYTES: [usize; 4] = [101, 509, 4096, 64 << 10];

/// What a network with sockets of this size does without anybody's ill will.
pub(crate) fn faults(socket_bytes: usize) -> Faults {
    Faults { socket_bytes, passed_over: 200_000, ..Faults::none() }
}

/// Two shards whose sockets hold so much.
pub(crate) fn two_shards(encrypted: bool, socket_bytes: usize) -> Bench {
    let faults = faults(socket_bytes);
    Bench::new(Setup { shard_count: 2, encrypted, faults, ..Setup::default() })
}

/// Orders the workspace of all pairs to another shard.
pub(crate) fn order(bench: &mut Bench, from: u16, to: u16) {
    let command = Command::Move { workspace_id: "w".into(), to: ShardId(to) };
    bench.command(ShardId(from), command);
}

/// Moves the workspace and waits until it is there.
fn relocate(bench: &mut Bench, from: u16, to: u16) {
    let before = bench.ledger.moved.len();
    order(bench, from, to);
    bench.until("a move", |bench| bench.ledger.moved.len() > before);
    assert_eq!(bench.ledger.moved.last(), Some(&(ShardId(from), ShardId(to))));
}

fn payloads(bench: &mut Bench, id: SocketId) -> Vec<Vec<u8>> {
    bench.socket(id).take_frames().into_iter().map(|frame| frame.payload).collect()
}

fn sent(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| frames::envelope(index, bytes + index % 7)).collect()
}

fn frames_keep_their_order(encrypted: bool, socket_bytes: usize, bytes: usize) {
    let mut bench = two_shards(encrypted, socket_bytes);
    let (daemon, client) = bench.pair("t");
    let sent = sent(60, bytes);
    let mut arrived = Vec::new();
    let mut home = 0;
    for (index, payload) in sent.iter().enumerate() {
        bench.socket(client).send(&frames::text(payload));
        bench.steps(index % 5);
        arrived.extend(payloads(&mut bench, daemon));
        // A move begins at a moment of its own each time.
        if index % 6 == 5 {
            order(&mut bench, home, 1 - home);
            bench.steps(index % 4);
            bench.until("a move", |bench| bench.ledger.moved.len() > index / 6);
            home = 1 - home;
        }
    }
    bench.until("the last frame", |bench| {
        arrived.extend(payloads(bench, daemon));
        arrived.len() >= sent.len()
    });
    bench.steps(50);
    assert_eq!(arrived, sent, "TLS: {encrypted}, sockets of {socket_bytes} bytes");
    assert!(bench.ledger.moved.len() >= 9);
    assert!(bench.ledger.released.is_empty(), "nobody left");
    for id in [daemon, client] {
        assert_eq!(bench.socket(id).state(), PeerState::Open);
        assert!(bench.socket(id).take_frames().is_empty(), "nothing else is said");
    }
    let gone = bench.shard(usize::from(1 - home)).audit();
    assert_eq!((gone.connections, gone.charged_bytes, gone.pinned_leases), (0, 0, 0));
    bench.reset_all();
    bench.pass(Duration::from_secs(40));
    bench.assert_nothing_is_left("after moves");
}

#[test]
fn frames_keep_their_order_through_moves() {
    for socket_bytes in SOCKETS_BYTES {
        frames_keep_their_order(false, socket_bytes, 200);
    }
    frames_keep_their_order(false, 64 << 10, 9000);
}

#[test]
fn frames_keep_their_order_through_moves_under_tls() {
    for socket_bytes in SOCKETS_BYTES {
        frames_keep_their_order(true, socket_bytes, 200);
    }
    frames_keep_their_order(true, 64 << 10, 9000);
}

#[test]
fn what_a_slow_reader_was_sent_comes_along() {
    for encrypted in [false, true] {
        for socket_bytes in [700, 4096, 20_000] {
            let mut bench = two_shards(encrypted, socket_bytes);
            let (daemon, client) = bench.pair("t");
            bench.socket(daemon).reads = false;
            let sent = sent(40, 3000);
            for payload in &sent {
                bench.socket(client).send(&frames::text(payload));
            }
            bench.until("all sent", |bench| bench.socket(client).unsent_bytes() == 0);
            bench.steps(50);
            relocate(&mut bench, 0, 1);
            relocate(&mut bench, 1, 0);
            bench.steps(20);
            bench.socket(daemon).reads = true;
            let mut arrived = Vec::new();
            bench.until("the last frame", |bench| {
                arrived.extend(payloads(bench, daemon));
                arrived.len() >= sent.len()
            });
            assert_eq!(arrived, sent, "TLS: {encrypted}, sockets of {socket_bytes} bytes");
        }
    }
}

#[test]
fn a_frame_may_begin_at_one_shard_and_end_at_another() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted, 64 << 10);
        let (daemon, client) = bench.pair("t");
        let payload = frames::envelope(0, 10_000);
        let frame = frames::text(&payload);
        let mut home = 0;
        for part in frame.chunks(frame.len() / 6 + 1) {
            bench.socket(client).send(part);
            bench.steps(10);
            relocate(&mut bench, home, 1 - home);
            home = 1 - home;
        }
        bench.steps(50);
        assert_eq!(payloads(&mut bench, daemon), [payload]);
    }
}

#[test]
fn other_workspaces_stay_where_they_are() {
    let mut bench = two_shards(false, 64 << 10);
    let _pair = bench.pair("t");
    let before = bench.audit().connections;
    let command = Command::Move { workspace_id: "elsewhere".into(), to: ShardId(1) };
    bench.command(ShardId(0), command);
    bench.until("a move", |bench| bench.ledger.moved.len() == 1);
    assert_eq!(bench.audit().connections, before);
}

#[test]
fn newcomers_follow_whenever_they_were_admitted() {
    for encrypted in [false, true] {
        for wait in 0..12 {
            let mut bench = two_shards(encrypted, 64 << 10);
            let daemon = bench.open("workspace-daemon", "t");
            // The control plane knows of the move last: it still names the old home.
            order(&mut bench, 0, 1);
            bench.steps(wait);
            let here = bench.request(frames::upgrade("client", "t"));
            let there = bench.connect_to(1);
            bench.socket(there).send(frames::upgrade("client", "t").as_bytes());
            for id in [here, there] {
                assert_eq!(bench.answer(id).0, 101, "after {wait} steps");
            }
            bench.until("a move", |bench| bench.ledger.moved.len() == 1);
            bench.steps(20);
            assert_eq!(bench.audit().connections, 0, "after {wait} steps");
            for (index, id) in [here, there].into_iter().enumerate() {
                let payload = frames::envelope(index, 50);
                bench.socket(id).send(&frames::text(&payload));
                bench.steps(20);
                assert_eq!(payloads(&mut bench, daemon), [payload], "it is in the same scope");
            }
        }
    }
}

#[test]
fn an_order_for_an_earlier_name_follows_its_connection() {
    let mut bench = two_shards(false, 64 << 10);
    let (_daemon, client) = bench.pair("t");
    let name = bench.ledger.opened[1].1;
    relocate(&mut bench, 0, 1);
    let reason = CloseReason::TokenRevoked;
    bench.command(ShardId(0), Command::Close { connection: name, reason });
    bench.steps(20);
    assert_eq!(bench.socket(client).take_frames(), [Frame::close(4008, "token revoked")]);
    bench.pass(Duration::from_secs(40));
    // What was remembered is forgotten.
    bench.command(ShardId(0), Command::Close { connection: bench.ledger.opened[0].1, reason });
    bench.steps(20);
    assert_eq!(bench.shard(1).audit().connections, 1);
}

#[test]
fn the_control_plane_hears_where_everybody_is() {
    let mut bench = two_shards(true, 64 << 10);
    let _pair = bench.pair("t");
    relocate(&mut bench, 0, 1);
    bench.steps(5);
    let opened = std::mem::take(&mut bench.ledger.opened);
    let [first, second, third, fourth] = &opened[..] else { panic!("two names each: {opened:?}") };
    assert_eq!([third.0, fourth.0], [first.0, second.0], "the same admissions");
    assert!([third.1, fourth.1].iter().all(|name| name.shard == ShardId(1)));
    assert_eq!(bench.shard(1).counters().of(Counter::ConnectionsMoved), 2);
    assert_eq!(bench.shard(1).counters().of(Counter::WorkspacesMoved), 1);
}

#[test]
fn every_frame_is_measured_once_also_where_it_waits_through_moves() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted, 4096);
        let (daemon, client) = bench.pair("t");
        bench.socket(daemon).reads = false;
        for payload in sent(40, 3000) {
            bench.socket(client).send(&frames::text(&payload));
        }
        // Under TLS there is nothing to send before the first step.
        bench.step();
        bench.until("all sent", |bench| bench.socket(client).unsent_bytes() == 0);
        bench.steps(50);
        relocate(&mut bench, 0, 1);
        bench.pass(Duration::from_millis(500));
        bench.socket(daemon).reads = true;
        let mut arrived = 0;
        bench.until("the last frame", |bench| {
            arrived += payloads(bench, daemon).len();
            arrived == 40
        });
        bench.steps(5);
        let [here, there] =
            [0, 1].map(|shard| bench.shard(shard).histograms().of(Measure::HopLatency).clone());
        assert_eq!(here.count() + there.count(), 40, "TLS: {encrypted}");
        let longest = there.buckets().last().expect("some were sent there").low;
        assert!(longest > 500_000_000, "they waited through the move: {longest} ns");
    }
}

#[test]
fn a_move_that_cannot_be_leaves_everything_as_it_was() {
    let mut bench = two_shards(false, 64 << 10);
    let (daemon, client) = bench.pair("t");
    for to in [0, 7] {
        order(&mut bench, 0, to);
        bench.steps(5);
    }
    assert_eq!(bench.ledger.stayed, [MoveFailure::NoSuchShard; 2]);
    relocate(&mut bench, 0, 1);
    order(&mut bench, 0, 1);
    bench.steps(5);
    assert_eq!(bench.ledger.stayed.last(), Some(&MoveFailure::NotHere));
    bench.socket(client).send(&frames::text(&frames::envelope(0, 10)));
    bench.steps(20);
    assert_eq!(payloads(&mut bench, daemon).len(), 1);
    assert_eq!(bench.counted(Counter::WorkspaceMovesFailed), 3);
}

#[test]
fn who_leaves_on_the_way_is_released_once() {
    for encrypted in [false, true] {
        for wait in 0..8 {
            let mut bench = two_shards(encrypted, 64 << 10);
            let (daemon, client) = bench.pair("t");
            order(&mut bench, 0, 1);
            bench.steps(wait);
            bench.socket(client).reset();
            let name = bench.ledger.opened[0].1;
            let reason = CloseReason::ClosedByOperator;
            bench.command(ShardId(0), Command::Close { connection: name, reason });
            bench.until("a move", |bench| bench.ledger.moved.len() == 1);
            bench.steps(20);
            let told = bench.socket(daemon).take_frames();
            assert_eq!(told, [Frame::close(4008, "closed by operator")], "after {wait} steps");
            bench.pass(Duration::from_secs(40));
            bench.assert_nothing_is_left(&format!("left after {wait} steps"));
        }
    }
}

#[test]
fn a_stop_in_the_middle_of_a_move_ends_everybody() {
    for encrypted in [false, true] {
        for wait in 0..8 {
            for stopped in [&[0][..], &[1], &[0, 1]] {
                let mut bench = two_shards(encrypted, 64 << 10);
                let ids = bench.pair("t");
                bench.socket(ids.1).reads = false;
                order(&mut bench, 0, 1);
                bench.steps(wait);
                for &shard in stopped {
                    bench.stop(shard, Duration::from_millis(500));
                }
                bench.pass(Duration::from_secs(1));
                for shard in [0, 1] {
                    if !bench.is_done(shard) {
                        bench.stop(shard as u16, Duration::from_millis(500));
                    }
                }
                bench.pass(Duration::from_secs(2));
                bench.assert_all_released(&format!("{stopped:?} stopped after {wait} steps"));
            }
        }
    }
}

#[test]
fn a_workspace_that_arrives_at_a_drained_shard_is_told_too() {
    for wait in 0..8 {
        let mut bench = two_shards(false, 64 << 10);
        let (daemon, client) = bench.pair("t");
        order(&mut bench, 0, 1);
        bench.steps(wait);
        for shard in [0, 1] {
            let command = Command::Drain { version: 0, window_ms: 0, redirect: None };
            bench.command(ShardId(shard), command);
        }
        bench.steps(40);
        for id in [daemon, client] {
            let told = bench.socket(id).take_frames();
            assert_eq!(told, [Frame::close(1001, "relay shutting down")], "after {wait} steps");
        }
    }
}

#[test]
fn a_full_lane_delays_but_loses_nothing() {
    let faults = Faults { passed_over: 200_000, ..Faults::none() };
    let setup = Setup { shard_count: 2, parcels_max: 1, faults, ..Setup::default() };
    let mut bench = Bench::new(setup);
    let (daemon, client) = bench.pair("t");
    let mut home = 0;
    for round in 0..10 {
        order(&mut bench, home, 1 - home);
        let late: Vec<_> = (0..3).map(|_| bench.connect_to(usize::from(1 - home))).collect();
        bench.home = ShardId(home);
        for &id in &late {
            bench.socket(id).send(frames::upgrade("client", "t").as_bytes());
        }
        bench.until("a move", |bench| bench.ledger.moved.len() == round + 1);
        for &id in &late {
            let status = bench.answer(id).0;
            assert!([101, 503].contains(&status), "{status}");
        }
        home = 1 - home;
    }
    bench.steps(20);
    bench.socket(client).send(&frames::text(&frames::envelope(0, 10)));
    bench.steps(20);
    assert_eq!(payloads(&mut bench, daemon).len(), 1);
}
