//! The time a load takes: when it starts, from when to when it is measured.

use serde::{Deserialize, Serialize};

use crate::processor;

/// Moments on the monotonic clock, nanoseconds; the same for all processes of a load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Span {
    pub(crate) start_ns: u64,
    pub(crate) measure_ns: u64,
    pub(crate) end_ns: u64,
}

/// What has been counted by some moment.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_ns: u64,
    /// Frames that arrived so far.
    pub(crate) frames: u64,
    /// Processor time of the process under test so far.
    pub(crate) subject_used_ns: u64,
    /// Processor time of this process so far.
    pub(crate) used_ns: u64,
}

/// Takes samples at even distances.
pub(crate) struct Sampler<'a> {
    next_ns: u64,
    subject: u32,
    sink: &'a mut dyn FnMut(Sample),
}

impl<'a> Sampler<'a> {
    /// The first sample is due at the start of the span. `subject` is a process id.
    pub(crate) fn new(span: &Span, subject: u32, sink: &'a mut dyn FnMut(Sample)) -> Self {
        Self { next_ns: span.start_ns, subject, sink }
    }

    /// When the next sample is due.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Takes a sample if one is due.
    pub(crate) fn look(&mut self, now: u64, frames: u64) {
        if now >= self.next_ns {
            self.next_ns = now + SAMPLE_NS;
            // A process that is gone is noticed by whoever talks to it.
            let subject_used_ns = processor::used_ns(self.subject).unwrap_or_default();
            let used_ns = processor::used_ns(std::process::id()).unwrap_or_default();
            (self.sink)(Sample { at_ns: now, frames, subject_used_ns, used_ns });
        }
    }
}

/// Distance of samples.
const SAMPLE_NS: u64 = 100_000_000;
