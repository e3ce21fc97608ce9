//! Moves that fail, or meet sends and exports that take their time: everybody goes on as before.

use std::time::Duration;

use relay_contract::{CloseReason, Command, Counter, MoveFailure, ShardId};
use relay_driver::sim::{Faults, PeerState};
use relay_driver::{Config, Driver};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame, PONG};

/// Every time.
const ALWAYS: u32 = 1_000_000;

fn faults() -> Faults {
    Faults { socket_bytes: 4096, passed_over: 200_000, ..Faults::none() }
}

fn two_shards(encrypted: bool) -> Bench {
    Bench::new(Setup { shard_count: 2, encrypted, faults: faults(), ..Setup::default() })
}

fn order(bench: &mut Bench, from: u16, to: u16) {
    let command = Command::Move { workspace_id: "w".into(), to: ShardId(to) };
    bench.command(ShardId(from), command);
}

/// A pair whose daemon does not read, and what was sent to it: more than its socket holds.
fn backed_up(bench: &mut Bench) -> (SocketId, SocketId, Vec<Vec<u8>>) {
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    let sent: Vec<_> = (0..40).map(|index| frames::envelope(index, 3000 + index % 7)).collect();
    for payload in &sent {
        bench.socket(client).send(&frames::text(payload));
    }
    // Under TLS there is nothing to send before the first step.
    bench.step();
    bench.until("all sent", |bench| bench.socket(client).unsent_bytes() == 0);
    bench.steps(50);
    (daemon, client, sent)
}

/// The daemon reads on and gets all of that, in order and once; then frames go on in both ways.
fn assert_all_arrives(bench: &mut Bench, (daemon, client, sent): (SocketId, SocketId, &[Vec<u8>])) {
    bench.socket(daemon).reads = true;
    let mut arrived = Vec::new();
    bench.until("the last frame", |bench| {
        arrived.extend(bench.socket(daemon).take_frames().into_iter().map(|found| found.payload));
        arrived.len() >= sent.len()
    });
    assert!(arrived == sent, "in order");
    assert_goes_on(bench, daemon, client);
}

fn assert_goes_on(bench: &mut Bench, daemon: SocketId, client: SocketId) {
    for round in 0..3 {
        let payload = frames::envelope(round, 6000);
        bench.socket(client).send(&frames::text(&payload));
        for id in [daemon, client] {
            bench.socket(id).send(&frames::ping(b"still there?"));
        }
        bench.steps(40);
        let (to_daemon, to_client) =
            (bench.socket(daemon).take_frames(), bench.socket(client).take_frames());
        let pong = Frame { opcode: PONG, payload: b"still there?".to_vec() };
        assert!(to_daemon.contains(&pong) && to_client.contains(&pong), "round {round}");
        assert!(to_daemon.iter().any(|found| found.payload == payload), "round {round}");
        for id in [daemon, client] {
            assert_eq!(bench.socket(id).state(), PeerState::Open);
        }
    }
}

#[test]
fn a_send_without_memory_goes_on_where_it_was() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.set_faults(Faults { starved_send: 300_000, ..faults() });
        assert_all_arrives(&mut bench, (daemon, client, &sent));
    }
}

#[test]
fn a_send_may_be_taken_whole_before_it_is_ended() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.set_faults(Faults { late_cancel: ALWAYS, ..faults() });
        order(&mut bench, 0, 1);
        bench.steps(5);
        assert!(bench.ledger.moved.is_empty(), "the send goes on");
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        assert_eq!(bench.ledger.moved.len(), 1, "TLS: {encrypted}");
    }
}

#[test]
fn a_send_that_does_not_end_keeps_everybody_where_they_are() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.set_faults(Faults { late_cancel: ALWAYS, ..faults() });
        order(&mut bench, 0, 1);
        bench.pass(Duration::from_millis(1900));
        assert!(bench.ledger.stayed.is_empty());
        bench.pass(Duration::from_millis(200));
        assert_eq!(bench.ledger.stayed, [MoveFailure::TimedOut]);
        // It ends only now, with part of it taken.
        bench.set_faults(faults());
        bench.steps(5);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        assert_eq!(bench.audit().connections, 2);
    }
}

#[test]
fn who_is_told_to_go_while_its_send_ends_hears_it() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.set_faults(Faults { late_cancel: ALWAYS, ..faults() });
        order(&mut bench, 0, 1);
        bench.steps(5);
        let connection = bench.ledger.opened[0].1;
        let reason = CloseReason::ClosedByOperator;
        bench.command(ShardId(0), Command::Close { connection, reason });
        bench.steps(5);
        bench.set_faults(faults());
        bench.socket(daemon).reads = true;
        bench.until("a move", |bench| bench.ledger.moved.len() == 1);
        bench.steps(200);
        let mut told = bench.socket(daemon).take_frames();
        assert_eq!(told.pop(), Some(Frame::close(4008, "closed by operator")));
        let told: Vec<_> = told.into_iter().map(|found| found.payload).collect();
        assert!(told == sent, "what was sent before comes before");
        assert_eq!(bench.socket(client).state(), PeerState::Open);
        assert_eq!(bench.shard(1).audit().connections, 1);
    }
}

#[test]
fn sockets_that_the_driver_keeps_keep_everybody_where_they_are() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.set_faults(Faults { failed_export: ALWAYS, ..faults() });
        order(&mut bench, 0, 1);
        bench.until("an end", |bench| bench.ledger.stayed == [MoveFailure::Driver]);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        // Where only some come out, these are put back.
        bench.set_faults(Faults { failed_export: 500_000, ..faults() });
        for tries in 2..30 {
            let before = bench.ledger.moved.len();
            order(&mut bench, 0, 1);
            bench.until("an end", |bench| {
                bench.ledger.stayed.len() == tries || bench.ledger.moved.len() > before
            });
            if bench.ledger.moved.len() > before {
                break;
            }
            assert_goes_on(&mut bench, daemon, client);
            assert_eq!(bench.shard(0).driver().stats().residents, 2);
        }
        bench.set_faults(faults());
        assert_goes_on(&mut bench, daemon, client);
        assert!(bench.ledger.stayed.len() > 1, "half of the sockets came out once or more");
        assert_eq!(bench.counted(Counter::WorkspaceMovesFailed), bench.ledger.stayed.len() as u64);
    }
}

#[test]
fn who_is_told_to_go_while_sockets_do_not_come_out_is_counted_once() {
    for failed_export in [500_000, ALWAYS] {
        for wait in 0..8 {
            let mut bench = two_shards(false);
            let (daemon, client) = bench.pair("t");
            let fellow = bench.open("client", "t");
            bench.set_faults(Faults { failed_export, ..faults() });
            order(&mut bench, 0, 1);
            bench.steps(wait);
            let command = Command::Drain { window_ms: 0, redirect: None };
            bench.command(ShardId(0), command);
            bench
                .until("an end", |bench| bench.ledger.moved.len() + bench.ledger.stayed.len() == 1);
            bench.command(ShardId(1), Command::Drain { window_ms: 0, redirect: None });
            bench.steps(60);
            for id in [daemon, client, fellow] {
                let told = bench.socket(id).take_frames();
                let farewell = [Frame::close(1001, "relay shutting down")];
                assert_eq!(told, farewell, "after {wait} steps");
            }
            // Nothing is left half done: the shard moves others.
            let command = Command::Move { workspace_id: "v".into(), to: ShardId(1) };
            bench.command(ShardId(0), command);
            bench
                .until("a move", |bench| bench.ledger.moved.len() + bench.ledger.stayed.len() == 2);
            bench.reset_all();
            bench.pass(Duration::from_secs(40));
            bench.assert_nothing_is_left(&format!("told after {wait} steps"));
        }
    }
}

#[test]
fn moves_that_may_not_even_wait_fail() {
    let mut bench = two_shards(false);
    let (daemon, client, sent) = backed_up(&mut bench);
    bench.set_faults(Faults { late_cancel: ALWAYS, ..faults() });
    order(&mut bench, 0, 1);
    bench.steps(5);
    for index in 0..70 {
        let command = Command::Move { workspace_id: format!("w{index}").into(), to: ShardId(1) };
        bench.command(ShardId(0), command);
        bench.steps(index % 2);
    }
    bench.steps(2);
    assert_eq!(bench.ledger.stayed, [MoveFailure::TooMany; 6]);
    bench.set_faults(faults());
    bench.until("the others", |bench| bench.ledger.moved.len() == 65);
    assert_all_arrives(&mut bench, (daemon, client, &sent));
}

#[test]
fn who_finds_no_room_among_the_residents_goes_on_as_a_guest() {
    for encrypted in [false, true] {
        let driver = Config { residents_max: 2, ..Setup::default().driver };
        let setup =
            Setup { shard_count: 2, encrypted, driver, faults: faults(), ..Setup::default() };
        let mut bench = Bench::new(setup);
        let (daemon, client, sent) = backed_up(&mut bench);
        bench.home = ShardId(1);
        let other = frames::upgrade("client", "t").replace("workspaceId=w", "workspaceId=v");
        let other = bench.request(other);
        assert_eq!(bench.answer(other).0, 101);
        order(&mut bench, 0, 1);
        bench.until("a move", |bench| bench.ledger.moved.len() == 1);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        bench.socket(client).send(&frames::close(1000));
        bench.steps(20);
        assert_eq!(bench.socket(client).take_frames().len(), 1, "it is answered");
    }
}
