//! Streams that are almost right, in pieces of any size.

use std::time::Duration;

use relay_contract::{Counter, Limits};
use relay_driver::Config;
use relay_driver::sim::{Faults, Seed};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, TEXT};

/// Requests, an upgrade and frames of all kinds, behind each other.
fn stream(seed: &mut Seed, role: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if seed.below(2) == 0 {
        bytes.extend(frames::get("/health").into_bytes());
        bytes.extend(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    }
    bytes.extend(frames::upgrade(role, "t").into_bytes());
    for index in 0..20 {
        let len = seed.length(3000);
        let payload = frames::envelope(index, len);
        let (head, tail) = payload.split_at(payload.len() / 2);
        bytes.extend(match seed.below(6) {
            0 => frames::ping(b"p"),
            1 => frames::masked(0x82, &payload),
            2 => [frames::masked(TEXT, head), frames::masked(0x80, tail)].concat(),
            3 => {
                [frames::masked(TEXT, head), frames::ping(b""), frames::masked(0x80, tail)].concat()
            }
            _ => frames::text(&payload),
        });
    }
    bytes.extend(frames::close(1000));
    bytes
}

/// Changes a few bytes, most of them in the frames.
fn spoil(seed: &mut Seed, bytes: &mut [u8]) {
    let spared = if seed.below(4) == 0 { 0 } else { 350.min(bytes.len() - 1) };
    for _ in 0..seed.below(4) {
        let at = spared + seed.below((bytes.len() - spared) as u64) as usize;
        bytes[at] ^= 1 << seed.below(8);
    }
}

/// Plays the streams of one seed; returns how many frames reached the daemon.
fn play(start: u64, encrypted: bool) -> u64 {
    // Shown when the test fails.
    println!("seed {start}");
    let mut seed = Seed::new(start);
    let faults = Faults { socket_bytes: 256 << seed.below(8), ..Faults::none() };
    let limits = Limits {
        head_timeout: Duration::from_secs(3),
        tls_handshake_timeout: Duration::from_secs(3),
        egress_bytes_max: 1 << seed.below(17),
        ..Setup::default().limits
    };
    let driver = Config { buffer_count: 8, buffer_bytes: 1024, ..Setup::default().driver };
    let mut bench = Bench::new(Setup { faults, limits, driver, encrypted, ..Setup::default() });
    let mut peers: Vec<(SocketId, Vec<u8>)> = Vec::new();
    for role in ["workspace-daemon", "client", "client"] {
        let mut bytes = stream(&mut seed, role);
        spoil(&mut seed, &mut bytes);
        peers.push((bench.connect(), bytes));
    }
    for _ in 0..150 {
        for (id, bytes) in &mut peers {
            let taken = seed.length(bytes.len().min(1000));
            bench.socket(*id).send(&bytes[..taken]);
            bytes.drain(..taken);
            bench.socket(*id).reads ^= seed.below(20) == 0;
        }
        bench.shard(0).rewrite().expect("what was written down can be read");
        bench.step();
        assert!(bench.audit().pinned_leases <= 2);
    }
    let (first, _) = peers[0];
    bench.socket(first).shutdown();
    bench.pass(Duration::from_secs(8));
    bench.reset_all();
    bench.pass(Duration::from_secs(4));
    bench.assert_nothing_is_left(&format!("seed {start}, encrypted: {encrypted}"));
    bench.counted(Counter::FramesClientToDaemon)
}

#[test]
fn almost_valid_streams_leave_nothing_behind() {
    let forwarded: u64 = (0..200).map(|start| play(start, false)).sum();
    assert!(forwarded > 1000, "most of it is valid: {forwarded}");
}

#[test]
fn almost_valid_streams_leave_nothing_behind_under_tls() {
    let forwarded: u64 = (0..60).map(|start| play(start, true)).sum();
    assert!(forwarded > 300, "most of it is valid: {forwarded}");
}

#[test]
fn a_breach_and_an_oversize_message_are_counted_apart() {
    let limits = Limits { frame_bytes_max: 1000, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, ..Setup::default() });
    for (bytes, breaches, oversize) in [
        (frames::masked(0x83, b"reserved"), 1, 0),
        (frames::text(&[b' '; 1001]), 1, 1),
        (frames::text(&[b' '; 1000]), 1, 1),
    ] {
        let client = bench.open("client", "t");
        bench.socket(client).send(&bytes);
        bench.steps(5);
        assert_eq!(bench.counted(Counter::ProtocolViolations), breaches);
        assert_eq!(bench.counted(Counter::MessagesTooLarge), oversize);
    }
}
