//! A daemon that does not read what its client sends.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Counter, Limits, Routes, ShardId, TenantLimits};
use relay_driver::Config;
use relay_driver::sim::{Faults, PeerState};

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, Frame, TEXT};

fn bench(encrypted: bool) -> Bench {
    Bench::new(Setup {
        encrypted,
        limits: Limits { egress_bytes_max: 64 << 10, ..Setup::default().limits },
        driver: Config { buffer_count: 4, buffer_bytes: 2048, ..Setup::default().driver },
        faults: Faults { socket_bytes: 8 << 10, ..Faults::none() },
        ..Setup::default()
    })
}

/// Sends frames of growing sizes until the relay gives up on the daemon. Returns what was sent.
fn overflow(bench: &mut Bench, daemon: SocketId, client: SocketId) -> Vec<Vec<u8>> {
    bench.socket(daemon).reads = false;
    let overflows = bench.counted(Counter::WsSlowClientTerminated);
    let mut sent = Vec::new();
    bench.until("an overflow", |bench| {
        if bench.socket(client).unsent_bytes() == 0 {
            let payload = frames::envelope(sent.len(), 150 + 97 * (sent.len() % 40));
            bench.socket(client).send(&frames::text(&payload));
            sent.push(payload);
        }
        bench.counted(Counter::WsSlowClientTerminated) > overflows
    });
    sent
}

/// Bursts of five times what may wait for one connection, by the relay's limit or its tenant's own.
fn bursts_are_read(encrypted: bool, is_tenants: bool) {
    const EGRESS_BYTES_MAX: usize = 4 << 10;
    let relays = if is_tenants { 4 << 20 } else { EGRESS_BYTES_MAX };
    let mut bench = Bench::new(Setup {
        encrypted,
        limits: Limits { egress_bytes_max: relays, ..Setup::default().limits },
        driver: Config { buffer_count: 4, buffer_bytes: 32 << 10, ..Setup::default().driver },
        ..Setup::default()
    });
    if is_tenants {
        let own =
            TenantLimits { egress_bytes_max: Some(EGRESS_BYTES_MAX), ..TenantLimits::default() };
        let routes =
            Routes { version: 1, tenants: [("w".into(), own)].into(), ..Routes::default() };
        bench.command(ShardId(0), Command::SetRoutes(Arc::new(routes)));
    }
    let (daemon, client) = bench.pair("t");
    let sent: Vec<_> = (0..24).map(|seq| frames::envelope(seq, 900)).collect();
    let burst: Vec<u8> = sent.iter().flat_map(|payload| frames::text(payload)).collect();
    for _ in 0..5 {
        bench.socket(client).send(&burst);
        bench.steps(10);
        let frames = bench.socket(daemon).take_frames();
        let payloads: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, sent, "encrypted: {encrypted}");
    }
    assert_eq!(bench.counted(Counter::WsSlowClientTerminated), 0);
}

#[test]
fn a_fast_reader_is_not_closed_by_one_turns_burst() {
    for encrypted in [false, true] {
        bursts_are_read(encrypted, false);
    }
}

#[test]
fn a_fast_reader_is_not_closed_by_one_turns_burst_where_its_tenant_may_have_less() {
    for encrypted in [false, true] {
        bursts_are_read(encrypted, true);
    }
}

#[test]
fn a_reader_that_stops_in_the_middle_of_a_burst_is_closed() {
    let mut bench = bench(false);
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    let sent: Vec<u8> =
        (0..200).flat_map(|seq| frames::text(&frames::envelope(seq, 900))).collect();
    bench.socket(client).send(&sent);
    bench.until("it is closed", |bench| bench.counted(Counter::WsSlowClientTerminated) == 1);
    assert!(bench.audit().egress_bytes_max <= (64 << 10) + 2048);
}

fn whole_frames_then_4008(encrypted: bool) {
    let mut bench = bench(encrypted);
    let (daemon, client) = bench.pair("t");
    let sent = overflow(&mut bench, daemon, client);
    bench.steps(20);
    bench.socket(daemon).reads = true;
    bench.steps(200);
    let mut frames = bench.socket(daemon).take_frames();
    assert_eq!(frames.pop(), Some(Frame::close(4008, "buffer overflow")));
    assert!(bench.socket(daemon).incoming.is_empty(), "nothing follows the close frame");
    assert!(!frames.is_empty() && frames.len() < sent.len(), "some were dropped");
    for (frame, payload) in frames.iter().zip(&sent) {
        assert_eq!((frame.opcode, &frame.payload), (TEXT, payload));
    }
    let dropped = bench.counted(Counter::SlowReaderDroppedFrames);
    assert!(dropped > 0, "what was dropped is counted");
}

#[test]
fn a_slow_reader_gets_whole_frames_then_4008() {
    whole_frames_then_4008(false);
}

#[test]
fn a_slow_reader_gets_whole_frames_then_4008_under_tls() {
    whole_frames_then_4008(true);
}

#[test]
fn more_stalled_readers_than_buffers_keep_no_buffer() {
    let mut bench = bench(false);
    let pairs: Vec<_> = (0..6).map(|index| bench.pair(&format!("t{index}"))).collect();
    for &(daemon, client) in &pairs {
        bench.socket(daemon).reads = false;
        for seq in 0..12 {
            bench.socket(client).send(&frames::text(&frames::envelope(seq, 2500)));
        }
    }
    bench.steps(200);
    assert_eq!(bench.buffers_in_use(), 0, "stalled readers pin nothing");
    assert!(bench.audit().egress_bytes_max > 8 << 10, "they are stalled");

    let (daemon, client) = bench.pair("other");
    let payload = frames::envelope(0, 6000);
    bench.socket(client).send(&frames::text(&payload));
    bench.steps(20);
    assert_eq!(bench.socket(daemon).take_frames(), [Frame { opcode: TEXT, payload }]);
}

#[test]
fn a_slow_reader_that_reads_again_in_time_loses_nothing() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (daemon, client) = bench.pair("t");
        bench.socket(daemon).reads = false;
        let sent: Vec<_> = (0..15).map(|seq| frames::envelope(seq, 2500)).collect();
        for payload in &sent {
            bench.socket(client).send(&frames::text(payload));
        }
        bench.steps(100);
        bench.socket(daemon).reads = true;
        bench.steps(100);
        let frames = bench.socket(daemon).take_frames();
        let payloads: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, sent);
    }
}

/// Sends on without reading one answer, until the relay gives up on the client as well.
fn overflow_answers(bench: &mut Bench, client: SocketId) {
    bench.socket(client).reads = false;
    let mut index = 0;
    bench.until("an overflow of answers", |bench| {
        if bench.socket(client).unsent_bytes() == 0 {
            bench.socket(client).send(&frames::text(&frames::envelope(index, 150)));
            index += 1;
        }
        bench.counted(Counter::WsSlowClientTerminated) == 2
    });
}

fn both_are_told(encrypted: bool) {
    let mut bench = bench(encrypted);
    let (daemon, client) = bench.pair("t");
    let sent = overflow(&mut bench, daemon, client);
    overflow_answers(&mut bench, client);

    bench.socket(daemon).reads = true;
    bench.steps(200);
    let mut frames = bench.socket(daemon).take_frames();
    assert_eq!(frames.pop(), Some(Frame::close(4008, "buffer overflow")));
    assert!(bench.socket(daemon).incoming.is_empty(), "nothing follows the close frame");
    let payloads: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
    assert_eq!(payloads, sent[..payloads.len()], "the first frames, whole");

    bench.socket(client).reads = true;
    bench.steps(200);
    let mut answers = bench.socket(client).take_frames();
    assert_eq!(answers.pop(), Some(Frame::close(4008, "buffer overflow")));
    assert!(bench.socket(client).incoming.is_empty(), "nothing follows the close frame");
    let unavailable = |frame: &Frame| {
        let text = String::from_utf8_lossy(&frame.payload);
        frame.opcode == TEXT && text.contains("DAEMON_UNAVAILABLE")
    };
    assert!(!answers.is_empty() && answers.iter().all(unavailable), "whole answers");

    bench.pass(Duration::from_secs(5));
    bench.assert_nothing_is_left("both were told and did not answer");
}

#[test]
fn a_slow_reader_and_its_client_that_reads_no_answer_are_both_told() {
    both_are_told(false);
}

#[test]
fn a_slow_reader_and_its_client_that_reads_no_answer_are_both_told_under_tls() {
    both_are_told(true);
}

#[test]
fn a_slow_reader_is_sent_nothing_more_behind_4008_until_it_answers() {
    for answers in [true, false] {
        let mut bench = bench(false);
        let (daemon, client) = bench.pair("t");
        overflow(&mut bench, daemon, client);
        bench.socket(daemon).reads = true;
        bench.steps(200);
        let told = Some(Frame::close(4008, "buffer overflow"));
        assert_eq!(bench.socket(daemon).take_frames().pop(), told);
        assert_eq!(bench.socket(daemon).state(), PeerState::Open, "the answer is waited for");
        if answers {
            bench.socket(daemon).send(&frames::close(4008));
            bench.steps(20);
        } else {
            // The close timeout of these tests is two seconds.
            bench.pass(Duration::from_secs(1));
            assert_eq!(bench.socket(daemon).state(), PeerState::Open, "not as long as that");
            bench.pass(Duration::from_secs(2));
        }
        assert_ne!(bench.socket(daemon).state(), PeerState::Open, "answers: {answers}");
        assert!(bench.socket(daemon).incoming.is_empty());
    }
}

#[test]
fn a_slow_reader_that_never_reads_again_is_cut() {
    for encrypted in [false, true] {
        let mut bench = bench(encrypted);
        let (daemon, client) = bench.pair("t");
        overflow(&mut bench, daemon, client);
        bench.socket(client).reset();
        bench.pass(Duration::from_secs(5));
        bench.assert_nothing_is_left("a reader that does not read its close frame");
    }
}
