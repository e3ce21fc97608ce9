//! Watches a window whose load this process makes itself.

use anyhow::Result;
use serde::Serialize;

use crate::processor::{self, Times};
use crate::span::Span;
use crate::subject::Processors;
use crate::watch::{self, Bottleneck, Facts, Seen, Watch};

/// A window that is being watched.
pub(crate) struct Guard {
    watch: Watch,
    subjects: Vec<u32>,
    own: Times,
    theirs: Times,
    start_ns: u64,
}

/// What was seen of a window, and whose figures it has.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Watched {
    pub(crate) seconds: f64,
    pub(crate) facts: Facts,
    pub(crate) seen: Seen,
    pub(crate) bottlenecks: Vec<Bottleneck>,
}

impl Guard {
    /// Begins now; `subjects` are the processes under test.
    pub(crate) fn start(subjects: &[u32], processors: Processors) -> Result<Self> {
        let now = processor::now_ns();
        let span = Span { start_ns: now, measure_ns: now, end_ns: u64::MAX };
        let used = [processors.subject, processors.load];
        Ok(Self {
            watch: Watch::start(span, &[processors.load], &used)?,
            subjects: subjects.to_vec(),
            own: processor::times(std::process::id())?,
            theirs: of_all(subjects)?,
            start_ns: now,
        })
    }

    /// Ends now.
    pub(crate) fn finish(self) -> Result<Watched> {
        let elapsed_ns = processor::now_ns().saturating_sub(self.start_ns).max(1) as f64;
        let own = processor::times(std::process::id())?;
        let theirs = of_all(&self.subjects)?;
        let seen = self.watch.finish(true)?;
        let share = |before: u64, now: u64| now.saturating_sub(before) as f64 / elapsed_ns;
        let facts = Facts {
            load_cpu_share: share(self.own.used_ns, own.used_ns),
            subject_cpu_share: share(self.theirs.used_ns, theirs.used_ns),
            subject_waited_share: share(self.theirs.waited_ns, theirs.waited_ns),
            // Threads of this process, a platform's among them, wait for each other.
            load_waited_share: 0.0,
            ..Facts::default()
        };
        let seconds = elapsed_ns / 1e9;
        Ok(Watched { seconds, facts, bottlenecks: watch::judge(&facts, &seen, seconds), seen })
    }
}

fn of_all(processes: &[u32]) -> Result<Times> {
    processes.iter().try_fold(Times::default(), |sum, &process| {
        let times = processor::times(process)?;
        Ok(Times {
            used_ns: sum.used_ns + times.used_ns,
            waited_ns: sum.waited_ns + times.waited_ns,
        })
    })
}

/// What was found in any of some windows, each once.
pub(crate) fn found<'w>(windows: impl IntoIterator<Item = &'w Watched>) -> Vec<Bottleneck> {
    let mut all: Vec<Bottleneck> = Vec::new();
    for found in windows.into_iter().flat_map(|window| &window.bottlenecks) {
        if !all.contains(found) {
            all.push(found.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_knows_who_worked_in_it() {
        let processors = Processors { subject: 0, load: 0 };
        let guard = Guard::start(&[std::process::id()], processors).expect("it lives");
        let begun = processor::now_ns();
        while processor::now_ns() - begun < 30_000_000 {}
        let watched = guard.finish().expect("it lives");
        assert!(watched.seconds >= 0.03, "{watched:?}");
        assert!(watched.facts.load_cpu_share > 0.0, "{watched:?}");
        assert!(watched.facts.subject_cpu_share > 0.0, "{watched:?}");
    }
}
