//! The program: arguments, environment, signals, threads; nothing else.
//!
//! What it serves is decided in the crates below. Start with `config`, which parses everything
//! before any port opens.
#![forbid(unsafe_code)]

mod activation;
mod admin_socket;
mod apart;
mod check;
mod cli;
mod config;
mod control_api;
mod control_plane;
mod core_dumps;
mod cores;
mod ctl;
mod demo;
mod dev;
mod doctor;
mod door_certificates;
mod latency;
mod link_credentials;
mod listener;
mod notify;
mod orphans;
mod own_settings;
mod plan;
mod readings;
mod reload;
mod sandbox;
mod screen;
mod serve;
mod settings;
mod shards;
mod signals;
mod tls;
mod token;
mod top;
mod unix_socket;
mod vanished;
mod version;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Command, ConfigCommand, Settings};
use config::{Config, Machine, Parsed};

fn main() -> ExitCode {
    if let Err(error) = core_dumps::forbid() {
        let text = format_args!("relay: warning: core dumps cannot be forbidden: {error}\n");
        screen::say(io::stderr(), text);
    }
    let cli = Cli::parse();
    if cli.version {
        screen::say(io::stdout(), format_args!("{}\n", version::line()));
        return ExitCode::SUCCESS;
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            screen::say(io::stderr(), format_args!("relay: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let done = match cli.command {
        Some(Command::Ctl(arguments)) => return Ok(ctl::run(&arguments)),
        None => serve::run(&parse(&cli.settings)?),
        Some(Command::Serve(settings)) => serve::run(&parse(&settings)?),
        Some(Command::Dev(arguments)) => dev::run(&arguments),
        Some(Command::Demo(arguments)) => demo::run(&arguments, screen::Screen::stdout()),
        Some(Command::Token(arguments)) => {
            println!("{}", token::sign(&arguments)?.expose());
            Ok(())
        }
        Some(Command::Doctor(arguments)) => doctor::run(&arguments),
        Some(Command::Top(arguments)) => top::run(&arguments),
        Some(Command::Plan(arguments)) => plan::run(&arguments),
        Some(Command::Config { command }) => examine(&command),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn examine(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check(settings) => {
            let listing = check::listing(&parse(settings)?);
            let text = format_args!("{listing}the configuration is usable\n");
            screen::say(io::stdout(), text);
        }
        ConfigCommand::File => {
            screen::say(io::stdout(), format_args!("{}", config::file_template()));
        }
        ConfigCommand::Variables => {
            let table = config::table_of_variables();
            screen::say(io::stdout(), format_args!("{table}"));
        }
    }
    Ok(())
}

/// Flags over environment over defaults.
fn parse(settings: &Settings) -> Result<Parsed> {
    Ok(Config::parse(&settings.values(), &Machine)?)
}
