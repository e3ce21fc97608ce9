//! How busy a shard is.

use std::time::Duration;

/// What a shard's thread has done since start, and what its tables hold now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ShardLoad {
    /// Since its process started: what the counts are since. The control plane may be younger.
    pub uptime: Duration,
    /// Processor time of the thread.
    pub cpu: Duration,
    /// System calls of its driver.
    pub system_calls: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes the kernel took for sending.
    pub sent_bytes: u64,
    /// Connections in the driver's table of residents.
    pub residents: u64,
    /// How many that table takes.
    pub residents_max: u64,
    /// Receive buffers in use.
    pub buffers_in_use: u64,
    /// Receive buffers there are.
    pub buffers_max: u64,
    /// What turns cost.
    pub turn_cost: TurnCost,
}

/// Sums over some of the turns, for a line through their cost: what a turn takes, and what each of
/// its frames adds.
///
/// Shape: turns are looked at in spans of a fixed number. Sums only grow, so the line of an
/// interval is that of the differences. A span's cost is the processor time until the next turn
/// begins, the kernel's work for it included.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TurnCost {
    /// Spans that were looked at.
    pub spans: u64,
    /// Their turns.
    pub turns: u64,
    /// Frames they forwarded.
    pub frames: u64,
    /// Their frames, each span's squared.
    pub frames_squared: u64,
    /// Their processor time, nanoseconds.
    pub cpu_ns: u64,
    /// Their processor time in nanoseconds, each span's times its frames.
    pub frames_cpu_ns: u64,
}

impl TurnCost {
    /// Takes in one span. The sums last for centuries.
    pub fn add(&mut self, turns: u64, frames: u64, cpu: Duration) {
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let sums = [
            (&mut self.spans, 1),
            (&mut self.turns, turns),
            (&mut self.frames, frames),
            (&mut self.frames_squared, frames.saturating_mul(frames)),
            (&mut self.cpu_ns, cpu_ns),
            (&mut self.frames_cpu_ns, cpu_ns.saturating_mul(frames)),
        ];
        for (sum, value) in sums {
            *sum = sum.saturating_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_the_sums_is_the_line_through_the_spans() {
        let mut cost = TurnCost::default();
        for frames in [1, 2, 5] {
            cost.add(4, frames, Duration::from_nanos(1000 + 300 * frames));
        }
        let TurnCost { spans, turns, frames, frames_squared, cpu_ns, frames_cpu_ns } = cost;
        let slope =
            (spans * frames_cpu_ns - frames * cpu_ns) / (spans * frames_squared - frames * frames);
        assert_eq!(slope, 300);
        assert_eq!(cpu_ns - slope * frames, 1000 * spans);
        assert_eq!(turns, 12);
    }
}
