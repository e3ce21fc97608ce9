//! Was it the load, or the machine, that set the figures?
//!
//! A canary thread asks to be woken every few milliseconds on the load's processor, before all
//! other work; when it comes late, the machine stood still. The kernel tells how much time a
//! hypervisor took, and how long processes waited for a processor that somebody else had.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::outcome;
use crate::processor;
use crate::span::Span;

/// Watches the machine over the window of a span: a canary on each processor of the load.
pub(crate) struct Watch {
    canaries: Vec<JoinHandle<Result<Seen>>>,
    stop: Arc<AtomicBool>,
}

/// What was seen of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    /// How late the canary was woken, at worst and one time in a hundred.
    pub(crate) stall_worst_ns: u64,
    pub(crate) stall_p99_ns: u64,
    /// How often it was late by more than [`STALL_NS`].
    pub(crate) stall_count: u64,
    /// Share of a processor's time that a hypervisor took, of the one in use where it is most.
    pub(crate) steal_share: f64,
    /// Whether the canary could go before other work. Where not, it also sees the load itself.
    pub(crate) is_canary_first: bool,
}

impl Watch {
    /// Begins to watch the processors of the `load`; what a hypervisor takes counts on all that are
    /// `used`. A canary beside the process under test would be load of its own; what that process
    /// waited for is told by the kernel.
    pub(crate) fn start(span: Span, load: &[usize], used: &[usize]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = load.to_vec();
        load.sort_unstable();
        load.dedup();
        let canary = |processor: usize| {
            let (stopped, used) = (Arc::clone(&stop), used.to_vec());
            let canary = move || look(&span, processor, &used, &stopped);
            Ok(thread::Builder::new().name("canary".into()).spawn(canary)?)
        };
        let canaries = load.into_iter().map(canary).collect::<Result<_>>()?;
        Ok(Self { canaries, stop })
    }

    /// What was seen, at worst. Waits for the end of the span unless `is_cut` says that the load
    /// has ended, or failed.
    pub(crate) fn finish(self, is_cut: bool) -> Result<Seen> {
        self.stop.store(is_cut, Ordering::Relaxed);
        let seen = self
            .canaries
            .into_iter()
            .map(|canary| canary.join().map_err(|_| anyhow!("the canary panicked"))?);
        let seen = seen.collect::<Result<Vec<_>>>()?;
        seen.into_iter().reduce(Seen::worse).context("a load has a processor")
    }
}

impl Seen {
    /// The worse of both, figure by figure.
    fn worse(self, other: Self) -> Self {
        Self {
            stall_worst_ns: self.stall_worst_ns.max(other.stall_worst_ns),
            stall_p99_ns: self.stall_p99_ns.max(other.stall_p99_ns),
            stall_count: self.stall_count.max(other.stall_count),
            steal_share: self.steal_share.max(other.steal_share),
            is_canary_first: self.is_canary_first && other.is_canary_first,
        }
    }
}

fn look(span: &Span, processor: usize, used: &[usize], stop: &AtomicBool) -> Result<Seen> {
    processor::pin_to(processor)?;
    processor::wake_precisely();
    let is_canary_first = relay_arrival::run_first(URGENCY);
    let mut late = outcome::histogram();
    let mut due = span.measure_ns;
    let mut before = None;
    while due < span.end_ns && !stop.load(Ordering::Relaxed) {
        processor::rest_until(due);
        if before.is_none() {
            before = Some(Ticks::read(used)?);
        }
        let now = processor::now_ns();
        late.saturating_record(now - due);
        due = now + PERIOD_NS;
    }
    let now = Ticks::read(used)?;
    let before = before.unwrap_or_else(|| now.clone());
    let shares = before.iter().zip(&now).map(|(before, now)| now.stolen_share(before));
    Ok(Seen {
        stall_worst_ns: late.max(),
        stall_p99_ns: late.value_at_quantile(0.99),
        stall_count: count_above(&late, STALL_NS),
        steal_share: shares.fold(0.0, f64::max),
        is_canary_first,
    })
}

/// How many values are greater than a bound.
pub(crate) fn count_above(histogram: &Histogram<u64>, bound: u64) -> u64 {
    histogram
        .iter_recorded()
        .filter(|value| value.value_iterated_to() > bound)
        .map(|value| value.count_since_last_iteration())
        .sum()
}

/// Time of one processor in the kernel's unit. Source: proc(5), `/proc/stat`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    fn read(processors: &[usize]) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let ticks = processors.iter().map(|&processor| {
            Self::parse(&text, processor)
                .with_context(|| format!("/proc/stat has no processor {processor}"))
        });
        ticks.collect()
    }

    /// A processor's line: user, nice, system, idle, iowait, irq, softirq, steal, and two that are
    /// part of the first two.
    fn parse(text: &str, processor: usize) -> Option<Self> {
        let name = format!("cpu{processor} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let numbers: Vec<u64> =
            line.split_whitespace().map_while(|number| number.parse().ok()).take(8).collect();
        Some(Self { all: numbers.iter().sum(), stolen: *numbers.get(7)? })
    }

    /// The part of the time since an earlier reading that a hypervisor took.
    fn stolen_share(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// The facts that a verdict rests on. Shares are of one processor.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// The busiest process of the load.
    pub(crate) load_cpu_share: f64,
    /// The one that waited most for its processor.
    pub(crate) load_waited_share: f64,
    /// The process under test, over the processors it may use.
    pub(crate) subject_cpu_share: f64,
    /// What its threads waited, also for each other.
    pub(crate) subject_waited_share: f64,
    /// Share of frames in an open loop that were called for later than [`LATE_NS`].
    pub(crate) late_share: f64,
    /// Frames that were due and could not be sent at all.
    pub(crate) unsent: u64,
}

/// Something beside the process under test that set the figures.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Bottleneck {
    /// The load, or the machine.
    pub(crate) who: Who,
    pub(crate) why: String,
}

/// Who was too slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Who {
    Load,
    Machine,
}

/// Judges whose figures these are.
pub(crate) fn judge(facts: &Facts, seen: &Seen, seconds: f64) -> Vec<Bottleneck> {
    let mut found = Vec::new();
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut find = |is_found: bool, who: Who, why: String| {
        if is_found {
            found.push(Bottleneck { who, why });
        }
    };
    // Where both are busy all the time, the process under test cannot do more either.
    let is_load_full =
        facts.load_cpu_share > FULL_SHARE && facts.subject_cpu_share < SATURATED_SHARE;
    find(
        is_load_full,
        Who::Load,
        format!(
            "a thread of the load ran for {} of the time, the process under test only for {}: more \
         processes (`processes`), fewer pairs or smaller messages",
            percent(facts.load_cpu_share),
            percent(facts.subject_cpu_share)
        ),
    );
    find(
        facts.late_share > LATE_SHARE_MAX,
        Who::Load,
        format!(
            "{} of the frames were called for more than {} ms late: a lower rate, or more \
             processes",
            percent(facts.late_share),
            LATE_NS / 1_000_000
        ),
    );
    let others = "something else used its processor";
    find(
        facts.load_waited_share > WAITED_SHARE_MAX,
        Who::Machine,
        format!(
            "a thread of the load waited {} of the time: {others}",
            percent(facts.load_waited_share)
        ),
    );
    // What it used itself, others did not: several of its threads may wait for each other.
    let taken = facts.subject_waited_share.min(1.0 - facts.subject_cpu_share);
    find(
        taken > WAITED_SHARE_MAX,
        Who::Machine,
        format!("the process under test waited {} of the time: {others}", percent(taken)),
    );
    find(
        seen.steal_share > STEAL_SHARE_MAX,
        Who::Machine,
        format!("a hypervisor took {} of the time", percent(seen.steal_share)),
    );
    let stalls_per_s = seen.stall_count as f64 / seconds;
    find(
        stalls_per_s > STALLS_PER_S_MAX,
        Who::Machine,
        format!(
            "the machine stood still {} times, {} ms at worst",
            seen.stall_count,
            seen.stall_worst_ns / 1_000_000
        ),
    );
    found
}

/// Before all load, and before a platform's threads.
const URGENCY: i32 = 3;
/// Distance of the canary's moments.
const PERIOD_NS: u64 = 2_000_000;
/// Being woken so late is a stall.
const STALL_NS: u64 = 10_000_000;
/// Stalls that a run may have: one a second moves p99.9 at most.
const STALLS_PER_S_MAX: f64 = 1.0;
/// A thread that runs for more of its time has no reserve.
const FULL_SHARE: f64 = 0.9;
/// A process under test that runs for more of its time is itself the bottleneck.
const SATURATED_SHARE: f64 = 0.95;
/// Time in which a process could have run and did not, at most.
const WAITED_SHARE_MAX: f64 = 0.05;
/// Time taken by a hypervisor, at most.
const STEAL_SHARE_MAX: f64 = 0.02;
/// A frame that is called for later than this is late.
pub(crate) const LATE_NS: u64 = 1_000_000;
/// Late frames, at most.
const LATE_SHARE_MAX: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Seen = Seen {
        stall_worst_ns: 100_000,
        stall_p99_ns: 50_000,
        stall_count: 0,
        steal_share: 0.0,
        is_canary_first: true,
    };

    fn whose(facts: Facts, seen: &Seen) -> Vec<Who> {
        judge(&facts, seen, 10.0).into_iter().map(|found| found.who).collect()
    }

    #[test]
    fn a_calm_run_has_no_bottleneck() {
        assert_eq!(whose(Facts::default(), &CALM), []);
    }

    #[test]
    fn a_busy_load_counts_only_while_the_process_under_test_has_time() {
        let facts = |subject_cpu_share| Facts {
            load_cpu_share: 0.97,
            subject_cpu_share,
            ..Facts::default()
        };
        assert_eq!(whose(facts(0.6), &CALM), [Who::Load]);
        assert_eq!(whose(facts(0.99), &CALM), []);
    }

    #[test]
    fn late_calls_waiting_steal_and_stalls_are_each_told() {
        let late = Facts { late_share: 0.02, ..Facts::default() };
        assert_eq!(whose(late, &CALM), [Who::Load]);
        let waited = Facts { subject_waited_share: 0.2, ..Facts::default() };
        assert_eq!(whose(waited, &CALM), [Who::Machine]);
        let stolen = Seen { steal_share: 0.05, ..CALM };
        assert_eq!(whose(Facts::default(), &stolen), [Who::Machine]);
        let stalled = Seen { stall_count: 11, ..CALM };
        assert_eq!(whose(Facts::default(), &stalled), [Who::Machine]);
    }

    #[test]
    fn threads_that_wait_for_each_other_wait_for_nobody_else() {
        let facts = |subject_cpu_share| Facts {
            subject_cpu_share,
            subject_waited_share: 1.1,
            ..Facts::default()
        };
        assert_eq!(whose(facts(0.98), &CALM), []);
        assert_eq!(whose(facts(0.6), &CALM), [Who::Machine]);
    }

    #[test]
    fn steal_of_one_processor_is_not_diluted_by_the_others() {
        let text = "cpu  400 0 0 0 0 0 0 10 0 0\ncpu0 190 0 0 0 0 0 0 10 0 0\n\
                    cpu1 200 0 0 0 0 0 0 0\ncpu10 1 0 0 0 0 0 0 1\n";
        assert_eq!(Ticks::parse(text, 0), Some(Ticks { all: 200, stolen: 10 }));
        assert_eq!(Ticks::parse(text, 1), Some(Ticks { all: 200, stolen: 0 }));
        assert_eq!(Ticks::parse(text, 2), None);
        let (before, now) = (Ticks { all: 100, stolen: 6 }, Ticks { all: 200, stolen: 10 });
        assert!((now.stolen_share(&before) - 0.04).abs() < 1e-9);
        assert!(Ticks::read(&[0]).expect("this machine tells")[0].all > 0);
    }

    #[test]
    fn the_worst_of_several_canaries_counts() {
        let stalled = Seen { stall_count: 3, is_canary_first: false, ..CALM };
        let stolen = Seen { steal_share: 0.5, ..CALM };
        let worse = stalled.worse(stolen);
        assert_eq!((worse.stall_count, worse.steal_share), (3, 0.5));
        assert!(!worse.is_canary_first);
    }
}
