use serde_json::Value;

use super::*;
use crate::readings::Readings;

fn hops(seconds: f64) -> Distribution {
    let mut hops = Distribution::default();
    for (bound, count) in [(seconds * 0.999_999, 0.0), (seconds, 100.0), (f64::INFINITY, 100.0)] {
        hops.add(bound, count);
    }
    hops
}

/// A quarter of a second of work in one, in turns of one frame.
fn shard() -> Shard {
    Shard {
        seconds: 1.0,
        connections: 10.0,
        frames: 25_000.0,
        sends: 25_000.0,
        turns: 25_000.0,
        completions: 50_000.0,
        cpu_s: 0.25 + 0.1,
        cost: Cost { turn: 4e-6, frame: 10e-6 },
        hop: hops(100e-6),
        ..Shard::default()
    }
}

fn alone(shard: &Shard) -> Core<'_> {
    Core { shards: vec![shard] }
}

/// What a recorded load says, whose relay had one processor.
struct Recorded {
    observed: Observed,
    /// What it forwarded for each second of its processor.
    frames_per_cpu_s: f64,
}

fn recorded(name: &str) -> Recorded {
    let loads: Value = serde_json::from_str(include_str!("recorded/loads.json")).expect("JSON");
    let loads = loads["cases"].as_array().expect("loads");
    let load = loads
        .iter()
        .find(|load| load["case"]["name"].as_str().is_some_and(|full| full.starts_with(name)))
        .expect("it was recorded");
    let readings = |when: &str| {
        let lines = load["metrics"][when].as_array().expect("lines");
        let lines: Vec<_> = lines.iter().filter_map(Value::as_str).collect();
        Readings::parse(&lines.join("\n")).expect("a relay wrote it")
    };
    let (earlier, later) = (readings("before"), readings("after"));
    let interval = Interval::between(&earlier, &later).expect("one life");
    let number = |name: &str| load[name].as_f64().expect("a number");
    Recorded {
        observed: Observed::of(&interval, Some(1.0)),
        frames_per_cpu_s: number("frames_per_s") / number("subject_cpu_share"),
    }
}

#[test]
fn a_full_processor_has_room_for_the_frames_and_large_turns() {
    let growth = alone(&shard()).growth().expect("there is enough to go by");
    // 25,000 frames of 10 µs are a quarter; turns of about 20 frames add 2 %.
    assert!((3.85..4.0).contains(&growth), "{growth:?}");
}

#[test]
fn latency_grows_with_what_is_not_left() {
    // At 100 µs with three quarters left, 300 µs are reached with one quarter left.
    let shard = shard();
    let growth = |objective_s| alone(&shard).latency_growth(&shard, objective_s).expect("frames");
    assert!((growth(300e-6) - 3.0).abs() < 0.01);
    assert!(growth(50e-6) < 1.0);
}

#[test]
fn shards_of_one_processor_fill_it_together() {
    let crowd = recorded("crowd");
    assert_eq!(crowd.observed.shards.len(), 12);
    let growth = crowd.observed.growth().expect("it was busy");
    let predicted = crowd.observed.frames_per_s() * growth / crowd.frames_per_cpu_s;
    assert!((0.85..1.15).contains(&predicted), "{predicted}");
    let cores = crowd.observed.cores();
    assert_eq!((cores.len(), cores[0].shards.len()), (1, 12));
    let of_core = cores[0].growth().expect("it was busy");
    assert!((growth..growth * 1.1).contains(&of_core), "{of_core} {growth}");
}

#[test]
fn a_relay_that_is_nearly_full_holds_nearly_what_it_does() {
    for name in ["scaling: 64 pairs", "scaling: 10000 pairs"] {
        let load = recorded(name);
        let growth = load.observed.growth().expect("it was busy");
        let predicted = load.observed.frames_per_s() * growth / load.frames_per_cpu_s;
        assert!((0.85..1.15).contains(&predicted), "{name}: {predicted}");
    }
}

#[test]
fn a_relay_at_a_part_of_its_processor_holds_more_than_in_proportion() {
    for rate in ["20000", "50000"] {
        let name = format!("open-loop: relay, 64 pairs, 256 B, depth 64, {rate}");
        let load = recorded(&name);
        let growth = load.observed.growth().expect("it was busy");
        let predicted = load.observed.frames_per_s() * growth;
        // Turns grow, so a frame costs less than now; but at least as much as at depth 16.
        assert!(predicted > load.frames_per_cpu_s, "{name}: {predicted}");
        assert!(predicted < 600_000.0, "{name}: {predicted}");
    }
}

#[test]
fn latency_at_a_higher_rate_is_foreseen_from_a_lower_one() {
    let [few, many] = ["2", "5"].map(|rate| {
        recorded(&format!("open-loop: relay, 64 pairs, 256 B, depth 64, {rate}0000")).observed
    });
    let measured = many.shards[0].hop.quantile(0.99).expect("there were frames");
    let cores = few.cores();
    let growth = cores[0].latency_growth(&few.shards[0], measured).expect("there were frames");
    let foreseen = few.frames_per_s() * growth / many.frames_per_s();
    assert!((0.85..1.15).contains(&foreseen), "{foreseen}");
}

#[test]
fn connections_that_say_nothing_grow_in_proportion() {
    // Half a million connections, pinged every twenty seconds, at 24 % of a processor.
    let idle = Shard {
        seconds: 1.0,
        connections: 500_000.0,
        turns: 2000.0,
        completions: 50_000.0,
        pings: 25_000.0,
        cpu_s: 0.24,
        ..Shard::default()
    };
    let growth = alone(&idle).growth().expect("it was used");
    assert!((growth * 0.24 - 1.0).abs() < 1e-9, "{growth}");
    assert_eq!(alone(&idle).latency_growth(&idle, 1.0), None);
}

#[test]
fn heartbeats_beside_a_few_frames_grow_with_connections() {
    // 3 % for 25,000 pings, 1 % for 1,000 frames: at 25 times as many connections it is full.
    let turns = 10_000.0;
    let few = Shard {
        seconds: 1.0,
        connections: 500_000.0,
        frames: 1000.0,
        sends: 1000.0,
        turns,
        completions: 52_000.0,
        pings: 25_000.0,
        cpu_s: 0.04,
        cost: Cost { turn: 0.03 / turns, frame: 10e-6 },
        hop: hops(100e-6),
        ..Shard::default()
    };
    let growth = alone(&few).growth().expect("it was used");
    assert!((24.0..27.0).contains(&growth), "{growth}");
}

#[test]
fn turns_are_no_larger_than_the_buffers_they_come_with() {
    let most = |buffers, sends| Shard { buffers, sends, ..shard() }.turn_frames_max();
    assert_eq!(most(64.0, 25_000.0), 32.0);
    assert_eq!(most(64.0, 25_000.0 / 4.0), 128.0);
    assert_eq!(most(4096.0, 25_000.0), 512.0);
}

#[test]
fn what_other_threads_use_is_not_left_for_shards() {
    let observed = |beside| Observed {
        seconds: 1.0,
        driver: "uring".to_owned(),
        shards: vec![shard(), Shard { number: 1, ..shard() }],
        connections: 20.0,
        connections_max: None,
        descriptors: None,
        processors: Some(1.0),
        beside,
        starved: 0.0,
    };
    let growths = [0.0, 0.5].map(|beside| observed(beside).growth().expect("it was used"));
    // Two quarters are the shards'; half as much again is not.
    assert!((1.9..2.0).contains(&growths[0]) && (0.95..1.0).contains(&growths[1]), "{growths:?}");
}

#[test]
fn a_shard_has_a_processor_of_its_own_where_there_are_enough() {
    let shards = || (0..4).map(|number| Shard { number, ..shard() }).collect();
    let numbers = |processors| {
        let observed = Observed { processors, shards: shards(), ..recorded("crowd").observed };
        let cores = observed.cores();
        let of_core = |core: &Core<'_>| core.shards.iter().map(|shard| shard.number).collect();
        cores.iter().map(of_core).collect::<Vec<Vec<u16>>>()
    };
    for processors in [None, Some(4.0), Some(16.0)] {
        assert_eq!(numbers(processors), [[0], [1], [2], [3]]);
    }
    assert_eq!(numbers(Some(3.0)), [vec![0, 3], vec![1], vec![2]]);
    assert_eq!(numbers(Some(0.5)), [[0, 1, 2, 3]]);
}

#[test]
fn processors_of_a_data_plane_apart_are_not_the_control_plane_s() {
    let text = |uptime: u32| {
        format!(
            "relay_uptime_seconds {uptime}\nrelay_processors 8\nprocess_open_fds 9\n\
             process_max_fds 10\nprocess_cpu_seconds_total {uptime}\nrelay_data_planes 1\n"
        )
    };
    let reading = |uptime| Readings::parse(&text(uptime)).expect("it is well formed");
    let (earlier, later) = (reading(1), reading(2));
    let interval = Interval::between(&earlier, &later).expect("one life");
    let observed = Observed::of(&interval, None);
    assert_eq!((observed.processors, observed.descriptors, observed.beside), (None, None, 0.0));
    assert_eq!(Observed::of(&interval, Some(4.0)).processors, Some(4.0));
}
