//! `cargo xtask`: everything CI runs, as one program with individual steps.
//!
//! It builds nothing itself and decides nothing about the product. Start with
//! [`pipeline::Pipeline::ci`].
#![forbid(unsafe_code)]

mod autobahn;
mod components;
mod micro;
mod pipeline;
mod step;
mod suite;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use pipeline::Pipeline;
use step::{Step, run_all};

/// Checks of this repository. `cargo xtask ci` is what every change must pass.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything CI runs; stops at the first failure and says what to do
    Ci {
        /// Install cargo-deny first when it is missing (builds it: minutes)
        #[arg(long)]
        install: bool,
    },
    /// Everything that takes too long for every change: many seeds, fuzzers, loom, Miri
    Nightly,
    /// Installs missing components (as root), or names them
    Components,
    /// Floors, bans, sizes, names, manifests, licences, links
    Tidy,
    /// rustfmt and clippy
    Lint,
    /// Unit and property tests, and the examples in the documentation
    Test,
    /// The simulator: production shards under seeds
    Sim {
        /// How many seeds
        #[arg(long, default_value_t = 300)]
        seeds: u32,
    },
    /// Fuzz targets over their corpus and seeded mutations, without a fuzzer
    FuzzSmoke,
    /// Every fuzz target under libFuzzer
    Fuzz {
        /// Seconds per target
        #[arg(long, default_value_t = 60)]
        secs: u32,
    },
    /// Instructions per operation against the baseline (needs valgrind)
    Micro {
        /// Keep the counts as perf/micro/baseline.toml
        #[arg(long)]
        keep: bool,
    },
    /// Where the relay's processor time goes: flamegraphs/NAME.svg (needs perf, and root)
    Flamegraph {
        /// Passed on to relay-flamegraph, as in `256B-d16 --label before`, or `-- --list`
        #[arg(trailing_var_arg = true)]
        extra: Vec<String>,
    },
    /// The recorded scenarios against the release build
    Conformance {
        /// Only this driver: uring or epoll
        #[arg(long, value_parser = pipeline::DRIVERS)]
        driver: Option<String>,
        /// Passed on to relay-conformance
        #[arg(last = true)]
        extra: Vec<String>,
    },
    /// End-to-end tests against the release build, on both drivers
    E2e,
    /// Every class of attack against the release build, while a control pair keeps talking
    Chaos {
        /// Passed on to relay-chaos, as in `-- --only never-read --rounds 5`
        #[arg(last = true)]
        extra: Vec<String>,
    },
    /// Builds the release and runs every scenario of perf/scenarios; results go to perf/results
    Bench {
        /// Passed on to relay-load run, as in `-- --allow-bottleneck --seconds 2`
        #[arg(last = true)]
        extra: Vec<String>,
    },
    /// The Autobahn test suite against the codec (needs Python 2.7)
    Autobahn {
        /// Keep the outcome as docs/autobahn.md
        #[arg(long)]
        keep: bool,
    },
    /// The rivals that figures are held against: whether they do the job
    Rivals,
    /// Documentation, where a warning is an error
    Doc,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes without a backtrace: what fails here is a check, not this program.
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match task {
        Task::Components => return components::ensure_present(),
        Task::Tidy => return tidy::run(),
        Task::Test => return suite::test(),
        _ => {}
    }
    run_all(&steps(task, &Pipeline::new()?)?)
}

/// The steps of a task that has several, or needs a build first.
fn steps(task: &Task, pipeline: &Pipeline) -> Result<Vec<Step>> {
    Ok(match task {
        Task::Ci { install } => {
            let mut steps = pipeline.ci()?;
            if *install && !components::is_in_path("cargo-deny") {
                let arguments = ["install", "cargo-deny", "--locked", "--version", "0.20.2"];
                steps.insert(0, Step::program("cargo-deny", "cargo", &arguments));
            }
            steps
        }
        Task::Nightly => pipeline.nightly()?,
        Task::Lint => Pipeline::style(),
        Task::Sim { seeds } => vec![Pipeline::build(), pipeline.simulator(*seeds, None)?],
        Task::FuzzSmoke => vec![pipeline.fuzz_smoke()?],
        Task::Fuzz { secs } => pipeline.fuzz(*secs)?,
        Task::Micro { keep } => Pipeline::micro(*keep).into(),
        Task::Flamegraph { extra } => pipeline.flamegraph(extra)?.into(),
        Task::Conformance { driver, extra } => {
            let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
            let mut steps = vec![Pipeline::build()];
            steps.extend(pipeline.conformance(driver.as_deref(), &extra)?);
            steps
        }
        Task::E2e => vec![
            Pipeline::build(),
            Step::ours("end to end", "cargo xtask e2e", pipeline::end_to_end),
        ],
        Task::Autobahn { keep } => vec![
            Pipeline::build_echo(),
            match keep {
                false => pipeline::autobahn_step(),
                true => {
                    Step::ours("autobahn", "cargo xtask autobahn --keep", autobahn::run_and_keep)
                }
            },
        ],
        Task::Chaos { extra } => {
            let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
            let mut steps = vec![Pipeline::build()];
            steps.extend(pipeline.chaos(&pipeline::DRIVERS, &extra)?);
            steps
        }
        Task::Rivals => pipeline.rivals()?,
        Task::Bench { extra } => {
            let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
            vec![Pipeline::build_bench(), pipeline.bench(&extra)?]
        }
        Task::Doc => vec![Pipeline::doc()],
        Task::Components | Task::Tidy | Task::Test => Vec::new(),
    })
}
