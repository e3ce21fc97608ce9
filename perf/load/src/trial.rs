//! What every command measures with, and what it says of the circumstances.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::processor::{self, Machine};
use crate::subject::Processors;
use crate::watch::Bottleneck;

/// The relay under test, where it runs, and what becomes of the result.
#[derive(Args, Clone, Debug)]
pub(crate) struct Trial {
    /// The relay's program [default: relay, beside this program]
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The relay's driver: uring or epoll [default: the relay's own choice]
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// Processor of the process under test
    #[arg(long, default_value_t = 0)]
    relay_cpu: usize,
    /// Processor of the load
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Take figures that the load or the machine has set
    #[arg(long)]
    allow_bottleneck: bool,
    /// Also write the result to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// What a result was made of and with: the first members of each.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Header {
    pub(crate) machine: Machine,
    /// The relay's version and the commit it was built from, as the program itself says.
    pub(crate) program: String,
    /// That commit.
    pub(crate) commit: String,
    /// The command line, paths without their folders.
    pub(crate) command: String,
}

impl Trial {
    /// The relay's program.
    pub(crate) fn relay(&self) -> Result<PathBuf> {
        find_relay(self.relay.as_ref())
    }

    /// How the relay under test is called in results.
    pub(crate) fn relay_name(&self) -> String {
        format!("relay ({})", self.driver.as_deref().unwrap_or("default driver"))
    }

    /// Where the two sides run.
    pub(crate) fn processors(&self) -> Processors {
        Processors { subject: self.relay_cpu, load: self.load_cpu }
    }

    /// The circumstances, of this moment.
    pub(crate) fn header(&self) -> Result<Header> {
        Header::of(self.relay.as_ref())
    }

    /// Says what set the figures beside the process under test.
    ///
    /// Errors: there was something, and nobody said that such figures are taken.
    pub(crate) fn judge<'b>(&self, found: impl IntoIterator<Item = &'b Bottleneck>) -> Result<()> {
        let mut count = 0;
        for Bottleneck { who, why } in found {
            println!("  not only the process under test set this: {who:?}: {why}");
            count += 1;
        }
        ensure!(
            count == 0 || self.allow_bottleneck,
            "{count} times the load or the machine set the figures (--allow-bottleneck takes them)"
        );
        Ok(())
    }
}

impl Header {
    /// Errors: the program is missing or does not tell its version.
    pub(crate) fn of(relay: Option<&PathBuf>) -> Result<Self> {
        let relay = find_relay(relay)?;
        let told = Command::new(&relay).arg("--version").output().context("relay --version")?;
        ensure!(told.status.success(), "relay --version failed");
        let program = String::from_utf8(told.stdout).context("relay --version")?.trim().to_owned();
        let command: Vec<String> = std::env::args().skip(1).map(|word| shown(&word)).collect();
        Ok(Self {
            machine: processor::machine(),
            commit: commit(&program).to_owned(),
            program,
            command: format!("relay-load {}", command.join(" ")),
        })
    }
}

/// The commit in what a relay says of its version.
fn commit(program: &str) -> &str {
    let inner = program.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.map_or("unknown", |(commit, _)| commit)
}

/// A word of the command line; of an absolute path its last part, because folders are this
/// machine's alone.
fn shown(word: &str) -> String {
    let last = word.rsplit('/').next().filter(|_| word.starts_with('/'));
    last.unwrap_or(word).to_owned()
}

/// The relay's program, or the one beside this one.
pub(crate) fn find_relay(given: Option<&PathBuf>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("relay"),
    };
    let shown = path.display();
    ensure!(path.is_file(), "{shown} is missing: cargo build --release -p relay, or give --relay");
    path.canonicalize().context("the relay's path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Who;

    fn trial(allow_bottleneck: bool) -> Trial {
        let (relay, driver, json) = (None, None, None);
        Trial { relay, driver, relay_cpu: 0, load_cpu: 1, allow_bottleneck, json }
    }

    #[test]
    fn figures_that_the_machine_set_are_an_error_unless_taken() {
        let found = [Bottleneck { who: Who::Machine, why: "it stood still".to_owned() }];
        assert!(trial(false).judge(&found).is_err());
        assert!(trial(true).judge(&found).is_ok());
        assert!(trial(false).judge(&[]).is_ok());
    }

    #[test]
    fn a_relay_says_the_commit_it_was_built_from() {
        assert_eq!(commit("0.1.0 (6c43d36aa001)"), "6c43d36aa001");
        assert_eq!(commit("0.1.0"), "unknown");
    }

    #[test]
    fn folders_of_this_machine_are_not_written_down() {
        let words = ["/a/b/relay", "perf/scenarios/x.toml", "--pairs"];
        assert_eq!(words.map(shown), ["relay", "perf/scenarios/x.toml", "--pairs"]);
    }
}
