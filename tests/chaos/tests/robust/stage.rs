//! A relay, its platform, and somebody who holds the key to both.

use std::path::PathBuf;

use anyhow::{Context, Result};
use relay_chaos::{Answer, Mint, Pass, Peer, Platform, Scene, Subject, Supply};
use relay_platform::SigningKey;

/// A relay with everything an attack may want.
pub(crate) struct Stage {
    pub(crate) mint: Mint,
    pub(crate) platform: Platform,
    subject: Subject,
    supply: Supply,
}

impl Stage {
    /// Starts a relay with these variables.
    pub(crate) fn set(variables: &[(&str, &str)]) -> Result<Self> {
        let mint = Mint::new(SigningKey::generate()?);
        let platform = Platform::start(&mint)?;
        let subject = Subject::start(&program()?, &platform, variables)?;
        Ok(Self { mint, platform, subject, supply: Supply::default() })
    }

    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene::new(&self.subject, Some(&self.mint), Some(&self.platform), &self.supply)
    }

    /// A counter of the relay.
    pub(crate) fn counted(&self, name: &str) -> Result<i64> {
        let exposition = self.subject.exposition()?.context("its counters may be read")?;
        Ok(exposition.of(name))
    }

    /// Upgrades from one and the same address.
    pub(crate) fn ask(&self, pass: &Pass, headers: &str) -> Result<(Peer, Answer)> {
        let mut peer = Peer::connect(self.subject.address(), None)?;
        peer.send(pass.upgrade_with(headers).as_bytes());
        let answer = peer.answer();
        Ok((peer, answer))
    }
}

/// The program under test.
pub(crate) fn program() -> Result<PathBuf> {
    let program = std::env::var_os("RELAY_BIN");
    Ok(program.context("RELAY_BIN names the relay program, as in target/debug/relay")?.into())
}
