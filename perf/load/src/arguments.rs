//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::Point;
use crate::contender::{Contender, Stage};
use crate::disturber::Neighbour;
use crate::pair::Shape;
use crate::platform;
use crate::run;
use crate::trial::Trial;

/// Load for a relay, and the limit to hold its figures against.
///
/// Starts the process under test on one processor and the load on another, with a small platform
/// that admits everybody. Clients send encrypted envelopes to daemons; every byte that arrives is
/// compared with what was sent, so a figure without an error is also a proof of order and content.
///
/// The relay must be a release build: cargo build --release -p relay
#[derive(Debug, Parser)]
#[command(name = "relay-load", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  relay-load run perf/scenarios/closed-loop.toml
  relay-load run --all
  relay-load pairs --pairs 64 --payload 256 --depth 16
  relay-load pairs --passthrough --payload 65536 --depth 8
  relay-load compare --payload 4096 --rounds 5 --json result.json
  relay-load compare --against axum,monoio,passthrough --points 256x1,256x16,4096x16,65536x8
  relay-load fairness --neighbour flood --json result.json
  relay-load idle --connections 10000
  relay-load admissions --through jwks --held 100000
  relay-load storm --connections 16000 --tls";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenario files and write each result down, as data and as a page with plots
    Run(Run),
    /// Load one relay (or the pass-through) and print frames/s, CPU per frame, latency, memory
    Pairs(Pairs),
    /// Interleave a relay with rivals or limits and print medians, spread and ratios
    Compare(Compare),
    /// Measure the latency of quiet pairs without and with each kind of bad neighbour
    Fairness(Fairness),
    /// Hold what `relay plan` says at a part of the load against what the relay then does
    Capacity(Capacity),
    /// Open connections that do nothing and print what each costs in memory
    Idle(Idle),
    /// Open connections as fast as the relay admits them and print what each costs
    Admissions(Admissions),
    /// Reset many connections at once and print how long it takes until all are back
    Storm(Storm),
    /// What idle connections cost a relay and its rivals, in turns
    CompareIdle(CompareIdle),
    /// Print all goals as a Markdown table: what results show, held or missed
    Goals(Goals),
    /// The pass-through: forwards bytes between the sockets of each pair (started by the others)
    #[command(hide = true)]
    Passthrough(Passthrough),
    #[command(hide = true)]
    Worker,
    #[command(hide = true)]
    IdleChild(IdleChild),
    #[command(hide = true)]
    RawPings(RawPings),
}

/// Which scenarios, and where their results go.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Scenario files
    #[arg(required_unless_present = "all")]
    scenarios: Vec<PathBuf>,
    /// Every scenario of the folder perf/scenarios
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// Take figures that the load or the machine has set
    #[arg(long)]
    pub(crate) allow_bottleneck: bool,
    /// Take storms in which some were refused first and had to come again
    #[arg(long)]
    pub(crate) allow_refusals: bool,
    /// Seconds to measure, instead of what the scenario says
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Leave the course over time out of the data: for results that are committed
    #[arg(long)]
    pub(crate) no_slices: bool,
    /// The folder for results
    #[arg(long, default_value_os_t = run::default_results())]
    pub(crate) results: PathBuf,
    /// The relay's program [default: relay, beside this program]
    #[arg(long)]
    pub(crate) relay: Option<PathBuf>,
    /// The relay's driver, uring or epoll, instead of what the scenario says
    #[arg(long)]
    pub(crate) driver: Option<String>,
}

impl Run {
    /// The files to run, in the order of their names where all are.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        if !self.all {
            return Ok(self.scenarios.clone());
        }
        let folder = std::fs::read_dir("perf/scenarios")
            .context("perf/scenarios: run this from the repository's root")?;
        let mut files = folder
            .map(|file| Ok(file?.path()))
            .filter(|path| {
                !path.as_ref().is_ok_and(|path| path.extension() != Some("toml".as_ref()))
            })
            .collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }
}

/// How much load, on what.
#[derive(Debug, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) shape: ShapeArguments,
    /// Seconds of each measured window
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before each window
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// What the pairs send.
#[derive(Debug, Args)]
pub(crate) struct ShapeArguments {
    /// Pairs of one client and one daemon, each in a workspace of its own
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) pairs: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 256)]
    pub(crate) payload: usize,
    /// Frames in flight per pair
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) depth: usize,
    /// Daemons send every frame back through the session
    #[arg(long)]
    pub(crate) echo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Pairs {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Load the pass-through instead of a relay
    #[arg(long)]
    pub(crate) passthrough: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Whom to hold the relay against, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "passthrough")]
    pub(crate) against: Vec<Contender>,
    /// Points of payload and depth, such as 256x1,4096x16 [default: what --payload and --depth say]
    #[arg(long, value_delimiter = ',')]
    pub(crate) points: Vec<Point>,
    /// Rounds; each goes through all contenders and back, so that each has two windows
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pub(crate) rounds: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Fairness {
    /// Rounds of a window without and a window with the neighbour, for each kind
    #[arg(long, default_value_t = 9, value_parser = at_least_one)]
    pub(crate) rounds: usize,
    /// Seconds of each measured window; the kernel holds up who runs first for longer than 0.9
    #[arg(long, default_value_t = 0.6)]
    pub(crate) seconds: f64,
    /// Quiet pairs
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) pairs: usize,
    /// Messages per second of each quiet pair
    #[arg(long, default_value_t = 250, value_parser = at_least_one)]
    pub(crate) rate: usize,
    /// Only this neighbour: nobody, flood, slow-reader, large-frames, idle [default: all]
    #[arg(long)]
    pub(crate) neighbour: Option<Neighbour>,
    /// Connections of the idle neighbours
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) idle: usize,
    /// Measure a pass-through instead of a relay: what quiet pairs lose to sharing the kernel. Of
    /// the neighbours only nobody, flood and large-frames: it has no bound that would end a slow
    /// reader, and nobody can do nothing on it
    #[arg(long, conflicts_with_all = ["relay", "driver"])]
    pub(crate) passthrough: bool,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Capacity {
    /// Plans, each of a relay of its own
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pub(crate) rounds: usize,
    /// Seconds that the plan watches, and that the relay is then measured at its limit
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Pairs of one client and one daemon, each in a workspace of its own
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) pairs: usize,
    /// Messages per second of each pair while the plan is made
    #[arg(long, default_value_t = 800, value_parser = at_least_one)]
    pub(crate) rate: usize,
    /// Shards of the relay, which share the one processor
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) shards: usize,
    /// The objective of the plan: 99th percentile of hop latency, microseconds
    #[arg(long, default_value_t = 500.0)]
    pub(crate) p99_us: f64,
    /// How far any plan's rate with full processors may be off, as a share of what was measured
    #[arg(long, default_value_t = 0.15)]
    pub(crate) tolerance: f64,
    /// How far above the objective latency may be with as many connections as the plan allows: a
    /// bucket of the relay's histogram is a quarter of a power of two wide
    #[arg(long, default_value_t = 0.2)]
    pub(crate) latency_tolerance: f64,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Connections to open
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Connections per child process, which has its own address and its own descriptors
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one)]
    pub(crate) per_process: usize,
    /// Connections that share a workspace and target
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub(crate) clients_per_workspace: usize,
    /// Connect over TLS, which ends in the relay
    #[arg(long)]
    pub(crate) tls: bool,
    /// Shards of the relay. A shard holds as many connections as a process may have descriptors
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) shards: usize,
    /// Seconds from one ping to the next of each connection; zero is no pings
    #[arg(long, default_value_t = 0)]
    pub(crate) heartbeat_secs: u64,
    /// Then measure the processor time of a heartbeat, and that of a program that does nothing but
    /// ping as many sockets
    #[arg(long, requires = "heartbeat_secs")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// Who judges tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Through {
    /// The platform, by a call per upgrade
    Validate,
    /// The relay, by the platform's keys
    Jwks,
    /// The relay refuses by these keys, the platform judges the rest
    Both,
}

impl Through {
    /// `RELAY_ADMISSION`, where keys are needed for it.
    pub(crate) fn key_admission(self) -> Option<&'static str> {
        match self {
            Self::Validate => None,
            Self::Jwks => Some("jwks"),
            Self::Both => Some("both"),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Admissions {
    /// Who judges the tokens, each of which is used once
    #[arg(long, value_enum, default_value = "jwks")]
    pub(crate) through: Through,
    /// Tokens whose signature is wrong: nobody may be admitted, and the platform not be asked
    #[arg(long)]
    pub(crate) forged: bool,
    /// Connections that are held beside those that come and go
    #[arg(long, default_value_t = 1000)]
    pub(crate) held: usize,
    /// Upgrades in flight
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) at_once: usize,
    /// Admissions per window
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one)]
    pub(crate) count: usize,
    /// Measured windows
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    /// Connections
    #[arg(long, default_value_t = 16_000, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Who judges the tokens
    #[arg(long, value_enum, default_value = "validate")]
    pub(crate) through: Through,
    /// Connect over TLS, which ends in the relay
    #[arg(long)]
    pub(crate) tls: bool,
    /// Come back with tokens that the relay has not seen, instead of those from before
    #[arg(long)]
    pub(crate) fresh_tokens: bool,
    /// RELAY_DECISION_CACHE_MS of the relay [default: none]
    #[arg(long)]
    pub(crate) decision_cache_ms: Option<u64>,
    /// Take a storm in which some were refused first and had to come again
    #[arg(long)]
    pub(crate) allow_refusals: bool,
    /// Storms, one after the other
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Goals {
    /// The folder with results
    #[arg(default_value_os_t = run::default_results())]
    pub(crate) results: PathBuf,
    /// Fail where a goal is missed, or no result tells
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RawPings {
    /// Where to listen
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// How many sockets will connect
    #[arg(long)]
    pub(crate) connections: usize,
    /// From one ping to the next of each
    #[arg(long)]
    pub(crate) interval_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CompareIdle {
    /// Whom to hold the relay against, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "axum")]
    pub(crate) against: Vec<Contender>,
    /// Connections to open at each
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Processes of each, in turns
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Passthrough {
    /// Where to listen
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// How many pairs will connect: for each the daemon, then the client
    #[arg(long)]
    pub(crate) pairs: usize,
}

#[derive(Debug, Args)]
pub(crate) struct IdleChild {
    #[arg(long)]
    pub(crate) relay_address: SocketAddr,
    #[arg(long)]
    pub(crate) number: usize,
    #[arg(long)]
    pub(crate) connections: usize,
    #[arg(long)]
    pub(crate) clients_per_workspace: usize,
    #[arg(long)]
    pub(crate) certificate: Option<PathBuf>,
    #[arg(long)]
    pub(crate) signing_key: Option<PathBuf>,
}

impl Load {
    /// What the pairs send each other.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            pairs: self.shape.pairs,
            payload_bytes: self.shape.payload,
            depth: self.shape.depth,
            echo: self.shape.echo,
        }
    }

    /// What contenders are started with, and a platform that admits everybody.
    pub(crate) fn stage(&self) -> Result<Stage> {
        Ok(Stage {
            relay: self.trial.relay()?,
            driver: self.trial.driver.clone(),
            platform: platform::start()?,
            processors: self.trial.processors(),
            pairs: self.shape.pairs,
        })
    }
}

impl Idle {
    /// Connections of each child.
    pub(crate) fn shares(&self) -> impl Iterator<Item = usize> + use<> {
        let (connections, share) = (self.connections, self.per_process);
        (0..connections).step_by(share).map(move |begun| share.min(connections - begun))
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
