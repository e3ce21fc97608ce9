//! The order to stop: everybody goes, every grant comes back, and it is said once that it is done.

use std::time::Duration;

use relay_contract::ShardId;
use relay_driver::sim::PeerState;

use crate::bench::{Bench, Office, Setup};
use crate::frames::{self, CLOSE, Frame};
use crate::phases::{STAGES, reach};

const PATIENCE: Duration = Duration::from_secs(1);

fn assert_stopped(bench: &mut Bench, what: &str) {
    assert!(bench.is_done(0), "{what}: the shard is done");
    assert_eq!(bench.ledger.stopped, [ShardId(0)], "{what}");
    bench.assert_all_released(what);
}

#[test]
fn a_silent_peer_in_any_state_is_gone_by_the_deadline() {
    for encrypted in [false, true] {
        for stage in STAGES {
            let what = format!("{stage:?} encrypted: {encrypted}");
            let (mut bench, id) = reach(stage, Setup { encrypted, ..Setup::default() });
            bench.socket(id).reads = false;
            bench.stop(0, PATIENCE);
            bench.pass(PATIENCE + Duration::from_millis(200));
            assert_stopped(&mut bench, &what);
            bench.socket(id).reads = true;
            bench.steps(100);
            assert_ne!(bench.socket(id).state(), PeerState::Open, "{what}");
        }
    }
}

#[test]
fn a_full_event_lane_delays_but_loses_nothing() {
    for stage in STAGES {
        let what = format!("{stage:?}");
        let (mut bench, _id) = reach(stage, Setup { events_max: 1, ..Setup::default() });
        bench.office = Office::Away;
        bench.stop(0, PATIENCE);
        bench.pass(PATIENCE * 2);
        bench.office = Office::Silent;
        bench.steps(100);
        assert_stopped(&mut bench, &what);
    }
}

#[test]
fn peers_that_answer_end_it_before_the_deadline() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let (daemon, client) = bench.pair("t");
        bench.stop(0, Duration::from_secs(60));
        bench.steps(20);
        for id in [daemon, client] {
            let told = bench.socket(id).take_frames();
            assert_eq!(told, [Frame::close(1001, "relay shutting down")]);
            bench.socket(id).send(&frames::close(1001));
            bench.steps(3);
            bench.socket(id).shutdown();
        }
        bench.steps(50);
        assert_stopped(&mut bench, "both ends answered");
    }
}

#[test]
fn a_waiting_upgrade_is_told_503_and_abandoned_once() {
    let mut bench = Bench::new(Setup::default());
    bench.office = Office::Silent;
    let client = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    bench.stop(0, PATIENCE);
    assert_eq!(bench.answer(client).0, 503);
    bench.pass(PATIENCE * 2);
    assert_eq!(bench.ledger.abandoned, [bench.ledger.asked[0].connection]);
    assert_stopped(&mut bench, "an upgrade that waited");
}

#[test]
fn nobody_is_accepted_after_stop() {
    let mut bench = Bench::new(Setup::default());
    let open = bench.open("client", "t");
    let late = bench.request(frames::get("/health"));
    bench.stop(0, PATIENCE * 3);
    bench.pass(PATIENCE * 2);
    assert_eq!(bench.audit().guests, 0, "only the open one is left");
    assert!(bench.socket(late).incoming.is_empty());
    assert_eq!(bench.socket(open).take_frames().last().map(|frame| frame.opcode), Some(CLOSE));
}

#[test]
fn a_second_order_to_stop_is_answered_once() {
    let mut bench = Bench::new(Setup::default());
    let _client = bench.open("client", "t");
    bench.stop(0, Duration::from_secs(60));
    bench.steps(10);
    bench.stop(0, PATIENCE);
    bench.pass(PATIENCE * 2);
    assert_stopped(&mut bench, "two orders");
}

/// Two shards; an upgrade accepted by the first waits, and its home is the second.
fn moving(encrypted: bool) -> Bench {
    let mut bench = Bench::new(Setup { shard_count: 2, encrypted, ..Setup::default() });
    bench.home = ShardId(1);
    bench.office = Office::Silent;
    let _client = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    bench
}

fn assert_home_stopped(bench: &mut Bench, what: &str) {
    bench.pass(PATIENCE * 2);
    assert!(bench.is_done(1), "{what}");
    assert_eq!(bench.ledger.stopped.iter().filter(|&&id| id == ShardId(1)).count(), 1, "{what}");
    bench.pass(Duration::from_secs(10));
    bench.assert_all_released(what);
}

#[test]
fn a_parcel_in_the_lane_of_a_shard_that_stops_is_released() {
    for encrypted in [false, true] {
        for patience in [Duration::ZERO, PATIENCE] {
            let mut bench = moving(encrypted);
            bench.admit(0);
            bench.stop(1, patience);
            assert_home_stopped(&mut bench, &format!("stopped with the parcel, {patience:?}"));
        }
    }
}

#[test]
fn a_parcel_for_a_shard_that_is_stopping_is_released() {
    for encrypted in [false, true] {
        let mut bench = moving(encrypted);
        bench.home = ShardId(1);
        // Somebody keeps the home shard busy until its deadline.
        let held = bench.connect_to(1);
        bench.socket(held).send(frames::upgrade("client", "t").as_bytes());
        bench.until("a question", |bench| bench.ledger.asked.len() == 2);
        bench.admit(1);
        bench.steps(20);
        bench.stop(1, PATIENCE);
        bench.steps(20);
        bench.admit(0);
        bench.steps(20);
        assert!(!bench.is_done(1), "its deadline has not come");
        assert_eq!(bench.ledger.released, bench.ledger.granted[1..], "it is not opened");
        bench.pass(PATIENCE * 2);
        assert_eq!(bench.ledger.stopped, [ShardId(1)]);
        bench.pass(Duration::from_secs(10));
        bench.assert_all_released("the parcel came while its home was stopping");
    }
}

#[test]
fn a_parcel_for_a_shard_that_is_gone_is_refused_and_released() {
    let mut bench = moving(false);
    bench.stop(1, Duration::ZERO);
    bench.steps(5);
    assert!(bench.is_done(1));
    bench.admit(0);
    assert_home_stopped(&mut bench, "the parcel came after");
}

#[test]
fn both_shards_stop_with_a_parcel_between_them() {
    for patience in [Duration::ZERO, PATIENCE] {
        let mut bench = moving(false);
        bench.admit(0);
        bench.stop(0, patience);
        bench.stop(1, patience);
        bench.pass(PATIENCE * 2);
        bench.ledger.stopped.sort_unstable();
        assert_eq!(bench.ledger.stopped, [ShardId(0), ShardId(1)]);
        bench.assert_all_released("a parcel between two that stop");
    }
}
