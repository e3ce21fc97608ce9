//! `relay-flamegraph`: where a relay's processor time goes, as a picture.
//!
//! It lets `relay-load` start a relay and load it, has `perf` sample the relay's stacks for as long
//! as it lives, and draws them. `flamegraphs/README.md` says what each picture shows; that is for
//! people to write. Start with [`scenario::ALL`].
#![forbid(unsafe_code)]

mod graph;
mod inlined;
mod recording;
mod scenario;
mod stacks;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use graph::Graph;
use recording::{Programs, record};
use scenario::Scenario;

/// Records the relay under load and draws what it did: flamegraphs/NAME.svg
#[derive(Debug, Parser)]
#[command(name = "relay-flamegraph", version)]
struct Arguments {
    /// Scenarios; --list names them [default: all]
    names: Vec<String>,
    /// Print the scenarios with what they load the relay with
    #[arg(long)]
    list: bool,
    /// The relay's program [default: relay, beside this program]
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The load generator's program [default: relay-load, beside this program]
    #[arg(long)]
    load: Option<PathBuf>,
    /// Appended to the names of the files, as in 256B-d16-before.svg
    #[arg(long)]
    label: Option<String>,
    /// Where the graphs go
    #[arg(long, default_value = "flamegraphs")]
    into: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-flamegraph: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for scenario in scenario::ALL {
            println!("{:<12} relay-load {}", scenario.name, scenario.load.join(" "));
        }
        return Ok(());
    }
    recording::ensure_perf()?;
    let programs = Programs {
        relay: beside(arguments.relay.as_ref(), "relay")?,
        load: beside(arguments.load.as_ref(), "relay-load")?,
    };
    std::fs::create_dir_all(&arguments.into)?;
    for scenario in chosen(&arguments.names)? {
        let suffix = arguments.label.as_ref().map(|label| format!("-{label}")).unwrap_or_default();
        let path = arguments.into.join(format!("{}{suffix}.svg", scenario.name));
        let stacks = record(&programs, scenario).context(scenario.name)?;
        let graph = Graph::new(&stacks);
        let title = format!("{}{}", scenario.name, suffix.replacen('-', ", ", 1));
        std::fs::write(&path, graph.draw(&title, &scenario.load.join(" ")))?;
        println!("{}\n{}", path.display(), graph.summary());
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(scenario::ALL.iter().collect());
    }
    let find = |name: &String| scenario::ALL.iter().find(|scenario| scenario.name == name);
    names
        .iter()
        .map(|name| find(name).with_context(|| format!("no scenario {name}; see --list")))
        .collect()
}

fn beside(given: Option<&PathBuf>, name: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name(name),
    };
    ensure!(path.is_file(), "{} is missing: cargo build --release -p {name}", path.display());
    path.canonicalize().context("its path")
}
