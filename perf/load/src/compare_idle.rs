//! `relay-load compare-idle`: what an authenticated connection costs while it does nothing, for the
//! relay and for rivals in the same way.
//!
//! One process after the other: memory is not shared, so nobody is in anybody's way.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::arguments::CompareIdle;
use crate::contender::{Contender, Stage};
use crate::figures::{Spread, write_json};
use crate::idle;
use crate::platform;
use crate::processor::{self, Resident};
use crate::trial::Header;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    connections: usize,
    /// The relay first.
    contenders: Vec<Standing>,
}

/// What was measured of one contender.
#[derive(Debug, Serialize)]
struct Standing {
    name: &'static str,
    /// Growth of resident memory per connection.
    bytes_per_connection: Spread,
    rounds: Vec<Round>,
}

/// One process.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    /// With a few connections, for which the process touches what it touches once.
    before: Resident,
    after: Resident,
    bytes_per_connection: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &CompareIdle) -> Result<()> {
    let trial = &arguments.trial;
    let stage = Stage {
        relay: trial.relay()?,
        driver: trial.driver.clone(),
        platform: platform::start()?,
        processors: trial.processors(),
        pairs: 0,
    };
    let contenders: Vec<Contender> =
        std::iter::once(Contender::Relay).chain(arguments.against.iter().copied()).collect();
    for contender in &contenders {
        let name = contender.name();
        ensure!(contender.admits(), "{name} admits nobody: an idle connection is a socket there");
    }
    let mut rounds = vec![Vec::new(); contenders.len()];
    for number in 1..=arguments.rounds {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            let round = measure(*contender, &stage, arguments.connections)
                .with_context(|| contender.name())?;
            println!("{number}/{}  {:<12} {}", arguments.rounds, contender.name(), round.line());
            rounds.push(round);
        }
    }
    let contenders = contenders.iter().zip(rounds).map(|(contender, rounds)| Standing {
        name: contender.name(),
        bytes_per_connection: Spread::of(rounds.iter().map(|round| round.bytes_per_connection)),
        rounds,
    });
    let report = Report {
        header: trial.header()?,
        connections: arguments.connections,
        contenders: contenders.collect(),
    };
    report.print();
    write_json(trial.json.as_deref(), &report)
}

fn measure(contender: Contender, stage: &Stage, connections: usize) -> Result<Round> {
    let subject = contender.start(stage)?;
    let _first = idle::hold(&subject, 0, WARM_UP)?;
    let before = processor::resident(subject.process())?;
    let mut held = Vec::new();
    let mut left = connections;
    while left > 0 {
        let count = left.min(PER_PROCESS);
        left -= count;
        held.push(idle::hold(&subject, held.len() + 1, count)?);
    }
    let after = processor::resident(subject.process())?;
    let grown = after.total_bytes.saturating_sub(before.total_bytes);
    Ok(Round { before, after, bytes_per_connection: grown as f64 / connections as f64 })
}

impl Round {
    fn line(&self) -> String {
        format!(
            "{:>9.0} B per connection   {:.1} MiB before, {:.1} MiB after",
            self.bytes_per_connection,
            mebibytes(self.before),
            mebibytes(self.after)
        )
    }
}

impl Report {
    fn print(&self) {
        let relay = self.contenders.first().map_or(0.0, |it| it.bytes_per_connection.median);
        println!("\n{} idle authenticated connections", self.connections);
        for standing in &self.contenders {
            let Spread { median, least, most } = standing.bytes_per_connection;
            println!(
                "{:<12} {median:>9.0} B each ({least:.0}–{most:.0})   {:>7.1} × the relay",
                standing.name,
                median / relay
            );
        }
    }
}

fn mebibytes(resident: Resident) -> f64 {
    resident.total_bytes as f64 / f64::from(1 << 20)
}

/// Connections made before the first reading.
const WARM_UP: usize = 100;
/// Connections of one child: it has its own descriptors and its own address.
const PER_PROCESS: usize = 15_000;
