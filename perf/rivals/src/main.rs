//! `relay-rivals`: the relay's job, done by others.
//!
//! Each rival is a minimal honest implementation on a stack that somebody could have chosen
//! instead: admission by the platform, routing of the same frames, nothing beyond. README.md says
//! what each does and does not do. A rival is started with the relay's environment and says
//! `listening on` when it does.

mod admission;
mod axum;
mod close;
mod frame;
mod glommio;
mod monoio;
mod passthrough;
mod scope;
mod settings;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use passthrough::{Copying, Splicing};
use settings::Settings;

/// The relay's job, done by others.
#[derive(Debug, Parser)]
#[command(name = "relay-rivals", version)]
struct Arguments {
    #[command(subcommand)]
    rival: Rival,
}

#[derive(Debug, Subcommand)]
enum Rival {
    /// tokio, axum and tungstenite, with one worker
    Axum(Settings),
    /// monoio, tuned, with its own framing
    Monoio(Settings),
    /// glommio with its own framing
    Glommio(Settings),
    /// Bytes from socket to socket, with epoll
    EpollPassthrough(Settings),
    /// Bytes from socket to socket through pipes, with epoll
    Splice(Settings),
}

fn main() -> ExitCode {
    match serve(Arguments::parse().rival) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-rivals: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(rival: Rival) -> Result<()> {
    match rival {
        Rival::Axum(settings) => axum::serve(settings),
        Rival::Monoio(settings) => monoio::serve(settings),
        Rival::Glommio(settings) => glommio::serve(settings),
        Rival::EpollPassthrough(settings) => passthrough::serve::<Copying>(settings.address()),
        Rival::Splice(settings) => passthrough::serve::<Splicing>(settings.address()),
    }
}
