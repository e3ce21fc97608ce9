//! Crowds: many that come, speak or go at one moment. A turn serves a few of them, in the
//! company of quiet connections, and all of them in the end.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, ConnectionId, Detail, Limits, QueryId, Refusal, ShardId};
use relay_driver::sim::{Faults, PeerState};
use relay_driver::{Config, Driver};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, TEXT};

const CROWD: usize = 256;
/// Errands of one turn, while nobody quiet is heard.
const ERRANDS_MAX: usize = 16;

fn bench() -> Bench {
    let limits = Limits {
        guests_max: 2 * CROWD,
        guests_per_address_max: 2 * CROWD as u32,
        ..Setup::default().limits
    };
    // The simulated kernel accepts and receives of everybody at once: buffers are not the matter.
    let driver = Config { buffer_count: 2048, buffer_bytes: 4096, ..Setup::default().driver };
    Bench::new(Setup { limits, driver, events_max: 1 << 14, ..Setup::default() })
}

/// Turns until the quiet client's message reaches its daemon.
fn turns_to_arrive(bench: &mut Bench, daemon: SocketId, client: SocketId, seq: usize) -> usize {
    let payload = frames::envelope(seq, 100);
    bench.socket(client).send(&frames::text(&payload));
    for turns in 1..100 {
        bench.step();
        let frames = bench.socket(daemon).take_frames();
        if let Some(frame) = frames.iter().find(|frame| frame.opcode == TEXT) {
            assert_eq!(frame.payload, payload);
            return turns;
        }
    }
    panic!("the quiet client's message never arrived");
}

#[test]
fn a_crowd_of_upgrades_at_one_moment_delays_nobody_and_none_is_lost() {
    let mut bench = bench();
    let (daemon, client) = bench.pair("quiet");
    let alone = turns_to_arrive(&mut bench, daemon, client, 0);
    let crowd: Vec<_> =
        (0..CROWD).map(|_| bench.request(frames::upgrade("client", "crowd"))).collect();
    for seq in 1..200 {
        let turns = turns_to_arrive(&mut bench, daemon, client, seq);
        assert!(turns <= alone, "{turns} turns instead of {alone}");
    }
    bench.steps(2 * CROWD);
    for id in crowd {
        assert_eq!(bench.answer(id).0, 101);
    }
}

const SHARD: ShardId = ShardId(0);

/// An answer to one of a crowd who is gone, as they are when it comes late.
fn late_answer() -> Command {
    let connection = ConnectionId { shard: SHARD, slot: 1000, generation: 0 };
    Command::Refuse { connection, refusal: Refusal::Unauthorized }
}

fn question() -> Command {
    Command::Report { query: QueryId(0), detail: Detail::Counts }
}

#[test]
fn orders_about_the_shard_do_not_wait_behind_those_for_a_crowd() {
    let mut bench = bench();
    let guest = bench.connect();
    bench.step();
    let version = Limits::default().version + 1;
    let limits = Limits { version, memory_bytes_max: 123 << 20, ..Limits::default() };
    for _ in 0..50 {
        bench.command(SHARD, late_answer());
    }
    bench.command(SHARD, Command::SetLimits(Arc::new(limits)));
    bench.command(SHARD, question());
    bench.stop(0, Duration::from_secs(60));
    bench.step();
    let limits: Vec<_> = bench.ledger.reports.iter().map(|it| it.memory_bytes_max).collect();
    assert_eq!(limits, [123 << 20]);
    assert_eq!(bench.ledger.stopped, [], "most of the crowd's orders still wait");
    bench.steps(2);
    assert_ne!(bench.socket(guest).state(), PeerState::Open, "it stops already");
    bench.socket(guest).shutdown();
    bench.steps(50);
    assert_eq!(bench.ledger.stopped, [SHARD]);
}

#[test]
fn orders_that_left_their_lane_are_bounded_and_the_others_wait_in_it() {
    const ORDERS_MAX: usize = 4096;
    let mut bench = bench();
    let mut given = 0;
    while bench.try_command(SHARD, late_answer()) {
        given += 1;
        if given % 32 == 0 {
            bench.step();
        }
        assert!(given < 4 * ORDERS_MAX, "the lane never fills");
    }
    assert!(given > ORDERS_MAX, "{given}");
    bench.step();
    bench.command(SHARD, question());
    bench.step();
    assert_eq!(bench.ledger.reports.len(), 0, "it waits in the lane");
    bench.steps(50);
    assert_eq!(bench.ledger.reports.len(), 1);
}

#[test]
fn a_turn_answers_a_few_of_a_crowd() {
    // Head and body of one answer are less than this.
    const ANSWER_BYTES: u64 = 256;
    let mut bench = bench();
    let crowd: Vec<_> = (0..CROWD).map(|_| bench.request(frames::get("/nowhere"))).collect();
    let mut most = 0;
    for _ in 0..CROWD {
        let before = bench.shard(0).driver().stats().sent_bytes;
        bench.step();
        most = most.max(bench.shard(0).driver().stats().sent_bytes - before);
    }
    assert!((1..=ERRANDS_MAX as u64 * ANSWER_BYTES).contains(&most), "{most} bytes in one turn");
    for id in crowd {
        assert_eq!(bench.answer(id).0, 404);
    }
}

#[test]
fn in_company_a_turn_answers_one_of_a_crowd_and_a_few_of_one_that_lasts() {
    let mut bench = bench();
    let (daemon, client) = bench.pair("quiet");
    turns_to_arrive(&mut bench, daemon, client, 0);
    let crowd: Vec<_> = (0..380).map(|_| bench.request(frames::get("/nowhere"))).collect();
    let mut answered = vec![0];
    // A quiet connection is company for two seconds; a step is a millisecond.
    for _ in 0..crowd.len() {
        bench.step();
        let is_answered = |&&id: &&SocketId| !bench.socket(id).incoming.is_empty();
        answered.push(crowd.iter().filter(is_answered).count());
    }
    assert_eq!(answered.last(), Some(&crowd.len()), "everybody's turn comes");
    let of_turns = answered.windows(2).map(|turns| turns[1] - turns[0]).collect::<Vec<_>>();
    let (first, later) = of_turns.split_at(200);
    assert_eq!(first.iter().max(), Some(&1));
    assert!(later.iter().max().is_some_and(|most| (2..=4).contains(most)), "{later:?}");
}

#[test]
fn a_crowd_that_ends_at_one_moment_delays_nobody_and_leaves_nothing() {
    let mut bench = bench();
    let (daemon, client) = bench.pair("quiet");
    let alone = turns_to_arrive(&mut bench, daemon, client, 0);
    let crowd: Vec<_> = (0..200).map(|_| bench.open("client", "crowd")).collect();
    for (index, &id) in crowd.iter().enumerate() {
        match index % 2 {
            0 => bench.socket(id).shutdown(),
            _ => bench.socket(id).reset(),
        }
    }
    for seq in 1..100 {
        let turns = turns_to_arrive(&mut bench, daemon, client, seq);
        assert!(turns <= alone, "{turns} turns instead of {alone}");
    }
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.audit().connections, 2, "the quiet pair alone is left");
    assert!(crowd.iter().all(|&id| bench.socket(id).state() != PeerState::Open));
}

#[test]
fn strangers_hold_no_receive_buffer_while_they_wait_and_are_charged_for_what_they_said() {
    let mut bench = bench();
    for _ in 0..CROWD {
        bench.request(frames::get("/nowhere"));
    }
    for _ in 0..20 {
        bench.step();
        let audit = bench.audit();
        assert_eq!(audit.charged_bytes, audit.held_bytes);
        assert_eq!(bench.buffers_in_use(), 0);
    }
    assert!(bench.audit().guests > CROWD / 2, "most of them still wait");
}

/// Eight pairs exchange messages of so many bytes, beside a pair that is quiet or silent. Returns
/// the most bytes a turn sent.
fn most_bytes_of_a_turn(message_bytes: usize, is_somebody_quiet: bool) -> u64 {
    let driver = Config { buffer_count: 64, buffer_bytes: 32 << 10, ..Setup::default().driver };
    let faults = Faults { socket_bytes: 1 << 20, gulp: 500_000, ..Faults::none() };
    let mut bench = Bench::new(Setup { driver, faults, ..Setup::default() });
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let pairs: Vec<_> = (0..8).map(|index| bench.pair(&format!("large{index}"))).collect();
    let sent: Vec<_> = (0..2).map(|seq| frames::envelope(seq, message_bytes)).collect();
    for payload in &sent {
        for &(_, client) in &pairs {
            bench.socket(client).send(&frames::text(payload));
        }
    }
    let mut most = 0;
    for seq in 0..400 {
        let before = bench.shard(0).driver().stats().sent_bytes;
        if is_somebody_quiet {
            bench.socket(quiet_client).send(&frames::text(&frames::envelope(seq, 100)));
        }
        bench.step();
        most = most.max(bench.shard(0).driver().stats().sent_bytes - before);
    }
    bench.steps(1000);
    for (daemon, _) in pairs {
        let frames = bench.socket(daemon).take_frames();
        let texts: Vec<_> = frames.iter().filter(|frame| frame.opcode == TEXT).collect();
        assert!(texts.iter().map(|frame| &frame.payload).eq(&sent), "all of it, in order");
    }
    let heard = bench.socket(quiet_daemon).take_frames().len();
    assert!(!is_somebody_quiet || heard >= 400);
    most
}

const IN_COMPANY_SENT_MAX: u64 = (128 + 64 + 8) << 10;

#[test]
fn in_company_a_turn_sends_a_bounded_part_of_what_waits() {
    let most = most_bytes_of_a_turn(512 << 10, true);
    assert!((64 << 10..=IN_COMPANY_SENT_MAX).contains(&most), "{most} bytes in one turn");
}

#[test]
fn the_last_bytes_of_large_messages_are_no_company() {
    let most = most_bytes_of_a_turn(64 << 10, false);
    assert!(most > IN_COMPANY_SENT_MAX, "{most} bytes in one turn");
}
