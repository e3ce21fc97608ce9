//! What happens when peers want more memory than there is.

use std::net::Ipv4Addr;
use std::time::Duration;

use relay_contract::{Counter, Limits};
use relay_driver::Config;
use relay_driver::sim::Faults;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, Frame, TEXT};

const MEMORY: usize = 1 << 20;

fn setup() -> Setup {
    Setup {
        limits: Limits { memory_bytes_max: MEMORY, ..Setup::default().limits },
        driver: Config { buffer_count: 8, buffer_bytes: 4096, ..Setup::default().driver },
        faults: Faults { socket_bytes: 4 << 10, ..Faults::none() },
        ..Setup::default()
    }
}

/// The client goes on to send to a daemon that does not read, until so much is held in all.
fn back_up(bench: &mut Bench, client: SocketId, until_bytes: usize) -> usize {
    let mut sent = 0;
    while bench.audit().charged_bytes < until_bytes {
        bench.socket(client).send(&frames::text(&frames::envelope(sent, 7000)));
        sent += 1;
        bench.until("it is read", |bench| bench.socket(client).unsent_bytes() == 0);
        bench.steps(3);
        assert!(sent < 1000, "somebody had to go: {} bytes", bench.audit().charged_bytes);
    }
    sent
}

/// Eight pairs of which the daemons may read or not.
fn stalled_pair(bench: &mut Bench, target: &str) -> (SocketId, SocketId) {
    let (daemon, client) = bench.pair(target);
    bench.socket(daemon).reads = false;
    (daemon, client)
}

fn assert_refused(bench: &mut Bench) {
    let late = bench.request(frames::upgrade("client", "late"));
    bench.until("an answer", |bench| bench.socket(late).incoming.ends_with(b"\r\n\r\n"));
    let answer = String::from_utf8(bench.socket(late).incoming.clone()).expect("a head");
    let head = "HTTP/1.1 503 Service Unavailable\r\n";
    assert!(answer.starts_with(head) && answer.contains("\r\nRetry-After: "), "{answer}");
}

fn assert_frames_flow(bench: &mut Bench, (daemon, client): (SocketId, SocketId)) {
    let payload = frames::envelope(7, 300);
    bench.socket(client).send(&frames::text(&payload));
    bench.steps(20);
    assert_eq!(bench.socket(daemon).take_frames(), [Frame { opcode: TEXT, payload }]);
}

#[test]
fn new_connections_get_503_before_memory_runs_out() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..setup() });
        let (daemon, client) = stalled_pair(&mut bench, "slow");
        back_up(&mut bench, client, MEMORY - MEMORY / 8);
        assert!(bench.audit().charged_bytes <= MEMORY, "it has not run out");
        assert_refused(&mut bench);
        assert_eq!(bench.counted(Counter::BudgetRefused), 1);
        assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 0, "nobody had to go");
        bench.socket(daemon).reads = true;
        bench.until("it caught up", |bench| bench.audit().charged_bytes < MEMORY / 2);
        bench.open("client", "late");
    }
}

#[test]
fn existing_connections_live_on_at_the_budget() {
    let mut bench = Bench::new(setup());
    let steady = bench.pair("steady");
    let (_daemon, client) = stalled_pair(&mut bench, "slow");
    back_up(&mut bench, client, MEMORY - MEMORY / 8);
    assert_refused(&mut bench);
    for _ in 0..20 {
        assert_frames_flow(&mut bench, steady);
    }
}

#[test]
fn strangers_go_before_anybody_who_is_in() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..setup() });
        let steady = bench.pair("steady");
        let slow = stalled_pair(&mut bench, "slow");
        back_up(&mut bench, slow.1, MEMORY - MEMORY / 8 - (16 << 10));
        let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(12_000));
        for host in 1..=12 {
            bench.from = Ipv4Addr::new(127, 0, 1, host);
            bench.request(&endless);
            bench.steps(20);
        }
        // What they took was kept for those who are in, who now want it.
        let mut seq = 100;
        while bench.counted(Counter::BudgetStrangersClosed) == 0 {
            bench.socket(slow.1).send(&frames::text(&frames::envelope(seq, 7000)));
            seq += 1;
            bench.steps(5);
            assert!(seq < 140, "nobody had to go");
        }
        assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 0, "while strangers are there");
        assert_frames_flow(&mut bench, steady);
    }
}

#[test]
fn scopes_that_nobody_is_in_go_before_anybody_who_is() {
    let mut bench = Bench::new(setup());
    for target in 0..30 {
        let visitor = bench.open("client", &format!("target{target}"));
        bench.socket(visitor).reset();
    }
    bench.until("they left", |bench| bench.audit().connections == 0);
    let left_behind = bench.audit().empty_scopes_bytes;
    assert!(left_behind > 30 << 10, "{left_behind} bytes are left behind");
    assert_eq!(bench.counted(Counter::ScopesCrowdedOut), 0, "there is room for them");
    let slow = stalled_pair(&mut bench, "slow");
    back_up(&mut bench, slow.1, MEMORY - left_behind / 2);
    assert!(bench.counted(Counter::ScopesCrowdedOut) > 0);
    assert!(bench.audit().empty_scopes_bytes < left_behind);
    for counter in [Counter::WsSlowClientTerminated, Counter::BudgetUnfinishedClosed] {
        assert_eq!(bench.counted(counter), 0, "nobody had to go");
    }
}

/// What is remembered of a scope's daemon takes memory when the scope is forgotten, now and then
/// more than the scope gave: then others go as well, and nobody who is here.
#[test]
fn generations_that_are_remembered_are_no_reason_for_anybody_to_go() {
    for targets in 46..64 {
        let mut bench = Bench::new(setup());
        bench.generation = Some(5);
        for target in 0..targets {
            let visitor = bench.open("workspace-daemon", &format!("target{target}"));
            bench.socket(visitor).reset();
            bench.until("it left", |bench| bench.audit().connections == 0);
        }
        let left_behind = bench.audit().empty_scopes_bytes;
        bench.generation = None;
        let slow = stalled_pair(&mut bench, "slow");
        back_up(&mut bench, slow.1, MEMORY - left_behind / 2);
        assert!(bench.audit().empty_scopes_bytes < left_behind);
        assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 0, "after {targets} targets");
    }
}

/// Who is told to go keeps its seat until it is gone, and leaves a scope: that is not why the next
/// one has to go.
#[test]
fn who_goes_takes_the_scope_that_is_left_along() {
    let mut bench = Bench::new(setup());
    let count = (MEMORY - MEMORY / 8) / relay_shard::IDLE_CONNECTION_BYTES;
    let lone: Vec<_> =
        (0..count).map(|target| bench.open("client", &format!("target{target}"))).collect();
    let unfinished = &frames::text(&[b' '; 2000])[..1000];
    let gone = |bench: &mut Bench| bench.counted(Counter::BudgetUnfinishedClosed);
    let mut began = lone.iter();
    while gone(&mut bench) == 0 {
        let client = *began.next().expect("memory is used up before all have begun");
        bench.socket(client).send(unfinished);
        bench.steps(3);
    }
    let gone = gone(&mut bench);
    assert!(gone <= 2, "{gone} had to go, for a thousand bytes");
    assert_eq!(bench.audit().empty_scopes_bytes, 0);
    assert!(bench.audit().charged_bytes <= MEMORY);
}

#[test]
fn health_is_answered_at_the_budget() {
    let mut bench = Bench::new(setup());
    let (_daemon, client) = stalled_pair(&mut bench, "slow");
    back_up(&mut bench, client, MEMORY - MEMORY / 8);
    let probe = bench.request(frames::get("/health"));
    assert_eq!(bench.answer(probe).0, 200);
}

#[test]
fn the_largest_backlog_goes_first() {
    let mut bench = Bench::new(setup());
    let steady = bench.pair("steady");
    let small = stalled_pair(&mut bench, "small");
    let large = stalled_pair(&mut bench, "large");
    let growing = stalled_pair(&mut bench, "growing");
    let small_count = back_up(&mut bench, small.1, 240 << 10);
    back_up(&mut bench, large.1, 720 << 10);
    let mut growing_count = 0;
    while bench.counted(Counter::BudgetSlowReadersClosed) == 0 {
        let payload = frames::envelope(growing_count, 7000);
        bench.socket(growing.1).send(&frames::text(&payload));
        growing_count += 1;
        bench.steps(5);
        assert!(bench.audit().charged_bytes <= MEMORY);
    }
    assert_eq!(bench.counted(Counter::BudgetSlowReadersClosed), 1, "one was enough");
    assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 1);
    assert_frames_flow(&mut bench, steady);

    for (daemon, _) in [small, large, growing] {
        bench.socket(daemon).reads = true;
    }
    bench.steps(300);
    let closed = bench.socket(large.0).take_frames();
    assert_eq!(closed.last(), Some(&Frame::close(4008, "buffer overflow")));
    assert!(closed.iter().rev().skip(1).all(|frame| frame.opcode == TEXT), "whole frames");
    for (daemon, count) in [(small.0, small_count), (growing.0, growing_count)] {
        let frames = bench.socket(daemon).take_frames();
        assert_eq!(frames.len(), count, "nothing was lost");
        assert!(frames.iter().all(|frame| frame.opcode == TEXT));
    }
}

#[test]
fn the_largest_unfinished_message_goes_first() {
    let mut bench = Bench::new(setup());
    let steady = bench.pair("steady");
    let patient = bench.open("client", "patient");
    bench.socket(patient).send(&frames::masked(TEXT, &[b' '; 24_000]));
    bench.steps(5);
    let greedy = bench.open("client", "greedy");
    bench.socket(greedy).send(&frames::masked(TEXT, b" "));
    while bench.counted(Counter::BudgetUnfinishedClosed) == 0 {
        bench.socket(greedy).send(&frames::masked(0, &[b' '; 24_000]));
        bench.steps(3);
        assert!(bench.audit().charged_bytes <= MEMORY);
    }
    assert_frames_flow(&mut bench, steady);
    let told = bench.socket(greedy).take_frames();
    assert_eq!(told, [Frame::close(4008, "memory budget exceeded")]);
    assert_eq!(bench.socket(patient).take_frames(), []);
    assert_eq!(bench.counted(Counter::BudgetUnfinishedClosed), 1, "the other one goes on");
}

#[test]
fn a_frame_larger_than_the_budget_ends_its_reader_and_nobody_else() {
    let mut bench = Bench::new(setup());
    let steady = bench.pair("steady");
    let (_daemon, client) = stalled_pair(&mut bench, "slow");
    // The frame in progress is not dropped, so it holds its memory until the reader is cut.
    bench.socket(client).send(&frames::text(&frames::envelope(0, 480_000)));
    bench.socket(client).send(&frames::text(&frames::envelope(1, 480_000)));
    bench.socket(client).send(&frames::text(&frames::envelope(2, 480_000)));
    bench.until("it had to go", |bench| {
        assert!(bench.audit().charged_bytes <= MEMORY, "{}", bench.audit().charged_bytes);
        bench.counted(Counter::BudgetSlowReadersClosed) + bench.counted(Counter::BudgetCut) > 0
            || bench.counted(Counter::BudgetUnfinishedClosed) > 0
    });
    bench.steps(50);
    assert_frames_flow(&mut bench, steady);
}

#[test]
fn whoever_holds_most_after_its_close_frame_is_cut() {
    let limits = Limits { close_timeout: Duration::from_secs(600), ..setup().limits };
    let mut bench = Bench::new(Setup { limits, ..setup() });
    let (_daemon, client) = stalled_pair(&mut bench, "told");
    let others: Vec<_> =
        (0..7).map(|index| stalled_pair(&mut bench, &format!("t{index}"))).collect();
    // Once a frame is begun it stays, whatever its reader is told.
    bench.socket(client).send(&frames::text(&frames::envelope(0, 240_000)));
    let mut sent = 0;
    let mut grow = |bench: &mut Bench, client: SocketId| {
        sent += 1;
        bench.socket(client).send(&frames::text(&frames::envelope(sent, 7000)));
        bench.steps(5);
        assert!(bench.audit().charged_bytes <= MEMORY);
    };
    while bench.counted(Counter::BudgetSlowReadersClosed) == 0 {
        grow(&mut bench, client);
    }
    assert_eq!(bench.counted(Counter::BudgetCut), 0, "what waited was enough");
    while bench.counted(Counter::BudgetCut) == 0 {
        others.iter().for_each(|&(_, client)| grow(&mut bench, client));
    }
    assert_eq!(bench.counted(Counter::BudgetSlowReadersClosed), 1, "nobody else had to go");
}

#[test]
fn unauthenticated_peers_cannot_grow_memory() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..setup() });
        bench.office = Office::Silent;
        let most = MEMORY / 4 + (40 << 10);
        for round in 0..60_u8 {
            bench.from = Ipv4Addr::new(127, 0, 0, 1 + round);
            let head = format!("GET /ws HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(12_000));
            bench.request(&head);
            bench.request(frames::upgrade("client", "t") + &"y".repeat(3000));
            bench.request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n");
            bench.steps(5);
            let held = bench.audit().charged_bytes;
            assert!(held <= most, "{held} bytes for strangers");
        }
        assert!(bench.counted(Counter::BudgetRefused) > 0);
        bench.pass(Duration::from_secs(60));
        assert_eq!(bench.audit().charged_bytes, 0, "nothing stays");
    }
}

#[test]
fn a_token_is_charged_while_it_waits_for_an_answer() {
    let mut bench = Bench::new(setup());
    bench.office = Office::Silent;
    let charged_for = |bench: &mut Bench, token: &str| {
        let before = bench.audit().charged_bytes;
        bench.request(frames::upgrade_with_token("client", "t", token));
        bench.steps(20);
        bench.audit().charged_bytes - before
    };
    let short = charged_for(&mut bench, &"t".repeat(100));
    let long = charged_for(&mut bench, &"t".repeat(4000));
    assert_eq!(long - short, 3900);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.audit().charged_bytes, 0, "nothing stays");
}

#[test]
fn a_home_shard_without_memory_takes_no_socket_of_another() {
    let mut bench = Bench::new(Setup { shard_count: 2, ..setup() });
    let (_daemon, client) = stalled_pair(&mut bench, "slow");
    back_up(&mut bench, client, MEMORY - MEMORY / 8);
    let late = bench.connect_to(1);
    bench.socket(late).send(frames::upgrade("client", "late").as_bytes());
    assert_eq!(bench.answer(late).0, 503);
    assert_eq!(bench.counted(Counter::BudgetRefused), 1);
    bench.reset_all();
    bench.pass(Duration::from_secs(5));
    bench.assert_nothing_is_left("everybody went");
}

#[test]
fn tiny_fragments_cost_no_memory_each() {
    let limits =
        Limits { small_frames_per_minute: u32::MAX, turn_work_max: usize::MAX, ..setup().limits };
    let mut bench = Bench::new(Setup { limits, ..setup() });
    let client = bench.open("client", "t");
    let before = bench.audit().charged_bytes;
    bench.socket(client).send(&frames::masked(TEXT, b" "));
    let burst = frames::masked(0, b" ").repeat(1000);
    for _ in 0..20 {
        bench.socket(client).send(&burst);
        bench.until("it is read", |bench| bench.socket(client).unsent_bytes() == 0);
    }
    let held = bench.audit().charged_bytes - before;
    assert!(held <= 3 * 20_001, "{held} bytes for a message of 20,001 fragments");
    let empty = frames::masked(0, b"").repeat(1000);
    let before = bench.audit().charged_bytes;
    for _ in 0..20 {
        bench.socket(client).send(&empty);
        bench.until("it is read", |bench| bench.socket(client).unsent_bytes() == 0);
    }
    assert!(before > 20_001, "the message is held");
    assert_eq!(bench.audit().charged_bytes, before, "empty fragments weigh nothing");
}
