//! Clocks that jump: the process or its machine was stopped, and went on.

use std::time::Duration;

use relay_contract::{Counter, Heartbeat, Limits};
use relay_driver::sim::PeerState;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, PING, PONG};

fn bench(encrypted: bool) -> Bench {
    let heartbeat = Heartbeat {
        ping_interval: Duration::from_secs(5),
        pong_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_secs(60),
    };
    let limits = Limits { heartbeat, ..Setup::default().limits };
    Bench::new(Setup { limits, encrypted, ..Setup::default() })
}

fn pong() -> Vec<u8> {
    frames::masked(0x80 | PONG, b"")
}

/// The pings that came since the last look.
fn pings(bench: &mut Bench, id: SocketId) -> usize {
    let frames = bench.socket(id).take_frames();
    frames.iter().filter(|frame| frame.opcode == PING).count()
}

#[test]
fn a_stop_of_an_hour_ends_nobody_who_answers() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (daemon, client) = bench.pair("t");
        let dead = bench.open("client", "t");
        bench.until_slowly("pings", |bench| bench.now() >= Duration::from_millis(5100));
        bench.step_by(Duration::from_secs(3600));
        bench.steps(3);
        for id in [daemon, client] {
            assert!(pings(&mut bench, id) >= 1, "it is asked");
            bench.socket(id).send(&pong());
        }
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.socket(daemon).state(), PeerState::Open);
        assert_eq!(bench.socket(client).state(), PeerState::Open);
        assert_ne!(bench.socket(dead).state(), PeerState::Open, "it did not answer");
        assert_eq!(bench.counted(Counter::ShardStalls), 1);
        assert_eq!(bench.counted(Counter::WsStaleTerminated), 1);
    }
}

#[test]
fn a_pong_that_came_during_the_stop_counts() {
    let mut bench = bench(false);
    let client = bench.open("client", "t");
    bench.pass(Duration::from_millis(5300));
    assert_eq!(pings(&mut bench, client), 1);
    bench.socket(client).send(&pong());
    bench.socket(client).pump();
    bench.step_by(Duration::from_secs(60));
    bench.steps(3);
    bench.pass(Duration::from_millis(1500));
    assert_eq!(bench.socket(client).state(), PeerState::Open);
}

#[test]
fn frames_flow_after_a_stop_in_the_middle_of_a_message() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("t");
    let payload = frames::envelope(1, 3000);
    let frame = frames::text(&payload);
    bench.socket(client).send(&frame[..1500]);
    bench.steps(3);
    bench.step_by(Duration::from_secs(600));
    bench.socket(client).send(&frame[1500..]);
    bench.steps(10);
    let arrived = bench.socket(daemon).take_frames();
    assert!(arrived.iter().any(|frame| frame.payload == payload), "{arrived:?}");
}
