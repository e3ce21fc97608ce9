//! What the shard measures of itself, and where each value is taken.
//!
//! Times are of turns: a turn reads the clock once at its beginning and once at its end, and what
//! happens in it happens at its beginning.

use std::time::Duration;

use relay_contract::{Counter, Measure, Tick, TurnCost};
use relay_driver::Driver;

use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    /// A turn has brought what completed.
    pub(crate) fn measure_completions(&mut self) {
        let completions = self.completions.len() as u64;
        self.measures.record(Measure::TurnCompletions, completions);
        if self.turn_costs.is_due(self.turn_number) {
            let counters = self.board.counters();
            let frames = counters.of(Counter::FramesClientToDaemon)
                + counters.of(Counter::FramesDaemonToClients);
            self.turn_costs.begin_turn(frames, self.driver.cpu_time());
        }
    }

    /// A turn is over.
    pub(crate) fn measure_turn(&mut self) {
        let length = self.driver.now().0.saturating_sub(self.now.0);
        self.measures.record(Measure::Turn, length);
    }

    /// The control plane answered about an upgrade it was asked about at `asked`.
    pub(crate) fn measure_admission(&mut self, measure: Measure, asked: Tick) {
        self.measures.record(measure, between(asked, self.now));
    }
}

/// What turns cost: one turn of many, from its beginning to that of the next.
#[derive(Default)]
pub(crate) struct TurnCosts {
    sums: TurnCost,
    /// The turn that is looked at: frames forwarded and the thread's processor time before it.
    open: Option<(u64, Duration)>,
}

/// One turn of so many is looked at; a power of two. Protects the others from two system calls.
const TURNS_PER_SAMPLE: u32 = 64;

impl TurnCosts {
    /// Whether the clock has to be read at the beginning of this turn.
    #[inline]
    fn is_due(&self, turn_number: u32) -> bool {
        turn_number.is_multiple_of(TURNS_PER_SAMPLE) || self.open.is_some()
    }

    /// A turn begins: the one that is looked at, or the one after it.
    fn begin_turn(&mut self, frames: u64, cpu: Duration) {
        self.open = match self.open.take() {
            Some((frames_before, cpu_before)) => {
                let frames = frames.saturating_sub(frames_before);
                self.sums.add(frames, cpu.saturating_sub(cpu_before));
                None
            }
            None => Some((frames, cpu)),
        };
    }

    pub(crate) fn sums(&self) -> &TurnCost {
        &self.sums
    }
}

/// Nanoseconds from one moment to a later one.
pub(crate) fn between(from: Tick, to: Tick) -> u64 {
    to.0.saturating_sub(from.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_of_many_is_looked_at_until_the_next_begins() {
        let mut costs = TurnCosts::default();
        for turn in 1..=3 * TURNS_PER_SAMPLE {
            if costs.is_due(turn) {
                costs.begin_turn(u64::from(turn), Duration::from_micros(u64::from(turn) * 10));
            }
        }
        let sums = costs.sums();
        assert_eq!((sums.turns, sums.frames), (2, 2));
        assert_eq!(sums.cpu_ns, 2 * 10_000);
    }
}
