//! What a forwarded frame costs once everything has its working size: no allocation, no copy.

mod bench;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use relay_contract::{Counter, Limits};
use relay_driver::{Choice, Uring};

use crate::bench::{Bench, masked};

fn limits() -> Limits {
    Limits {
        runtime_per_minute: u32::MAX,
        runtime_per_minute_workspace: u32::MAX,
        ..Limits::default()
    }
}

/// Sends the bytes and turns until as many bytes as expected came out at the other end.
fn forward(
    bench: &mut Bench,
    from: &mut TcpStream,
    to: &mut TcpStream,
    bytes: &[u8],
    expected: usize,
) {
    from.write_all(bytes).expect("the socket has room");
    let mut received = 0;
    let mut buffer = [0; 64 << 10];
    while received < expected {
        bench.turn();
        loop {
            match to.read(&mut buffer) {
                Ok(count) => received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn a_forwarded_frame_costs_nothing(choice: Choice) {
    let mut bench = Bench::new(choice, limits());
    let mut daemon = bench.connect("workspace-daemon");
    let mut client = bench.connect("client");
    let text = format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","epoch":1,"#,
            r#""seq":1,"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        "x".repeat(150)
    );
    let (frame, forwarded) = masked(text.as_bytes());
    // Sixteen frames in one write, as a pipelining client sends them.
    let burst = frame.repeat(16);
    for _ in 0..200 {
        forward(&mut bench, &mut client, &mut daemon, &burst, forwarded * 16);
    }
    let before = bench.shard.counters();
    let cost = allocation_counter::measure(|| {
        for _ in 0..200 {
            forward(&mut bench, &mut client, &mut daemon, &burst, forwarded * 16);
        }
    });
    let after = bench.shard.counters();
    let counted = |counter| after.of(counter) - before.of(counter);
    assert_eq!(counted(Counter::FramesClientToDaemon), 3200);
    assert_eq!(counted(Counter::CopiedBytes), 0, "no byte was copied");
    assert_eq!(cost.count_total, 0, "{} bytes were allocated", cost.bytes_total);
}

/// The driver's tables and the switchboard's count; what doubles as it grows is mostly empty.
#[test]
fn an_idle_connection_holds_no_more_than_it_is_charged() {
    const CONNECTIONS: usize = 256;
    let mut bench = Bench::new(Choice::Epoll, limits());
    let _daemon = bench.connect("workspace-daemon");
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let before = bench.shard.audit().charged_bytes;
    let cost = allocation_counter::measure(|| {
        clients.extend((0..CONNECTIONS).map(|_| bench.connect("client")));
    });
    let charged = bench.shard.audit().charged_bytes - before;
    assert_eq!(charged, CONNECTIONS * relay_shard::IDLE_CONNECTION_BYTES);
    let held = usize::try_from(cost.bytes_current).expect("connections take memory");
    assert!(held <= charged, "{held} bytes held where {charged} are charged");
}

#[test]
fn a_forwarded_frame_allocates_and_copies_nothing_on_the_ring() {
    if let Err(unsupported) = Uring::probe() {
        return eprintln!("not run: {}", unsupported.reason);
    }
    a_forwarded_frame_costs_nothing(Choice::Uring);
}

#[test]
fn a_forwarded_frame_allocates_and_copies_nothing_on_the_fallback() {
    a_forwarded_frame_costs_nothing(Choice::Epoll);
}
