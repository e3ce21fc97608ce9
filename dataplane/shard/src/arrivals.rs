//! When the frames that wait for a socket came in.

use std::collections::VecDeque;

use relay_contract::Tick;

/// Frames of one queue in runs that came in together, and when their send began.
///
/// It follows the queue by bytes: a run is gone when its last byte left. Cost: a comparison and two
/// additions for a frame of the same turn as the one before.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// In the order they leave.
    runs: VecDeque<Run>,
    /// When the send in flight began.
    send_began: Tick,
}

/// Frames that came in at one time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    /// When their last bytes came in.
    pub(crate) at: Tick,
    /// How many.
    pub(crate) frames: u32,
    /// Their bytes that have not left.
    bytes: usize,
}

/// Runs a queue keeps room for when it is put aside for another connection.
const SPARE_RUNS: usize = 4;

impl Arrivals {
    /// A frame of `bytes` that came in at `at` was queued behind the others.
    #[inline]
    pub(crate) fn note(&mut self, at: Tick, bytes: usize) {
        match self.runs.back_mut() {
            Some(run) if run.at == at => {
                run.frames += 1;
                run.bytes += bytes;
            }
            _ => self.runs.push_back(Run { at, frames: 1, bytes }),
        }
    }

    /// A send of what waits longest begins.
    pub(crate) fn begin_send(&mut self, now: Tick) {
        self.send_began = now;
    }

    /// When the send in flight, or the last one, began.
    pub(crate) fn send_began(&self) -> Tick {
        self.send_began
    }

    /// Of the bytes that left, takes those of the first run off `left`; the run when it is gone.
    pub(crate) fn take(&mut self, left: &mut usize) -> Option<Run> {
        let run = self.runs.front_mut()?;
        let part = run.bytes.min(*left);
        run.bytes -= part;
        *left -= part;
        if run.bytes > 0 {
            return None;
        }
        self.runs.pop_front()
    }

    /// Forgets all, because frames were dropped and the connection ends.
    pub(crate) fn forget(&mut self) {
        self.runs.clear();
    }

    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }

    /// Makes it like new, for another connection; keeps a little of its memory.
    pub(crate) fn renew(&mut self) {
        self.runs.clear();
        self.runs.shrink_to(SPARE_RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs that are gone once so many bytes have left, as time and frames.
    fn gone(arrivals: &mut Arrivals, mut left: usize) -> Vec<(u64, u32)> {
        let runs = std::iter::from_fn(|| arrivals.take(&mut left));
        runs.map(|run| (run.at.0, run.frames)).collect()
    }

    #[test]
    fn frames_of_one_turn_leave_together_when_their_last_byte_does() {
        let mut arrivals = Arrivals::default();
        arrivals.note(Tick(1), 10);
        arrivals.note(Tick(1), 10);
        arrivals.note(Tick(2), 5);
        assert_eq!(gone(&mut arrivals, 19), []);
        assert_eq!(gone(&mut arrivals, 1), [(1, 2)]);
        assert_eq!(gone(&mut arrivals, 0), []);
        assert_eq!(gone(&mut arrivals, 5), [(2, 1)]);
        assert_eq!(gone(&mut arrivals, 100), []);
    }

    #[test]
    fn one_send_may_take_several_runs() {
        let mut arrivals = Arrivals::default();
        for turn in 0..3 {
            arrivals.note(Tick(turn), 10);
        }
        assert_eq!(gone(&mut arrivals, 25), [(0, 1), (1, 1)]);
        assert_eq!(gone(&mut arrivals, 5), [(2, 1)]);
    }

    #[test]
    fn a_renewed_one_remembers_nothing_and_holds_little() {
        let mut arrivals = Arrivals::default();
        for turn in 0..1000 {
            arrivals.note(Tick(turn), 1);
        }
        arrivals.renew();
        assert_eq!(gone(&mut arrivals, 1000), []);
        assert!(arrivals.held_bytes() <= 8 * size_of::<Run>());
    }
}
