//! What an attack is, and what it has to work with.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::door::Door;
use crate::pass::{Mint, Pass};
use crate::peer::{Answer, Peer};
use crate::platform::Platform;
use crate::subject::Subject;

/// One class of bad peer.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// What the reference relay did.
    pub reference: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Counters of the relay that say what was refused and why: each of them grows.
    pub counters: &'static [&'static str],
    /// Attacks until the moment given, once at least. An error is an answer that the relay must
    /// not give.
    pub play: fn(&Scene<'_>, Instant) -> Result<Effort>,
}

/// What an attack cannot do without, beyond an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// Nothing: any stranger can do it.
    Nothing,
    /// Tokens that the relay's platform accepts.
    Tokens,
    /// The platform itself.
    Platform,
    /// A memory budget that is small enough to be reached.
    Budget,
    /// A process whose limits may be changed.
    Process,
    /// A relay that speaks TLS.
    Tls,
    /// The same, and tokens that its platform accepts.
    TlsAndTokens,
}

/// What was tried and what came of it, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effort(pub BTreeMap<String, u64>);

/// Everything an attack may use.
pub struct Scene<'a> {
    subject: &'a Subject,
    mint: Option<&'a Mint>,
    platform: Option<&'a Platform>,
    supply: &'a Supply,
}

/// Names that no attack has used: addresses to come from, workspaces to be in. One for all attacks
/// on a relay, because the relay remembers.
#[derive(Debug, Default)]
pub struct Supply {
    sources: AtomicU32,
    workspaces: AtomicU32,
}

impl Effort {
    /// Counts one.
    pub fn count(&mut self, what: impl Into<String>) {
        self.add(what, 1);
    }

    /// Counts several.
    pub fn add(&mut self, what: impl Into<String>, amount: u64) {
        *self.0.entry(what.into()).or_insert(0) += amount;
    }

    /// How often something came about.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (what, amount) in &other.0 {
            self.add(what.clone(), *amount);
        }
    }
}

impl<'a> Scene<'a> {
    /// A scene around a relay, with whatever there is besides.
    pub fn new(
        subject: &'a Subject,
        mint: Option<&'a Mint>,
        platform: Option<&'a Platform>,
        supply: &'a Supply,
    ) -> Self {
        Self { subject, mint, platform, supply }
    }

    /// Whether an attack has what it needs here.
    pub fn offers(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Tokens => self.mint.is_some(),
            Needs::Platform => self.mint.is_some() && self.platform.is_some(),
            Needs::Budget | Needs::Process => self.mint.is_some() && self.subject.is_own(),
            Needs::Tls => self.door().speaks_tls(),
            Needs::TlsAndTokens => self.mint.is_some() && self.door().speaks_tls(),
        }
    }

    /// The relay under attack.
    pub fn subject(&self) -> &Subject {
        self.subject
    }

    /// The way in.
    pub fn door(&self) -> &Door {
        self.subject.door()
    }

    /// Makes tokens. An attack that uses it says so in [`Attack::needs`].
    pub fn mint(&self) -> Result<&'a Mint> {
        self.mint.context("there are no tokens")
    }

    /// The platform. An attack that uses it says so in [`Attack::needs`].
    pub fn platform(&self) -> Result<&'a Platform> {
        self.platform.context("there is no platform")
    }

    /// An address of loopback that nobody has used lately, so that limits per address do not end
    /// an attack that is about something else.
    pub fn source(&self) -> Ipv4Addr {
        let number = self.supply.sources.fetch_add(1, Ordering::Relaxed) % SOURCES;
        Ipv4Addr::from(u32::from(FIRST_SOURCE) + number)
    }

    /// A workspace that nobody has used.
    pub fn workspace(&self) -> String {
        format!("attack-{}", self.supply.workspaces.fetch_add(1, Ordering::Relaxed))
    }

    /// Connects from this address.
    pub fn connect_from(&self, source: Ipv4Addr) -> Result<Peer> {
        Peer::connect(self.door(), Some(source)).context("connecting")
    }

    /// Connects from a fresh address.
    pub fn connect(&self) -> Result<Peer> {
        self.connect_from(self.source())
    }

    /// Connects, and is through with the handshake where there is one.
    pub fn enter(&self) -> Result<Peer> {
        let mut peer = self.connect()?;
        ensure!(peer.shake_hands(), "a handshake was refused");
        Ok(peer)
    }

    /// Enters and sends one piece of bytes.
    pub fn say(&self, bytes: &[u8]) -> Result<Peer> {
        let mut peer = self.enter()?;
        peer.send(bytes);
        Ok(peer)
    }

    /// Opens a WebSocket with this pass and insists on 101.
    pub fn open(&self, pass: &Pass) -> Result<Peer> {
        let mut peer = self.say(pass.upgrade().as_bytes())?;
        match peer.answer() {
            Answer::Status(101) => Ok(peer),
            other => bail!("a {} with a good token got {other:?}", pass.role.name()),
        }
    }

    /// A client in a workspace of its own.
    pub fn client(&self) -> Result<Peer> {
        self.open(&self.mint()?.client(&self.workspace(), "attacker")?)
    }

    /// Lets time pass.
    pub fn rest(&self, until: Instant) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // A thread may be woken without a reason.
            thread::park_timeout(left);
        }
    }

    /// Attacks from several threads at once; the first error ends up in the result.
    pub fn crowd(
        &self,
        count: usize,
        attack: impl Fn(usize) -> Result<Effort> + Sync,
    ) -> Result<Effort> {
        let attack = &attack;
        let results: Vec<Result<Effort>> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..count).map(|index| scope.spawn(move || attack(index))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|result| result.expect("an attack returns its errors")).collect()
        });
        let mut effort = Effort::default();
        for result in results {
            effort.merge(&result?);
        }
        Ok(effort)
    }
}

/// Where attackers come from: half of 127.64.0.0/10, which is loopback all of it.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);
const SOURCES: u32 = 1 << 21;
