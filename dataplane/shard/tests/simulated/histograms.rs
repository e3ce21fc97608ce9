//! What a shard measures of itself.

use std::time::Duration;

use relay_contract::{Counter, Histogram, Limits, Measure, Refusal};
use relay_driver::Config;
use relay_driver::sim::Faults;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames;

/// The time from one turn to the next, in nanoseconds.
const STEP: u64 = 1_000_000;

fn send(bench: &mut Bench, client: SocketId, count: usize) {
    let frames = (0..count).flat_map(|seq| frames::text(&frames::envelope(seq, 200)));
    let bytes: Vec<u8> = frames.collect();
    bench.socket(client).send(&bytes);
}

/// Values as the lowest of their buckets, and how many there were.
fn values(histogram: &Histogram) -> Vec<(u64, u64)> {
    histogram.buckets().map(|bucket| (bucket.low, bucket.count)).collect()
}

fn is_about(value: u64, expected: u64) -> bool {
    (expected - expected / 32..=expected).contains(&value)
}

#[test]
fn a_hop_lasts_from_the_turn_that_received_to_the_turn_that_learnt_of_the_send() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let (daemon, client) = bench.pair("t");
        send(&mut bench, client, 3);
        bench.until("they are there", |bench| bench.socket(daemon).take_frames().len() == 3);
        bench.steps(5);
        let hops = values(&bench.measured(Measure::HopLatency));
        assert_eq!(hops.iter().map(|hop| hop.1).sum::<u64>(), 3, "{encrypted}: {hops:?}");
        assert!(hops.iter().all(|hop| is_about(hop.0, STEP)), "{encrypted}: {hops:?}");
        assert_eq!(values(&bench.measured(Measure::QueueWait)), [(0, 3)]);
        assert_eq!(bench.measured(Measure::SendFrames).sum(), 3);
    }
}

#[test]
fn every_frame_is_measured_once_however_its_bytes_leave() {
    let setup = || Setup {
        driver: Config { buffer_count: 8, buffer_bytes: 2048, ..Setup::default().driver },
        faults: Faults { socket_bytes: 700, ..Faults::none() },
        ..Setup::default()
    };
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..setup() });
        let (daemon, client) = bench.pair("t");
        let mut arrived = 0;
        send(&mut bench, client, 100);
        bench.until("they are there", |bench| {
            arrived += bench.socket(daemon).take_frames().len();
            arrived == 100
        });
        bench.steps(5);
        assert_eq!(bench.counted(Counter::FramesClientToDaemon), 100);
        for measure in [Measure::HopLatency, Measure::QueueWait] {
            assert_eq!(bench.measured(measure).count(), 100, "{encrypted}: {measure:?}");
        }
        assert_eq!(bench.measured(Measure::SendFrames).sum(), 100, "{encrypted}");
    }
}

#[test]
fn a_reader_that_pauses_shows_in_hop_latency_and_queue_wait() {
    let mut bench = Bench::new(Setup {
        faults: Faults { socket_bytes: 300, ..Faults::none() },
        ..Setup::default()
    });
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    // These are in the hands of the kernel, which does not get rid of them; later ones wait behind.
    send(&mut bench, client, 8);
    bench.steps(10);
    send(&mut bench, client, 8);
    bench.steps(50);
    bench.socket(daemon).reads = true;
    bench.steps(50);
    assert_eq!(bench.socket(daemon).take_frames().len(), 16);
    for measure in [Measure::HopLatency, Measure::QueueWait] {
        let slow = values(&bench.measured(measure)).into_iter().filter(|v| v.0 > 40 * STEP);
        assert!(slow.map(|value| value.1).sum::<u64>() >= 4, "{measure:?}");
    }
    let deepest = values(&bench.measured(Measure::EgressDepth)).pop();
    assert!(deepest.is_some_and(|(bytes, _)| bytes > 4 * 200), "{deepest:?}");
}

#[test]
fn a_wait_for_a_turn_with_room_for_large_sends_shows_in_hop_latency() {
    const MESSAGE_BYTES: usize = 40_000;
    let driver = Config { buffer_count: 64, buffer_bytes: 32 << 10, ..Setup::default().driver };
    let faults = Faults { socket_bytes: 1 << 20, gulp: 500_000, ..Faults::none() };
    // What arrives is not what anybody waits for here.
    let limits = Limits { turn_work_max: 64 << 20, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, driver, faults, ..Setup::default() });
    let (_, quiet) = bench.pair("quiet");
    let pairs: Vec<_> = (0..24).map(|index| bench.pair(&format!("large{index}"))).collect();
    for &(_, client) in &pairs {
        bench.socket(client).send(&frames::text(&frames::envelope(0, MESSAGE_BYTES)));
    }
    // In company a turn has room for one or two of these messages.
    for _ in 0..80 {
        send(&mut bench, quiet, 1);
        bench.step();
    }
    for &(daemon, _) in &pairs {
        let frames = bench.socket(daemon).take_frames();
        assert!(frames.iter().any(|frame| frame.payload.len() >= MESSAGE_BYTES));
    }
    let waits = values(&bench.measured(Measure::QueueWait));
    let long: u64 = waits.iter().filter(|wait| wait.0 > STEP).map(|wait| wait.1).sum();
    assert!(long >= 4, "the last of them waited for several turns: {waits:?}");
}

#[test]
fn admissions_are_measured_by_their_outcome() {
    let mut bench = Bench::new(Setup::default());
    bench.open("client", "t");
    bench.office = Office::Refuses(Refusal::BadRequest);
    let refused = bench.request(frames::upgrade("client", "t"));
    assert_eq!(bench.answer(refused).0, 400);
    bench.office = Office::Silent;
    let unanswered = bench.request(frames::upgrade("client", "t"));
    bench.pass(Setup::default().limits.admission_timeout + Duration::from_secs(1));
    assert_eq!(bench.answer(unanswered).0, 503);
    for measure in [Measure::Admitted, Measure::Refused] {
        let [(took, 1)] = values(&bench.measured(measure))[..] else { panic!("{measure:?}") };
        assert!(is_about(took, STEP), "{measure:?}: {took}");
    }
    let [(took, 1)] = values(&bench.measured(Measure::Unanswered))[..] else { panic!("one") };
    assert!(took >= 9 * STEP, "{took}");
}

#[test]
fn each_turn_counts_its_completions_and_its_length() {
    let mut bench = Bench::new(Setup::default());
    bench.steps(7);
    assert_eq!(values(&bench.measured(Measure::TurnCompletions)), [(0, 7)]);
    // No time passes while a simulated shard works.
    assert_eq!(values(&bench.measured(Measure::Turn)), [(0, 7)]);
    bench.pair("t");
    assert!(bench.measured(Measure::TurnCompletions).sum() > 0);
}
