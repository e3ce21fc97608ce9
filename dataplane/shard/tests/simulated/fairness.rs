//! Loud connections beside quiet ones: what a quiet one sends is forwarded in the turn in which it
//! arrives, and of the loud ones nothing is lost or reordered.

use relay_contract::{Counter, Limits};
use relay_driver::Config;
use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame, TEXT};

/// Work of one connection per turn: in the quiet ones' company a quarter of it, which is about four
/// frames.
const SHARE: usize = 256 << 10;

fn bench(encrypted: bool) -> Bench {
    let egress_bytes_max = 1 << 20;
    let limits = Limits { turn_work_max: SHARE, egress_bytes_max, ..Setup::default().limits };
    let driver = Config { buffer_count: 64, buffer_bytes: 8192, ..Setup::default().driver };
    // Sockets hold more than one receive brings, and a receive goes on while there is more.
    let faults = Faults { socket_bytes: 256 << 10, gulp: 500_000, ..Faults::none() };
    Bench::new(Setup { limits, driver, faults, encrypted, ..Setup::default() })
}

/// Everything of the flood that has arrived, as texts.
fn texts(bench: &mut Bench, id: SocketId) -> Vec<Vec<u8>> {
    let frames = bench.socket(id).take_frames();
    frames.into_iter().filter(|frame| frame.opcode == TEXT).map(|frame| frame.payload).collect()
}

fn flood(bench: &mut Bench, client: SocketId, count: usize) -> Vec<Vec<u8>> {
    let sent: Vec<_> = (0..count).map(|seq| frames::envelope(seq, 10)).collect();
    for payload in &sent {
        bench.socket(client).send(&frames::text(payload));
    }
    sent
}

/// Turns until the quiet client's message reaches its daemon, in steps of a millisecond.
fn steps_to_arrive(bench: &mut Bench, daemon: SocketId, client: SocketId, seq: usize) -> usize {
    let payload = frames::envelope(seq, 100);
    bench.socket(client).send(&frames::text(&payload));
    for steps in 1..1000 {
        bench.step();
        match texts(bench, daemon) {
            arrived if arrived.is_empty() => {}
            arrived => {
                assert_eq!(arrived, [payload]);
                return steps;
            }
        }
    }
    panic!("the quiet client's message never arrived");
}

#[test]
fn a_flooding_tenant_delays_nobody_and_loses_nothing() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (quiet_daemon, quiet_client) = bench.pair("quiet");
        let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
        let floods: Vec<_> = (0..3).map(|index| bench.pair(&format!("loud{index}"))).collect();
        let mut sent = Vec::new();
        for &(_, client) in &floods {
            sent.push(flood(&mut bench, client, 1500));
        }
        for seq in 1..20 {
            let steps = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, seq);
            assert!(steps <= alone, "{steps} turns instead of {alone}");
        }
        let deferred = bench.counted(Counter::ReceivesDeferred);
        assert!(deferred > 30, "the flood had to wait {deferred} times");
        bench.steps(2000);
        for (&(daemon, _), sent) in floods.iter().zip(&sent) {
            assert!(texts(&mut bench, daemon) == *sent, "all of the flood, in order");
        }
        assert_eq!(bench.audit().deferred_leases, 0);
        assert_eq!(bench.buffers_in_use(), 0);
    }
}

#[test]
fn a_flood_of_tiny_frames_has_its_share_of_a_turn_and_no_more() {
    let mut bench = bench(false);
    let client = bench.open("client", "t");
    bench.socket(client).send(&frames::text(b"x").repeat(20_000));
    let mut most = 0;
    let mut before = bench.counted(Counter::FramesClientRejected);
    for _ in 0..200 {
        bench.step();
        let now = bench.counted(Counter::FramesClientRejected);
        most = most.max(now - before);
        before = now;
    }
    assert!((1..=20).contains(&most), "{most} frames in one turn");
}

/// Rare kinds are read once as they come, and once more when they are there whole.
#[test]
fn what_is_read_twice_is_more_work_than_what_is_read_once() {
    let most_in_a_turn = |kind: &str| {
        let mut bench = bench(false);
        let (quiet_daemon, quiet_client) = bench.pair("quiet");
        steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
        let client = bench.open("client", "t");
        let text = format!("{{\"type\":\"{kind}\",\"padding\":\"{}\"}}", "x".repeat(7000));
        bench.socket(client).send(&frames::text(text.as_bytes()).repeat(100));
        let (mut most, mut before) = (0, 0);
        for _ in 0..200 {
            bench.step();
            let now = bench.counted(Counter::FramesClientRejected);
            most = most.max(now - before);
            before = now;
        }
        assert_eq!(before, 100, "each was read");
        most
    };
    let once = most_in_a_turn("viewport.nothing/v1");
    let twice = most_in_a_turn("viewport.session_events.subscribe/v1");
    assert!(twice >= 1 && once >= 2 * twice, "{once} read once in a turn, {twice} twice");
}

#[test]
fn a_stream_of_large_frames_delays_nobody() {
    let mut bench = bench(false);
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    let (daemon, client) = bench.pair("large");
    let sent: Vec<_> = (0..6).map(|seq| frames::envelope(seq, 1 << 19)).collect();
    for payload in &sent {
        bench.socket(client).send(&frames::text(payload));
    }
    for seq in 1..20 {
        let steps = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, seq);
        assert!(steps <= alone, "{steps} turns instead of {alone}");
    }
    bench.steps(500);
    assert!(texts(&mut bench, daemon) == sent, "all of the stream, in order");
}

/// Where the kernel does not bound what one receive brings, two streams take most of the buffers
/// before anybody can know that they are loud.
#[test]
fn streams_that_take_most_buffers_at_once_delay_nobody_by_more_than_a_turn() {
    const BUFFERS: u16 = 64;
    let driver = Config { buffer_count: BUFFERS, buffer_bytes: 8192, ..Setup::default().driver };
    let faults = Faults { socket_bytes: 512 << 10, gulp: 990_000, ..Faults::none() };
    let mut bench = Bench::new(Setup { driver, faults, ..Setup::default() });
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    let streams = [bench.pair("one"), bench.pair("two")];
    let sent: Vec<_> = (0..4).map(|seq| frames::envelope(seq, 1 << 18)).collect();
    for &(_, client) in &streams {
        sent.iter().for_each(|payload| bench.socket(client).send(&frames::text(payload)));
    }
    let (mut most, mut longest) = (0, 0);
    for seq in 1..40 {
        longest = longest.max(steps_to_arrive(&mut bench, quiet_daemon, quiet_client, seq));
        most = most.max(bench.buffers_in_use());
    }
    assert!(most > usize::from(BUFFERS) / 2, "{most} buffers are not most of them");
    assert!(longest <= alone + 1, "{longest} turns instead of {alone}");
    bench.steps(500);
    for &(daemon, _) in &streams {
        assert!(texts(&mut bench, daemon) == sent, "all of the stream, in order");
    }
}

/// Brackets take much longer to read than ciphertext.
#[test]
fn a_text_that_takes_long_to_read_has_its_share_of_a_turn_and_no_more() {
    const BYTES: usize = 400_000;
    let turns_of = |text: &[u8], encrypted| {
        let mut bench = bench(encrypted);
        let (quiet_daemon, quiet_client) = bench.pair("quiet");
        steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
        let (daemon, client) = bench.pair("large");
        bench.socket(client).send(&frames::text(text));
        let mut turns = 0;
        bench.until("it arrived", |bench| {
            turns += 1;
            match texts(bench, daemon) {
                arrived if arrived.is_empty() => false,
                arrived => arrived == [text],
            }
        });
        turns
    };
    let brackets = [b"[".repeat(BYTES / 2), b"]".repeat(BYTES / 2)].concat();
    let envelope = frames::envelope(1, 10);
    let dense = [b"{\"x\":", &*brackets, b",", &envelope[1..]].concat();
    for encrypted in [false, true] {
        let turns = turns_of(&dense, encrypted);
        assert!(turns >= BYTES / 5000, "{turns} turns");
    }
    let turns = turns_of(&frames::envelope(1, BYTES), false);
    assert!(turns < BYTES / 5000, "{turns} turns for ciphertext");
}

/// A new key for every byte: what carries nothing is work all the same.
#[test]
fn key_updates_have_their_share_of_a_turn_and_no_more() {
    // A client of rustls' takes no more answers to them in a row than this.
    const UPDATES: usize = 30;
    let turns_with = |updates| {
        let mut bench = bench(true);
        let (quiet_daemon, quiet_client) = bench.pair("quiet");
        let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
        let (daemon, client) = bench.pair("busy");
        let text = frames::envelope(1, 10);
        for (index, byte) in frames::text(&text).into_iter().enumerate() {
            if index < updates {
                bench.socket(client).tls().refresh_traffic_keys().expect("TLS 1.3");
            }
            bench.socket(client).send(&[byte]);
        }
        let mut turns = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 1);
        assert!(turns <= alone + 1, "{turns} turns beside them, {alone} without");
        bench.until("it arrived", |bench| {
            turns += 1;
            texts(bench, daemon) == [text.clone()]
        });
        turns
    };
    let (without, with) = (turns_with(0), turns_with(UPDATES));
    assert!(with >= without + UPDATES / 5, "{with} turns with new keys, {without} without");
}

/// More loud streams than receive buffers, each with more to send than is taken while we look.
#[test]
fn many_loud_streams_progress_alike() {
    const STREAMS: usize = 40;
    const TURNS: usize = 800;
    let limits = Limits { turn_work_max: SHARE, ..Setup::default().limits };
    let driver = Config { buffer_count: 16, buffer_bytes: 4096, ..Setup::default().driver };
    // What waits in a socket is more than its connection is served meanwhile.
    let faults = Faults { socket_bytes: 1 << 20, ..Faults::none() };
    let mut bench = Bench::new(Setup { limits, driver, faults, ..Setup::default() });
    // Who sends much is loud in the company of somebody quiet.
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    let pairs: Vec<_> = (0..STREAMS).map(|index| bench.pair(&format!("loud{index}"))).collect();
    for &(_, client) in &pairs {
        let stream: Vec<u8> =
            (0..100).flat_map(|seq| frames::text(&frames::envelope(seq, 6000))).collect();
        bench.socket(client).send(&stream);
    }
    let mut arrived = vec![0; STREAMS];
    for _ in 0..TURNS {
        bench.step();
        for (count, &(daemon, _)) in arrived.iter_mut().zip(&pairs) {
            *count += texts(&mut bench, daemon).len();
        }
    }
    let (least, most) = (arrived.iter().min().unwrap_or(&0), arrived.iter().max().unwrap_or(&0));
    assert!(*most < 100, "nobody was done meanwhile: {arrived:?}");
    assert!(*least > 10 && least * 5 >= most * 4, "{arrived:?}");
}

/// Short turns are for somebody quiet: a stream whose company is gone receives as much as comes.
#[test]
fn a_large_stream_is_held_back_only_in_company() {
    const TURNS: usize = 20;
    let driver = Config { buffer_count: 64, buffer_bytes: 8192, ..Setup::default().driver };
    // A receive goes on for about ten buffers.
    let faults = Faults { socket_bytes: 256 << 10, gulp: 900_000, ..Faults::none() };
    let mut bench = Bench::new(Setup { driver, faults, ..Setup::default() });
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let (daemon, client) = bench.pair("large");
    let arrived_in_turns = |bench: &mut Bench| {
        let mut arrived = 0;
        for seq in 0..TURNS {
            let frame = frames::text(&frames::envelope(seq, 50_000));
            (0..2).for_each(|_| bench.socket(client).send(&frame));
            bench.step();
            arrived += texts(bench, daemon).len();
        }
        arrived
    };
    steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    let in_company = arrived_in_turns(&mut bench);
    // Loud connections have their share of every turn until nobody quiet was heard for two seconds.
    bench.pass(std::time::Duration::from_secs(3));
    texts(&mut bench, daemon);
    let alone = arrived_in_turns(&mut bench);
    assert!(in_company > 0 && alone >= 4 * in_company, "{in_company}, then {alone}");
}

#[test]
fn a_slow_reader_delays_nobody() {
    let mut bench = bench(false);
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    let (daemon, client) = bench.pair("slow");
    bench.socket(daemon).reads = false;
    for seq in 1..60 {
        for number in 0..40 {
            bench.socket(client).send(&frames::text(&frames::envelope(number, 4000)));
        }
        let steps = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, seq);
        assert!(steps <= alone, "{steps} turns instead of {alone}");
    }
    assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 1, "it went on to the end");
}

#[test]
fn ten_thousand_idle_neighbours_delay_nobody() {
    const NEIGHBOURS: usize = 10_000;
    let limits = Limits {
        guests_max: 2 * NEIGHBOURS,
        guests_per_address_max: 2 * NEIGHBOURS as u32,
        ..Setup::default().limits
    };
    let mut bench = Bench::new(Setup { limits, events_max: 1 << 16, ..Setup::default() });
    let (quiet_daemon, quiet_client) = bench.pair("quiet");
    let alone = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, 0);
    for _ in 0..NEIGHBOURS {
        bench.connect();
    }
    bench.steps(30);
    assert!(bench.audit().connections >= NEIGHBOURS, "they are there");
    for seq in 1..5 {
        let steps = steps_to_arrive(&mut bench, quiet_daemon, quiet_client, seq);
        assert!(steps <= alone, "{steps} turns instead of {alone}");
    }
}

#[test]
fn an_end_comes_after_what_was_deferred_before_it() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (daemon, client) = bench.pair("t");
        let sent = flood(&mut bench, client, 300);
        bench.until("everything is under way", |bench| bench.socket(client).unsent_bytes() == 0);
        bench.socket(client).close_notify();
        bench.step();
        bench.socket(client).shutdown();
        bench.steps(300);
        assert!(texts(&mut bench, daemon) == sent, "all of it, although it hung up");
        assert_ne!(bench.socket(client).state(), PeerState::Open);
        assert!(bench.counted(Counter::ReceivesDeferred) > 5);
        assert_eq!(bench.buffers_in_use(), 0);
    }
}

#[test]
fn a_close_frame_behind_a_flood_is_answered_after_it() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("t");
    let sent = flood(&mut bench, client, 300);
    bench.socket(client).send(&frames::close(1000));
    bench.steps(300);
    assert!(texts(&mut bench, daemon) == sent);
    let answer = bench.socket(client).take_frames();
    assert_eq!(answer, [Frame::close(1000, "")]);
}

#[test]
fn a_loud_connection_that_is_cut_gives_its_buffers_back() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("t");
    flood(&mut bench, client, 1000);
    bench.until("a backlog", |bench| bench.audit().deferred_leases > 0);
    // Its daemon goes, and so does it.
    bench.socket(daemon).reset();
    bench.socket(client).reset();
    bench.pass(std::time::Duration::from_secs(5));
    bench.assert_nothing_is_left("a loud connection that was cut");
}

#[test]
fn who_is_no_longer_loud_is_served_at_once_again() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("t");
    let alone = steps_to_arrive(&mut bench, daemon, client, 0);
    let sent = flood(&mut bench, client, 500);
    bench.steps(500);
    assert_eq!(texts(&mut bench, daemon).len(), sent.len());
    let deferred = bench.counted(Counter::ReceivesDeferred);
    for seq in 1..5 {
        assert!(steps_to_arrive(&mut bench, daemon, client, seq) <= alone);
    }
    assert_eq!(bench.counted(Counter::ReceivesDeferred), deferred);
}
