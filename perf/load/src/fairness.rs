//! `relay-load fairness`: what a bad neighbour does to the latency of quiet pairs.
//!
//! Quiet pairs send at a fixed rate all the time. Windows without and with the neighbour alternate
//! in one run, so that a machine that drifts drifts for both alike; what counts is the ratio of the
//! two windows of a round. The neighbour called nobody shows what that ratio is when nothing
//! disturbs: no difference below its spread means anything.
//!
//! The neighbour's thread shares the load's processor with the one that measures. So that the
//! figures are the relay's, that one goes first and a message has arrived when the kernel says so,
//! not when it is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::arguments::Fairness;
use crate::disturber::{Neighbour, Signals};
use crate::figures::{Spread, write_json};
use crate::guard::{self, Guard, Watched};
use crate::metronome::{Beat, Metronome};
use crate::platform;
use crate::processor;
use crate::subject::Subject;
use crate::trial::Header;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    relay: String,
    pairs: usize,
    messages_per_s_and_pair: usize,
    seconds: f64,
    neighbours: Vec<Verdict>,
}

/// One kind of neighbour.
#[derive(Debug, Serialize)]
struct Verdict {
    neighbour: Neighbour,
    without: Vec<Beat>,
    with: Vec<Beat>,
    /// With over without, round by round.
    p50_ratio: Spread,
    p99_ratio: Spread,
    /// Share of its processor that the relay used while disturbed.
    cpu_share: Spread,
    /// What was seen of the machine in each round.
    watched: Vec<Watched>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Fairness) -> Result<()> {
    let platform = platform::start()?;
    let trial = &arguments.trial;
    let processors = trial.processors();
    let driver = trial.driver.as_deref();
    let subject = Subject::relay(&trial.relay()?, driver, platform, processors, SLOW_READER_BYTES)?;
    // Its control plane does not: that it steps back behind the shard is the relay's own affair.
    let shard_first = processor::run_threads_first(subject.process(), "shard-", URGENCY)?;
    if !(processor::run_first(URGENCY) && shard_first) {
        println!("not allowed to go before the machine's other work: expect more noise");
    }
    let mut metronome = Metronome::open(&subject, arguments.pairs, arguments.rate)?;
    let kinds = match arguments.neighbour {
        Some(kind) => vec![kind],
        None => Neighbour::ALL.to_vec(),
    };
    let mut report = Report {
        header: trial.header()?,
        relay: trial.relay_name(),
        pairs: arguments.pairs,
        messages_per_s_and_pair: arguments.rate,
        seconds: arguments.seconds,
        neighbours: Vec::new(),
    };
    let mut turn = 1;
    for kind in kinds {
        let (mut without, mut with, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let mut watched = Vec::new();
        for round in 1..=arguments.rounds {
            let guard = Guard::start(&[subject.process()], processors)?;
            let quiet = metronome.measure(WARM_UP, window(arguments))?;
            let (loud, share) = beside(kind, &subject, &mut metronome, turn, arguments)?;
            watched.push(guard.finish()?);
            turn += 1;
            println!(
                "{round}/{}  {kind:?}: p50 {} -> {} µs, p99 {} -> {} µs ({:.0} % of its processor)",
                arguments.rounds,
                quiet.p50_ns / 1000,
                loud.p50_ns / 1000,
                quiet.p99_ns / 1000,
                loud.p99_ns / 1000,
                share * 100.0
            );
            without.push(quiet);
            with.push(loud);
            shares.push(share);
        }
        report.neighbours.push(Verdict {
            neighbour: kind,
            p50_ratio: ratio(&without, &with, |beat| beat.p50_ns),
            p99_ratio: ratio(&without, &with, |beat| beat.p99_ns),
            cpu_share: Spread::of(shares),
            without,
            with,
            watched,
        });
    }
    report.print();
    write_json(trial.json.as_deref(), &report)?;
    trial.judge(&guard::found(report.neighbours.iter().flat_map(|verdict| &verdict.watched)))
}

/// One window beside a neighbour, and the share of its processor that the relay used.
fn beside(
    kind: Neighbour,
    subject: &Subject,
    metronome: &mut Metronome,
    turn: usize,
    arguments: &Fairness,
) -> Result<(Beat, f64)> {
    let signals = Signals::default();
    std::thread::scope(|scope| {
        let disturb = || kind.disturb(subject, turn, arguments.idle, &signals);
        let thread = scope.spawn(disturb);
        while !signals.ready.load(Ordering::Acquire) && !thread.is_finished() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let used_ns = processor::used_ns(subject.process())?;
        let start = processor::now_ns();
        let measured = metronome.measure(WARM_UP, window(arguments));
        let elapsed_ns = processor::now_ns() - start;
        let used_ns = processor::used_ns(subject.process())? - used_ns;
        signals.stop.store(true, Ordering::Release);
        thread.join().map_err(|_| anyhow!("the neighbour's thread panicked"))??;
        Ok((measured?, used_ns as f64 / elapsed_ns.max(1) as f64))
    })
}

fn window(arguments: &Fairness) -> Duration {
    Duration::from_secs_f64(arguments.seconds)
}

fn ratio(without: &[Beat], with: &[Beat], figure: impl Fn(&Beat) -> u64) -> Spread {
    let pairs = without.iter().zip(with);
    Spread::of(pairs.map(|(quiet, loud)| figure(loud) as f64 / figure(quiet).max(1) as f64))
}

impl Report {
    fn print(&self) {
        println!();
        let micros = |beats: &[Beat], figure: fn(&Beat) -> u64| {
            Spread::of(beats.iter().map(|beat| figure(beat) as f64 / 1e3)).median
        };
        for verdict in &self.neighbours {
            let Spread { median, least, most } = verdict.p99_ratio;
            println!(
                "{:<12} p50 {:>5.0} -> {:>5.0} µs (ratio {:.2})   p99 {:>5.0} -> {:>5.0} µs (ratio \
                 {median:.2}, {least:.2} to {most:.2})   relay at {:.0} %",
                format!("{:?}", verdict.neighbour),
                micros(&verdict.without, |beat| beat.p50_ns),
                micros(&verdict.with, |beat| beat.p50_ns),
                verdict.p50_ratio.median,
                micros(&verdict.without, |beat| beat.p99_ns),
                micros(&verdict.with, |beat| beat.p99_ns),
                verdict.cpu_share.median * 100.0
            );
        }
    }
}

/// Bytes that may wait for a slow reader: the relay's own default.
const SLOW_READER_BYTES: usize = 4 << 20;
/// Of the shard and of the thread that measures.
const URGENCY: i32 = 2;
/// Load before each window.
const WARM_UP: Duration = Duration::from_millis(100);
