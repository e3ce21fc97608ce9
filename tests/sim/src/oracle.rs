//! What must hold, whatever happens.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Result, bail, ensure};
use relay_contract::{Counter, Counters};
use relay_driver::sim::Seed;

use crate::message::{Actor, Message};
use crate::peer::Arrival;

/// Keeps account of every message and hashes all that peers see, in order.
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
    /// Whether shards and control plane are apart: then answers may be lost on the way.
    apart: bool,
    pub(crate) delivered: u64,
    pub(crate) closes: u64,
    /// Closes by which the relay enforced a limit.
    pub(crate) policy_closes: u64,
}

impl Oracle {
    /// One that knows whether the planes are apart.
    pub(crate) fn new(apart: bool) -> Self {
        Self { apart, ..Self::default() }
    }

    /// Whether a worker's call may come to nothing.
    pub(crate) fn forgives_calls(&self) -> bool {
        self.apart
    }

    /// A connection sends its next message to an actor; returns its text.
    pub(crate) fn send(
        &mut self,
        from: u64,
        to: Actor,
        seed: &mut Seed,
        bytes_max: usize,
    ) -> String {
        let number = self.sent.entry((from, to)).or_default();
        *number += 1;
        let padding_bytes = seed.below(bytes_max as u64) as usize;
        Message { from, to, number: *number, padding_bytes }.text()
    }

    /// An actor received this text; returns the connection that sent it.
    ///
    /// # Errors
    /// It was for somebody else, not what was sent, came twice, or out of order.
    pub(crate) fn receive(&mut self, by: Actor, text: &str) -> Result<u64> {
        let Message { from, to, number, .. } = Message::parse(text)?;
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
        Ok(from)
    }

    /// A connection saw something. Returns the text, if it is one.
    ///
    /// # Errors
    /// The relay may not send such a thing.
    pub(crate) fn witness(&mut self, life: u64, arrival: Arrival) -> Result<Option<Vec<u8>>> {
        (life, &arrival).hash(&mut self.transcript);
        match arrival {
            Arrival::Text(text) => return Ok(Some(text)),
            Arrival::Wrong(what) => bail!("connection {life}: {what}"),
            Arrival::Refused(429) => bail!("connection {life} got the late refusal of another"),
            Arrival::Refused(_) | Arrival::Gone => self.closes += 1,
            Arrival::Closing(code) => {
                self.closes += 1;
                self.policy_closes += u64::from(code == Some(4008));
            }
            Arrival::Opened | Arrival::Answered(_) | Arrival::Pong => {}
        }
        Ok(None)
    }

    /// A shard's counters at its end. None of them may depend on how often its state was written
    /// down.
    pub(crate) fn witness_counters(&mut self, counters: &Counters) {
        for &counter in Counter::ALL {
            (counter.name(), counters.of(counter)).hash(&mut self.transcript);
        }
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
