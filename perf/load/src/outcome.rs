//! What one process of the load has to tell when it is done.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::processor;

/// Counts of one measured window.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// Frames that arrived whole, in order and as sent.
    pub(crate) frames: u64,
    /// Bytes that were received and compared.
    pub(crate) bytes: u64,
    pub(crate) elapsed_ns: u64,
    /// Processor time of this process.
    pub(crate) used_ns: u64,
    /// Time this process could have run and was not let.
    pub(crate) waited_ns: u64,
    /// The same two of the process under test.
    pub(crate) subject_used_ns: u64,
    pub(crate) subject_waited_ns: u64,
    /// Frames that were due and could not be sent before the window ended.
    pub(crate) unsent: u64,
    /// Frames sent in all, of which every one arrived.
    pub(crate) verified: u64,
    /// Latencies, nanoseconds: a histogram in HDR's V2 form, base64.
    pub(crate) latency: String,
    /// How late this program called for frames, in the same form; empty in a closed loop.
    pub(crate) lag: String,
    /// What else there is to count, by name.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Clocks of processes at the beginning of a window.
pub(crate) struct Clocks {
    at_ns: u64,
    own: processor::Times,
    subject: processor::Times,
    subject_process: u32,
}

impl Clocks {
    pub(crate) fn read(subject_process: u32) -> Result<Self> {
        Ok(Self {
            at_ns: processor::now_ns(),
            own: processor::times(std::process::id())?,
            subject: processor::times(subject_process)?,
            subject_process,
        })
    }

    /// What has passed since then.
    pub(crate) fn passed(&self) -> Result<Outcome> {
        let now = Self::read(self.subject_process)?;
        Ok(Outcome {
            elapsed_ns: now.at_ns - self.at_ns,
            used_ns: now.own.used_ns - self.own.used_ns,
            waited_ns: now.own.waited_ns.saturating_sub(self.own.waited_ns),
            subject_used_ns: now.subject.used_ns.saturating_sub(self.subject.used_ns),
            subject_waited_ns: now.subject.waited_ns.saturating_sub(self.subject.waited_ns),
            ..Outcome::default()
        })
    }
}

/// A histogram as text.
pub(crate) fn encode(histogram: &Histogram<u64>) -> Result<String> {
    let mut bytes = Vec::new();
    let serialized = V2Serializer::new().serialize(histogram, &mut bytes);
    serialized.map_err(|error| anyhow!("a histogram does not serialise: {error}"))?;
    Ok(STANDARD.encode(bytes))
}

/// Adds a histogram from its text; nothing is added for none.
pub(crate) fn add(histogram: &mut Histogram<u64>, text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let bytes = STANDARD.decode(text).context("a histogram in base64")?;
    let read = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice());
    histogram.add(read.map_err(|error| anyhow!("not a histogram: {error}"))?)?;
    Ok(())
}

/// An empty histogram of latencies up to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds and digits are valid")
}

/// The longest latency the histogram tells apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_survive_their_text_and_add_up() {
        let (mut one, mut other) = (histogram(), histogram());
        for value in [1, 1000, 50_000_000_000] {
            one.record(value).expect("in bounds");
        }
        other.record_n(77_000, 10).expect("in bounds");
        let mut sum = histogram();
        add(&mut sum, &encode(&one).expect("text")).expect("added");
        add(&mut sum, &encode(&other).expect("text")).expect("added");
        add(&mut sum, "").expect("nothing");
        one.add(&other).expect("same bounds");
        assert_eq!(sum, one);
        assert!(add(&mut sum, "AAAA").is_err());
    }
}
