//! Requests that a proxy in front may read in another way than we do, and targets nobody can read.

use relay_driver::sim::PeerState;

use crate::bench::{Bench, Office, Setup};
use crate::frames;

/// A second request, as it would lie in what one reader takes for a body or for headers.
const HIDDEN: &str = "GET /state HTTP/1.1\r\nHost: h\r\n\r\n";

/// An upgrade with these lines among its headers.
fn upgrade_with(lines: &str) -> String {
    frames::upgrade("client", "t").replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"))
}

/// A plain request with these lines after its first header.
fn plain_with(lines: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n")
}

/// Answered 400 and ended; neither the request nor what hides behind it is asked about.
fn is_refused(request: &str) {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        bench.office = Office::Silent;
        let id = bench.request([request, HIDDEN].concat());
        assert_eq!(bench.answer(id).0, 400, "{request:?}");
        bench.steps(5);
        assert!(bench.socket(id).incoming.is_empty(), "one answer: {request:?}");
        assert!(bench.ledger.asked.is_empty() && bench.ledger.http_asked.is_empty(), "{request:?}");
        bench.socket(id).shutdown();
        bench.steps(5);
        bench.assert_nothing_is_left(request);
    }
}

/// Lines that two readers of RFC 9112 could take for different things.
const AMBIGUOUS: [&str; 22] = [
    "Content-Length: 0\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: 35",
    "Content-Length: 0\r\ncontent-length: 35",
    "Content-Length: 35, 35",
    "Content-Length: 0x23",
    "Content-Length: +35",
    "Content-Length: -1",
    "Content-Length: 3 5",
    "Content-Length: ",
    "Content-Length: 18446744073709551617",
    "Content-Length: 35\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 35",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding:\r\n chunked",
    "Content-Length : 35",
    "Transfer-Encoding\t: chunked",
    "X: a\nContent-Length: 35",
    "X: a\0b",
    "Host: other",
];

#[test]
fn a_plain_request_two_servers_could_read_differently_is_refused() {
    for lines in AMBIGUOUS {
        is_refused(&plain_with(lines));
    }
}

#[test]
fn an_upgrade_two_servers_could_read_differently_is_refused() {
    for lines in AMBIGUOUS {
        is_refused(&upgrade_with(lines));
    }
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    for lines in ["Transfer-Encoding: chunked", "Content-Length: 35", "Content-Length: 1"] {
        is_refused(&upgrade_with(lines));
    }
}

#[test]
fn an_upgrade_that_says_it_has_no_body_is_taken() {
    let mut bench = Bench::new(Setup::default());
    let id = bench.request(upgrade_with("Content-Length: 0"));
    assert_eq!(bench.answer(id).0, 101);
}

#[test]
fn line_ends_and_first_lines_of_another_kind_are_refused() {
    let plain = plain_with("X: y");
    for request in [
        plain.replace("\r\n", "\n"),
        plain.replacen("\r\n", "\n", 1),
        plain.replace("\r\n", "\r"),
        plain.replace("X: y", "X: y\rZ: z"),
        plain.replace("X: y", ": y"),
        plain.replace("X: y", "X\0: y"),
        plain.replace("X: y", "X y"),
        plain.replace("X: y", " X: y"),
        plain.replace("POST /x", "POST\t/x"),
        plain.replace("POST /x", "POST /x /y"),
        plain.replace("HTTP/1.1", "HTTP/1.2"),
        plain.replace("HTTP/1.1", "HTTP/11"),
        plain.replace("HTTP/1.1", "http/1.1"),
        plain.replace(" HTTP/1.1", ""),
        plain.replace("Host: h\r\n", ""),
        plain.replace("Host: h", "Host: h\r\nHost: h"),
    ] {
        is_refused(&request);
    }
}

#[test]
fn methods_nobody_knows_are_refused() {
    for method in ["BREW", "get", "GET\u{e9}", "G E T", "", "\0", "GETGETGETGETGETGETGET", "PRI"] {
        is_refused(&plain_with("X: y").replace("POST", method));
    }
}

/// Ends with an answer of at least 400, or without one, and the shard goes on.
fn is_survived(request: &str) {
    let mut bench = Bench::new(Setup::default());
    let id = bench.request(request);
    bench.steps(10);
    if let Some((status, _)) = frames::take_answer(&mut bench.socket(id).incoming) {
        assert!((400..500).contains(&status), "{request:?}: {status}");
    } else {
        assert_ne!(bench.socket(id).state(), PeerState::Open, "{request:?}");
    }
    let (_daemon, client) = bench.pair("t");
    bench.socket(client).send(&frames::ping(b"x"));
    bench.steps(5);
    assert_eq!(bench.socket(client).take_frames().len(), 1, "{request:?}");
}

const TARGETS: [&str; 18] = [
    "//",
    "///",
    "http://[/",
    "http://",
    "http:///",
    "http://[::1/ws",
    "http://%/",
    "http://a b/",
    "http://h:99999/",
    "http://h:x/",
    "*",
    "/\u{0}",
    "/%",
    "/%zz",
    "\\ws",
    "//[",
    "?",
    "javascript:alert(1)",
];

const HOSTS: [&str; 12] =
    ["[", "[::1", "a b", "h:99999", "h:x", "", " ", "%", "h/../x", "user@h", "\u{e9}", "h#x"];

#[test]
fn targets_and_hosts_nobody_can_read_end_that_connection_alone() {
    for target in TARGETS {
        is_survived(&frames::get(target));
        let upgrade = frames::upgrade("client", "t");
        let start = upgrade.find(" HTTP/1.1").expect("it has a version");
        is_survived(&format!("GET {target}{}", &upgrade[start..]));
    }
    for host in HOSTS {
        let named = format!("Host: {host}\r\n");
        is_survived(&frames::get("/nowhere").replace("Host: h\r\n", &named));
        let upgrade = frames::upgrade("client", "t").replace("Host: h\r\n", &named);
        is_survived(&upgrade.replace("role=client", "role=nobody"));
    }
}
