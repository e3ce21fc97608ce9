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

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
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

/// What quiet pairs are measured on.
enum Stand {
    /// One relay for all rounds; what opens connections has a number of its own each time.
    Relay { subject: Subject, metronome: Box<Metronome>, turn: usize },
    /// A pass-through for each round: it takes all pairs at once and ends with the first of them.
    Passthrough,
}

/// A window without the neighbour and one with it.
struct Round {
    quiet: Beat,
    loud: Beat,
    /// Share of its processor that the process under test used beside the neighbour.
    share: f64,
    watched: Watched,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Fairness) -> Result<()> {
    let trial = &arguments.trial;
    let mut stand = Stand::open(arguments)?;
    let kinds = match arguments.neighbour {
        Some(kind) => vec![kind],
        None => Neighbour::ALL.into_iter().filter(|kind| stand.can_have(*kind)).collect(),
    };
    let mut report = Report {
        header: trial.header()?,
        relay: stand.name(arguments),
        pairs: arguments.pairs,
        messages_per_s_and_pair: arguments.rate,
        seconds: arguments.seconds,
        neighbours: Vec::new(),
    };
    for kind in kinds {
        ensure!(stand.can_have(kind), "{kind:?} cannot be measured on a pass-through");
        let (mut without, mut with, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let mut watched = Vec::new();
        for number in 1..=arguments.rounds {
            let round = stand.round(kind, arguments)?;
            let Round { quiet, loud, share, .. } = round;
            println!(
                "{number}/{} {kind:?}: p50 {} -> {} µs, p99 {} -> {} µs ({:.0} % of its processor)",
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
            watched.push(round.watched);
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

impl Stand {
    fn open(arguments: &Fairness) -> Result<Self> {
        if arguments.passthrough {
            return Ok(Self::Passthrough);
        }
        let trial = &arguments.trial;
        let (driver, processors) = (trial.driver.as_deref(), trial.processors());
        let (program, platform) = (trial.relay()?, platform::start()?);
        let subject = Subject::relay(&program, driver, platform, processors, SLOW_READER_BYTES)?;
        // Its control plane does not: that it steps back behind the shard is the relay's own
        // affair.
        go_first(&subject, "shard-")?;
        let metronome = Metronome::open(&subject, arguments.pairs, arguments.rate)?;
        Ok(Self::Relay { subject, metronome: Box::new(metronome), turn: 0 })
    }

    fn name(&self, arguments: &Fairness) -> String {
        match self {
            Self::Relay { .. } => arguments.trial.relay_name(),
            Self::Passthrough => "pass-through".to_owned(),
        }
    }

    /// Whether a neighbour can be had here.
    fn can_have(&self, kind: Neighbour) -> bool {
        match self {
            Self::Relay { .. } => true,
            Self::Passthrough => kind == Neighbour::Nobody || kind.shape().is_some(),
        }
    }

    fn round(&mut self, kind: Neighbour, arguments: &Fairness) -> Result<Round> {
        match self {
            Self::Relay { subject, metronome, turn } => {
                *turn += 1;
                let guard = Guard::start(&[subject.process()], arguments.trial.processors())?;
                let quiet = metronome.measure(WARM_UP, window(arguments))?;
                let (loud, share) = beside(kind, subject, metronome, *turn, arguments)?;
                Ok(Round { quiet, loud, share, watched: guard.finish()? })
            }
            Self::Passthrough => round_on_passthrough(kind, arguments),
        }
    }
}

/// Lets the threads of the process whose names begin so, and this one, precede all other work.
fn go_first(subject: &Subject, threads: &str) -> Result<()> {
    let is_subject_first = processor::run_threads_first(subject.process(), threads, URGENCY)?;
    if !(relay_arrival::run_first(URGENCY) && is_subject_first) {
        println!("not allowed to go before the machine's other work: expect more noise");
    }
    Ok(())
}

/// Both windows on a pass-through that has the neighbour's pairs from the beginning.
fn round_on_passthrough(kind: Neighbour, arguments: &Fairness) -> Result<Round> {
    let processors = arguments.trial.processors();
    let neighbours = kind.shape().map_or(0, |shape| shape.pairs);
    let subject = Subject::passthrough(arguments.pairs + neighbours, processors)?;
    go_first(&subject, "")?;
    let mut metronome = Metronome::open(&subject, arguments.pairs, arguments.rate)?;
    let guard = Guard::start(&[subject.process()], processors)?;
    let signals = Signals::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| kind.disturb_passthrough(&subject, &signals));
        let until = |signal: &AtomicBool| {
            while !signal.load(Ordering::Acquire) && !thread.is_finished() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        until(&signals.opened);
        let quiet = metronome.measure(WARM_UP, window(arguments));
        signals.begin.store(true, Ordering::Release);
        until(&signals.ready);
        let used_before = processor::used_ns(subject.process());
        let start = processor::now_ns();
        let loud = metronome.measure(WARM_UP, window(arguments));
        let elapsed_ns = processor::now_ns() - start;
        let used = processor::used_ns(subject.process());
        signals.stop.store(true, Ordering::Release);
        thread.join().map_err(|_| anyhow!("the neighbour's thread panicked"))??;
        let share = (used? - used_before?) as f64 / elapsed_ns.max(1) as f64;
        Ok(Round { quiet: quiet?, loud: loud?, share, watched: guard.finish()? })
    })
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
