//! What was measured, and how it is shown.

use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

/// One measured window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    /// Frames the process forwarded, all of them whole, in order and as sent.
    pub(crate) frames: u64,
    pub(crate) frames_per_s: f64,
    /// Processor time of the process per forwarded frame, nanoseconds.
    pub(crate) cpu_ns_per_frame: f64,
    /// Share of its processor that the process used.
    pub(crate) cpu_share: f64,
    /// From releasing a frame to the read that completed it; with echo, there and back.
    pub(crate) latency_p50_ns: u64,
    pub(crate) latency_p99_ns: u64,
    pub(crate) latency_p999_ns: u64,
}

impl Window {
    /// Figures of `frames` frames in `elapsed_ns`, during which the process ran for `used_ns`.
    pub(crate) fn new(
        frames: u64,
        elapsed_ns: u64,
        used_ns: u64,
        latency: &Histogram<u64>,
    ) -> Self {
        let elapsed = elapsed_ns.max(1) as f64;
        Self {
            frames,
            frames_per_s: frames as f64 * 1e9 / elapsed,
            cpu_ns_per_frame: used_ns as f64 / frames.max(1) as f64,
            cpu_share: used_ns as f64 / elapsed,
            latency_p50_ns: latency.value_at_quantile(0.5),
            latency_p99_ns: latency.value_at_quantile(0.99),
            latency_p999_ns: latency.value_at_quantile(0.999),
        }
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let micros = |ns: u64| ns as f64 / 1e3;
        format!(
            "{:>9.0} frames/s   {:>6.3} µs CPU/frame ({:>3.0} % of its processor)   \
             p50 {:.0} µs   p99 {:.0} µs   p99.9 {:.0} µs",
            self.frames_per_s,
            self.cpu_ns_per_frame / 1e3,
            self.cpu_share * 100.0,
            micros(self.latency_p50_ns),
            micros(self.latency_p99_ns),
            micros(self.latency_p999_ns)
        )
    }
}

/// The middle of several values, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// The spread of some values; zeros for none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            least: at(0),
            most: at(last),
        }
    }
}

/// Writes a result where it was asked for.
pub(crate) fn write_json(path: Option<&Path>, result: &impl Serialize) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_a_middle_for_odd_and_even_counts() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let one = Spread { median: 5.0, least: 5.0, most: 5.0 };
        assert_eq!(spread(&[5.0]), one);
        assert_eq!(spread(&[]).median, 0.0);
    }

    #[test]
    fn a_window_divides_time_by_frames() {
        let latency = Histogram::new(3).expect("three digits");
        let window = Window::new(1000, 1_000_000, 500_000, &latency);
        assert_eq!(window.cpu_ns_per_frame, 500.0);
        assert_eq!(window.frames_per_s, 1e6);
        assert_eq!(window.cpu_share, 0.5);
    }
}
