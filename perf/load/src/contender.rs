//! Whom a relay is held against, and how each is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::flow::Between;
use crate::subject::{PENDING_BYTES_MAX, Processors, Subject};

mod node;
mod proxy;

/// A process that takes part in a comparison. What the rivals do and leave out stands in
/// `perf/rivals/README.md`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Contender {
    /// The relay itself, which is always there
    #[value(skip)]
    Relay,
    /// tokio, axum and tungstenite, with one worker
    Axum,
    /// monoio, tuned, with its own framing
    Monoio,
    /// glommio with its own framing
    Glommio,
    /// Node and ws, as their documentation has it
    Node,
    /// The same with bufferutil, which unmasks in native code
    NodeNative,
    /// The same again, and what follows from one read is sent in one system call
    NodeCorked,
    /// nginx in front of the relay; only its own processor time is counted
    Nginx,
    /// HAProxy in front of the relay; only its own processor time is counted
    Haproxy,
    /// Bytes from socket to socket over io_uring: the limit
    Passthrough,
    /// Bytes from socket to socket with epoll
    EpollPassthrough,
    /// Bytes from socket to socket through pipes, with epoll
    Splice,
}

/// What contenders are started with.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// The relay's program.
    pub(crate) relay: PathBuf,
    /// The relay's driver.
    pub(crate) driver: Option<String>,
    pub(crate) platform: SocketAddr,
    pub(crate) processors: Processors,
    /// Pairs that will connect.
    pub(crate) pairs: usize,
}

impl Contender {
    /// How it is called, on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Axum => "axum",
            Self::Monoio => "monoio",
            Self::Glommio => "glommio",
            Self::Node => "node",
            Self::NodeNative => "node-native",
            Self::NodeCorked => "node-corked",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Passthrough => "passthrough",
            Self::EpollPassthrough => "epoll-passthrough",
            Self::Splice => "splice",
        }
    }

    /// Whether it admits connections: limits that only forward bytes do not.
    pub(crate) fn admits(self) -> bool {
        !matches!(self, Self::Passthrough | Self::EpollPassthrough | Self::Splice)
    }

    /// Starts it.
    ///
    /// Errors: its program is missing or does not start; what to do about it is said.
    pub(crate) fn start(self, stage: &Stage) -> Result<Subject> {
        let between = if self.admits() { Between::Relay } else { Between::Passthrough };
        let command = match self {
            Self::Relay => return stage.relay(),
            Self::Passthrough => return Subject::passthrough(stage.pairs, stage.processors),
            Self::Nginx => return proxy::nginx(stage.relay()?, stage.processors),
            Self::Haproxy => return proxy::haproxy(stage.relay()?, stage.processors),
            Self::Node => node::command(&[])?,
            Self::NodeNative => node::command(&["--native"])?,
            Self::NodeCorked => node::command(&["--native", "--cork"])?,
            Self::Axum | Self::Monoio | Self::Glommio | Self::EpollPassthrough | Self::Splice => {
                let mut command = Command::new(rivals()?);
                command.arg(self.name());
                command
            }
        };
        Subject::rival(command, stage.platform, between, stage.processors)
    }
}

impl Stage {
    fn relay(&self) -> Result<Subject> {
        let driver = self.driver.as_deref();
        Subject::relay(&self.relay, driver, self.platform, self.processors, PENDING_BYTES_MAX)
    }
}

/// The program with the rivals, beside this one.
fn rivals() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("relay-rivals");
    ensure!(
        path.is_file(),
        "{} is missing: cargo build --release --manifest-path perf/rivals/Cargo.toml \
         --target-dir target",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_is_called_in_results_as_on_the_command_line() {
        for contender in Contender::value_variants() {
            let value = contender.to_possible_value().expect("only the relay is skipped");
            assert_eq!(value.get_name(), contender.name());
        }
    }
}
