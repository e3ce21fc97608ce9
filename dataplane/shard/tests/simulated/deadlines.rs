//! Peers that take their time: each ends by a fixed moment, however it drips.

use std::time::Duration;

use relay_contract::{Counter, Heartbeat, Limits};
use relay_driver::sim::Faults;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames;

const HEAD: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(2);
const ADMISSION: Duration = Duration::from_secs(4);
/// For FIN and the grain of the clock.
const SLACK: Duration = Duration::from_millis(1500);

fn setup(encrypted: bool) -> Setup {
    let limits = Limits {
        head_timeout: HEAD,
        tls_handshake_timeout: HEAD,
        close_timeout: CLOSE,
        admission_timeout: ADMISSION,
        keep_alive_timeout: HEAD,
        ..Setup::default().limits
    };
    Setup { limits, encrypted, ..Setup::default() }
}

/// The peer sends `drip` every 100 ms; nothing of it may be left after `patience`.
fn assert_ends(bench: &mut Bench, patience: Duration, mut drip: impl FnMut(&mut Bench)) {
    let mut left = patience + SLACK;
    while left > Duration::ZERO {
        drip(bench);
        bench.step_by(Duration::from_millis(100));
        left = left.saturating_sub(Duration::from_millis(100));
    }
    bench.assert_nothing_is_left(&format!("after {patience:?}"));
}

#[test]
fn a_dripped_head_ends_by_its_deadline() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(setup(encrypted));
        let client = bench.request("GET /health HTTP/1.1\r\nX: ");
        assert_ends(&mut bench, HEAD + CLOSE, |bench| bench.socket(client).send(b"x"));
    }
}

#[test]
fn a_dripped_head_on_a_served_connection_ends_by_its_deadline() {
    let mut bench = Bench::new(setup(false));
    let client = bench.request(frames::get("/health"));
    assert_eq!(bench.answer(client).0, 200);
    bench.socket(client).send(b"GET /health HTTP/1.1\r\nX: ");
    bench.step();
    assert_ends(&mut bench, HEAD + CLOSE, |bench| bench.socket(client).send(b"x"));
}

#[test]
fn a_dripped_body_ends_by_its_deadline() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(setup(encrypted));
        let client =
            bench.request("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
        bench.steps(5);
        assert_ends(&mut bench, HEAD + CLOSE, |bench| bench.socket(client).send(b"x"));
    }
}

#[test]
fn an_endless_chunked_body_ends_by_its_deadline() {
    let mut bench = Bench::new(setup(false));
    let client = bench.request("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_ends(&mut bench, HEAD + CLOSE, |bench| bench.socket(client).send(b"1\r\nx\r\n"));
}

#[test]
fn an_idle_connection_ends_by_its_deadline() {
    let mut bench = Bench::new(setup(false));
    let _silent = bench.connect();
    let served = bench.request(frames::get("/health"));
    assert_eq!(bench.answer(served).0, 200);
    assert_ends(&mut bench, HEAD + CLOSE, |_| {});
}

#[test]
fn a_silent_tls_handshake_ends_by_its_deadline() {
    let mut bench = Bench::new(setup(true));
    let _silent = bench.connect_plain();
    assert_ends(&mut bench, HEAD + CLOSE, |_| {});
}

#[test]
fn a_dripped_tls_handshake_ends_by_its_deadline() {
    let mut bench = Bench::new(setup(true));
    let client = bench.connect_plain();
    // The header of a long handshake record whose bytes come one at a time.
    bench.socket(client).send(&[0x16, 3, 1, 0x20, 0, 1, 0, 0x1f, 0]);
    assert_ends(&mut bench, HEAD + CLOSE, |bench| bench.socket(client).send(b"x"));
}

fn answer_never_read(encrypted: bool, office: Office, path: &str, patience: Duration) {
    let faults = Faults { socket_bytes: 4 << 10, ..Faults::none() };
    let mut bench = Bench::new(Setup { faults, ..setup(encrypted) });
    let client = bench.connect();
    bench.steps(20);
    bench.socket(client).reads = false;
    bench.office = office;
    bench.socket(client).send(frames::get(path).repeat(2000).as_bytes());
    // Long enough to answer what fits into the network.
    bench.steps(200);
    assert_ends(&mut bench, patience, |_| {});
}

#[test]
fn answers_that_are_never_read_end_by_a_deadline() {
    for encrypted in [false, true] {
        answer_never_read(encrypted, Office::Admits, "/health", HEAD + CLOSE);
        answer_never_read(encrypted, Office::Admits, "/state", ADMISSION + HEAD + CLOSE);
        answer_never_read(encrypted, Office::Silent, "/state", ADMISSION + HEAD + CLOSE);
    }
}

#[test]
fn garbage_instead_of_tls_ends_by_a_deadline() {
    let mut bench = Bench::new(setup(true));
    let client = bench.connect_plain();
    assert_ends(&mut bench, CLOSE, |bench| bench.socket(client).send(b"garbage garbage"));
}

#[test]
fn garbage_on_an_open_tls_connection_does_not_prolong_it() {
    let mut bench = Bench::new(setup(true));
    let client = bench.open("client", "t");
    bench.socket(client).reads = false;
    bench.socket(client).send_raw(b"garbage garbage");
    bench.steps(5);
    assert_ends(&mut bench, CLOSE, |bench| bench.socket(client).send_raw(b"garbage garbage"));
}

#[test]
fn a_peer_that_goes_on_after_its_close_frame_does_not_prolong_it() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(setup(encrypted));
        let client = bench.open("client", "t");
        bench.socket(client).send(&frames::close(1000));
        bench.steps(5);
        assert_ends(&mut bench, CLOSE, |bench| {
            bench.socket(client).send(&frames::close(1000));
            bench.socket(client).send(b"garbage");
        });
    }
}

#[test]
fn an_upgrade_nobody_answers_ends_by_its_deadline() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(setup(encrypted));
        bench.office = Office::Silent;
        let client = bench.request(frames::upgrade("client", "t"));
        assert_ends(&mut bench, ADMISSION + CLOSE, |bench| bench.socket(client).send(b"x"));
        assert_eq!(bench.ledger.abandoned.len(), 1);
    }
}

#[test]
fn a_peer_that_never_sends_its_fin_does_not_get_the_whole_close_timeout() {
    for encrypted in [false, true] {
        let limits = Limits { close_timeout: Duration::from_secs(60), ..setup(encrypted).limits };
        let mut bench = Bench::new(Setup { limits, ..setup(encrypted) });
        let client = bench.open("client", "t");
        bench.socket(client).send(&frames::close(1000));
        assert_ends(&mut bench, Duration::from_secs(1), |_| {});
    }
}

/// Sends one frame bit by bit over 20 s at a relay that pings each second and waits two for the
/// answer.
fn upload_slowly(bench: &mut Bench, client: SocketId, frame: &[u8]) {
    for part in frame.chunks(frame.len().div_ceil(200)) {
        bench.socket(client).send(part);
        bench.step_by(Duration::from_millis(100));
    }
}

fn attentive(idle: Duration) -> Bench {
    let second = Duration::from_secs(1);
    let heartbeat =
        Heartbeat { ping_interval: second, pong_timeout: 2 * second, idle_timeout: idle };
    let limits = Limits { heartbeat, ..Setup::default().limits };
    Bench::new(Setup { limits, ..Setup::default() })
}

#[test]
fn a_slow_upload_is_not_taken_for_a_dead_peer() {
    let mut bench = attentive(Duration::from_secs(300));
    let client = bench.open("client", "t");
    upload_slowly(&mut bench, client, &frames::text(&frames::envelope(0, 100_000)));
    assert_eq!(bench.counted(Counter::WsStaleTerminated), 0);
    // Once it could have answered and did not, it is one.
    bench.pass(Duration::from_secs(4));
    assert_eq!(bench.counted(Counter::WsStaleTerminated), 1);
}

#[test]
fn a_frame_that_drips_for_ever_ends_by_the_idle_timeout() {
    let mut bench = attentive(Duration::from_secs(5));
    let client = bench.open("client", "t");
    upload_slowly(&mut bench, client, &frames::text(&frames::envelope(0, 100_000)));
    assert_eq!(bench.counted(Counter::WsIdleTerminated), 1);
}
