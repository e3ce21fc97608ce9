//! A control plane that does not take events any more.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Counter, Limits, ShardId};

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames;

fn setup() -> Setup {
    let limits = Limits {
        admission_timeout: Duration::from_secs(1),
        // So that the lane is what bounds log entries.
        unrouted_per_minute: u32::MAX,
        frame_logs_per_minute: u32::MAX,
        ..Setup::default().limits
    };
    Setup { events_max: 1, limits, ..Setup::default() }
}

/// What is left allocated by `work`, in bytes.
fn growth(work: impl FnOnce()) -> i64 {
    allocation_counter::measure(work).bytes_current
}

/// Upgrades with long tokens, refused one after another.
fn refused_upgrades(bench: &mut Bench, count: usize) {
    let token = "t".repeat(4000);
    for _ in 0..count {
        let client = bench.request(frames::upgrade_with_token("client", "t", &token));
        let status = answer_in_time(bench, client);
        assert_eq!(status, 503);
        bench.socket(client).shutdown();
        bench.pass(Duration::from_millis(100));
        bench.forget_sockets();
    }
}

fn answer_in_time(bench: &mut Bench, client: SocketId) -> u16 {
    for _ in 0..60 {
        bench.step_by(Duration::from_millis(20));
        if let Some((status, _)) = frames::take_answer(&mut bench.socket(client).incoming) {
            return status;
        }
    }
    panic!("no answer while the control plane is away");
}

#[test]
fn upgrades_get_503_in_flat_memory_while_events_are_not_taken() {
    let mut bench = Bench::new(setup());
    bench.office = Office::Away;
    refused_upgrades(&mut bench, 20);
    let grown = growth(|| refused_upgrades(&mut bench, 300));
    // Each would leave 4000 bytes of token behind; the simulated network leaves about 300.
    assert!(grown < 300 * 1000, "{grown} bytes are kept");
}

#[test]
fn connections_that_come_and_go_are_released_once_events_are_taken_again() {
    let mut bench = Bench::new(setup());
    let clients: Vec<_> = (0..20).map(|_| bench.open("client", "t")).collect();
    bench.office = Office::Away;
    for client in clients {
        bench.socket(client).shutdown();
    }
    bench.pass(Duration::from_secs(3));
    bench.office = Office::Admits;
    bench.pass(Duration::from_secs(3));
    bench.assert_nothing_is_left("releases waited for the control plane");
}

/// Messages that the relay logs as rejected.
fn logged_messages(bench: &mut Bench, client: SocketId, count: usize) {
    for _ in 0..count / 50 {
        bench.socket(client).send(&frames::text(b"{}").repeat(50));
        bench.steps(15);
        let _answers = bench.socket(client).take_frames();
    }
}

#[test]
fn log_entries_that_find_no_room_are_dropped_and_counted() {
    let mut bench = Bench::new(setup());
    let client = bench.open("client", "t");
    bench.office = Office::Away;
    logged_messages(&mut bench, client, 10_000);
    let before = bench.counted(Counter::LogEntriesDropped);
    assert!(before > 0, "the lane and what waits for it are full");
    let grown = growth(|| logged_messages(&mut bench, client, 2000));
    assert!(grown < 64 << 10, "{grown} bytes are kept");
    assert_eq!(bench.counted(Counter::LogEntriesDropped), before + 2000);
}

#[test]
fn plain_requests_are_refused_in_time_while_events_are_not_taken() {
    let mut bench = Bench::new(setup());
    bench.office = Office::Away;
    for _ in 0..5 {
        let client = bench.request(frames::get("/state"));
        assert_eq!(answer_in_time(&mut bench, client), 503);
    }
    let client = bench.request(frames::get("/health"));
    assert_eq!(bench.answer(client).0, 200, "/health needs nobody");
}

/// A lane for eight events, and a crowd of upgrades while nobody looks at it.
fn crowd(bench: &mut Bench, count: usize) -> Vec<SocketId> {
    bench.office = Office::Away;
    let crowd = (0..count).map(|_| bench.request(frames::upgrade("client", "crowd"))).collect();
    bench.steps(count);
    crowd
}

fn behind() -> Setup {
    let limits = Limits { admission_timeout: Duration::from_secs(1), ..Setup::default().limits };
    Setup { events_max: 8, limits, ..Setup::default() }
}

#[test]
fn a_crowd_larger_than_the_lane_is_held_back_and_admitted() {
    let mut bench = Bench::new(behind());
    let crowd = crowd(&mut bench, 200);
    let held_back = bench.counted(Counter::UpgradesHeldBack);
    assert_eq!(held_back, 200 - 6, "newcomers leave a quarter of the lane free");
    bench.office = Office::Admits;
    for id in crowd {
        assert_eq!(bench.answer(id).0, 101);
    }
    assert_eq!(bench.counted(Counter::AdmissionUnavailable), 0);
}

#[test]
fn who_is_held_back_first_is_asked_about_first() {
    let mut bench = Bench::new(behind());
    bench.office = Office::Away;
    for last in 1..=40 {
        let id = bench.connect_from(Ipv4Addr::new(10, 0, 0, last).into());
        bench.socket(id).send(frames::upgrade("client", "crowd").as_bytes());
        bench.steps(3);
    }
    bench.office = Office::Admits;
    bench.steps(100);
    let asked: Vec<_> = bench.ledger.asked.iter().map(|asked| asked.request.address).collect();
    assert_eq!(asked.len(), 40);
    assert!(asked.is_sorted(), "{asked:?}");
}

#[test]
fn who_is_held_back_too_long_gets_503_and_nobody_is_asked_about_it() {
    let mut bench = Bench::new(behind());
    let crowd = crowd(&mut bench, 20);
    bench.pass(Duration::from_secs(2));
    for id in crowd {
        assert_eq!(bench.answer(id).0, 503);
        bench.socket(id).shutdown();
    }
    assert_eq!(bench.counted(Counter::UpgradesHeldBackRefused), 14);
    assert_eq!(bench.counted(Counter::AdmissionUnavailable), 20);
    bench.office = Office::Admits;
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.ledger.asked.len(), bench.ledger.abandoned.len()), (6, 6));
    bench.assert_nothing_is_left("nobody is remembered");
    bench.open("client", "late");
}

#[test]
fn no_more_are_held_back_than_may_be_strangers() {
    let mut bench = Bench::new(behind());
    let crowd: Vec<_> = (0..30).map(|_| bench.connect()).collect();
    bench.steps(30);
    let limits = Limits { version: 2, guests_max: 10, ..behind().limits };
    bench.command(ShardId(0), Command::SetLimits(Arc::new(limits)));
    bench.steps(2);
    bench.office = Office::Away;
    for &id in &crowd {
        bench.socket(id).send(frames::upgrade("client", "crowd").as_bytes());
    }
    bench.steps(60);
    assert_eq!(bench.counted(Counter::UpgradesHeldBack), 10);
    assert_eq!(bench.counted(Counter::UpgradesHeldBackRefused), 14);
    bench.office = Office::Admits;
    let statuses = crowd.into_iter().map(|id| bench.answer(id).0);
    assert_eq!(statuses.filter(|&status| status == 101).count(), 16);
}

#[test]
fn a_drain_refuses_those_held_back_at_once() {
    let mut bench = Bench::new(behind());
    let crowd = crowd(&mut bench, 20);
    bench.command(ShardId(0), Command::Drain { version: 0, window_ms: 0, redirect: None });
    for id in crowd {
        assert_eq!(bench.answer(id).0, 503);
    }
    assert_eq!(bench.counted(Counter::DrainRefused), 20);
}
