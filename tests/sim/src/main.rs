//! The simulator: production shards and switchboards on a simulated kernel and network, under one
//! seed.
//!
//! Each seed is run twice: once as it is, and once with the whole state written down and restored
//! at random moments. Both have to satisfy the oracles, and peers have to see the same in both.
//!
//! `cargo run --release -p relay-sim -- --seeds 300` runs 300 seeds from a start that is printed;
//! `--seed N` runs one again. A failure prints its seed.
#![forbid(unsafe_code)]

mod cast;
mod client;
mod daemon;
mod frame;
mod line;
mod message;
mod office;
mod oracle;
mod pairer;
mod peer;
mod plan;
mod run;
mod visitor;
mod worker;

use std::panic;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Parser;
use relay_driver::sim::Injected;

use crate::line::Severed;
use crate::office::Moves;
use crate::plan::Plan;
use crate::run::{Deeds, Outcome, Run};

/// Production shards on a simulated network; everything random comes from the seed.
#[derive(Debug, Parser)]
#[command(name = "relay-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed; drawn from the clock and printed when left out.
    #[arg(long)]
    from: Option<u64>,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (from, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from.unwrap_or_else(seed_of_the_clock), arguments.seeds),
    };
    println!("simulator: seeds {from} to {}", from + count - 1);
    let mut total = Outcome::default();
    let mut failed = 0;
    for seed in from..from + count {
        panic::set_hook(Box::new(move |defect| println!("seed {seed} failed: {defect}")));
        match both_ways(seed) {
            Ok(outcome) => total.add(&outcome),
            Err(error) => {
                failed += 1;
                println!("seed {seed} failed: {error:#}");
                println!("  again: cargo run --release -p relay-sim -- --seed {seed}");
            }
        }
        if (seed - from + 1).is_multiple_of(100) {
            println!("  {} seeds done, {failed} failed", seed - from + 1);
        }
    }
    println!(
        "simulator: {} connections, {} messages delivered, {} closes ({} by policy), {} rewrites, \
         {} moves, {} ms simulated",
        total.connections,
        total.delivered,
        total.closes,
        total.policy_closes,
        total.rewrites,
        total.moves.made,
        total.simulated_ms
    );
    let faults = total.faults();
    for (place, counts) in &faults {
        let counts = counts.iter().map(|(count, what)| format!("{count} {what}"));
        println!("  {place}: {}", counts.collect::<Vec<_>>().join(", "));
    }
    println!("{} passed, {failed} failed", count - failed);
    if failed > 0 {
        bail!("{failed} seeds failed");
    }
    let absent = faults.iter().flat_map(|(_, counts)| counts).filter(|(count, _)| *count == 0);
    let absent: Vec<_> = absent.map(|(_, what)| *what).collect();
    if count >= SEEDS_WITH_EVERYTHING && !absent.is_empty() {
        bail!("never happened, so nothing shows that it is survived: {}", absent.join("; "));
    }
    Ok(())
}

/// So many seeds together have every fault there is.
const SEEDS_WITH_EVERYTHING: u64 = 300;

impl Outcome {
    /// How often each fault happened, by where it comes from: one that never did was not tested.
    fn faults(&self) -> [(&'static str, Vec<(u64, &'static str)>); 5] {
        let Injected {
            delays,
            passed_over,
            short_receives,
            short_sends,
            gulps,
            starved_receives,
            resets,
            failed_receives,
            failed_sends,
            starved_sends,
            late_cancels,
            failed_exports,
            failed_accepts,
        } = self.injected;
        let network = vec![
            (delays, "delays"),
            (passed_over, "overtakings"),
            (short_receives, "short receives"),
            (short_sends, "short sends"),
            (resets, "resets"),
        ];
        let kernel = vec![
            (starved_receives, "receives without a buffer"),
            (gulps, "receives in a row"),
            (failed_receives, "receives without memory"),
            (starved_sends, "sends without memory"),
            (failed_sends, "sends that failed"),
            (late_cancels, "that went on after their end"),
            (failed_accepts, "failures to accept"),
            (failed_exports, "failures to export"),
        ];
        let Severed { cuts, resumed, restarts, inventories } = self.severed;
        let link = vec![
            (cuts, "cuts"),
            (resumed, "times both went on"),
            (restarts, "restarts of the control plane"),
            (inventories, "inventories"),
        ];
        let Moves { apart, ordered_while_cut, forgotten, .. } = self.moves;
        let moves = vec![
            (apart, "between planes apart"),
            (ordered_while_cut, "ordered while the link was cut"),
            (forgotten, "whose order was forgotten when they ended"),
        ];
        let Deeds { closes, cuts, ends, stalls, nonsense } = self.deeds;
        let peers = vec![
            (closes, "closes"),
            (cuts, "cuts"),
            (ends, "ends inside anything"),
            (stalls, "stopped reading"),
            (nonsense, "spoke nonsense"),
            (self.deferrals, "times a loud one had to wait"),
        ];
        [
            ("network", network),
            ("kernel", kernel),
            ("link", link),
            ("moves", moves),
            ("peers", peers),
        ]
    }
}

/// Runs a seed plainly and with rewrites, and compares what peers saw.
fn both_ways(seed: u64) -> Result<Outcome> {
    let plain = Run::new(Plan::draw(seed), false).finish()?;
    let rewritten = Run::new(Plan::draw(seed), true).finish()?;
    if plain.transcript != rewritten.transcript {
        bail!("peers saw something else when the state was written down and restored");
    }
    let mut both = plain;
    both.add(&rewritten);
    Ok(both)
}

fn seed_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000 * 1000
}
