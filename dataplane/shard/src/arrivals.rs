//! When the frames that wait for a socket came in.

use std::collections::VecDeque;

use relay_contract::{Histograms, Measure, Tick};

use crate::histograms::between;

/// Frames of one queue in runs that came in together, and when their send began.
///
/// It follows the queue by bytes: a run is gone when its last byte left. Cost: an addition per
/// frame; the rest once per turn and once per send.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// In the order they leave.
    runs: VecDeque<Run>,
    /// Bytes of all runs.
    bytes: usize,
    /// Frames that came in since the last run.
    fresh: u32,
    /// When the send in flight began.
    send_began: Tick,
}

/// Frames that came in at one time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Run {
    /// When their last bytes came in.
    at: Tick,
    /// How many.
    frames: u32,
    /// Their bytes that have not left.
    bytes: usize,
}

/// Runs a queue keeps room for when it is put aside for another connection.
const SPARE_RUNS: usize = 4;

impl Arrivals {
    /// A frame was queued behind the others.
    #[inline]
    pub(crate) fn note(&mut self) {
        self.fresh += 1;
    }

    /// What was noted came in at `now`; all that waits is `queued_bytes`.
    pub(crate) fn close_run(&mut self, now: Tick, queued_bytes: usize) {
        let frames = std::mem::take(&mut self.fresh);
        if frames > 0 {
            let bytes = queued_bytes.saturating_sub(self.bytes);
            self.bytes += bytes;
            self.runs.push_back(Run { at: now, frames, bytes });
        }
    }

    /// A send of what waits longest begins.
    pub(crate) fn begin_send(&mut self, now: Tick) {
        self.send_began = now;
    }

    /// So many bytes have left by `now`: measures the frames that are gone with them.
    pub(crate) fn depart(&mut self, mut left: usize, now: Tick, measures: &mut Histograms) {
        let mut gone = 0;
        while let Some(run) = self.runs.front_mut() {
            let part = run.bytes.min(left);
            run.bytes -= part;
            self.bytes -= part;
            left -= part;
            if run.bytes > 0 {
                break;
            }
            let frames = u64::from(run.frames);
            gone += frames;
            measures.record_many(Measure::HopLatency, between(run.at, now), frames);
            measures.record_many(Measure::QueueWait, between(run.at, self.send_began), frames);
            self.runs.pop_front();
        }
        if gone > 0 {
            measures.record(Measure::SendFrames, gone);
        }
    }

    /// Forgets all, because frames were dropped and the connection ends.
    pub(crate) fn forget(&mut self) {
        self.runs.clear();
        (self.bytes, self.fresh) = (0, 0);
    }

    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }

    /// Makes it like new, for another connection; keeps a little of its memory.
    pub(crate) fn renew(&mut self) {
        self.forget();
        self.runs.shrink_to(SPARE_RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hop latencies and frames measured once so many bytes have left at 100.
    fn gone(arrivals: &mut Arrivals, left: usize) -> Vec<(u64, u64)> {
        let mut measures = Histograms::default();
        arrivals.depart(left, Tick(100), &mut measures);
        let hops = measures.of(Measure::HopLatency);
        hops.buckets().map(|bucket| (bucket.low, bucket.count)).collect()
    }

    #[test]
    fn frames_of_one_turn_leave_together_when_their_last_byte_does() {
        let mut arrivals = Arrivals::default();
        arrivals.note();
        arrivals.note();
        arrivals.close_run(Tick(61), 20);
        arrivals.note();
        arrivals.close_run(Tick(62), 25);
        assert_eq!(gone(&mut arrivals, 19), []);
        assert_eq!(gone(&mut arrivals, 1), [(39, 2)]);
        assert_eq!(gone(&mut arrivals, 0), []);
        assert_eq!(gone(&mut arrivals, 5), [(38, 1)]);
        assert_eq!(gone(&mut arrivals, 100), []);
    }

    #[test]
    fn one_send_may_take_several_runs() {
        let mut arrivals = Arrivals::default();
        for turn in 0..3 {
            arrivals.note();
            arrivals.close_run(Tick(50 + turn), 10 * (turn as usize + 1));
        }
        assert_eq!(gone(&mut arrivals, 25), [(49, 1), (50, 1)]);
        assert_eq!(gone(&mut arrivals, 5), [(48, 1)]);
    }

    #[test]
    fn a_turn_without_frames_leaves_no_run() {
        let mut arrivals = Arrivals::default();
        arrivals.close_run(Tick(1), 0);
        assert_eq!(arrivals.held_bytes(), 0);
    }

    #[test]
    fn a_renewed_one_remembers_nothing_and_holds_little() {
        let mut arrivals = Arrivals::default();
        for turn in 0..1000 {
            arrivals.note();
            arrivals.close_run(Tick(turn), turn as usize + 1);
        }
        arrivals.renew();
        assert_eq!(gone(&mut arrivals, 1000), []);
        assert!(arrivals.held_bytes() <= 8 * size_of::<Run>());
    }
}
