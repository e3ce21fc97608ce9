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
