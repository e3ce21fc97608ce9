//! Who the client is, behind proxies that say so and in spite of peers that pretend to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Counter, Limits, Preflight};
use relay_driver::sim::PeerState;
use relay_shard::DoorRules;
use relay_wire::http1::{AllowedOrigins, TrustedProxies};

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames;

const PROXY: &str = "10.0.0.1";
const LINE: &str = "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n";
/// Version 2: the proxy speaks for itself.
const OWN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn bench(encrypted: bool) -> Bench {
    with_limits(encrypted, Setup::default().limits)
}

/// Proxies of 10.0.0.0/8 have to send PROXY headers.
fn with_limits(encrypted: bool, limits: Limits) -> Bench {
    let proxies = "10.0.0.0/8,2001:db8:1::/48";
    let setup = Setup { encrypted, limits, proxies, proxy_protocol: true, ..Setup::default() };
    let mut bench = Bench::new(setup);
    bench.office = Office::Silent;
    bench
}

fn connect(bench: &mut Bench, from: &str) -> SocketId {
    bench.connect_from(from.parse().expect("an address"))
}

/// Asks for an upgrade, saying on the way who is behind.
fn upgrade(forwarded_for: &str) -> String {
    let request = frames::upgrade("client", "t");
    let lines: String =
        forwarded_for.lines().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
    request.replacen("Host: h\r\n", &format!("Host: h\r\n{lines}"), 1)
}

/// The address of the next upgrade that is asked about.
fn asked_for(bench: &mut Bench) -> String {
    let before = bench.ledger.asked.len();
    bench.until("a question", |bench| bench.ledger.asked.len() > before);
    bench.ledger.asked[before].request.address.to_string()
}

fn is_gone(bench: &mut Bench, id: SocketId) -> bool {
    bench.socket(id).state() != PeerState::Open
}

#[test]
fn a_proxy_header_names_the_client() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let id = connect(&mut bench, PROXY);
        bench.socket(id).send_raw(LINE.as_bytes());
        bench.socket(id).send(upgrade("").as_bytes());
        assert_eq!(asked_for(&mut bench), "203.0.113.9");
        assert_eq!(bench.counted(Counter::ProxyProtocolRejected), 0);
    }
}

#[test]
fn a_proxy_header_in_single_bytes_names_the_client() {
    let mut bench = bench(false);
    let id = connect(&mut bench, PROXY);
    for byte in LINE.bytes().chain(upgrade("").bytes()) {
        bench.socket(id).send_raw(&[byte]);
        bench.step();
    }
    assert_eq!(asked_for(&mut bench), "203.0.113.9");
}

#[test]
fn a_client_behind_a_proxy_header_is_not_believed_about_others() {
    let mut bench = bench(false);
    let id = connect(&mut bench, PROXY);
    bench.socket(id).send_raw(LINE.as_bytes());
    bench.socket(id).send(upgrade("6.6.6.6").as_bytes());
    assert_eq!(asked_for(&mut bench), "203.0.113.9");
    // Another trusted proxy behind the first is.
    let id = connect(&mut bench, PROXY);
    bench.socket(id).send_raw(b"PROXY TCP4 10.9.9.9 10.0.0.1 1 2\r\n");
    bench.socket(id).send(upgrade("6.6.6.6, 7.7.7.7").as_bytes());
    assert_eq!(asked_for(&mut bench), "7.7.7.7");
}

#[test]
fn a_proxy_that_speaks_for_itself_keeps_its_address() {
    for header in [OWN, b"PROXY UNKNOWN\r\n"] {
        let mut bench = bench(false);
        let id = connect(&mut bench, PROXY);
        bench.socket(id).send_raw(header);
        bench.socket(id).send(upgrade("").as_bytes());
        assert_eq!(asked_for(&mut bench), PROXY);
    }
}

#[test]
fn a_forged_proxy_header_is_a_bad_request() {
    for header in [LINE.as_bytes(), OWN] {
        let mut bench = bench(false);
        let id = connect(&mut bench, "203.0.113.1");
        bench.socket(id).send_raw(header);
        bench.socket(id).send(upgrade("").as_bytes());
        assert_eq!(bench.answer(id).0, 400);
        assert_eq!(bench.counted(Counter::ProxyProtocolRejected), 0);
        assert!(bench.ledger.asked.is_empty());
    }
}

#[test]
fn a_second_proxy_header_is_a_bad_request() {
    let mut bench = bench(false);
    let id = connect(&mut bench, PROXY);
    bench.socket(id).send_raw(LINE.repeat(2).as_bytes());
    bench.socket(id).send(upgrade("").as_bytes());
    assert_eq!(bench.answer(id).0, 400);
}

#[test]
fn a_trusted_proxy_without_a_header_is_closed_and_counted() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        for count in 1..=3 {
            let id = connect(&mut bench, PROXY);
            bench.socket(id).send(upgrade("").as_bytes());
            bench.until("closed", |bench| is_gone(bench, id));
            assert!(bench.socket(id).incoming.is_empty(), "without an answer");
            assert_eq!(bench.counted(Counter::ProxyProtocolRejected), count);
        }
        bench.steps(5);
        let complaints = bench.ledger.logged.iter().filter(|name| name.starts_with("proxy_"));
        assert_eq!(complaints.count(), 1, "the log is told sparingly");
        bench.reset_all();
        bench.steps(10);
        bench.assert_nothing_is_left("all were closed");
    }
}

#[test]
fn a_dripped_proxy_header_ends_by_the_deadline_of_a_head() {
    let mut bench = bench(false);
    let id = connect(&mut bench, PROXY);
    let patience = Setup::default().limits.head_timeout;
    let start = bench.now();
    for byte in LINE.bytes().take(20) {
        bench.socket(id).send_raw(&[byte]);
        bench.pass(patience / 15);
    }
    assert!(is_gone(&mut bench, id));
    assert!(bench.now() - start < patience * 2);
    assert_eq!(bench.counted(Counter::ProxyProtocolRejected), 1);
    bench.assert_nothing_is_left("it was closed");
}

#[test]
fn a_probe_that_connects_and_leaves_is_no_rejection() {
    let mut bench = bench(false);
    let silent = connect(&mut bench, PROXY);
    bench.socket(silent).shutdown();
    bench.steps(10);
    assert_eq!(bench.counted(Counter::ProxyProtocolRejected), 0);
    let cut_off = connect(&mut bench, PROXY);
    bench.socket(cut_off).send_raw(b"PROXY TCP4");
    bench.steps(5);
    bench.socket(cut_off).shutdown();
    bench.steps(10);
    assert_eq!(bench.counted(Counter::ProxyProtocolRejected), 1);
    bench.assert_nothing_is_left("both left");
}

#[test]
fn the_cap_per_address_holds_for_whoever_a_proxy_names() {
    let limits = Limits { guests_max: 8, guests_per_address_max: 2, ..Setup::default().limits };
    let mut bench = with_limits(false, limits);
    let ids: Vec<_> = (0..4)
        .map(|_| {
            let id = connect(&mut bench, PROXY);
            bench.socket(id).send_raw(LINE.as_bytes());
            id
        })
        .collect();
    bench.steps(10);
    let gone = ids.iter().filter(|&&id| is_gone(&mut bench, id)).count();
    assert_eq!(gone, 2);
    assert_eq!(bench.counted(Counter::GuestsRefused), 2);
    let other = connect(&mut bench, PROXY);
    bench.socket(other).send_raw(b"PROXY TCP4 203.0.113.10 10.0.0.1 1 2\r\n");
    bench.socket(other).send(frames::get("/health").as_bytes());
    assert_eq!(bench.answer(other).0, 200);
    bench.reset_all();
    bench.pass(Duration::from_secs(3));
    bench.assert_nothing_is_left("every place came back");
}

#[test]
fn silent_proxies_cannot_take_more_places_than_there_are() {
    let limits = Limits { guests_max: 3, ..Setup::default().limits };
    let mut bench = with_limits(false, limits);
    for _ in 0..10 {
        connect(&mut bench, PROXY);
    }
    bench.steps(5);
    assert_eq!((bench.audit().guests, bench.counted(Counter::GuestsRefused)), (3, 7));
    bench.pass(Setup::default().limits.head_timeout + Duration::from_secs(1));
    bench.assert_nothing_is_left("their time was up");
}

#[test]
fn a_stop_closes_connections_that_wait_for_a_proxy_header() {
    let mut bench = bench(false);
    let id = connect(&mut bench, PROXY);
    bench.steps(2);
    bench.stop(0, Duration::from_secs(5));
    bench.steps(10);
    assert!(is_gone(&mut bench, id));
    assert!(bench.is_done(0));
}

#[test]
fn forged_forwarded_addresses_of_strangers_count_for_nothing() {
    let mut bench = bench(false);
    let hops = "1.1.1.1, ".repeat(800) + "10.0.0.1";
    for forged in ["6.6.6.6", "127.0.0.1", "unknown", "\n\n", "[::1]:80", &hops] {
        let id = connect(&mut bench, "203.0.113.1");
        bench.socket(id).send(upgrade(forged).as_bytes());
        assert_eq!(asked_for(&mut bench), "203.0.113.1", "{forged:?}");
    }
}

#[test]
fn forged_forwarded_addresses_behind_a_trusted_proxy_stay_addresses() {
    let setup = Setup { proxies: "10.0.0.0/8", ..Setup::default() };
    let mut bench = Bench::new(setup);
    bench.office = Office::Silent;
    for (lines, address) in [
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6\n203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("6.6.6.6, unknown", PROXY),
        ("6.6.6.6, _secret, 10.0.0.2", "10.0.0.2"),
        ("", PROXY),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
    ] {
        let id = connect(&mut bench, PROXY);
        bench.socket(id).send(upgrade(lines).as_bytes());
        assert_eq!(asked_for(&mut bench), address, "{lines:?}");
    }
}

#[test]
fn ipv4_mapped_addresses_are_the_addresses_they_map() {
    let limits = Limits { guests_per_address_max: 1, ..Setup::default().limits };
    let setup = Setup { limits, proxies: "10.0.0.0/8", ..Setup::default() };
    let mut bench = Bench::new(setup);
    bench.office = Office::Silent;
    let proxied = connect(&mut bench, "::ffff:10.0.0.1");
    bench.socket(proxied).send(upgrade("::ffff:203.0.113.9").as_bytes());
    assert_eq!(asked_for(&mut bench), "203.0.113.9");
    let plain = connect(&mut bench, "203.0.113.1");
    bench.steps(3);
    let mapped = connect(&mut bench, "::ffff:203.0.113.1");
    bench.steps(3);
    assert!(!is_gone(&mut bench, plain) && is_gone(&mut bench, mapped), "one address, one place");
}

#[test]
fn hosts_of_one_ipv6_network_share_their_places() {
    let limits = Limits { guests_per_address_max: 2, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, ..Setup::default() });
    let ids: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"]
        .map(|address| connect(&mut bench, address))
        .into();
    bench.steps(5);
    let gone: Vec<_> = ids.iter().map(|&id| is_gone(&mut bench, id)).collect();
    assert_eq!(gone, [false, false, true, false]);
    bench.reset_all();
    bench.steps(10);
    bench.assert_nothing_is_left("every place came back");
}

#[test]
fn a_local_proxy_is_believed_and_speaks_no_tls() {
    for encrypted in [false, true] {
        let setup = Setup { encrypted, ..Setup::default() };
        let mut bench = Bench::new(setup);
        bench.office = Office::Silent;
        for (forwarded_for, address) in [("", "127.0.0.1"), ("6.6.6.6, 203.0.113.9", "203.0.113.9")]
        {
            let id = bench.connect_locally();
            bench.socket(id).send(upgrade(forwarded_for).as_bytes());
            assert_eq!(asked_for(&mut bench), address);
        }
    }
}

#[test]
fn a_local_proxy_introduces_its_clients_too() {
    let mut bench = bench(true);
    let id = bench.connect_locally();
    bench.socket(id).send(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n");
    bench.socket(id).send(upgrade("6.6.6.6").as_bytes());
    assert_eq!(asked_for(&mut bench), "2001:db8::7");
    let named: IpAddr = "2001:db8::7".parse().expect("an address");
    assert_eq!(bench.ledger.asked[0].request.address, named);
}

#[test]
fn who_is_believed_may_change_while_the_shard_runs() {
    let proxies = "10.0.0.0/8";
    let mut bench = Bench::new(Setup { proxies, ..Setup::default() });
    bench.office = Office::Silent;
    let ask = |bench: &mut Bench| {
        let id = connect(bench, PROXY);
        bench.socket(id).send(upgrade("203.0.113.9").as_bytes());
        asked_for(bench)
    };
    // It stays connected: what counts is who is believed when it asks.
    let kept = |bench: &mut Bench| {
        let id = connect(bench, PROXY);
        bench.socket(id).send(frames::get("/health").as_bytes());
        assert_eq!(bench.answer(id).0, 200);
        id
    };
    let ask_over = |bench: &mut Bench, id: SocketId| {
        bench.socket(id).send(upgrade("203.0.113.9").as_bytes());
        asked_for(bench)
    };
    assert_eq!(ask(&mut bench), "203.0.113.9");
    let while_believed = kept(&mut bench);
    bench.change_rules(&Arc::default());
    assert_eq!(ask(&mut bench), PROXY, "nobody is believed any more");
    assert_eq!(ask_over(&mut bench, while_believed), PROXY);
    let while_not = kept(&mut bench);
    let trusted_proxies = TrustedProxies::parse(proxies).expect("a list");
    bench.change_rules(&Arc::new(DoorRules { trusted_proxies, ..DoorRules::default() }));
    assert_eq!(ask(&mut bench), "203.0.113.9");
    assert_eq!(ask_over(&mut bench, while_not), "203.0.113.9");
}

#[test]
fn whose_pages_may_connect_may_change_while_the_shard_runs() {
    let mut bench = Bench::new(Setup::default());
    bench.office = Office::Silent;
    let is_foreign = |bench: &mut Bench| {
        let page = "Host: h\r\nOrigin: https://elsewhere.example\r\n";
        bench.request(frames::upgrade("client", "t").replacen("Host: h\r\n", page, 1));
        let before = bench.ledger.asked.len();
        bench.until("a question", |bench| bench.ledger.asked.len() > before);
        let preflight = &bench.ledger.asked[before].request.preflight;
        matches!(preflight, Preflight::ForeignOrigin { .. })
    };
    assert!(!is_foreign(&mut bench), "every page may");
    let allowed_origins = AllowedOrigins::parse("https://app.corp").expect("a list");
    bench.change_rules(&Arc::new(DoorRules { allowed_origins, ..DoorRules::default() }));
    assert!(is_foreign(&mut bench));
    bench.change_rules(&Arc::default());
    assert!(!is_foreign(&mut bench));
}
