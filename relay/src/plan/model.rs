//! From what a relay did in an interval to what it could do. `docs/capacity.md` explains it.

use super::cost::{Cost, Sampled};
use crate::readings::{Distribution, Interval};

/// What a relay did in an interval.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) seconds: f64,
    pub(crate) driver: String,
    pub(crate) shards: Vec<Shard>,
    pub(crate) connections: f64,
    /// Configured for the whole relay.
    pub(crate) connections_max: Option<f64>,
    /// Descriptors of the process that moves bytes: in use, and how many there may be.
    pub(crate) descriptors: Option<(f64, f64)>,
    /// Processors that the process may use.
    pub(crate) processors: Option<f64>,
    /// What its other threads used, as a share of one processor.
    pub(crate) beside: f64,
    /// Receives that found no buffer and waited in the kernel, for each that completed.
    pub(crate) starved: f64,
}

/// What one shard did in an interval, and what it held at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    /// The interval by the clock of its own process.
    pub(crate) seconds: f64,
    pub(crate) connections: f64,
    pub(crate) frames: f64,
    pub(crate) message_bytes: f64,
    pub(crate) turns: f64,
    /// Finished receives and sends.
    pub(crate) completions: f64,
    pub(crate) pings: f64,
    /// Sends that ended a frame.
    pub(crate) sends: f64,
    pub(crate) cpu_s: f64,
    pub(crate) cost: Cost,
    pub(crate) hop: Distribution,
    pub(crate) memory_used: f64,
    pub(crate) memory_budget: f64,
    pub(crate) residents: f64,
    pub(crate) residents_max: f64,
    pub(crate) buffers: f64,
}

/// Shards that have one processor between them, and what it is called.
pub(crate) struct Core<'o> {
    pub(crate) shards: Vec<&'o Shard>,
}

/// Frames of one turn at most: the driver hands out 1,024 completions, two for a frame.
const TURN_FRAMES_MAX: f64 = 512.0;
/// Starved receives for each that completed, from which on hop latency tells too little: what waits
/// in the kernel is not in it.
const STARVED_MAX: f64 = 0.05;
/// Rounds until turns and growth agree.
const ROUNDS: usize = 8;

impl Observed {
    /// What happened in an interval. `processors` is what the relay itself does not say.
    pub(crate) fn of(interval: &Interval<'_>, processors: Option<f64>) -> Self {
        let later = interval.later;
        let seconds = interval.seconds();
        let shards: Vec<_> = interval
            .shards()
            .into_iter()
            .map(|(shard, seconds)| Shard::of(interval, shard, seconds))
            .collect();
        // What the process is and has is the control plane's where data planes run apart.
        let is_apart = later.value("relay_data_planes").is_some_and(|planes| planes > 0.0);
        let of_process = |value: Option<f64>| value.filter(|_| !is_apart);
        let descriptors = later.value("process_open_fds").zip(later.value("process_max_fds"));
        let used = interval.since("process_cpu_seconds_total") / seconds;
        let beside = used - shards.iter().map(Shard::used).sum::<f64>();
        let completions: f64 = shards.iter().map(|shard| shard.completions).sum();
        Self {
            seconds,
            driver: later.fact("relay_info", "driver").unwrap_or("unknown").to_owned(),
            connections: later.value("relay_admitted_connections").unwrap_or_default(),
            connections_max: later.labelled("relay_limit", "limit", "connections"),
            descriptors: descriptors.filter(|_| !is_apart),
            processors: processors.or_else(|| of_process(later.value("relay_processors"))),
            beside: of_process(Some(beside)).unwrap_or_default().max(0.0),
            starved: interval.since("relay_receive_starved_total") / completions.max(1.0),
            shards,
        }
    }

    /// Forwarded frames per second.
    pub(crate) fn frames_per_s(&self) -> f64 {
        self.shards.iter().map(|shard| shard.frames / shard.seconds).sum()
    }

    /// Whether so many frames waited in the kernel that hop latency does not tell.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved > STARVED_MAX
    }

    /// The processors of shards. Shards are spread over the processors in turn where there are more
    /// of them; else each has one.
    pub(crate) fn cores(&self) -> Vec<Core<'_>> {
        let of = |first: usize, step: usize| Core {
            shards: self.shards.iter().skip(first).step_by(step).collect(),
        };
        let count = self.processors.map_or(usize::MAX, |processors| processors.ceil() as usize);
        let count = count.clamp(1, self.shards.len().max(1));
        (0..count).map(|core| of(core, count)).filter(|core| !core.shards.is_empty()).collect()
    }

    /// How much of everything its processors take, all threads together.
    pub(crate) fn growth(&self) -> Option<f64> {
        let all: Vec<_> = self.shards.iter().collect();
        growth(&all, self.beside, self.processors?)
    }
}

impl Core<'_> {
    /// What its shards use of it.
    pub(crate) fn used(&self) -> f64 {
        self.shards.iter().map(|shard| shard.used()).sum()
    }

    /// How much of everything it takes.
    pub(crate) fn growth(&self) -> Option<f64> {
        growth(&self.shards, 0.0, 1.0)
    }

    /// How much of everything keeps a shard's 99th percentile of hop latency at `objective_s`;
    /// below one where it is above already. `None` where nothing was forwarded.
    pub(crate) fn latency_growth(&self, shard: &Shard, objective_s: f64) -> Option<f64> {
        let hop = shard.hop.quantile(0.99)?;
        let work: f64 = self.shards.iter().map(|shard| shard.work()).sum();
        // Work waits for the turn before it, so a turn that work fills to a share has a length in
        // inverse proportion to the share that is left.
        let left = (1.0 - work) * hop / objective_s;
        (work > 0.0).then(|| ((1.0 - left) / work).max(0.0))
    }
}

/// How much of everything `processors` take of these shards and of what is used `beside` them.
fn growth(shards: &[&Shard], beside: f64, processors: f64) -> Option<f64> {
    let rate =
        |growth: f64| shards.iter().map(|shard| shard.used_when_full(growth)).sum::<f64>() + beside;
    (rate(1.0) > 0.0).then(|| (0..ROUNDS).fold(1.0, |growth, _| processors / rate(growth)))
}

impl Shard {
    fn of(interval: &Interval<'_>, number: u16, seconds: f64) -> Self {
        let now = |name: &str| interval.later.of_shard(name, number).unwrap_or_default();
        let since = |name: &str| interval.of_shard(name, number);
        let measured = |name: &str| interval.distribution(name, number);
        let cpu_s = since("relay_shard_cpu_seconds_total");
        let completed = measured("relay_turn_completions");
        let turns = completed.count();
        let frames = since("relay_shard_frames_total");
        Self {
            number,
            seconds,
            connections: now("relay_shard_connections"),
            frames,
            message_bytes: since("relay_shard_message_bytes_total"),
            turns,
            completions: completed.sum,
            pings: since("relay_shard_pings_total"),
            sends: measured("relay_send_frames").count(),
            cpu_s,
            cost: Sampled::of(interval, number).cost().scaled_to(cpu_s, turns, frames),
            hop: measured("relay_hop_latency_seconds"),
            memory_used: now("relay_memory_used_bytes"),
            memory_budget: now("relay_memory_budget_bytes"),
            residents: now("relay_shard_residents"),
            residents_max: now("relay_shard_residents_max"),
            buffers: now("relay_shard_buffers_max"),
        }
    }

    /// The share of a processor it used.
    pub(crate) fn used(&self) -> f64 {
        self.cpu_s / self.seconds
    }

    /// The share of turns that heartbeats took: two completions each, a ping that left and a pong
    /// that came.
    fn pinging(&self) -> f64 {
        (2.0 * self.pings / self.completions.max(1.0)).min(1.0)
    }

    /// The share of a processor that connections cost without saying anything: heartbeats, and all
    /// there is where nobody says anything.
    pub(crate) fn upkeep(&self) -> f64 {
        match self.frames > 0.0 {
            true => self.pinging() * self.cost.turn * self.turns / self.seconds,
            false => self.used(),
        }
    }

    /// The share of a processor that does not shrink with larger turns.
    fn work(&self) -> f64 {
        self.upkeep() + self.cost.frame * self.frames / self.seconds
    }

    /// Frames of a turn that brings any.
    pub(crate) fn frames_per_turn(&self) -> f64 {
        self.frames / (self.turns * (1.0 - self.pinging())).max(1.0)
    }

    /// The share of a processor used for what there is now, once there is `growth` times as much
    /// and the processor is full: turns are then as large as connections and buffers allow, and
    /// still cost what a turn costs.
    fn used_when_full(&self, growth: f64) -> f64 {
        let connections = self.connections * growth / 2.0;
        let turn_frames = self.frames_per_turn().max(connections.min(self.turn_frames_max()));
        let per_frame = self.cost.frame + self.cost.turn / turn_frames.max(f64::MIN_POSITIVE);
        self.upkeep() + per_frame * self.frames / self.seconds
    }

    /// A turn's frames come with receive buffers, and half of these carry what is being sent.
    fn turn_frames_max(&self) -> f64 {
        let per_receive = (self.frames / self.sends.max(1.0)).max(1.0);
        let received = self.buffers / 2.0 * per_receive;
        if self.buffers > 0.0 { received.min(TURN_FRAMES_MAX) } else { TURN_FRAMES_MAX }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
