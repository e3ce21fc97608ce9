//! What a shard's processor time goes into.

use crate::readings::Interval;

/// What a shard's processor time goes into, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// A turn, whatever it brings.
    pub(crate) turn: f64,
    /// Each frame it forwards.
    pub(crate) frame: f64,
}

/// Sums over sampled spans of turns, as they are exported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sampled {
    spans: f64,
    turns: f64,
    frames: f64,
    frames_squared: f64,
    cpu_s: f64,
    frames_cpu_s: f64,
}

/// Sampled spans below which there is no line through their cost.
const SAMPLED_SPANS_MIN: f64 = 30.0;

impl Sampled {
    pub(super) fn of(interval: &Interval<'_>, shard: u16) -> Self {
        let since = |name: &str| interval.of_shard(name, shard);
        Self {
            spans: since("relay_shard_sampled_spans_total"),
            turns: since("relay_shard_sampled_turns_total"),
            frames: since("relay_shard_sampled_frames_total"),
            frames_squared: since("relay_shard_sampled_frames_squared_total"),
            cpu_s: since("relay_shard_sampled_cpu_seconds_total"),
            frames_cpu_s: since("relay_shard_sampled_frames_cpu_seconds_total"),
        }
    }

    /// The line of least squares through the turns' costs. Without a slope, because all turns were
    /// alike or too few, everything counts as the frames'.
    pub(super) fn cost(self) -> Cost {
        let Self { spans, turns, frames, frames_squared, cpu_s, frames_cpu_s } = self;
        if frames <= 0.0 {
            return Cost::default();
        }
        let per_frame = cpu_s / frames;
        let spread = spans * frames_squared - frames * frames;
        let slope = (spans * frames_cpu_s - frames * cpu_s) / spread;
        let is_line = spans >= SAMPLED_SPANS_MIN && spread > 0.0 && slope > 0.0;
        let frame = if is_line { slope.min(per_frame) } else { per_frame };
        Cost { turn: (cpu_s - frame * frames) / turns.max(1.0), frame }
    }
}

impl Cost {
    /// The same in proportion, so that all turns together cost what the thread used.
    pub(super) fn scaled_to(self, cpu_s: f64, turns: f64, frames: f64) -> Self {
        let modelled = self.turn * turns + self.frame * frames;
        if modelled <= 0.0 {
            return Self { turn: 0.0, frame: cpu_s / frames.max(1.0) };
        }
        let scale = cpu_s / modelled;
        Self { turn: self.turn * scale, frame: self.frame * scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(turns: &[(f64, f64)]) -> Sampled {
        turns.iter().fold(Sampled::default(), |sum, &(frames, cpu)| Sampled {
            spans: sum.spans + 1.0,
            turns: sum.turns + 1.0,
            frames: sum.frames + frames,
            frames_squared: sum.frames_squared + frames * frames,
            cpu_s: sum.cpu_s + cpu,
            frames_cpu_s: sum.frames_cpu_s + frames * cpu,
        })
    }

    #[test]
    fn the_line_through_turns_tells_turns_from_frames() {
        let turns: Vec<_> = (0..100).map(|n| f64::from(n % 7)).collect();
        let turns: Vec<_> = turns.iter().map(|n| (*n, 3e-6 + n * 2e-6)).collect();
        let cost = sampled(&turns).cost();
        assert!((cost.turn - 3e-6).abs() < 1e-12 && (cost.frame - 2e-6).abs() < 1e-12);
    }

    #[test]
    fn turns_that_are_all_alike_cost_what_their_frames_do() {
        let cost = sampled(&[(2.0, 10e-6); 100]).cost();
        assert!(cost.turn.abs() < 1e-12 && (cost.frame - 5e-6).abs() < 1e-12);
    }

    #[test]
    fn costs_are_scaled_to_what_the_thread_used() {
        let cost = Cost { turn: 1.0, frame: 2.0 }.scaled_to(40.0, 4.0, 8.0);
        assert_eq!(cost, Cost { turn: 2.0, frame: 4.0 });
    }
}
