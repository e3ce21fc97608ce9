//! What a scenario came to, as data and as a page.

mod listing;
mod page;
mod plot;

pub(crate) use listing::page_of_command;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::crew::Told;
use crate::figures::Spread;
use crate::outcome;
use crate::processor::Resident;
use crate::readings::Readings;
use crate::scenario::{Case, CaseLoad, Scenario};
use crate::slow::SLOW_READERS_CLOSED;
use crate::span::{Sample, Span};
use crate::trial::Header;
use crate::watch::{self, Bottleneck, Facts, Seen};

/// The result of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
    #[serde(flatten)]
    pub(crate) header: Header,
    pub(crate) cases: Vec<CaseReport>,
}

/// The result of one load.
#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) case: Case,
    pub(crate) processes: usize,
    pub(crate) seconds: f64,
    /// Frames that arrived in the window, whole, in order and as sent.
    pub(crate) frames: u64,
    pub(crate) frames_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// Processor time of the process under test per frame, nanoseconds: over the whole window, and
    /// slice by slice. Nothing beside slow readers, whose frames cost as well and are not counted.
    pub(crate) cpu_ns_per_frame: Option<f64>,
    pub(crate) cpu_ns_per_frame_by_slice: Option<Spread>,
    /// The same of the load itself.
    pub(crate) load_cpu_ns_per_frame: f64,
    pub(crate) latency: Latency,
    pub(crate) resident: Resident,
    /// Frames sent in all. Every one arrived, was compared byte by byte, and was in its order.
    pub(crate) verified: u64,
    pub(crate) counts: std::collections::BTreeMap<String, u64>,
    pub(crate) facts: Facts,
    pub(crate) seen: Seen,
    pub(crate) bottlenecks: Vec<Bottleneck>,
    pub(crate) slices: Vec<Slice>,
    /// What the relay measured of itself, for `relay plan`.
    pub(crate) metrics: Option<Readings>,
}

/// Nanoseconds from sending a frame, or from when it was due, until it had arrived.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_ns: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) p9999_ns: u64,
    pub(crate) max_ns: u64,
    /// All of it, in HDR's V2 form, base64.
    pub(crate) histogram: String,
    /// For the plot: a quantile and its value.
    pub(crate) curve: Vec<(f64, u64)>,
}

/// What happened between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Slice {
    /// Seconds from the beginning of the load.
    pub(crate) at_s: f64,
    /// Whether it belongs to the window.
    pub(crate) is_measured: bool,
    pub(crate) frames_per_s: f64,
    pub(crate) subject_cpu_share: f64,
    pub(crate) load_cpu_share: f64,
}

impl CaseReport {
    /// Adds up what the processes told.
    pub(crate) fn new(
        case: Case,
        span: &Span,
        processors: &[usize],
        told: &[Told],
        seen: Seen,
        resident: Resident,
    ) -> Result<Self> {
        let (mut latency, mut lag) = (outcome::histogram(), outcome::histogram());
        let mut counts = std::collections::BTreeMap::new();
        for Told { outcome, .. } in told {
            outcome::add(&mut latency, &outcome.latency)?;
            outcome::add(&mut lag, &outcome.lag)?;
            for (name, count) in &outcome.counts {
                *counts.entry(name.clone()).or_default() += count;
            }
        }
        let sum = |figure: fn(&outcome::Outcome) -> u64| {
            told.iter().map(|told| figure(&told.outcome)).sum::<u64>()
        };
        let first = &told.first().context("a load has a process")?.outcome;
        let elapsed_ns = first.elapsed_ns.max(1) as f64;
        let frames = sum(|outcome| outcome.frames);
        let per_frame = |used_ns: u64| used_ns as f64 / frames.max(1) as f64;
        let facts = facts(told, processors, &lag);
        let seconds = elapsed_ns / 1e9;
        let slices = slices(span, told);
        let is_whole = !counts.contains_key(SLOW_READERS_CLOSED);
        Ok(Self {
            processes: told.len(),
            seconds,
            frames,
            frames_per_s: frames as f64 / seconds,
            bytes_per_s: sum(|outcome| outcome.bytes) as f64 / seconds,
            cpu_ns_per_frame: is_whole.then(|| per_frame(first.subject_used_ns)),
            cpu_ns_per_frame_by_slice: is_whole
                .then(|| Spread::of(slices.iter().filter_map(Slice::cpu_ns_per_frame))),
            load_cpu_ns_per_frame: per_frame(sum(|outcome| outcome.used_ns)),
            latency: Latency::of(&latency)?,
            resident,
            verified: sum(|outcome| outcome.verified),
            counts,
            bottlenecks: watch::judge(&facts, &seen, seconds),
            facts,
            seen,
            slices,
            metrics: None,
            case,
        })
    }

    /// One line for the terminal.
    pub(crate) fn line(&self) -> String {
        let micros = |ns: u64| ns as f64 / 1e3;
        let unsent = match self.facts.unsent {
            0 => String::new(),
            unsent => format!("   {unsent} due and not sent"),
        };
        let cost = self
            .cpu_ns_per_frame
            .map_or_else(|| "     –".to_owned(), |cost| format!("{:>6.3}", cost / 1e3));
        format!(
            "{:>9.0} frames/s   {cost} µs CPU/frame ({:>3.0} % of its processor)   p50 {:.0} µs   \
             p99 {:.0} µs   p99.9 {:.0} µs   load {:>3.0} %{unsent}",
            self.frames_per_s,
            self.facts.subject_cpu_share * 100.0,
            micros(self.latency.p50_ns),
            micros(self.latency.p99_ns),
            micros(self.latency.p999_ns),
            self.facts.load_cpu_share * 100.0
        )
    }

    /// What a frame is called here: where one message is heard by many, each hearing is one.
    pub(crate) fn frame_noun(&self) -> &'static str {
        match self.case.load {
            CaseLoad::Pairs { .. } => "frames",
            CaseLoad::Rooms { .. } => "deliveries",
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Result<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let curve = (0..=CURVE_STEPS)
            .map(|step| 1.0 - 10_f64.powf(-(step as f64) / CURVE_STEPS_PER_NINE))
            .map(|quantile| (quantile, at(quantile)))
            // Beyond the last value there is nothing to tell apart.
            .filter(|(quantile, _)| (1.0 - quantile) * histogram.len() as f64 >= 1.0)
            .collect();
        Ok(Self {
            count: histogram.len(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
            histogram: outcome::encode(histogram)?,
            curve,
        })
    }
}

impl Slice {
    /// Nothing where no frame arrived.
    fn cpu_ns_per_frame(&self) -> Option<f64> {
        let has_frames = self.is_measured && self.frames_per_s > 0.0;
        has_frames.then(|| self.subject_cpu_share * 1e9 / self.frames_per_s)
    }
}

/// The facts for a verdict. Processes of the load may share processors: what counts then is how
/// busy the processor is with them, and that they wait for each other says nothing.
fn facts(told: &[Told], processors: &[usize], lag: &Histogram<u64>) -> Facts {
    let mut facts = Facts::default();
    let share = |ns: u64, told: &Told| ns as f64 / told.outcome.elapsed_ns.max(1) as f64;
    for (place, processor) in processors.iter().enumerate() {
        let here: Vec<&Told> = told.iter().skip(place).step_by(processors.len()).collect();
        if processors[..place].contains(processor) {
            continue;
        }
        let used = here.iter().map(|told| share(told.outcome.used_ns, told)).sum();
        facts.load_cpu_share = facts.load_cpu_share.max(used);
        if let [alone] = here[..] {
            let waited = share(alone.outcome.waited_ns, alone);
            facts.load_waited_share = facts.load_waited_share.max(waited);
        }
    }
    if let Some(first) = told.first() {
        facts.subject_cpu_share = share(first.outcome.subject_used_ns, first);
        facts.subject_waited_share = share(first.outcome.subject_waited_ns, first);
    }
    facts.late_share = watch::count_above(lag, watch::LATE_NS) as f64 / lag.len().max(1) as f64;
    facts.unsent = told.iter().map(|told| told.outcome.unsent).sum();
    facts
}

/// Rates between samples. The first process's samples set the moments; of the others counts are
/// what they last said before.
fn slices(span: &Span, told: &[Told]) -> Vec<Slice> {
    let Some((first, others)) = told.split_first() else { return Vec::new() };
    let before = |samples: &[Sample], at_ns: u64| {
        samples.iter().take_while(|sample| sample.at_ns <= at_ns).last().copied()
    };
    let total = |sample: &Sample| {
        let others = others.iter().filter_map(|told| before(&told.samples, sample.at_ns));
        others.fold((sample.frames, sample.used_ns), |(frames, used_ns), other| {
            (frames + other.frames, used_ns + other.used_ns)
        })
    };
    let pairs = first.samples.windows(2).filter_map(|pair| {
        let [one, two] = pair else { return None };
        let elapsed_ns = two.at_ns.saturating_sub(one.at_ns).max(1) as f64;
        let ((frames, used_ns), (frames_then, used_then_ns)) = (total(two), total(one));
        Some(Slice {
            at_s: two.at_ns.saturating_sub(span.start_ns) as f64 / 1e9,
            is_measured: one.at_ns >= span.measure_ns && two.at_ns <= span.end_ns,
            // Counts begin anew with the window.
            frames_per_s: frames.checked_sub(frames_then)? as f64 * 1e9 / elapsed_ns,
            subject_cpu_share: two.subject_used_ns.checked_sub(one.subject_used_ns)? as f64
                / elapsed_ns,
            load_cpu_share: used_ns.checked_sub(used_then_ns)? as f64 / elapsed_ns,
        })
    });
    pairs.collect()
}

impl Report {
    /// Writes both forms into a folder, named as the scenario; returns where the page is. The data
    /// are without their course over time where that is not wanted, which the page always shows.
    pub(crate) fn write(&mut self, folder: &Path, with_slices: bool) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = |ending: &str| folder.join(format!("{}.{ending}", self.name));
        let (data, html) = (path("json"), path("html"));
        std::fs::write(&html, page::render(self)).with_context(|| html.display().to_string())?;
        if !with_slices {
            self.cases.iter_mut().for_each(|case| case.slices.clear());
        }
        crate::figures::write_json(Some(&data), self)?;
        Ok(html)
    }

    /// What set the figures beside the process under test, case by case.
    pub(crate) fn bottlenecks(&self) -> impl Iterator<Item = (&str, &Bottleneck)> {
        self.cases
            .iter()
            .flat_map(|case| case.bottlenecks.iter().map(|found| (case.case.name.as_str(), found)))
    }
}

/// Points of a latency curve, and how many of them for each further nine.
const CURVE_STEPS: u32 = 100;
const CURVE_STEPS_PER_NINE: f64 = 20.0;

#[cfg(test)]
mod tests;
