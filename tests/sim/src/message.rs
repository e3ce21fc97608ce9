//! A message that tells by itself whether it is whole, and for whom it was.

use anyhow::{Context, Result, bail, ensure};
use relay_driver::sim::Seed;

/// Who is to receive a message. A client is one connection, so that what was meant for an earlier
/// connection is wrong for the next. A daemon and the control plane are served by successors.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Actor {
    /// The life of a client, pairing client or worker.
    Client(u64),
    /// The workspace of a daemon.
    Daemon(usize),
    Office,
}

/// Names one message. Everything it contains follows from this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// The life of the connection that sent it; zero for the control plane.
    pub(crate) from: u64,
    pub(crate) to: Actor,
    /// Counts the messages from this sender to this receiver, from one.
    pub(crate) number: u64,
    /// Bytes of padding.
    pub(crate) padding_bytes: usize,
}

impl Message {
    /// The text: the name, then padding that is different for each message.
    pub(crate) fn text(&self) -> String {
        let Self { from, to, number, padding_bytes } = *self;
        let (kind, id) = match to {
            Actor::Client(life) => ("c", life),
            Actor::Daemon(workspace) => ("d", workspace as u64),
            Actor::Office => ("o", 0),
        };
        let mut text = format!("{from}.{kind}.{id}.{number}.{padding_bytes}.");
        let whole = text.len() + padding_bytes;
        let mut letters = Seed::new(from << 40 ^ id << 20 ^ number);
        while text.len() < whole {
            let bytes = letters.bits().to_le_bytes();
            let few = bytes.len().min(whole - text.len());
            text.extend(bytes[..few].iter().map(|byte| char::from(b'a' + (byte & 15))));
        }
        text
    }

    /// Reads a text back.
    ///
    /// # Errors
    /// A byte of it is not what was sent.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(6, '.');
        let mut part = || parts.next().context("a message is cut short");
        let (from, kind, id) = (part()?.parse()?, part()?, part()?.parse()?);
        let to = match kind {
            "c" => Actor::Client(id),
            "d" => Actor::Daemon(usize::try_from(id)?),
            "o" => Actor::Office,
            other => bail!("a message is for {other:?}"),
        };
        let (number, padding_bytes) = (part()?.parse()?, part()?.parse()?);
        ensure!(padding_bytes <= text.len(), "a message is cut short");
        let message = Self { from, to, number, padding_bytes };
        ensure!(message.text() == text, "{message:?} is not what was sent");
        Ok(message)
    }
}
