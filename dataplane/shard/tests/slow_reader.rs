//! A daemon that stops reading, on real sockets: what the kernel has parked goes on when it can.

mod bench;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use relay_contract::{Counter, Limits};
use relay_driver::{Choice, Uring};

use crate::bench::{Bench, masked};

/// How long a peer waits for the relay, and then has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the shard may sleep. Longer than [`PATIENCE`]: a wake-up that is lost shows.
const SLEEP: Duration = Duration::from_secs(15);

/// What the shard has come to, for the peers' thread.
#[derive(Default)]
struct Progress {
    /// Connections closed because they read too slowly.
    overflows: AtomicU64,
    /// The peers are done.
    over: AtomicBool,
}

impl Progress {
    fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Acquire)
    }
}

/// The daemon reads nothing until it is given up, and its client none of the answers it then gets.
/// Then first the daemon reads, and the client afterwards: each gets whole frames, then 4008.
fn both_are_told(choice: Choice) {
    let limits = Limits {
        egress_bytes_max: 64 << 10,
        runtime_per_minute: u32::MAX,
        runtime_per_minute_workspace: u32::MAX,
        unrouted_per_minute: u32::MAX,
        ..Limits::default()
    };
    let mut bench = Bench::new(choice, limits);
    let daemon = bench.connect("workspace-daemon");
    let client = bench.connect("client");
    let progress = Progress::default();
    thread::scope(|scope| {
        let peers = scope.spawn(|| {
            let mut sockets = (daemon, client);
            // Before the sockets: their end wakes the shard.
            let _end = End(&progress);
            play(&mut sockets.0, &mut sockets.1, &progress);
        });
        while !progress.over.load(Ordering::Acquire) {
            bench.shard.turn(Some(SLEEP)).expect("the kernel turns");
            let overflows = bench.shard.counters().of(Counter::WsSlowClientTerminated);
            progress.overflows.store(overflows, Ordering::Release);
        }
        peers.join().expect("the peers saw what they should");
    });
}

/// Says that the peers are done, whether they saw what they should or not.
struct End<'p>(&'p Progress);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

fn play(daemon: &mut TcpStream, client: &mut TcpStream, progress: &Progress) {
    for socket in [&*daemon, &*client] {
        socket.set_nonblocking(false).expect("a socket can");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket can");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket can");
    }
    let (frame, forwarded) = masked(envelope(4096).as_bytes());
    flood(client, &frame.repeat(16), || progress.overflows() == 1);
    let (small, _) = masked(envelope(150).as_bytes());
    flood(client, &small.repeat(16), || progress.overflows() == 2);

    let told = until_told(daemon);
    assert_eq!(told.len() % forwarded, 0, "whole frames");
    let mut frames = told.chunks(forwarded);
    let first = frames.next().expect("there is one");
    assert!(first.ends_with(b"\"}") && frames.all(|frame| frame == first), "as they were sent");
    let answers = until_told(client);
    assert!(String::from_utf8_lossy(&answers).contains("DAEMON_UNAVAILABLE"));

    // Neither is cut: each answers, and only then the relay ends it.
    for socket in [daemon, client] {
        socket.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa8]).expect("it is still read");
        assert_eq!(socket.read(&mut [0]).expect("it ends"), 0, "nothing but FIN follows");
    }
}

/// Sends the same bytes over and over.
fn flood(client: &mut TcpStream, bytes: &[u8], is_over: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_over() {
        client.write_all(bytes).expect("the relay reads whatever it does with it");
        assert!(begun.elapsed() < 4 * PATIENCE, "nobody is given up");
    }
}

/// What came before 4008.
fn until_told(socket: &mut TcpStream) -> Vec<u8> {
    let close = b"\x88\x11\x0f\xa8buffer overflow";
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !bytes.ends_with(close) {
        let read = socket.read(&mut buffer).expect("the relay has more to say");
        assert_ne!(read, 0, "4008 comes before the end");
        bytes.extend_from_slice(&buffer[..read]);
    }
    bytes.truncate(bytes.len() - close.len());
    bytes
}

/// What a client sends to its daemon.
fn envelope(ciphertext_bytes: usize) -> String {
    format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","epoch":1,"#,
            r#""seq":1,"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        "x".repeat(ciphertext_bytes)
    )
}

#[test]
fn a_slow_reader_and_its_client_that_reads_no_answer_are_both_told_on_the_ring() {
    if let Err(unsupported) = Uring::probe() {
        return eprintln!("not run: {}", unsupported.reason);
    }
    both_are_told(Choice::Uring);
}

#[test]
fn a_slow_reader_and_its_client_that_reads_no_answer_are_both_told_on_the_fallback() {
    both_are_told(Choice::Epoll);
}
