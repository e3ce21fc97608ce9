//! Long messages that are read once more when they are whole: nobody waits until that is done, and
//! nothing is lost, reordered or read twice.

use relay_contract::{Command, Counter, ShardId};
use relay_driver::Config;
use relay_driver::sim::Faults;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame};

/// Shares are what they are by default.
fn bench(encrypted: bool) -> Bench {
    let driver = Config { buffer_count: 64, buffer_bytes: 8192, ..Setup::default().driver };
    let faults = Faults { socket_bytes: 256 << 10, ..Faults::none() };
    Bench::new(Setup { driver, faults, encrypted, shard_count: 2, ..Setup::default() })
}

/// A call with a body of so many bytes, of which a few are escaped.
fn call(id: &str, bytes: usize) -> (String, String) {
    let body = r"0123456789é\n".repeat(bytes / 14);
    let call = format!(
        concat!(
            r#"{{"type":"viewport.worker_transport.request/v1","requestId":"{}","method":"POST","#,
            r#""path":"/api/runtime/workspaces/w/managed-executors/ex/jobs","body":"{}"}}"#,
        ),
        id, body
    );
    (call, body.replace(r"\n", "\n"))
}

fn called(bench: &Bench) -> Vec<(&str, &str)> {
    let calls = bench.ledger.calls.iter();
    calls.map(|call| (&*call.request_id, call.body.as_deref().unwrap_or_default())).collect()
}

/// Steps until all that the socket sent was received.
fn received(bench: &mut Bench, id: SocketId) {
    bench.until("it is received", |bench| bench.socket(id).unsent_bytes() == 0);
}

/// Everything of a message but its last byte, and that byte.
fn cut(frame: &[u8]) -> (&[u8], &[u8]) {
    frame.split_at(frame.len() - 1)
}

#[test]
fn a_long_call_is_read_a_piece_at_a_time_and_whatever_follows_waits() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (daemon, client) = bench.pair("quiet");
        bench.socket(client).send(&frames::text(&frames::envelope(0, 100)));
        let mut alone = 0;
        while bench.socket(daemon).take_frames().is_empty() {
            bench.step();
            alone += 1;
        }
        let worker = bench.open("worker", "t");
        let [(long, long_body), (short, short_body)] = [call("long", 600_000), call("short", 20)];
        let frame = frames::text(long.as_bytes());
        let (most, last) = cut(&frame);
        bench.socket(worker).send(most);
        received(&mut bench, worker);
        bench.steps(100);
        bench.socket(worker).send(&[last, &frames::text(short.as_bytes())].concat());
        let mut turns = 0;
        while bench.ledger.calls.is_empty() {
            bench.socket(client).send(&frames::text(&frames::envelope(turns, 100)));
            bench.steps(alone);
            assert_eq!(bench.socket(daemon).take_frames().len(), 1, "it waits for no long call");
            turns += alone;
            assert!(turns < 1000, "it is read at last");
        }
        assert!(turns >= 15, "600 kB were read in {turns} turns");
        bench.until("both", |bench| bench.ledger.calls.len() == 2);
        assert_eq!(called(&bench), [("long", &*long_body), ("short", &*short_body)]);
        bench.socket(worker).send(&frames::close(1000));
        bench.until("it is gone", |bench| bench.audit().connections == 2);
        assert_eq!((bench.audit().pinned_leases, bench.buffers_in_use()), (0, 0));
    }
}

#[test]
fn of_many_long_messages_that_become_whole_at_once_a_turn_reads_one() {
    let padding = "x".repeat(100_000);
    let text = format!(r#"{{"type":"viewport.session_events.subscribe/v1","x":"{padding}"}}"#);
    let mut broken = text.clone().into_bytes();
    broken[1000] = 0xff;
    // Three turns read all of it but the last byte.
    let call = |padding: usize| {
        let header = "x".repeat(padding);
        format!(
            concat!(
                r#"{{"type":"viewport.worker_transport.request/v1","requestId":"r","#,
                r#""method":"GET","path":"/api/runtime/workspaces/w/managed-executors/ex","#,
                r#""headers":{{"a":"{}"}}}}"#,
            ),
            header
        )
    };
    let call = call(3 * (32 << 10) + 1 - call(0).len());
    for (role, frame) in [
        ("client", frames::text(text.as_bytes())),
        ("client", frames::masked(0x82, &broken)),
        ("worker", frames::text(call.as_bytes())),
    ] {
        let mut bench = bench(false);
        let (quiet, _) = bench.pair("quiet");
        let clients: Vec<_> = (0..8).map(|index| bench.open(role, &format!("t{index}"))).collect();
        let (most, last) = cut(&frame);
        for &client in &clients {
            bench.socket(client).send(most);
            received(&mut bench, client);
        }
        bench.steps(100);
        bench.socket(quiet).send(&frames::ping(b"here"));
        for &client in &clients {
            bench.socket(client).send(last);
        }
        let mut before = 0;
        for _ in 0..200 {
            bench.step();
            let now =
                bench.counted(Counter::FramesClientRejected) + bench.ledger.calls.len() as u64;
            assert!(now <= before + 1, "{} of a {role} in one turn", now - before);
            before = now;
        }
        assert_eq!(before, 8, "each was read");
    }
}

#[test]
fn who_goes_while_its_call_is_read_leaves_nothing_behind() {
    for encrypted in [false, true] {
        for turns in 0..12 {
            let mut bench = bench(encrypted);
            bench.pair("quiet");
            let worker = bench.open("worker", "t");
            let (long, _) = call("long", 200_000);
            bench.socket(worker).send(&frames::text(long.as_bytes()));
            received(&mut bench, worker);
            bench.steps(turns);
            bench.socket(worker).reset();
            bench.until("it is gone", |bench| bench.audit().connections == 2);
            bench.steps(20);
            let audit = bench.audit();
            assert_eq!((audit.charged_bytes, audit.pinned_leases), (audit.held_bytes, 0));
            assert_eq!(bench.buffers_in_use(), 0, "after {turns} turns");
        }
    }
}

#[test]
fn a_close_behind_a_long_call_is_answered_when_it_is_read() {
    let mut bench = bench(false);
    bench.pair("quiet");
    let worker = bench.open("worker", "t");
    let (long, body) = call("long", 200_000);
    let frames = [frames::text(long.as_bytes()), frames::close(1000)].concat();
    bench.socket(worker).send(&frames);
    bench.until("it is gone", |bench| bench.audit().connections == 2);
    assert_eq!(called(&bench), [("long", &*body)]);
    assert_eq!(bench.socket(worker).take_frames(), [Frame::close(1000, "")]);
}

#[test]
fn a_workspace_leaves_when_its_long_calls_are_read() {
    for turns in 0..30 {
        let mut bench = bench(false);
        bench.pair("quiet");
        let worker = bench.open("worker", "t");
        let (long, body) = call("long", 200_000);
        bench.socket(worker).send(&frames::text(long.as_bytes()));
        bench.steps(turns);
        let command = Command::Move { workspace_id: "w".into(), to: ShardId(1) };
        bench.command(ShardId(0), command);
        bench.until("a move", |bench| bench.ledger.moved.len() == 1);
        bench.until("the call", |bench| !bench.ledger.calls.is_empty());
        bench.steps(50);
        assert_eq!(called(&bench), [("long", &*body)], "a move after {turns} turns");
    }
}

/// What a call's connection brought along from another shard lies in one piece.
#[test]
fn a_call_that_moved_when_it_was_nearly_whole_is_read_a_portion_at_a_time() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("quiet");
    let worker = bench.open("worker", "t");
    let (long, body) = call("long", 600_000);
    let frame = frames::text(long.as_bytes());
    let (most, last) = cut(&frame);
    bench.socket(worker).send(most);
    received(&mut bench, worker);
    let command = Command::Move { workspace_id: "w".into(), to: ShardId(1) };
    bench.command(ShardId(0), command);
    bench.until("a move", |bench| bench.ledger.moved.len() == 1);
    bench.steps(20);
    bench.socket(client).send(&frames::text(&frames::envelope(0, 100)));
    bench.until("it arrives", |bench| !bench.socket(daemon).take_frames().is_empty());
    bench.socket(worker).send(last);
    let mut turns = 0;
    while bench.ledger.calls.is_empty() {
        bench.step();
        turns += 1;
    }
    assert_eq!(called(&bench), [("long", &*body)]);
    assert!(turns >= 15, "600 kB were read in {turns} turns");
}

/// What a hand-over writes down in the middle of it.
#[test]
fn a_long_call_survives_that_everything_is_written_down_and_read_back() {
    for binary in [false, true] {
        let mut bench = bench(false);
        bench.pair("quiet");
        let worker = bench.open("worker", "t");
        let (long, body) = call("long", 200_000);
        let mut text = long.into_bytes();
        let end = text.len() - 10;
        let opcode = if binary { 0x82 } else { 0x81 };
        if binary {
            text[end] = 0xff;
        }
        bench.socket(worker).send(&frames::masked(opcode, &text));
        let mut turns = 0;
        while bench.ledger.calls.is_empty() {
            bench.shard(0).rewrite().expect("it can be read back");
            bench.step();
            turns += 1;
            assert!(turns < 1000, "it is read at last");
        }
        let read = called(&bench)[0].1.to_owned();
        assert!(read == body || binary && read.contains('\u{fffd}'), "{} bytes", read.len());
    }
}

#[test]
fn a_long_call_of_somebody_else_is_refused_once() {
    let mut bench = bench(false);
    bench.pair("quiet");
    let client = bench.open("client", "t");
    let (long, _) = call("long", 200_000);
    bench.socket(client).send(&frames::text(long.as_bytes()));
    bench.until("it is refused", |bench| bench.counted(Counter::FramesClientRejected) > 0);
    bench.steps(50);
    assert_eq!(bench.counted(Counter::FramesClientRejected), 1);
    assert!(bench.ledger.calls.is_empty());
}
