//! `relay-load`: how fast, how late and how large a relay is, held against the limit of the
//! machine.
//!
//! It shares no code with the data plane, so that it cannot share a mistake with it. Start with
//! [`generator::Generator`]; the limit is [`passthrough`].

mod arguments;
mod compare;
mod disturber;
mod envelope;
mod fairness;
mod figures;
mod flow;
mod generator;
mod idle;
mod metronome;
mod pair;
mod pairs;
mod passthrough;
mod platform;
mod processor;
mod secured;
mod subject;
mod upgrade;

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
        Command::Pairs(arguments) => pairs::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Fairness(arguments) => fairness::run(arguments),
        Command::Idle(arguments) => idle::run(arguments),
        Command::IdleChild(arguments) => idle::run_child(arguments),
        Command::Passthrough(arguments) => {
            let listener = TcpListener::bind(arguments.listen).context("listening")?;
            println!("listening on {}", arguments.listen);
            passthrough::serve(&listener, arguments.pairs)
        }
    }
}
