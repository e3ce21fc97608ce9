//! Sockets that only connect.

use std::net::Ipv4Addr;
use std::time::Duration;

use relay_contract::{Counter, Limits};
use relay_driver::sim::PeerState;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames;

fn bench(encrypted: bool) -> Bench {
    let limits = Limits { guests_max: 4, guests_per_address_max: 3, ..Setup::default().limits };
    Bench::new(Setup { limits, encrypted, ..Setup::default() })
}

fn assert_served(bench: &mut Bench, id: SocketId) {
    bench.socket(id).send(frames::get("/health").as_bytes());
    assert_eq!(bench.answer(id).0, 200);
}

#[test]
fn one_address_that_only_connects_leaves_room_for_others() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let greedy: Vec<_> = (0..5).map(|_| bench.connect()).collect();
        bench.steps(5);
        let states: Vec<_> = greedy.iter().map(|&id| bench.socket(id).state()).collect();
        assert_eq!(states[..3], [PeerState::Open; 3]);
        assert!(states[3..].iter().all(|&state| state != PeerState::Open), "the newest go");
        assert_eq!(bench.counted(Counter::GuestsRefused), 2);
        bench.from = Ipv4Addr::new(127, 0, 0, 2);
        let other = bench.connect();
        assert_served(&mut bench, other);
    }
}

#[test]
fn one_address_leaves_handshakes_for_others() {
    let limits = Limits { tls_handshakes_max: 8, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, encrypted: true, ..Setup::default() });
    let greedy: Vec<_> = (0..10).map(|_| bench.connect_plain()).collect();
    bench.steps(5);
    let open = greedy.iter().filter(|&&id| bench.socket(id).state() == PeerState::Open).count();
    assert_eq!(open, 6, "three quarters");
    assert_eq!(bench.counted(Counter::TlsHandshakesRefused), 4);
    bench.from = Ipv4Addr::new(127, 0, 0, 2);
    let other = bench.connect();
    assert_served(&mut bench, other);
}

#[test]
fn three_addresses_leave_handshakes_for_a_fourth() {
    let limits = Limits { tls_handshakes_max: 64, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, encrypted: true, ..Setup::default() });
    let mut open = Vec::new();
    for address in 1..=3 {
        bench.from = Ipv4Addr::new(127, 0, 0, address);
        let greedy: Vec<_> = (0..64).map(|_| bench.connect_plain()).collect();
        bench.steps(5);
        let is_open = |&&id: &&SocketId| bench.socket(id).state() == PeerState::Open;
        open.push(greedy.iter().filter(is_open).count());
    }
    assert_eq!(open, [48, 12, 3], "three quarters of what was left");
    bench.from = Ipv4Addr::new(127, 0, 0, 4);
    let other = bench.connect();
    assert_served(&mut bench, other);
}

/// What one address begins and does not end grows after it was let in: then it is the one to go.
#[test]
fn one_address_leaves_memory_for_other_strangers() {
    for encrypted in [false, true] {
        let limits = Limits { memory_bytes_max: 2 << 20, ..Setup::default().limits };
        let mut bench = Bench::new(Setup { limits, encrypted, ..Setup::default() });
        let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(12_000));
        let greedy: Vec<_> = (0..60).map(|_| bench.request(&endless)).collect();
        bench.steps(200);
        assert!(bench.counted(Counter::BudgetStrangersClosed) > 0);
        let open = greedy.iter().filter(|&&id| bench.socket(id).state() == PeerState::Open).count();
        assert!((10..60).contains(&open), "{open} of them are left");
        let told = |bench: &mut Bench, id| {
            bench.socket(id).incoming.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n")
        };
        let told = greedy.iter().filter(|&&id| told(&mut bench, id)).count() as u64;
        let closed = bench.counted(Counter::BudgetStrangersClosed);
        // Whoever shakes hands cannot be told, and who has said nothing yet asks for nothing.
        let expected = if encrypted { 0..=0 } else { closed / 2..=closed };
        assert!(expected.contains(&told), "{told} of {closed} are told");
        assert_eq!(bench.counted(Counter::BudgetCut), 0);
        bench.from = Ipv4Addr::new(127, 0, 0, 2);
        for _ in 0..3 {
            let other = bench.connect();
            assert_served(&mut bench, other);
        }
    }
}

#[test]
fn a_failed_handshake_says_why_once_a_minute() {
    let mut bench = Bench::new(Setup { encrypted: true, ..Setup::default() });
    for round in 1..=3 {
        for _ in 0..5 {
            let id = bench.connect_plain();
            bench.socket(id).send_raw(&[0xa5; 100]);
        }
        bench.pass(Duration::from_secs(61));
        assert_eq!(bench.counted(Counter::TlsHandshakeFailures), 5 * round);
    }
    let told = bench.ledger.logged.iter().filter(|&&event| event == "tls_handshake_failed");
    assert_eq!(told.count(), 3);
}

#[test]
fn an_open_connection_takes_no_place_of_a_stranger() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let open: Vec<_> = (0..6).map(|_| bench.open("client", "t")).collect();
        assert_eq!((bench.audit().connections, bench.audit().guests), (6, 0));
        for id in open {
            bench.socket(id).reset();
        }
        let late = bench.connect();
        assert_served(&mut bench, late);
    }
}

/// Being turned away is no way out of the count: the socket is still there.
#[test]
fn who_is_turned_away_counts_until_it_is_gone() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        for _ in 0..3 {
            let id = bench.request(b"\r\nnonsense\r\n\r\n");
            bench.until("an answer", |bench| !bench.socket(id).incoming.is_empty());
        }
        assert_eq!(bench.audit().guests, 3);
        let fourth = bench.connect();
        bench.steps(20);
        assert_ne!(bench.socket(fourth).state(), PeerState::Open);
        assert_eq!(bench.counted(Counter::GuestsRefused), 1);
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.audit().guests, 0, "they lingered for a second");
        let late = bench.connect();
        assert_served(&mut bench, late);
    }
}

#[test]
fn a_place_comes_back_when_a_stranger_goes() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        for _ in 0..10 {
            let ids: Vec<_> = (0..3).map(|_| bench.connect()).collect();
            bench.steps(20);
            bench.socket(ids[0]).reset();
            bench.socket(ids[1]).shutdown();
            bench.socket(ids[2]).send(b"\r\nnonsense\r\n\r\n");
            bench.pass(Duration::from_secs(2));
            bench.reset_all();
            bench.steps(5);
        }
        assert_eq!(bench.counted(Counter::GuestsRefused), 0);
        bench.assert_nothing_is_left("everybody went");
    }
}
