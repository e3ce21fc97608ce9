//! HTTP on one socket: requests behind each other, bodies nobody wants, a WebSocket at the end.

use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, Frame, PONG};

const NOT_FOUND: &str = r#"{"ok":false,"reason":"NOT_FOUND"}"#;

fn assert_health(bench: &mut Bench, id: SocketId) {
    let (status, body) = bench.answer(id);
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"ok":true,"service":"relay""#), "{body}");
}

#[test]
fn three_requests_and_an_upgrade_in_one_write_are_answered_in_order() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let mut bytes = frames::get("/health") + &frames::get("/state") + &frames::get("/nothing");
        bytes += &frames::upgrade("client", "t");
        let mut bytes = bytes.into_bytes();
        bytes.extend(frames::ping(b"early"));
        let client = bench.request(bytes);
        assert_health(&mut bench, client);
        assert_eq!(bench.answer(client), (200, "{}".to_owned()));
        assert_eq!(bench.answer(client), (404, NOT_FOUND.to_owned()));
        assert_eq!(bench.answer(client).0, 101);
        bench.steps(5);
        let pong = Frame { opcode: PONG, payload: b"early".to_vec() };
        assert_eq!(bench.socket(client).take_frames(), [pong]);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_to_a_peer_that_reads_slowly() {
    let faults = Faults { socket_bytes: 64, ..Faults::none() };
    let mut bench = Bench::new(Setup { faults, ..Setup::default() });
    let client = bench.request(frames::get("/health").repeat(5) + &frames::get("/x"));
    for _ in 0..5 {
        assert_health(&mut bench, client);
    }
    assert_eq!(bench.answer(client).0, 404);
}

/// Two bodies for `/x`, each followed by another request.
fn bodies() -> [Vec<u8>; 2] {
    let length = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nGET / HTTP/";
    let chunked = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4;a=b\r\nGET \r\n7\r\n/ HTTP/\r\n0\r\nTrailer: t\r\n\r\n";
    [length, chunked].map(|body| (body.to_owned() + &frames::get("/health")).into_bytes())
}

#[test]
fn a_body_is_skipped_wherever_it_is_cut() {
    for bytes in bodies() {
        for cut in 1..bytes.len() {
            let mut bench = Bench::new(Setup::default());
            let client = bench.request(&bytes[..cut]);
            bench.steps(3);
            bench.socket(client).send(&bytes[cut..]);
            assert_eq!(bench.answer(client), (404, NOT_FOUND.to_owned()), "cut at {cut}");
            assert_health(&mut bench, client);
            assert!(bench.socket(client).incoming.is_empty(), "cut at {cut}");
        }
    }
}

#[test]
fn a_body_is_skipped_wherever_it_is_cut_under_tls() {
    for bytes in bodies() {
        for cut in (1..bytes.len()).step_by(7) {
            let mut bench = Bench::new(Setup { encrypted: true, ..Setup::default() });
            let client = bench.request(&bytes[..cut]);
            bench.steps(10);
            bench.socket(client).send(&bytes[cut..]);
            assert_eq!(bench.answer(client).0, 404, "cut at {cut}");
            assert_health(&mut bench, client);
        }
    }
}

#[test]
fn a_body_is_skipped_byte_by_byte() {
    for bytes in bodies() {
        let mut bench = Bench::new(Setup::default());
        let client = bench.connect();
        for byte in bytes {
            bench.socket(client).send(&[byte]);
            bench.step();
        }
        assert_eq!(bench.answer(client), (404, NOT_FOUND.to_owned()));
        assert_health(&mut bench, client);
    }
}

#[test]
fn two_requests_then_close_notify_get_two_answers() {
    let mut bench = Bench::new(Setup { encrypted: true, ..Setup::default() });
    let client = bench.connect();
    bench.steps(20);
    bench.socket(client).send(frames::get("/health").repeat(2).as_bytes());
    bench.socket(client).close_notify();
    for _ in 0..2 {
        assert_health(&mut bench, client);
    }
    bench.until("close_notify", |bench| bench.socket(client).notified);
}

#[test]
fn two_requests_then_fin_get_two_answers() {
    let mut bench = Bench::new(Setup::default());
    let client = bench.request(frames::get("/health").repeat(2));
    bench.steps(1);
    bench.socket(client).shutdown();
    for _ in 0..2 {
        assert_health(&mut bench, client);
    }
    bench.until("FIN", |bench| bench.socket(client).state() == PeerState::Eof);
}

#[test]
fn a_request_that_was_passed_on_is_answered_after_the_peer_ended() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        bench.office = Office::Silent;
        let client = bench.request(frames::get("/state"));
        bench.until("a question", |bench| bench.ledger.http_asked.len() == 1);
        bench.socket(client).close_notify();
        bench.steps(3);
        bench.socket(client).shutdown();
        bench.steps(3);
        let connection = bench.ledger.http_asked[0];
        bench.respond(connection);
        assert_eq!(bench.answer(client), (200, "{}".to_owned()));
    }
}
