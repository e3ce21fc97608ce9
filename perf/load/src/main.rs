//! `relay-load`: how fast, how late and how large a relay is, held against the limit of the
//! machine.
//!
//! It shares no code with the data plane, so that it cannot share a mistake with it. Start with
//! [`generator::Generator`]; the limit is [`passthrough`].

mod admissions;
mod arguments;
mod authority;
mod body;
mod capacity;
mod compare;
mod compare_idle;
mod contender;
mod crew;
mod crowd;
mod disturber;
mod envelope;
mod fairness;
mod figures;
mod flow;
mod generator;
mod goals;
mod guard;
mod idle;
mod job;
mod metronome;
mod outcome;
mod pace;
mod pair;
mod pairs;
mod passthrough;
mod platform;
mod processor;
mod progress;
mod raw_pings;
mod readiness;
mod readings;
mod report;
mod rooms;
mod run;
mod scenario;
mod script;
mod sealed;
mod secured;
mod silence;
mod slow;
mod span;
mod storm;
mod subject;
mod target;
mod traffic;
mod trial;
mod upgrade;
mod watch;
mod wire;
mod worker;

use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Worker => worker::run(),
        Command::Pairs(arguments) => pairs::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::CompareIdle(arguments) => compare_idle::run(arguments),
        Command::Fairness(arguments) => fairness::run(arguments),
        Command::Capacity(arguments) => capacity::run(arguments),
        Command::Idle(arguments) => idle::run(arguments),
        Command::IdleChild(arguments) => idle::run_child(arguments),
        Command::Admissions(arguments) => admissions::run(arguments),
        Command::Storm(arguments) => storm::run(arguments),
        Command::Goals(arguments) => goals::run(arguments),
        Command::RawPings(arguments) => {
            let listener = TcpListener::bind(arguments.listen).context("listening")?;
            println!("listening on {}", arguments.listen);
            raw_pings::serve(&listener, arguments.connections, arguments.interval_ms)
        }
        Command::Passthrough(arguments) => {
            let listener = TcpListener::bind(arguments.listen).context("listening")?;
            println!("listening on {}", arguments.listen);
            passthrough::serve(&listener, arguments.pairs)
        }
    }
}
