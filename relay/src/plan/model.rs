//! From what a relay did in an interval to what it could do. `docs/capacity.md` explains it.

use crate::readings::{Distribution, Readings};

/// What a relay did in an interval.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) seconds: f64,
    pub(crate) driver: String,
    pub(crate) shards: Vec<Shard>,
    pub(crate) connections: f64,
    /// Configured for the whole relay.
    pub(crate) connections_max: Option<f64>,
    /// Descriptors of the process: in use, and how many there may be.
    pub(crate) descriptors: Option<(f64, f64)>,
}

/// What one shard did in an interval, and what it held at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) connections: f64,
    pub(crate) frames: f64,
    pub(crate) message_bytes: f64,
    pub(crate) turns: f64,
    pub(crate) cpu_s: f64,
    pub(crate) cost: Cost,
    pub(crate) hop: Distribution,
    pub(crate) memory_used: f64,
    pub(crate) memory_budget: f64,
    pub(crate) residents: f64,
    pub(crate) residents_max: f64,
}

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
struct Sampled {
    spans: f64,
    turns: f64,
    frames: f64,
    frames_squared: f64,
    cpu_s: f64,
    frames_cpu_s: f64,
}

/// What a shard may carry, as a multiple of what it carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// Until its processor has nothing left.
    pub(crate) processor: f64,
    /// Until hop latency passes the objective; below one when it has already.
    pub(crate) latency: f64,
}

/// Frames of one turn at most: the driver hands out 1,024 completions, two for a frame.
const TURN_FRAMES_MAX: f64 = 512.0;
/// Sampled spans below which there is no line through their cost.
const SAMPLED_SPANS_MIN: f64 = 30.0;

impl Observed {
    /// What happened between two readings of one relay, or since its start when there is only one.
    pub(crate) fn between(earlier: &Readings, later: &Readings) -> Self {
        let since = |name: &str| {
            later.value(name).unwrap_or_default() - earlier.value(name).unwrap_or_default()
        };
        let descriptors = later.value("process_open_fds").zip(later.value("process_max_fds"));
        let shards = later.shards();
        Self {
            seconds: since("relay_uptime_seconds"),
            driver: later.fact("relay_info", "driver").unwrap_or("unknown").to_owned(),
            shards: shards.iter().map(|&shard| Shard::between(earlier, later, shard)).collect(),
            connections: later.value("relay_admitted_connections").unwrap_or_default(),
            connections_max: later.labelled("relay_limit", "limit", "connections"),
            descriptors,
        }
    }

    /// Forwarded frames per second.
    pub(crate) fn frames_per_s(&self) -> f64 {
        self.shards.iter().map(|shard| shard.frames).sum::<f64>() / self.seconds
    }

    /// The shard that has least left.
    pub(crate) fn busiest(&self) -> Option<&Shard> {
        self.shards.iter().max_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s))
    }
}

impl Shard {
    fn between(earlier: &Readings, later: &Readings, number: u16) -> Self {
        let now = |name: &str| later.of_shard(name, number).unwrap_or_default();
        let since = |name: &str| now(name) - earlier.of_shard(name, number).unwrap_or_default();
        let measured = |name: &str| {
            let before = earlier.distribution(name, Some(number));
            later.distribution(name, Some(number)).since(&before)
        };
        let cpu_s = since("relay_shard_cpu_seconds_total");
        let sampled = Sampled {
            spans: since("relay_shard_sampled_spans_total"),
            turns: since("relay_shard_sampled_turns_total"),
            frames: since("relay_shard_sampled_frames_total"),
            frames_squared: since("relay_shard_sampled_frames_squared_total"),
            cpu_s: since("relay_shard_sampled_cpu_seconds_total"),
            frames_cpu_s: since("relay_shard_sampled_frames_cpu_seconds_total"),
        };
        let turns = measured("relay_turn_completions").count();
        let frames = since("relay_shard_frames_total");
        Self {
            number,
            connections: now("relay_shard_connections"),
            frames,
            message_bytes: since("relay_shard_message_bytes_total"),
            turns,
            cpu_s,
            cost: sampled.cost().scaled_to(cpu_s, turns, frames),
            hop: measured("relay_hop_latency_seconds"),
            memory_used: now("relay_memory_used_bytes"),
            memory_budget: now("relay_memory_budget_bytes"),
            residents: now("relay_shard_residents"),
            residents_max: now("relay_shard_residents_max"),
        }
    }

    /// How far it can grow within `seconds` like those observed, with hop latency's 99th percentile
    /// at most `objective_s`. `None` while there is too little to go by.
    pub(crate) fn growth(&self, seconds: f64, objective_s: f64) -> Option<Growth> {
        if self.frames <= 0.0 || self.cost.frame <= 0.0 {
            return None;
        }
        let work = self.cost.frame * self.frames / seconds;
        let hop = self.hop.quantile(0.99)?;
        // Work waits for the turn before it, so a turn that work fills to a share has a length in
        // inverse proportion to the share that is left.
        let left = (1.0 - work) * hop / objective_s;
        let latency = ((1.0 - left) / work).max(0.0);
        Some(Growth { processor: self.processor_growth(seconds), latency })
    }

    /// Full turns still cost what a turn costs: they bring a frame of every pair of connections
    /// there would be.
    fn processor_growth(&self, seconds: f64) -> f64 {
        let mean = self.frames / self.turns.max(1.0);
        let frames_per_s = self.frames / seconds;
        let grown = |growth: f64| {
            let most = (self.connections * growth / 2.0).min(TURN_FRAMES_MAX);
            1.0 / (frames_per_s * (self.cost.frame + self.cost.turn / mean.max(most)))
        };
        (0..ROUNDS).fold(1.0, |growth, _| grown(growth))
    }
}

/// Rounds until turns and growth agree.
const ROUNDS: usize = 8;

impl Sampled {
    /// The line of least squares through the turns' costs. Without a slope, because all turns were
    /// alike or too few, everything counts as the frames'.
    fn cost(self) -> Cost {
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
    fn scaled_to(self, cpu_s: f64, turns: f64, frames: f64) -> Self {
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

    fn hops(seconds: f64) -> Distribution {
        let mut hops = Distribution::default();
        for (bound, count) in [(seconds * 0.999_999, 0.0), (seconds, 100.0), (f64::INFINITY, 100.0)]
        {
            hops.add(bound, count);
        }
        hops
    }

    /// A quarter of a second of work in one, in turns of one frame.
    fn shard() -> Shard {
        Shard {
            connections: 10.0,
            frames: 25_000.0,
            turns: 25_000.0,
            cpu_s: 0.25 + 0.1,
            cost: Cost { turn: 4e-6, frame: 10e-6 },
            hop: hops(100e-6),
            ..Shard::default()
        }
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

    #[test]
    fn a_full_processor_has_room_for_the_frames_and_large_turns() {
        let growth = shard().growth(1.0, 1.0).expect("there is enough to go by");
        // 25,000 frames of 10 µs are a quarter; turns of about 20 frames add 2 %.
        assert!((3.85..4.0).contains(&growth.processor), "{growth:?}");
    }

    #[test]
    fn latency_grows_with_what_is_not_left() {
        // At 100 µs with three quarters left, 300 µs are reached with one quarter left.
        let growth = shard().growth(1.0, 300e-6).expect("there is enough to go by");
        assert!((growth.latency - 3.0).abs() < 0.01, "{growth:?}");
        let missed = shard().growth(1.0, 50e-6).expect("there is enough to go by");
        assert!(missed.latency < 1.0, "{missed:?}");
    }

    #[test]
    fn without_frames_nothing_is_predicted() {
        assert_eq!(Shard { frames: 0.0, ..shard() }.growth(1.0, 1.0), None);
    }
}
