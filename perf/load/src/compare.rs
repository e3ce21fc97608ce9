//! `relay-load compare`: a relay against the limit, in one run.
//!
//! Both processes live the whole time and share a processor; only the one being measured has load.
//! Rounds go relay, pass-through, pass-through, relay, so that a machine that drifts drifts for
//! both alike.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::Compare;
use crate::figures::{Spread, Window, write_json};
use crate::generator::Generator;
use crate::pair::Shape;
use crate::pairs::start_relay;
use crate::processor::{self, Machine};
use crate::subject::Subject;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    relay: String,
    shape: Shape,
    seconds: f64,
    relay_windows: Vec<Window>,
    passthrough_windows: Vec<Window>,
    relay_cpu_ns_per_frame: Spread,
    passthrough_cpu_ns_per_frame: Spread,
    /// Relay over pass-through, round by round.
    ratio: Spread,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Compare) -> Result<()> {
    let load = &arguments.load;
    let shape = load.shape();
    let relay = start_relay(load)?;
    let passthrough = Subject::passthrough(shape.pairs, load.processors())?;
    println!("opening {} pairs at both", shape.pairs);
    let mut relay_load = Generator::open(&relay, shape)?;
    let mut passthrough_load = Generator::open(&passthrough, shape)?;
    let warm_up = Duration::from_secs_f64(load.warm_up);
    let window = Duration::from_secs_f64(load.seconds);
    let (mut relay_windows, mut passthrough_windows) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        for is_relay in [true, false, false, true] {
            let (name, generator, windows) = if is_relay {
                ("relay", &mut relay_load, &mut relay_windows)
            } else {
                ("pass-through", &mut passthrough_load, &mut passthrough_windows)
            };
            let measured = generator.measure(warm_up, window)?;
            println!("{round}/{}  {name:<12} {}", arguments.rounds, measured.line());
            windows.push(measured);
        }
    }
    let report = Report {
        machine: processor::machine(),
        relay: load.relay_name(),
        shape,
        seconds: load.seconds,
        relay_cpu_ns_per_frame: cpu(&relay_windows),
        passthrough_cpu_ns_per_frame: cpu(&passthrough_windows),
        ratio: Spread::of(ratios(&relay_windows, &passthrough_windows)),
        relay_windows,
        passthrough_windows,
    };
    report.print();
    write_json(load.json.as_deref(), &report)
}

impl Report {
    fn print(&self) {
        let line = |name: &str, spread: Spread| {
            println!(
                "{name:<12} {:>7.3} µs CPU/frame   ({:.3} to {:.3})",
                spread.median / 1e3,
                spread.least / 1e3,
                spread.most / 1e3
            );
        };
        println!();
        line("relay", self.relay_cpu_ns_per_frame);
        line("pass-through", self.passthrough_cpu_ns_per_frame);
        let Spread { median, least, most } = self.ratio;
        println!("ratio        {median:>7.3}                ({least:.3} to {most:.3})");
    }
}

fn cpu(windows: &[Window]) -> Spread {
    Spread::of(windows.iter().map(|window| window.cpu_ns_per_frame))
}

/// Each round's two windows of the one over the round's two of the other.
fn ratios(relay: &[Window], passthrough: &[Window]) -> impl Iterator<Item = f64> {
    let sum = |pair: &[Window]| pair.iter().map(|window| window.cpu_ns_per_frame).sum::<f64>();
    relay
        .chunks(2)
        .zip(passthrough.chunks(2))
        .map(move |(relay, passthrough)| sum(relay) / sum(passthrough))
}
