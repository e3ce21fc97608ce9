//! `relay-load compare`: a relay against rivals and limits, in one run.
//!
//! All processes of a point live the whole time and share a processor; only the one being measured
//! has load. A round goes through all of them and back (relay, axum, axum, relay), so that a
//! machine that drifts drifts for all alike.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arguments::{Compare, Load};
use crate::contender::Contender;
use crate::figures::{Spread, Window, write_json};
use crate::generator::Generator;
use crate::goals::Share;
use crate::guard::{self, Guard, Watched};
use crate::pair::Shape;
use crate::processor::{self, Resident};
use crate::subject::Subject;
use crate::trial::Header;

/// Bytes of a message, and frames in flight per pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Point {
    payload_bytes: usize,
    depth: usize,
}

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    relay: String,
    rounds: usize,
    seconds: f64,
    points: Vec<PointReport>,
}

/// What one point showed.
#[derive(Debug, Serialize)]
struct PointReport {
    shape: Shape,
    /// The relay first.
    contenders: Vec<Standing>,
}

/// What was measured of one contender.
#[derive(Debug, Serialize)]
struct Standing {
    name: &'static str,
    cpu_ns_per_frame: Spread,
    /// The relay's processor time per frame over this one's, round by round.
    relay_over_this: Spread,
    /// The most that ratio may be.
    goal: Option<Share>,
    frames_per_s: Spread,
    latency_p50_ns: Spread,
    latency_p99_ns: Spread,
    latency_p999_ns: Spread,
    /// After the last window.
    resident: Resident,
    /// Two per round, out and back.
    windows: Vec<Window>,
    /// What was seen of the machine in each.
    watched: Vec<Watched>,
}

/// A contender while it is measured.
struct Lane {
    contender: Contender,
    subject: Subject,
    generator: Generator,
    windows: Vec<Window>,
    watched: Vec<Watched>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Compare) -> Result<()> {
    let load = &arguments.load;
    let given = Point { payload_bytes: load.shape.payload, depth: load.shape.depth };
    let points = if arguments.points.is_empty() { vec![given] } else { arguments.points.clone() };
    let mut report = Report {
        header: load.trial.header()?,
        relay: load.trial.relay_name(),
        rounds: arguments.rounds,
        seconds: load.seconds,
        points: Vec::new(),
    };
    for point in points {
        report.points.push(measure(arguments, point)?);
        // Written after each point: a run of many is long.
        write_json(load.trial.json.as_deref(), &report)?;
    }
    println!();
    for point in &report.points {
        point.print();
    }
    let contenders = report.points.iter().flat_map(|point| &point.contenders);
    load.trial.judge(&guard::found(contenders.flat_map(|standing| &standing.watched)))
}

fn measure(arguments: &Compare, point: Point) -> Result<PointReport> {
    let load = &arguments.load;
    let Point { payload_bytes, depth } = point;
    let shape = Shape { payload_bytes, depth, ..load.shape() };
    println!("{payload_bytes} B, depth {depth}: opening {} pairs at each", shape.pairs);
    let stage = load.stage()?;
    let mut lanes = std::iter::once(Contender::Relay)
        .chain(arguments.against.iter().copied())
        .map(|contender| {
            let subject = contender.start(&stage);
            let subject = subject.with_context(|| format!("starting {}", contender.name()))?;
            let generator = Generator::open(&subject, shape).with_context(|| contender.name())?;
            Ok(Lane { contender, subject, generator, windows: Vec::new(), watched: Vec::new() })
        })
        .collect::<Result<Vec<_>>>()?;
    for round in 1..=arguments.rounds {
        let out_and_back = (0..lanes.len()).chain((0..lanes.len()).rev());
        for index in out_and_back {
            let line = lanes[index].measure(load)?;
            println!("{round}/{}  {line}", arguments.rounds);
        }
    }
    let relay_windows = lanes[0].windows.clone();
    let contenders = lanes.into_iter().map(|lane| lane.finish(&relay_windows, point));
    Ok(PointReport { shape, contenders: contenders.collect::<Result<_>>()? })
}

impl Lane {
    /// Measures one window and describes it in a line.
    fn measure(&mut self, load: &Load) -> Result<String> {
        let name = self.contender.name();
        let warm_up = Duration::from_secs_f64(load.warm_up);
        let window = Duration::from_secs_f64(load.seconds);
        let guard = Guard::start(&[self.subject.process()], load.trial.processors())?;
        let window = self.generator.measure(warm_up, window).with_context(|| name)?;
        self.watched.push(guard.finish()?);
        self.windows.push(window);
        Ok(format!("{name:<18} {}", window.line()))
    }

    fn finish(self, relay: &[Window], point: Point) -> Result<Standing> {
        let resident = processor::resident(self.subject.process())?;
        let windows = self.windows;
        let spread = |of: fn(&Window) -> f64| Spread::of(windows.iter().map(of));
        Ok(Standing {
            name: self.contender.name(),
            cpu_ns_per_frame: spread(|window| window.cpu_ns_per_frame),
            relay_over_this: Spread::of(ratios(relay, &windows)),
            goal: Share::of(self.contender.name(), point.payload_bytes as u64, point.depth as u64),
            frames_per_s: spread(|window| window.frames_per_s),
            latency_p50_ns: spread(|window| window.latency_p50_ns as f64),
            latency_p99_ns: spread(|window| window.latency_p99_ns as f64),
            latency_p999_ns: spread(|window| window.latency_p999_ns as f64),
            resident,
            watched: self.watched,
            windows,
        })
    }
}

impl PointReport {
    fn print(&self) {
        let Shape { payload_bytes, depth, pairs, .. } = self.shape;
        println!("{payload_bytes} B, depth {depth}, {pairs} pairs");
        println!(
            "{:<18} {:>24}   {:>22} {:<16} {:>10} {:>8} {:>8} {:>8}",
            "",
            "CPU/frame, µs",
            "relay ÷ this",
            "  goal",
            "frames/s",
            "p50, µs",
            "p99, µs",
            "RSS, MiB"
        );
        for standing in &self.contenders {
            standing.print();
        }
        println!();
    }
}

impl Standing {
    fn print(&self) {
        let cpu = shown(self.cpu_ns_per_frame, 1e3);
        let ratio = self.relay_over_this.median;
        let verdict = self.goal.map(|goal| goal.verdict(ratio)).unwrap_or_default();
        println!(
            "{:<18} {cpu:>24}   {:>22}   {verdict:<14} {:>10.0} {:>8.0} {:>8.0} {:>8.1}",
            self.name,
            shown(self.relay_over_this, 1.0),
            self.frames_per_s.median,
            self.latency_p50_ns.median / 1e3,
            self.latency_p99_ns.median / 1e3,
            self.resident.total_bytes as f64 / f64::from(1 << 20)
        );
    }
}

/// A median and its spread.
fn shown(Spread { median, least, most }: Spread, unit: f64) -> String {
    format!("{:.3} ({:.3}–{:.3})", median / unit, least / unit, most / unit)
}

/// Each round's two windows of the one over the round's two of the other.
fn ratios(relay: &[Window], other: &[Window]) -> impl Iterator<Item = f64> {
    let sum = |round: &[Window]| round.iter().map(|window| window.cpu_ns_per_frame).sum::<f64>();
    relay.chunks(2).zip(other.chunks(2)).map(move |(relay, other)| sum(relay) / sum(other))
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(payload, depth)| {
            let (payload_bytes, depth) = (payload.parse().ok()?, depth.parse().ok()?);
            (depth > 0).then_some(Self { payload_bytes, depth })
        });
        parsed.ok_or_else(|| "bytes and depth, such as 256x16".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn window(cpu_ns: u64) -> Window {
        let latency = Histogram::new(3).expect("three digits");
        Window::new(1, 1_000_000, cpu_ns, &latency)
    }

    #[test]
    fn a_point_is_bytes_and_depth() {
        assert_eq!("256x16".parse(), Ok(Point { payload_bytes: 256, depth: 16 }));
        for text in ["256", "256x", "x16", "256x0", "256x16x1"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_ratio_takes_both_windows_of_a_round() {
        let relay = [1, 3, 4, 4].map(window);
        let other = [2, 2, 1, 1].map(window);
        assert_eq!(ratios(&relay, &other).collect::<Vec<_>>(), [1.0, 4.0]);
    }
}
