//! The order to let everybody go: evenly, whatever peers do, and it can be taken back.

use std::time::Duration;

use relay_contract::{Command, Counter, ShardId, Versioned};
use relay_driver::sim::PeerState;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, Frame, TEXT};

const OTHER: &str = "wss://other.example.net/ws";

fn drain(bench: &mut Bench, shard: u16, window: Duration, redirect: Option<&str>) {
    let window_ms = window.as_millis() as u64;
    let redirect = redirect.map(Box::from);
    bench.command(ShardId(shard), Command::Drain { version: 0, window_ms, redirect });
}

fn told() -> Frame {
    Frame::close(1001, "relay shutting down")
}

/// Daemons and their clients, `scopes` of them with `clients` each, in the order they connected.
fn crowd(bench: &mut Bench, scopes: usize, clients: usize) -> Vec<SocketId> {
    let mut all = Vec::new();
    for scope in 0..scopes {
        let target = format!("t{scope}");
        all.push(bench.open("workspace-daemon", &target));
        all.extend((0..clients).map(|_| bench.open("client", &target)));
    }
    all
}

/// Steps by a millisecond and says when each was told, in milliseconds since now.
fn times_told(bench: &mut Bench, ids: &[SocketId], steps: usize) -> Vec<Option<usize>> {
    let mut times = vec![None; ids.len()];
    for step in 0..steps {
        bench.step();
        for (time, &id) in times.iter_mut().zip(ids) {
            if bench.socket(id).take_frames().contains(&told()) {
                assert_eq!(time.replace(step), None, "told once");
            }
        }
    }
    times
}

/// How far counts are from being equal: chi-square over so many buckets of the window.
fn chi_square(times: &[usize], window: usize, buckets: usize) -> f64 {
    let mut counts = vec![0.0; buckets];
    for &time in times {
        counts[(time * buckets / window).min(buckets - 1)] += 1.0;
    }
    let expected = times.len() as f64 / buckets as f64;
    counts.iter().map(|count| (count - expected) * (count - expected) / expected).sum()
}

/// The value that chance alone exceeds once in a thousand times, for nine degrees of freedom.
const CHI_SQUARE_9_MAX: f64 = 27.88;

#[test]
fn everybody_is_told_evenly_over_the_window() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let ids = crowd(&mut bench, 40, 4);
        drain(&mut bench, 0, Duration::from_millis(400), None);
        let times = times_told(&mut bench, &ids, 420);
        let all: Vec<_> = times.iter().map(|time| time.expect("everybody was told")).collect();
        assert!(all.iter().max() < Some(&402), "within the window and a turn");
        assert!(chi_square(&all, 400, 10) < CHI_SQUARE_9_MAX, "over all: {all:?}");
        let daemons: Vec<_> = all.iter().step_by(5).copied().collect();
        assert!(chi_square(&daemons, 400, 10) < CHI_SQUARE_9_MAX, "over scopes: {daemons:?}");
        let early = daemons[..20].iter().filter(|&&time| time < 200).count();
        assert!((5..=15).contains(&early), "who came first has no part of its own: {daemons:?}");
        for scope in all.chunks(5) {
            assert!(scope.is_sorted() && scope[4] - scope[0] <= 11, "together: {scope:?}");
        }
        assert_eq!(bench.counted(Counter::DrainTold), 200);
    }
}

#[test]
fn two_shards_take_turns() {
    let mut bench = Bench::new(Setup { shard_count: 2, ..Setup::default() });
    let here = crowd(&mut bench, 5, 1);
    bench.home = ShardId(1);
    let there = crowd(&mut bench, 5, 1);
    for shard in [0, 1] {
        drain(&mut bench, shard, Duration::from_millis(200), None);
    }
    let times = times_told(&mut bench, &[here, there].concat(), 210);
    let mut times: Vec<_> = times.into_iter().flatten().collect();
    times.sort_unstable();
    assert_eq!(times.len(), 20);
    for pair in times.windows(2) {
        assert!((9..=11).contains(&(pair[1] - pair[0])), "every ten milliseconds: {times:?}");
    }
}

#[test]
fn three_are_told_at_once() {
    let mut bench = Bench::new(Setup::default());
    let ids = crowd(&mut bench, 1, 2);
    drain(&mut bench, 0, Duration::from_millis(3), None);
    let times = times_told(&mut bench, &ids, 10);
    assert!(times.iter().all(|time| time.is_some_and(|time| time <= 4)), "{times:?}");
}

#[test]
fn upgrades_are_refused_and_plain_requests_are_not() {
    let mut bench = Bench::new(Setup::default());
    let open = bench.open("client", "t");
    drain(&mut bench, 0, Duration::from_secs(60), None);
    bench.steps(2);
    let late = bench.request(frames::upgrade("client", "t"));
    assert_eq!(bench.answer(late).0, 503);
    assert_eq!(bench.ledger.asked.len(), 1, "nobody is asked");
    for path in ["/health", "/ready"] {
        let probe = bench.request(frames::get(path));
        assert_eq!(bench.answer(probe).0, 200, "{path}");
    }
    assert_eq!(bench.ledger.http_asked.len(), 1, "the control plane knows whether it is ready");
    assert_eq!(bench.counted(Counter::DrainRefused), 1);
    assert_eq!(bench.socket(open).take_frames(), [told()], "the first goes at once");
}

#[test]
fn who_waits_for_admission_is_refused() {
    let mut bench = Bench::new(Setup::default());
    bench.office = Office::Silent;
    let client = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    drain(&mut bench, 0, Duration::ZERO, None);
    assert_eq!(bench.answer(client).0, 503);
    assert_eq!(bench.ledger.abandoned, [bench.ledger.asked[0].connection]);
    // The answer was on its way already.
    bench.admit(0);
    bench.steps(10);
    bench.assert_all_released("admitted in vain");
}

#[test]
fn a_socket_that_arrives_at_a_drained_home_is_refused() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { shard_count: 2, encrypted, ..Setup::default() });
        bench.home = ShardId(1);
        drain(&mut bench, 1, Duration::ZERO, None);
        bench.steps(2);
        let client = bench.request(frames::upgrade("client", "t"));
        assert_eq!(bench.answer(client).0, 503);
        bench.pass(Duration::from_secs(5));
        bench.assert_all_released("its home is drained");
    }
}

#[test]
fn a_drain_that_is_taken_back_leaves_those_who_were_not_told() {
    let mut bench = Bench::new(Setup::default());
    let ids = crowd(&mut bench, 5, 1);
    drain(&mut bench, 0, Duration::from_millis(1000), None);
    let times = times_told(&mut bench, &ids, 450);
    let gone = times.iter().flatten().count();
    assert_eq!(gone, 5, "half of the window: {times:?}");
    bench.command(ShardId(0), Command::Resume { version: 0 });
    let after = times_told(&mut bench, &ids, 2000);
    assert!(after.iter().all(Option::is_none), "nobody else: {after:?}");
    let _newcomer = bench.open("client", "new");
    let report = bench.audit();
    assert_eq!(report.connections, 6, "five stayed, one came");
}

#[test]
fn an_order_older_than_the_one_in_force_is_refused_and_each_answer_names_that() {
    let mut bench = Bench::new(Setup::default());
    let daemon = bench.open("workspace-daemon", "t");
    bench.ledger.in_force.clear();
    bench.command(ShardId(0), Command::Resume { version: 5 });
    let late = Command::Drain { version: 4, window_ms: 0, redirect: None };
    bench.command(ShardId(0), late);
    bench.steps(5);
    assert_eq!(bench.socket(daemon).take_frames(), []);
    let in_force = (ShardId(0), Versioned::Drain, 5);
    assert_eq!(bench.ledger.in_force, [in_force, in_force]);
    let order = Command::Drain { version: 6, window_ms: 0, redirect: None };
    bench.command(ShardId(0), order);
    bench.steps(5);
    assert_eq!(bench.socket(daemon).take_frames(), [told()]);
    assert_eq!(bench.counted(Counter::StaleVersionsRefused), 1);
}

#[test]
fn a_second_drain_starts_anew_with_those_who_are_left() {
    let mut bench = Bench::new(Setup::default());
    let ids = crowd(&mut bench, 5, 1);
    drain(&mut bench, 0, Duration::from_secs(100), None);
    let times = times_told(&mut bench, &ids, 20);
    assert_eq!(times.iter().flatten().count(), 1);
    drain(&mut bench, 0, Duration::from_millis(9), None);
    let times = times_told(&mut bench, &ids, 20);
    assert_eq!(times.iter().flatten().count(), 9, "{times:?}");
}

#[test]
fn clients_hear_of_the_other_relay_first() {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    drain(&mut bench, 0, Duration::ZERO, Some(OTHER));
    bench.steps(5);
    assert_eq!(bench.socket(daemon).take_frames(), [told()]);
    let frames = bench.socket(client).take_frames();
    let [redirect, close] = &frames[..] else { panic!("two frames: {frames:?}") };
    assert_eq!(redirect.opcode, TEXT);
    let text = String::from_utf8_lossy(&redirect.payload);
    assert!(text.contains(r#""code":"RELAY_REDIRECT""#) && text.contains(OTHER), "{text}");
    assert_eq!(close, &told());
}

#[test]
fn what_waits_for_a_peer_is_sent_before_it_is_told() {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    let sent: Vec<_> = (0..50).map(|index| frames::envelope(index, 3000)).collect();
    for payload in &sent {
        bench.socket(client).send(&frames::text(payload));
    }
    bench.steps(50);
    drain(&mut bench, 0, Duration::ZERO, None);
    bench.steps(50);
    bench.socket(daemon).reads = true;
    bench.steps(200);
    let frames = bench.socket(daemon).take_frames();
    let (last, messages) = frames.split_last().expect("it was told");
    assert_eq!(last, &told());
    let arrived: Vec<_> = messages.iter().map(|frame| frame.payload.clone()).collect();
    assert_eq!(arrived, sent);
}

#[test]
fn a_stop_in_the_middle_ends_everybody_by_its_deadline() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let ids = crowd(&mut bench, 5, 3);
        for &id in ids.iter().step_by(3) {
            bench.socket(id).reads = false;
        }
        drain(&mut bench, 0, Duration::from_secs(10), None);
        bench.steps(30);
        bench.stop(0, Duration::from_secs(1));
        bench.pass(Duration::from_millis(1200));
        assert!(bench.is_done(0));
        bench.assert_all_released("stopped in the middle of a drain");
        for &id in &ids {
            bench.socket(id).reads = true;
        }
        bench.steps(100);
        for &id in &ids {
            assert_ne!(bench.socket(id).state(), PeerState::Open);
        }
    }
}

#[test]
fn a_drain_after_a_stop_is_not_obeyed() {
    let mut bench = Bench::new(Setup::default());
    let ids = crowd(&mut bench, 1, 1);
    bench.stop(0, Duration::from_secs(10));
    bench.steps(5);
    drain(&mut bench, 0, Duration::ZERO, None);
    bench.steps(5);
    for id in ids {
        assert_eq!(bench.socket(id).take_frames(), [told()], "once");
    }
}
