//! TLS sessions from their first byte to their last, against rustls as the client.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Counter, Limits, ShardId};
use relay_driver::sim::{Faults, PeerState};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{AlertDescription, HandshakeKind, ServerConfig};

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, Frame, PONG};
use crate::tls::{self, Identity, Wishes};

fn bench(server: ServerConfig) -> Bench {
    Bench::new(Setup { encrypted: true, server: Some(Arc::new(server)), ..Setup::default() })
}

fn tight(limits: Limits) -> Bench {
    Bench::new(Setup { encrypted: true, limits, ..Setup::default() })
}

/// Frames still go from the client to the daemon, and answers to both.
fn assert_carries(bench: &mut Bench, daemon: SocketId, client: SocketId, seq: usize) {
    for len in [10, 40_000] {
        let payload = frames::envelope(seq, len);
        bench.socket(client).send(&frames::text(&payload));
        bench.until("a frame", |bench| {
            bench.socket(daemon).take_frames().iter().any(|frame| frame.payload == payload)
        });
    }
    for id in [daemon, client] {
        bench.socket(id).send(&frames::ping(b"still there?"));
        bench.until("a pong", |bench| {
            bench.socket(id).take_frames().iter().any(|frame| frame.opcode == PONG)
        });
    }
}

#[test]
fn every_suite_carries_frames_also_after_a_hand_over() {
    for &suite in aws_lc_rs::ALL_CIPHER_SUITES {
        // The certificate is one of ECDSA.
        if suite.tls13().is_none() && format!("{suite:?}").contains("RSA") {
            continue;
        }
        let identity = Identity::new();
        let mut bench = Bench::new(Setup {
            encrypted: true,
            shard_count: 2,
            server: Some(Arc::new(identity.server())),
            ..Setup::default()
        });
        bench.home = ShardId(1);
        let config = identity.client(Wishes { suite: Some(suite), ..Wishes::default() });
        let [daemon, client] = ["workspace-daemon", "client"].map(|role| {
            let id = bench.connect_with(tls::session(&config));
            bench.socket(id).send(frames::upgrade(role, "t").as_bytes());
            assert_eq!(bench.answer(id).0, 101, "{suite:?}");
            id
        });
        assert_eq!(bench.counted(Counter::HandedOver), 2);
        assert_carries(&mut bench, daemon, client, 1);
        bench.shard(1).rewrite().expect("a session is plain data");
        assert_carries(&mut bench, daemon, client, 2);
        for id in [daemon, client] {
            bench.socket(id).close_notify();
        }
        bench.until("close_notify", |bench| {
            [daemon, client].into_iter().all(|id| bench.socket(id).notified)
        });
    }
}

#[test]
fn a_key_update_of_the_peer_is_followed_and_answered() {
    let mut bench = bench(server());
    let (daemon, client) = pair(&mut bench);
    for round in 0..5 {
        for id in [daemon, client] {
            bench.socket(id).tls().refresh_traffic_keys().expect("TLS 1.3");
        }
        assert_carries(&mut bench, daemon, client, round);
    }
    assert_eq!(bench.counted(Counter::TlsRecordsRefused), 0);
}

#[test]
fn a_head_in_records_of_one_byte_is_looked_for_once_per_receive() {
    let mut bench = bench(server());
    let id = bench.connect_with(tls::session(&configs().1));
    bench.until("the handshake", |bench| !bench.socket(id).tls().is_handshaking());
    bench.steps(5);
    let before = bench.shard(0).heads_looked_for();
    let head = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2000));
    for byte in head.as_bytes() {
        bench.socket(id).send(&[*byte]);
    }
    assert_eq!(bench.answer(id).0, 200);
    let times = bench.shard(0).heads_looked_for() - before;
    assert!(times < 200, "{times} times for {} records", head.len());
}

#[test]
fn a_stranger_needs_no_records_without_content() {
    let mut bench = bench(server());
    for (updates, is_served) in [(10, true), (1000, false)] {
        let id = bench.connect_with(tls::session(&configs().1));
        bench.until("the handshake", |bench| !bench.socket(id).tls().is_handshaking());
        for byte in frames::get("/health").as_bytes().iter().cycle().take(updates) {
            bench.socket(id).tls().refresh_traffic_keys().expect("TLS 1.3");
            if !is_served {
                bench.socket(id).send(&[*byte]);
            }
        }
        if is_served {
            bench.socket(id).send(frames::get("/health").as_bytes());
            assert_eq!(bench.answer(id).0, 200);
        }
        bench.steps(50);
        assert_eq!(bench.counted(Counter::TlsRecordsRefused), u64::from(!is_served));
    }
}

#[test]
fn a_key_of_tls_1_2_that_wears_out_ends_the_connection_in_good_order() {
    let mut suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().copied();
    let suite = suites.find(|suite| format!("{suite:?}").contains("ECDSA_WITH_AES_128"));
    let (identity, client) = configs();
    let old = identity.client(Wishes { suite, ..Wishes::default() });
    let mut bench = bench(server());
    let [daemon, client] =
        [("workspace-daemon", &old), ("client", client)].map(|(role, config)| {
            let id = bench.connect_with(tls::session(config));
            bench.socket(id).send(frames::upgrade(role, "t").as_bytes());
            assert_eq!(bench.answer(id).0, 101);
            id
        });
    bench.shard(0).limit_tls_records(1100);
    let mut sent = Vec::new();
    while bench.counted(Counter::TlsKeysSpent) == 0 {
        let payload = frames::envelope(sent.len(), 40_000);
        bench.socket(client).send(&frames::text(&payload));
        bench.until("it is read", |bench| bench.socket(client).unsent_bytes() == 0);
        bench.steps(3);
        sent.push(payload);
        assert!(sent.len() < 200, "nobody looked at the key");
    }
    bench.steps(20);
    let mut told = bench.socket(daemon).take_frames();
    assert_eq!(told.pop(), Some(Frame::close(1001, "TLS key spent")));
    // What came later found no daemon any more.
    assert_eq!(told.len() as u64, bench.counted(Counter::FramesClientToDaemon));
    assert!(told.iter().map(|frame| &frame.payload).eq(&sent[..told.len()]), "all of it, in order");
    bench.socket(client).send(&frames::ping(b"still there?"));
    bench.until("a pong", |bench| {
        bench.socket(client).take_frames().iter().any(|frame| frame.opcode == PONG)
    });
}

#[test]
fn what_comes_in_the_flight_of_finished_is_not_lost() {
    let mut bench = bench(server());
    let daemon = open(&mut bench, "workspace-daemon");
    // The client says everything before it has heard a word.
    let mut bytes = frames::upgrade("client", "t").into_bytes();
    let payloads: Vec<_> = (0..3).map(|seq| frames::envelope(seq, 20_000)).collect();
    for payload in &payloads {
        bytes.extend(frames::text(payload));
    }
    let client = bench.connect_with(tls::session(&configs().1));
    bench.socket(client).send(&bytes);
    assert_eq!(bench.answer(client).0, 101);
    bench.steps(100);
    let arrived: Vec<_> =
        bench.socket(daemon).take_frames().into_iter().map(|frame| frame.payload).collect();
    assert_eq!(arrived.len(), payloads.len());
    assert!(arrived == payloads, "in order");
}

#[test]
fn tls_slow_handshake_is_cut() {
    let limits =
        Limits { tls_handshake_timeout: Duration::from_secs(3), ..Setup::default().limits };
    let hello = client_hello();
    for dripped in [0, 1, hello.len() - 1] {
        let mut bench = tight(limits.clone());
        let client = bench.connect_plain();
        for byte in &hello[..dripped] {
            bench.socket(client).send(&[*byte]);
            bench.step_by(Duration::from_millis(3));
        }
        bench.pass(Duration::from_millis(1500));
        assert_eq!(bench.audit().handshakes, 1, "it has time");
        bench.pass(Duration::from_millis(1600));
        assert_eq!(bench.audit().handshakes, 0, "{dripped} bytes of a hello");
        assert_eq!(bench.counted(Counter::TlsHandshakeTimeouts), 1);
        bench.pass(Duration::from_secs(2));
        bench.assert_nothing_is_left("a slow handshake");
    }
}

#[test]
fn a_handshake_that_stops_half_way_is_cut() {
    let limits =
        Limits { tls_handshake_timeout: Duration::from_secs(3), ..Setup::default().limits };
    let mut bench = tight(limits);
    let client = bench.connect_plain();
    bench.socket(client).send(&client_hello());
    bench.until("the server's flight", |bench| !bench.socket(client).incoming.is_empty());
    // Neither its own flight nor a flushed one gives a peer more time.
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.counted(Counter::TlsHandshakeTimeouts), 1);
    bench.assert_nothing_is_left("half a handshake");
}

#[test]
fn after_the_handshake_the_request_has_its_own_deadline() {
    let limits = Limits {
        tls_handshake_timeout: Duration::from_secs(60),
        head_timeout: Duration::from_secs(3),
        ..Setup::default().limits
    };
    let mut bench = tight(limits);
    bench.connect();
    bench.steps(50);
    assert_eq!(bench.counted(Counter::TlsHandshakes), 1);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.counted(Counter::HeadTimeouts), 1);
    bench.assert_nothing_is_left("a silent peer");
}

#[test]
fn plain_http_on_the_tls_port_is_told_to_speak_tls() {
    let mut bench = bench(server());
    let client = bench.connect_plain();
    bench.socket(client).send(frames::get("/health").as_bytes());
    bench.until("FIN", |bench| bench.socket(client).state() == PeerState::Eof);
    let (status, body) = bench.answer(client);
    assert_eq!((status, body.as_str()), (400, "this port speaks TLS\r\n"));
    assert_eq!(bench.counted(Counter::TlsHandshakeFailures), 1);
}

#[test]
fn garbage_on_the_tls_port_gets_an_alert_and_fin() {
    for garbage in [&[0; 300][..], &[0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9], &[0x80, 46, 1, 0, 2]] {
        let mut bench = bench(server());
        let client = bench.connect_plain();
        bench.socket(client).send(garbage);
        bench.until("FIN", |bench| bench.socket(client).state() == PeerState::Eof);
        let answer = &bench.socket(client).incoming;
        assert!(answer.is_empty() || answer.starts_with(&[21, 3]), "{answer:?}");
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.counted(Counter::TlsHandshakeFailures), 1, "{garbage:?}");
        bench.assert_nothing_is_left("garbage");
    }
}

#[test]
fn a_handshake_takes_only_so_many_bytes() {
    let mut bench = bench(server());
    let client = bench.connect_plain();
    // A hello that never ends. rustls has a bound of its own, a little further.
    let mut flood = Vec::new();
    for _ in 0..8 {
        flood.extend([22, 3, 1, 0x40, 0]);
        let body = match flood.len() {
            5 => [&[1, 0, 0xff, 0xff][..], &[0; (16 << 10) - 4]].concat(),
            _ => vec![0; 16 << 10],
        };
        flood.extend(body);
    }
    bench.socket(client).send(&flood);
    bench.until("an end", |bench| bench.counted(Counter::TlsHandshakeFailures) == 1);
    let why = ("reason", "handshake is too long".to_owned().into());
    assert!(bench.ledger.details.contains(&why), "{:?}", bench.ledger.details);
    bench.pass(Duration::from_secs(3));
    bench.assert_nothing_is_left("a flood");
}

#[test]
fn tls_handshakes_beyond_the_cap_are_refused_and_places_come_back() {
    let limits = Limits { tls_handshakes_max: 2, ..Setup::default().limits };
    let mut bench = tight(limits);
    let silent = [bench.connect_plain(), bench.connect_plain()];
    bench.steps(3);
    let refused = bench.connect_plain();
    bench.until("FIN", |bench| bench.socket(refused).state() != PeerState::Open);
    assert_eq!(bench.counted(Counter::TlsHandshakesRefused), 1);
    for id in silent {
        bench.socket(id).reset();
    }
    bench.steps(3);
    // Established sessions take no place.
    for _ in 0..5 {
        let id = bench.request(frames::get("/health"));
        assert_eq!(bench.answer(id).0, 200);
    }
    assert_eq!(bench.counted(Counter::TlsHandshakesRefused), 1);
}

#[test]
fn a_client_that_speaks_h2_alone_is_told_so() {
    let (identity, _) = configs();
    for (protocols, alert) in [
        (vec![b"h2".to_vec()], Some(AlertDescription::NoApplicationProtocol)),
        (vec![b"h2".to_vec(), b"http/1.1".to_vec()], None),
        (Vec::new(), None),
    ] {
        let mut bench = bench(server());
        let config = identity.client(Wishes { protocols: protocols.clone(), ..Wishes::default() });
        let client = bench.connect_with(tls::session(&config));
        bench.socket(client).send(frames::get("/health").as_bytes());
        if alert.is_none() {
            assert_eq!(bench.answer(client).0, 200, "{protocols:?}");
        } else {
            bench.until("FIN", |bench| bench.socket(client).state() == PeerState::Eof);
            assert_eq!(bench.socket(client).alert, alert);
        }
    }
}

#[test]
fn a_hello_without_a_usable_key_share_is_asked_again() {
    let identity = Identity::new();
    let mut bench = bench(identity.server_over(&[kx_group::SECP384R1]));
    let client = bench.connect_with(tls::session(&identity.client(Wishes::default())));
    bench.socket(client).send(frames::get("/health").as_bytes());
    assert_eq!(bench.answer(client).0, 200);
    let kind = bench.socket(client).tls().handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
}

#[test]
fn a_client_that_comes_back_resumes_on_any_shard() {
    let identity = Identity::new();
    let server = Some(Arc::new(identity.server()));
    let mut bench =
        Bench::new(Setup { encrypted: true, shard_count: 2, server, ..Setup::default() });
    let mut suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().copied();
    let tls12 = suites.find(|suite| format!("{suite:?}").contains("ECDHE_ECDSA"));
    for suite in [None, tls12] {
        let config = identity.client(Wishes { suite, ..Wishes::default() });
        let kinds = [0, 1].map(|shard| {
            let id = bench.connect_plain_to(shard);
            bench.socket(id).start_tls(tls::session(&config));
            bench.socket(id).send(frames::get("/health").as_bytes());
            assert_eq!(bench.answer(id).0, 200);
            bench.socket(id).tls().handshake_kind()
        });
        assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
    }
}

#[test]
fn a_demanded_client_certificate_has_to_be_shown() {
    let identity = Identity::new();
    for shows_certificate in [false, true] {
        let mut bench = bench(identity.strict_server());
        let config = identity.client(Wishes { shows_certificate, ..Wishes::default() });
        let client = bench.connect_with(tls::session(&config));
        bench.socket(client).send(frames::get("/health").as_bytes());
        if shows_certificate {
            assert_eq!(bench.answer(client).0, 200);
        } else {
            bench.until("an alert", |bench| bench.socket(client).alert.is_some());
            assert_eq!(bench.counted(Counter::TlsHandshakeFailures), 1);
        }
    }
}

#[test]
fn a_new_certificate_is_used_without_touching_connections() {
    let (before, after) = (Identity::new(), Identity::new());
    let mut bench = bench(before.server());
    let config = before.client(Wishes::default());
    let [daemon, client] = ["workspace-daemon", "client"].map(|role| {
        let id = bench.connect_with(tls::session(&config));
        bench.socket(id).send(frames::upgrade(role, "t").as_bytes());
        assert_eq!(bench.answer(id).0, 101);
        id
    });
    // One that has not said anything yet keeps what it was accepted with.
    let slow = bench.connect_with(tls::session(&config));
    bench.steps(1);
    bench.renew_certificate(&Arc::new(after.server()));
    bench.steps(2);
    let fresh = bench.connect_with(tls::session(&after.client(Wishes::default())));
    for id in [slow, fresh] {
        bench.socket(id).send(frames::get("/health").as_bytes());
        assert_eq!(bench.answer(id).0, 200);
    }
    assert_carries(&mut bench, daemon, client, 1);
}

#[test]
fn close_notify_of_the_relay_comes_before_its_fin() {
    let mut bench = bench(server());
    let client = served_for_the_last_time(&mut bench);
    assert_eq!(bench.answer(client).0, 200);
    assert!(bench.socket(client).notified);
}

#[test]
fn what_comes_after_the_last_word_is_not_opened() {
    let mut bench = bench(server());
    let client = served_for_the_last_time(&mut bench);
    bench.socket(client).send_raw(&[&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
    bench.until("it is read", |bench| bench.socket(client).unsent_bytes() == 0);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.counted(Counter::TlsRecordsRefused), 0, "nobody looked");
    bench.assert_nothing_is_left("it was read all the same");
}

#[test]
fn what_waits_behind_the_end_of_a_session_is_dropped_at_once() {
    let faults = Faults { socket_bytes: 16 << 10, ..Faults::none() };
    let mut bench = Bench::new(Setup { encrypted: true, faults, ..Setup::default() });
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    // Several times what one send takes.
    for seq in 0..40 {
        bench.socket(client).send(&frames::text(&frames::envelope(seq, 40_000)));
    }
    bench.until("a backlog", |bench| bench.audit().charged_bytes > 1 << 20);
    bench.socket(daemon).send_raw(&[&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
    bench.until("a refusal", |bench| bench.counted(Counter::TlsRecordsRefused) == 1);
    bench.socket(daemon).reads = true;
    bench.socket(daemon).shutdown();
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.audit().connections, 1, "the client alone is left");
}

#[test]
fn a_spoilt_record_ends_an_open_connection_with_an_alert() {
    let mut bench = bench(server());
    let (_daemon, client) = pair(&mut bench);
    bench.socket(client).send_raw(&[&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
    bench.until("an alert", |bench| bench.socket(client).alert.is_some());
    assert_eq!(bench.socket(client).alert, Some(AlertDescription::BadRecordMac));
    assert_eq!(bench.counted(Counter::TlsRecordsRefused), 1);
    bench.until("a release", |bench| bench.ledger.released.len() == 1);
}

#[test]
fn a_peer_that_waits_for_admission_is_not_read_under_tls() {
    let mut bench = bench(server());
    bench.office = Office::Silent;
    let client = bench.connect_with(tls::session(&configs().1));
    bench.socket(client).send(frames::upgrade("client", "t").as_bytes());
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    bench.socket(client).send(&frames::ping(&[b'x'; 100]).repeat(1000));
    bench.pass(Duration::from_secs(1));
    assert!(bench.socket(client).unsent_bytes() > 0, "it waits in the kernel");
}

/// The usual identity and a client of its.
fn configs() -> &'static (Identity, Arc<rustls::ClientConfig>) {
    static CONFIGS: std::sync::OnceLock<(Identity, Arc<rustls::ClientConfig>)> =
        std::sync::OnceLock::new();
    CONFIGS.get_or_init(|| {
        let identity = Identity::new();
        let client = identity.client(Wishes::default());
        (identity, client)
    })
}

fn server() -> ServerConfig {
    configs().0.server()
}

fn open(bench: &mut Bench, role: &str) -> SocketId {
    let id = bench.connect_with(tls::session(&configs().1));
    bench.socket(id).send(frames::upgrade(role, "t").as_bytes());
    assert_eq!(bench.answer(id).0, 101);
    id
}

fn pair(bench: &mut Bench) -> (SocketId, SocketId) {
    (open(bench, "workspace-daemon"), open(bench, "client"))
}

/// A client that has its answer and the relay's FIN.
fn served_for_the_last_time(bench: &mut Bench) -> SocketId {
    let client = bench.connect_with(tls::session(&configs().1));
    let request = frames::get("/health").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    bench.socket(client).send(request.as_bytes());
    bench.until("FIN", |bench| bench.socket(client).state() == PeerState::Eof);
    client
}

/// The first flight of a client.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    let mut client = tls::session(&configs().1);
    client.write_tls(&mut hello).expect("memory takes everything");
    hello
}

/// The most hellos of a crowd that one turn answers.
fn most_hellos_of_a_turn(in_company: bool) -> usize {
    // So many that in company a turn does several errands in the end, and still answers one hello.
    const CROWD: usize = 400;
    let mut bench = tight(Limits::default());
    let (_daemon, client) = bench.pair("t");
    if in_company {
        bench.socket(client).send(&frames::text(&frames::envelope(0, 10)));
        bench.steps(3);
    }
    let crowd: Vec<_> = (0..CROWD).map(|_| bench.connect()).collect();
    let (mut most, mut answered) = (0, 0);
    // A quiet connection is company for two seconds; a step is a millisecond.
    for _ in 0..1000 {
        bench.step();
        let all = crowd.iter().filter(|&&id| !bench.socket(id).tls().is_handshaking()).count();
        most = most.max(all - answered);
        answered = all;
    }
    assert_eq!(answered, CROWD, "everybody's turn comes");
    most
}

#[test]
fn in_company_a_turn_answers_one_hello() {
    assert_eq!(most_hellos_of_a_turn(true), 1);
}

#[test]
fn a_turn_answers_a_few_hellos() {
    let most = most_hellos_of_a_turn(false);
    assert!((2..=4).contains(&most), "{most}");
}
