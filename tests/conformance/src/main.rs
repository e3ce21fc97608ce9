//! `relay-conformance`: runs recorded scenarios against a relay program.
#![forbid(unsafe_code)]

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use relay_conformance::{Options, Selection, Shape};

/// Runs recorded scenarios against a relay program and reports where it differs.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The relay program; by default the one beside this program.
    #[arg(long, env = "RELAY_BIN", value_name = "FILE")]
    relay: Option<PathBuf>,
    /// Runs a group; may be repeated. By default everything is run.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Runs one scenario; may be repeated.
    #[arg(long = "scenario", value_name = "GROUP/NAME")]
    scenarios: Vec<String>,
    /// Runs a group or one scenario, says whether it passes and lets no failure count; may be
    /// repeated.
    #[arg(long = "report-only", value_name = "GROUP[/NAME]")]
    report_only: Vec<String>,
    /// Scenarios running at the same time. They wait most of it.
    #[arg(long, default_value_t = 4, value_name = "N")]
    jobs: usize,
    /// Sets RELAY_DRIVER for every relay.
    #[arg(long)]
    driver: Option<Driver>,
    /// Whether a relay is one process, or data plane and control plane apart.
    #[arg(long, default_value = "one")]
    shape: ShapeArgument,
    /// Sets a variable for every relay; may be repeated. A scenario's own variables win.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Lists the selected scenarios and runs nothing.
    #[arg(long)]
    list: bool,
    /// Where the scenarios are.
    #[arg(long = "scenarios", value_name = "DIR", default_value = SCENARIOS_DIR)]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Driver {
    Uring,
    Epoll,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShapeArgument {
    One,
    Two,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let selection = Selection {
        dir: arguments.dir,
        groups: arguments.groups,
        scenarios: arguments.scenarios,
        report_only: arguments.report_only,
    };
    if arguments.list {
        for id in relay_conformance::list(&selection)? {
            println!("{id}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut env = arguments.env;
    if let Some(driver) = arguments.driver {
        let name = match driver {
            Driver::Uring => "uring",
            Driver::Epoll => "epoll",
        };
        env.push(("RELAY_DRIVER".to_owned(), name.to_owned()));
    }
    let relay = match arguments.relay {
        Some(relay) => relay,
        None => std::env::current_exe().context("finding this program")?.with_file_name("relay"),
    };
    let shape = match arguments.shape {
        ShapeArgument::One => Shape::One,
        ShapeArgument::Two => Shape::Two,
    };
    let options = Options { relay, env, shape, selection, jobs: arguments.jobs };
    let summary = relay_conformance::run(&options, stdout())?;
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

const SCENARIOS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
