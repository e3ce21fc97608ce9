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

/// What turns cost: a few turns of many, from the beginning of the first to that of the one after.
///
/// Of a single turn too much would fall into its neighbours: the kernel receives what a turn will
/// forward before the turn begins.
#[derive(Default)]
pub(crate) struct TurnCosts {
    sums: TurnCost,
    /// The turns that are looked at: frames forwarded and the thread's processor time before them.
    open: Option<(u64, Duration)>,
}

/// Turns that are looked at together. Source: BENCHMARKS.md, "Does `relay plan` foresee…".
const SPAN_TURNS: u32 = 16;
/// How often, in turns. Protects the others from two system calls.
const TURNS_PER_SPAN: u32 = 256;

impl TurnCosts {
    /// Whether the clock has to be read at the beginning of this turn.
    #[inline]
    fn is_due(&self, turn_number: u32) -> bool {
        let place = turn_number % TURNS_PER_SPAN;
        place == 0 || place == SPAN_TURNS && self.open.is_some()
    }

    /// A turn begins: the first that is looked at, or the one after the last.
    fn begin_turn(&mut self, frames: u64, cpu: Duration) {
        self.open = match self.open.take() {
            Some((frames_before, cpu_before)) => {
                let frames = frames.saturating_sub(frames_before);
                self.sums.add(SPAN_TURNS.into(), frames, cpu.saturating_sub(cpu_before));
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
    fn a_few_turns_of_many_are_looked_at_together() {
        let mut costs = TurnCosts::default();
        for turn in 1..=3 * TURNS_PER_SPAN {
            if costs.is_due(turn) {
                costs.begin_turn(u64::from(turn), Duration::from_micros(u64::from(turn) * 10));
            }
        }
        let sums = costs.sums();
        let turns = 2 * u64::from(SPAN_TURNS);
        assert_eq!((sums.spans, sums.turns, sums.frames), (2, turns, turns));
        assert_eq!(sums.cpu_ns, turns * 10_000);
    }
}
