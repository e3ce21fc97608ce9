//! A relay, its platform, and somebody who holds the key to both.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use relay_chaos::{
    Answer, Campaign, Mint, Pass, Peer, Plan, Platform, Scene, Subject, Supply, attacks,
};
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

    /// The processor time that whoever moves its frames has taken so far.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        self.subject.processor_time()
    }

    /// Tells it to end, and waits until it says that it does.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.subject.terminate()
    }

    /// Waits for its end.
    pub(crate) fn ended(self) -> Result<ExitStatus> {
        self.subject.ended()
    }

    /// Upgrades from one and the same address.
    pub(crate) fn ask(&self, pass: &Pass, headers: &str) -> Result<(Peer, Answer)> {
        let mut peer = Peer::connect(self.subject.door(), None)?;
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

/// Wages these classes while a control pair talks, and accepts no fault.
pub(crate) fn survives(classes: &[&str]) -> Result<()> {
    survives_as(Subject::start, classes)
}

/// The same behind TLS.
pub(crate) fn survives_behind_tls(classes: &[&str]) -> Result<()> {
    survives_as(Subject::start_with_tls, classes)
}

type Start = fn(&Path, &Platform, &[(&str, &str)]) -> Result<Subject>;

fn survives_as(start: Start, classes: &[&str]) -> Result<()> {
    let mint = Mint::new(SigningKey::generate()?);
    let platform = Platform::start(&mint)?;
    let budget = [("RELAY_MEMORY_BUDGET", "128MiB"), ("RELAY_SHARDS", "1")];
    let subject = start(&program()?, &platform, &budget)?;
    let plan = Plan {
        stretch: Duration::from_millis(300),
        rounds: 1,
        rate: 100,
        memory_kib_max: 128 << 10,
    };
    let mut campaign = Campaign::begin(plan, subject, Some(&mint), Some(&platform))?;
    for name in classes {
        let attack = attacks::all().into_iter().find(|attack| attack.name == *name);
        let finding = campaign.wage(attack.context("no such class")?)?;
        let finding = finding.context("everything it needs is there")?;
        ensure!(finding.faults.is_empty(), "{finding}");
    }
    Ok(())
}
