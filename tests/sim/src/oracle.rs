//! What must hold, whatever happens.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Result, bail, ensure};

/// Names an actor: a client, or the daemon of a workspace.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Actor {
    Client(usize),
    Daemon(usize),
}

/// Keeps account of every message and hashes what peers see, in order.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Messages sent from one connection to an actor. The connection is a number that is never used
    /// again.
    sent: HashMap<(u64, Actor), u64>,
    /// The last message that arrived of those.
    arrived: HashMap<(u64, Actor), u64>,
    /// How many arrived of those.
    count: HashMap<(u64, Actor), u64>,
    transcript: DefaultHasher,
    pub(crate) delivered: u64,
    pub(crate) closes: u64,
}

impl Oracle {
    /// A connection sends its next message to an actor; returns the text that identifies it.
    pub(crate) fn send(&mut self, from: u64, to: Actor) -> String {
        let number = self.sent.entry((from, to)).or_default();
        *number += 1;
        let (kind, index) = match to {
            Actor::Client(index) => ("c", index),
            Actor::Daemon(index) => ("d", index),
        };
        format!("{from}.{kind}.{index}.{number}.")
    }

    /// An actor received a message with this text.
    ///
    /// # Errors
    /// It was for somebody else, came twice, or out of order.
    pub(crate) fn receive(&mut self, by: Actor, text: &str) -> Result<()> {
        let mut parts = text.splitn(5, '.');
        let mut part = || parts.next().unwrap_or_default();
        let (from, kind, index, number) = (part(), part(), part(), part());
        let from: u64 = from.parse()?;
        let index: usize = index.parse()?;
        let number: u64 = number.parse()?;
        let to = if kind == "c" { Actor::Client(index) } else { Actor::Daemon(index) };
        ensure!(to == by, "a message for {to:?} reached {by:?}");
        let sent = self.sent.get(&(from, to)).copied().unwrap_or_default();
        ensure!(number <= sent, "{by:?} received a message that nobody sent");
        let last = self.arrived.insert((from, to), number).unwrap_or_default();
        if number == last {
            bail!("{by:?} received message {number} of connection {from} twice");
        }
        ensure!(number > last, "{by:?} received {number} after {last} of connection {from}");
        *self.count.entry((from, to)).or_default() += 1;
        self.delivered += 1;
        (by, from, number).hash(&mut self.transcript);
        Ok(())
    }

    /// An actor saw its connection end or be refused.
    pub(crate) fn ended(&mut self, by: Actor, code: Option<u16>) {
        self.closes += 1;
        (by, code).hash(&mut self.transcript);
    }

    /// Both ends of these messages lived to the end: all of them must have arrived.
    pub(crate) fn expect_all(&self, from: u64, to: Actor) -> Result<()> {
        let sent = self.sent.get(&(from, to)).copied().unwrap_or_default();
        let count = self.count.get(&(from, to)).copied().unwrap_or_default();
        ensure!(sent == count, "{count} of {sent} messages from connection {from} reached {to:?}");
        Ok(())
    }

    /// What peers saw so far, as one number.
    pub(crate) fn transcript(&self) -> u64 {
        self.transcript.finish()
    }
}
