//! Moves that fail, or meet sends and exports that take their time: everybody goes on as before.

use std::time::Duration;

use relay_contract::{
    CloseReason, Command, Counter, Limits, MoveFailure, Refusal, ShardId, WorkerResponse,
};
use relay_driver::sim::{Faults, PeerState};
use relay_driver::{Config, Driver};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame, PONG};
use crate::moves::{self, order};

/// Every time.
const ALWAYS: u32 = 1_000_000;

const SOCKET_BYTES: usize = 4096;

fn faults() -> Faults {
    moves::faults(SOCKET_BYTES)
}

fn two_shards(encrypted: bool) -> Bench {
    moves::two_shards(encrypted, SOCKET_BYTES)
}

/// Orders a move, whose sends do not end before these faults do.
fn order_held_up(bench: &mut Bench) {
    bench.set_faults(Faults { late_cancel: ALWAYS, ..faults() });
    order(bench, 0, 1);
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
        order_held_up(&mut bench);
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
        order_held_up(&mut bench);
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
        order_held_up(&mut bench);
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
            let command = Command::Drain { version: 0, window_ms: 0, redirect: None };
            bench.command(ShardId(0), command);
            bench
                .until("an end", |bench| bench.ledger.moved.len() + bench.ledger.stayed.len() == 1);
            bench.command(ShardId(1), Command::Drain { version: 0, window_ms: 0, redirect: None });
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
    order_held_up(&mut bench);
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

/// Somebody of another workspace, whose home is the second shard.
fn other_there(bench: &mut Bench) -> SocketId {
    bench.home = ShardId(1);
    let other = bench.request(upgrade_to("v"));
    assert_eq!(bench.answer(other).0, 101);
    other
}

fn upgrade_to(workspace: &str) -> String {
    frames::upgrade("client", "t").replace("workspaceId=w", &format!("workspaceId={workspace}"))
}

#[test]
fn who_finds_no_room_among_the_residents_goes_on_as_a_guest() {
    for encrypted in [false, true] {
        let driver = Config { residents_max: 2, ..Setup::default().driver };
        let setup =
            Setup { shard_count: 2, encrypted, driver, faults: faults(), ..Setup::default() };
        let mut bench = Bench::new(setup);
        let (daemon, client, sent) = backed_up(&mut bench);
        order_held_up(&mut bench);
        bench.steps(5);
        // There was room for both when it was asked for.
        other_there(&mut bench);
        bench.set_faults(faults());
        bench.until("a move", |bench| bench.ledger.moved.len() == 1);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        bench.socket(client).send(&frames::close(1000));
        bench.steps(20);
        assert_eq!(bench.socket(client).take_frames().len(), 1, "it is answered");
    }
}

#[test]
fn a_workspace_stays_where_the_other_shard_has_no_places() {
    let driver = Config { residents_max: 2, ..Setup::default().driver };
    let setup = Setup { shard_count: 2, driver, faults: faults(), ..Setup::default() };
    let mut bench = Bench::new(setup);
    let (daemon, client, sent) = backed_up(&mut bench);
    other_there(&mut bench);
    order(&mut bench, 0, 1);
    bench.until("an end", |bench| bench.ledger.stayed == [MoveFailure::NoRoom]);
    assert_eq!(bench.counted(Counter::MovesFailedNoRoom), 1);
    assert_all_arrives(&mut bench, (daemon, client, &sent));
}

#[test]
fn a_workspace_stays_where_the_other_shard_has_no_memory_and_nobody_goes_for_it() {
    let limits = Limits { memory_bytes_max: 192 << 10, ..Setup::default().limits };
    let setup = Setup { shard_count: 2, limits, faults: faults(), ..Setup::default() };
    let mut bench = Bench::new(setup);
    let (daemon, client, sent) = backed_up(&mut bench);
    bench.home = ShardId(1);
    let [slow, sender] = ["workspace-daemon", "client"].map(|role| {
        let request = upgrade_to("v").replace("role=client", &format!("role={role}"));
        let id = bench.request(request);
        assert_eq!(bench.answer(id).0, 101);
        id
    });
    bench.socket(slow).reads = false;
    for index in 0..30 {
        bench.socket(sender).send(&frames::text(&frames::envelope(index, 3000)));
    }
    bench.steps(100);
    order(&mut bench, 0, 1);
    bench.until("an end", |bench| bench.ledger.stayed == [MoveFailure::NoRoom]);
    assert_all_arrives(&mut bench, (daemon, client, &sent));
    let counters = bench.shard(1).counters();
    assert_eq!(counters.of(Counter::BudgetSlowReadersClosed), 0);
}

/// What nobody is charged for comes along as well, and has to find room.
#[test]
fn a_workspace_that_nobody_is_in_stays_where_the_other_shard_has_no_memory() {
    let limits = Limits { memory_bytes_max: 192 << 10, ..Setup::default().limits };
    let setup = Setup { shard_count: 2, limits, faults: faults(), ..Setup::default() };
    let mut bench = Bench::new(setup);
    for target in 0..7 {
        let visitor = bench.open("client", &format!("target{target}"));
        bench.socket(visitor).reset();
    }
    bench.until("they left", |bench| bench.audit().connections == 0);
    let brought = bench.audit().empty_scopes_bytes;
    bench.home = ShardId(1);
    let slow = bench.request(upgrade_to("v").replace("role=client", "role=workspace-daemon"));
    assert_eq!(bench.answer(slow).0, 101);
    bench.socket(slow).reads = false;
    let sender = bench.request(upgrade_to("v"));
    assert_eq!(bench.answer(sender).0, 101);
    let most = (192 << 10) - (192 << 10) / 8;
    let mut index = 0;
    while bench.shard(1).audit().charged_bytes < most - brought {
        bench.socket(sender).send(&frames::text(&frames::envelope(index, 300)));
        bench.steps(10);
        index += 1;
        assert!(index < 1000, "it is not backed up");
    }
    assert!(bench.shard(1).audit().charged_bytes < most, "for nothing there is room");
    order(&mut bench, 0, 1);
    bench.until("an end", |bench| bench.ledger.stayed == [MoveFailure::NoRoom]);
    assert_eq!(bench.audit().empty_scopes_bytes, brought);
}

#[test]
fn an_order_that_waited_while_its_workspace_left_comes_too_late() {
    let mut bench = two_shards(false);
    let (daemon, client) = bench.pair("t");
    for _ in 0..2 {
        order(&mut bench, 0, 1);
    }
    bench.until("both ends", |bench| bench.ledger.moved.len() + bench.ledger.stayed.len() == 2);
    assert_eq!(bench.ledger.stayed, [MoveFailure::NotHere]);
    assert_goes_on(&mut bench, daemon, client);
}

#[test]
fn half_a_minute_brings_so_many_moves_and_no_more() {
    let mut bench = Bench::new(Setup { shard_count: 2, ..Setup::default() });
    let mut ordered = 0;
    bench.until_by(Duration::from_millis(1), 20_000, "a move too many", |bench| {
        let ended = bench.ledger.moved.len() + bench.ledger.stayed.len();
        while ordered - ended < 32 {
            let workspace_id = format!("w{ordered}").into();
            bench.command(ShardId(0), Command::Move { workspace_id, to: ShardId(1) });
            ordered += 1;
        }
        !bench.ledger.stayed.is_empty()
    });
    assert!((4096..4096 + 64).contains(&bench.ledger.moved.len()), "{}", bench.ledger.moved.len());
    assert!(bench.ledger.stayed.iter().all(|&reason| reason == MoveFailure::TooMany));
    bench.pass(Duration::from_secs(31));
    let before = bench.ledger.moved.len();
    order(&mut bench, 0, 1);
    bench.until("a move", |bench| bench.ledger.moved.len() > before);
}

#[test]
fn a_shard_that_takes_nothing_holds_up_what_is_for_it_alone() {
    let setup = Setup { shard_count: 3, parcels_max: 1, faults: faults(), ..Setup::default() };
    let mut bench = Bench::new(setup);
    let (daemon, client) = bench.pair("t");
    let connection = bench.ledger.opened[1].1;
    order(&mut bench, 0, 1);
    bench.until("a move", |bench| bench.ledger.moved.len() == 1);
    bench.steps(20);
    bench.stuck = Some(1);
    let response = || WorkerResponse {
        request_id: "none".into(),
        status: 200,
        headers: Vec::new(),
        body: String::new(),
        forwarded: true,
    };
    for _ in 0..1100 {
        let response = Box::new(response());
        let order = Command::WorkerReply { connection, response };
        bench.command(ShardId(0), order);
        bench.steps(1);
    }
    bench.until("all are taken", |bench| bench.counted(Counter::CommandsUndelivered) > 0);
    bench.steps(300);
    let undelivered = bench.counted(Counter::CommandsUndelivered);
    assert_eq!(undelivered, 1100 - 1024 - 1, "one is in the lane");
    let refused = bench.request(frames::upgrade("client", "t"));
    assert_eq!(bench.answer(refused).0, 503);
    assert_eq!(bench.counted(Counter::HandOversRefused), 1);
    bench.home = ShardId(2);
    let other = bench.request(upgrade_to("v"));
    assert_eq!(bench.answer(other).0, 101, "its home takes it");
    bench.stuck = None;
    assert_goes_on(&mut bench, daemon, client);
}

#[test]
fn a_workspace_whose_new_home_has_ended_goes_on_at_its_old_one() {
    for encrypted in [false, true] {
        let mut bench = two_shards(encrypted);
        let (daemon, client, sent) = backed_up(&mut bench);
        order_held_up(&mut bench);
        bench.steps(5);
        bench.stop(1, Duration::from_secs(5));
        bench.until("its end", |bench| bench.is_done(1));
        bench.set_faults(faults());
        bench.until("a move", |bench| bench.ledger.moved == [(ShardId(0), ShardId(0))]);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        let (connection, reason) = (bench.ledger.opened[1].1, CloseReason::ClosedByOperator);
        bench.command(ShardId(0), Command::Close { connection, reason });
        bench.steps(20);
        let told = bench.socket(client).take_frames();
        assert_eq!(told, [Frame::close(4008, "closed by operator")], "by the name it had");
    }
}

#[test]
fn who_waits_for_a_move_is_a_stranger_until_it_is_over() {
    for is_made in [false, true] {
        let mut bench = two_shards(false);
        let (daemon, client, sent) = backed_up(&mut bench);
        order_held_up(&mut bench);
        bench.steps(5);
        let before = bench.audit().charged_bytes;
        let late = [(); 2].map(|()| bench.request(frames::upgrade("client", "t")));
        bench.steps(10);
        let audit = bench.audit();
        assert_eq!(audit.guests, 2, "admitted, and not let in");
        assert!(audit.charged_bytes > before);
        // Whatever else is said of its upgrade is not for it.
        let connection = bench.ledger.asked.last().expect("it was asked").connection;
        bench.command(ShardId(0), Command::Refuse { connection, refusal: Refusal::Forbidden });
        bench.socket(late[0]).reset();
        if is_made {
            bench.set_faults(faults());
            bench.until("a move", |bench| bench.ledger.moved.len() == 1);
        } else {
            bench.pass(Duration::from_millis(2100));
            assert_eq!(bench.ledger.stayed, [MoveFailure::TimedOut]);
            bench.set_faults(faults());
        }
        assert_eq!(bench.answer(late[1]).0, 101);
        assert_eq!(bench.audit().guests, 0);
        assert_all_arrives(&mut bench, (daemon, client, &sent));
        bench.reset_all();
        bench.pass(Duration::from_secs(40));
        bench.assert_nothing_is_left("everybody is gone");
        assert!(bench.ledger.abandoned.is_empty());
    }
}

#[test]
fn a_turn_moves_some_members_and_no_more() {
    let limits = Limits { guests_per_address_max: 1000, ..Setup::default().limits };
    let setup = Setup { shard_count: 2, limits, ..Setup::default() };
    let mut bench = Bench::new(setup);
    let (daemon, client) = bench.pair("t");
    let others: Vec<_> = (0..148).map(|_| bench.open("client", "t")).collect();
    order(&mut bench, 0, 1);
    let mut before = 0;
    let mut turns = 0;
    bench.until("all are settled", |bench| {
        let settled = bench.shard(1).driver().stats().residents;
        assert!(settled - before <= 64, "{} in one turn", settled - before);
        turns += usize::from(settled > before);
        before = settled;
        settled == 150
    });
    assert!(turns >= 3);
    assert_goes_on(&mut bench, daemon, client);
    for id in others {
        assert_eq!(bench.socket(id).state(), PeerState::Open);
    }
}
