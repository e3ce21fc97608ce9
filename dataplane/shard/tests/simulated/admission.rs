//! Leave to open a connection: every grant is released exactly once, whatever becomes of it.

use std::time::Duration;

use relay_contract::{Limits, Refusal, ShardId};
use relay_driver::{Config, Driver};

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, CLOSE};
use crate::phases::{Stage, reach};

/// A bench with one upgrade that waits for its answer.
fn waiting(setup: Setup) -> (Bench, SocketId) {
    let mut bench = Bench::new(setup);
    bench.office = Office::Silent;
    let client = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    (bench, client)
}

#[test]
fn an_admission_after_the_deadline_is_released() {
    let (mut bench, client) = waiting(Setup::default());
    bench.pass(Setup::default().limits.admission_timeout + Duration::from_millis(100));
    assert_eq!(bench.answer(client).0, 503);
    bench.admit(0);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.ledger.abandoned, [bench.ledger.asked[0].connection]);
    bench.assert_nothing_is_left("an admission that came too late");
}

#[test]
fn an_admission_after_stop_is_released() {
    let (mut bench, _client) = waiting(Setup::default());
    bench.stop(0, Duration::from_secs(5));
    bench.admit(0);
    bench.pass(Duration::from_secs(6));
    assert!(bench.is_done(0));
    bench.assert_all_released("an admission behind the order to stop");
    assert_eq!(bench.ledger.stopped, [ShardId(0)]);
}

#[test]
fn an_admission_for_a_reused_slot_is_released() {
    let (mut bench, client) = waiting(Setup::default());
    bench.socket(client).shutdown();
    bench.pass(Duration::from_secs(15));
    let second = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 2);
    let slots = [0, 1].map(|index| bench.ledger.asked[index].connection.slot);
    assert_eq!(slots[0], slots[1], "the slot is used again");
    bench.admit(0);
    bench.steps(10);
    bench.assert_all_released("an admission of the slot's earlier user");
    assert!(bench.socket(second).incoming.is_empty(), "the later user still waits");
    bench.admit(1);
    assert_eq!(bench.answer(second).0, 101);
}

#[test]
fn a_second_admission_of_one_connection_is_released_alone() {
    let (mut bench, client) = waiting(Setup::default());
    bench.admit(0);
    bench.admit(0);
    assert_eq!(bench.answer(client).0, 101);
    bench.steps(10);
    let [first, second] = bench.ledger.granted[..] else { panic!("two were granted") };
    assert_eq!(bench.ledger.released, [second]);
    bench.socket(client).reset();
    bench.steps(10);
    assert_eq!(bench.ledger.released, [second, first]);
    bench.assert_nothing_is_left("both admissions came back");
}

#[test]
fn a_refusal_after_an_admission_changes_nothing() {
    let (mut bench, client) = waiting(Setup::default());
    bench.admit(0);
    let connection = bench.ledger.asked[0].connection;
    let refusal = Refusal::Unauthorized;
    bench.command(ShardId(0), relay_contract::Command::Refuse { connection, refusal });
    assert_eq!(bench.answer(client).0, 101);
    bench.steps(10);
    assert!(bench.ledger.released.is_empty());
}

#[test]
fn a_full_home_lane_refuses_and_releases() {
    for encrypted in [false, true] {
        let setup = Setup { shard_count: 2, parcels_max: 1, encrypted, ..Setup::default() };
        let mut bench = Bench::new(setup);
        bench.home = ShardId(1);
        bench.office = Office::Silent;
        let clients: Vec<_> =
            (0..3).map(|_| bench.request(frames::upgrade("client", "t"))).collect();
        bench.until("questions", |bench| bench.ledger.asked.len() == 3);
        for index in 0..3 {
            bench.admit(index);
        }
        let mut answers: Vec<_> = clients.iter().map(|&id| bench.answer(id).0).collect();
        answers.sort_unstable();
        assert_eq!(answers, [101, 503, 503]);
        bench.steps(10);
        assert_eq!(bench.ledger.released.len(), 2);
        for client in clients {
            bench.socket(client).shutdown();
        }
        bench.pass(Duration::from_secs(5));
        bench.assert_nothing_is_left("a lane with room for one");
    }
}

#[test]
fn an_unknown_home_refuses_and_releases() {
    let (mut bench, client) = waiting(Setup::default());
    bench.home = ShardId(9);
    bench.admit(0);
    assert_eq!(bench.answer(client).0, 503);
    bench.socket(client).shutdown();
    bench.pass(Duration::from_secs(5));
    bench.assert_nothing_is_left("a home that is not there");
}

#[test]
fn a_full_table_refuses_and_releases() {
    let driver = Config { residents_max: 0, ..Setup::default().driver };
    for encrypted in [false, true] {
        let driver = driver.clone();
        let mut bench = Bench::new(Setup { driver, encrypted, ..Setup::default() });
        let client = bench.request(frames::upgrade("client", "t"));
        assert_eq!(bench.answer(client).0, 503);
        bench.socket(client).shutdown();
        bench.pass(Duration::from_secs(5));
        bench.assert_nothing_is_left("no room for residents");
    }
}

#[test]
fn a_full_table_at_home_refuses_and_releases() {
    let driver = Config { residents_max: 0, ..Setup::default().driver };
    let mut bench = Bench::new(Setup { driver, shard_count: 2, ..Setup::default() });
    bench.home = ShardId(1);
    let client = bench.request(frames::upgrade("client", "t"));
    assert_eq!(bench.answer(client).0, 503);
    bench.socket(client).shutdown();
    bench.pass(Duration::from_secs(5));
    bench.assert_nothing_is_left("no room for residents at home");
}

#[test]
fn a_bad_handshake_that_is_admitted_is_refused_and_released() {
    let mut bench = Bench::new(Setup::default());
    let upgrade = frames::upgrade("client", "t").replace("-Version: 13", "-Version: 12");
    let client = bench.request(upgrade);
    assert!((400..500).contains(&bench.answer(client).0));
    bench.socket(client).shutdown();
    bench.pass(Duration::from_secs(5));
    bench.assert_nothing_is_left("a handshake of another version");
}

#[test]
fn a_refusal_is_answered_and_nothing_is_left() {
    for (refusal, status) in [(Refusal::Unauthorized, 401), (Refusal::TooManyRequests, 429)] {
        let mut bench = Bench::new(Setup::default());
        bench.office = Office::Refuses(refusal);
        let client = bench.request(frames::upgrade("client", "t"));
        assert_eq!(bench.answer(client).0, status);
        bench.socket(client).shutdown();
        bench.pass(Duration::from_secs(2));
        bench.assert_nothing_is_left("a refused upgrade");
    }
}

/// How a peer ends its connection.
type End = fn(&mut Bench, SocketId);

#[test]
fn an_admission_is_released_only_after_what_waits_for_the_peer_is_gone() {
    let ends: [(&str, End); 4] = [
        ("a close frame", |bench, id| bench.socket(id).send(&frames::close(1000))),
        ("a violation", |bench, id| bench.socket(id).send(&[0x81, 1, b'x'])),
        ("FIN", |bench, id| bench.socket(id).shutdown()),
        ("a reset", |bench, id| bench.socket(id).reset()),
    ];
    for encrypted in [false, true] {
        for (what, end) in ends {
            let (mut bench, id) = reach(Stage::Stalled, Setup { encrypted, ..Setup::default() });
            end(&mut bench, id);
            let daemon = bench.ledger.granted[0];
            bench.until_slowly("a release", |bench| bench.ledger.released.contains(&daemon));
            assert_eq!(bench.shard(0).driver().stats().connections, 0, "{what}");
            bench.assert_all_released(what);
        }
    }
}

#[test]
fn an_admission_is_released_with_its_socket_when_that_is_cut() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let client = bench.open("client", "t");
        bench.socket(client).reset();
        bench.steps(3);
        assert_eq!(bench.ledger.released, bench.ledger.granted);
        bench.assert_nothing_is_left("a cut socket");
    }
}

#[test]
fn a_close_by_the_relay_releases_only_after_the_peer_answered_or_is_cut() {
    let limits = Limits { close_timeout: Duration::from_secs(3), ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, ..Setup::default() });
    let _daemon = bench.open("workspace-daemon", "t");
    let second = bench.open("workspace-daemon", "t");
    bench.pass(Duration::from_millis(2500));
    let told = bench.socket(second).take_frames();
    assert_eq!(told.last().map(|frame| frame.opcode), Some(CLOSE));
    assert_eq!(bench.ledger.released, [], "the peer may still answer");
    bench.until_slowly("a release", |bench| !bench.ledger.released.is_empty());
    assert_eq!(bench.ledger.released, bench.ledger.granted[1..]);
    assert_eq!(bench.shard(0).driver().stats().connections, 1, "the first daemon stays");
}

#[test]
fn scopes_are_made_by_admission_alone() {
    let mut bench = Bench::new(Setup { events_max: 4096, ..Setup::default() });
    let target = |number: usize| format!("random-{number}");
    bench.office = Office::Refuses(Refusal::Unauthorized);
    for number in 0..200 {
        let id = bench.request(frames::upgrade("client", &target(number)));
        assert_eq!(bench.answer(id).0, 401);
    }
    bench.office = Office::Silent;
    for number in 0..200 {
        bench.request(frames::upgrade("workspace-daemon", &target(number)));
    }
    bench.until("questions", |bench| bench.ledger.asked.len() == 400);
    assert_eq!(bench.scope_count(), 0, "refused and waiting upgrades make none");
    bench.office = Office::Admits;
    bench.claims_fit = false;
    for number in 0..20 {
        bench.open("client", &target(number));
    }
    assert_eq!(bench.scope_count(), 0, "claims that do not fit make none");
    bench.claims_fit = true;
    bench.open("client", &target(0));
    assert_eq!(bench.scope_count(), 1);
}
