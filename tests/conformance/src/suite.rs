//! Many scenarios, a few at a time.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, ensure};

use crate::certificates::Certificates;
use crate::relay_process::Shape;
use crate::report::{Report, Summary};
use crate::scenario::{self, Scenario};
use crate::trial;

/// Which scenarios are run, against what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The relay program.
    pub relay: PathBuf,
    /// Variables for every relay; a scenario's own variables override them.
    pub env: Vec<(String, String)>,
    /// Whether relays are one process each, or two.
    pub shape: Shape,
    /// The scenarios meant.
    pub selection: Selection,
    /// Scenarios running at the same time, at least 1.
    pub jobs: usize,
}

/// A choice among the scenarios of a folder.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Holds one folder for each group, and `metrics.json`.
    pub dir: PathBuf,
    /// These groups; with `scenarios` also empty: all.
    pub groups: Vec<String>,
    /// These scenarios, as `group/name`.
    pub scenarios: Vec<String>,
    /// Groups, and scenarios as `group/name`, that are chosen too and whose failures do not
    /// count. Everything else in their group counts.
    pub report_only: Vec<String>,
}

/// What all scenarios of a run share.
pub(crate) struct Setup {
    pub(crate) relay: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) shape: Shape,
    pub(crate) certificates: Certificates,
    /// Names of the metrics that are compared.
    pub(crate) metrics: HashSet<String>,
}

/// The selected scenarios as `group/name`, sorted.
///
/// Errors: a file that is not a scenario, or a selection that names what there is not.
pub fn list(selection: &Selection) -> anyhow::Result<Vec<String>> {
    let scenarios = scenario::read_all(&selection.dir)?;
    Ok(selection.select(&scenarios)?.iter().map(|scenario| scenario.id()).collect())
}

/// Runs the selected scenarios and prints a report to `out`.
///
/// Errors: the scenarios cannot be read or the run not be prepared. A scenario that fails is
/// no error; the summary counts it, unless it is only reported.
pub fn run(options: &Options, out: impl Write) -> anyhow::Result<Summary> {
    let mut scenarios = scenario::read_all(&options.selection.dir)?;
    options.selection.hurry(&mut scenarios);
    let selected = options.selection.select(&scenarios)?;
    let relay = options.relay.canonicalize();
    let setup = Setup {
        relay: relay.with_context(|| format!("no relay at {}", options.relay.display()))?,
        env: options.env.clone(),
        shape: options.shape,
        certificates: Certificates::make().context("making certificates")?,
        metrics: read_metrics(&options.selection.dir)?,
    };
    run_all(&setup, &selected, options, out)
}

impl Selection {
    fn select<'a>(&self, scenarios: &'a [Scenario]) -> anyhow::Result<Vec<&'a Scenario>> {
        for group in &self.groups {
            ensure!(scenarios.iter().any(|s| s.group == *group), "no group {group}");
        }
        for id in &self.scenarios {
            ensure!(scenarios.iter().any(|s| s.id() == *id), "no scenario {id}");
        }
        // A name that outlives its scenario would hide nothing, and mislead whoever reads it.
        for name in &self.report_only {
            ensure!(scenarios.iter().any(|s| is_meant(s, name)), "no group or scenario {name}");
        }
        let all = self.groups.is_empty() && self.scenarios.is_empty();
        let chosen = scenarios.iter().filter(|scenario| {
            all || self.groups.contains(&scenario.group)
                || self.scenarios.contains(&scenario.id())
                || self.is_report_only(scenario)
        });
        Ok(chosen.collect())
    }

    /// What is bound to fail, and does not count, is not waited for as long as what counts.
    fn hurry(&self, scenarios: &mut [Scenario]) {
        for scenario in scenarios.iter_mut().filter(|scenario| self.is_report_only(scenario)) {
            for step in &mut scenario.steps {
                step.timeout_ms.get_or_insert(REPORTED_MS);
            }
        }
    }

    /// Whether a failure of the scenario is shown and does not count.
    pub(crate) fn is_report_only(&self, scenario: &Scenario) -> bool {
        self.report_only.iter().any(|name| is_meant(scenario, name))
    }
}

/// Whether `name` is the scenario's group, or the scenario itself as `group/name`.
fn is_meant(scenario: &Scenario, name: &str) -> bool {
    match name.split_once('/') {
        Some((group, name)) => scenario.group == group && scenario.name == name,
        None => scenario.group == name,
    }
}

/// How long a step of a scenario waits that is only reported.
const REPORTED_MS: u64 = 3_000;

fn run_all(
    setup: &Setup,
    selected: &[&Scenario],
    options: &Options,
    out: impl Write,
) -> anyhow::Result<Summary> {
    let mut report = Report::new(out, selected, &options.selection);
    let next = AtomicUsize::new(0);
    let (verdicts, incoming) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, selected.len().max(1)) {
            let (next, verdicts) = (&next, verdicts.clone());
            scope.spawn(move || {
                while let Some(scenario) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = trial::run(setup, scenario);
                    if verdicts.send((*scenario, verdict)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(verdicts);
        for (scenario, verdict) in incoming {
            report.add(scenario, verdict)?;
        }
        Ok::<_, std::io::Error>(())
    })?;
    Ok(report.finish()?)
}

fn read_metrics(dir: &Path) -> anyhow::Result<HashSet<String>> {
    let path = dir.join("metrics.json");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(groups: &[&str], scenarios: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let (groups, scenarios) = (owned(groups), owned(scenarios));
        Selection { dir, groups, scenarios, report_only: Vec::new() }
    }

    fn report_only(names: &[&str]) -> Selection {
        let report_only = names.iter().map(|&name| name.to_owned()).collect();
        Selection { report_only, ..selection(&[], &[]) }
    }

    fn reported_only(selection: &Selection) -> Vec<String> {
        let scenarios = scenario::read_all(&selection.dir).unwrap();
        let reported = scenarios.iter().filter(|scenario| selection.is_report_only(scenario));
        reported.map(Scenario::id).collect()
    }

    #[test]
    fn groups_and_single_scenarios_add_up() {
        let chosen = list(&selection(&["shutdown"], &["tls/health"])).unwrap();
        assert_eq!(chosen, ["shutdown/idle", "shutdown/sigterm", "tls/health"]);
    }

    #[test]
    fn a_selection_of_nothing_known_is_refused() {
        assert!(list(&selection(&["shutdwon"], &[])).is_err());
        assert!(list(&selection(&[], &["tls/none"])).is_err());
        for unknown in ["shutdwon", "tls/none", "tls/", "/health", "health", ""] {
            assert!(list(&report_only(&[unknown])).is_err(), "{unknown:?}");
        }
    }

    #[test]
    fn report_only_takes_whole_groups_and_single_scenarios() {
        let chosen = report_only(&["shutdown", "tls/health"]);
        assert_eq!(reported_only(&chosen), ["shutdown/idle", "shutdown/sigterm", "tls/health"]);
    }

    #[test]
    fn report_only_alone_narrows_nothing() {
        let everything = list(&selection(&[], &[])).unwrap();
        assert_eq!(list(&report_only(&["shutdown", "tls/health"])).unwrap(), everything);
    }

    #[test]
    fn report_only_adds_to_a_choice() {
        let chosen =
            Selection { groups: vec!["shutdown".to_owned()], ..report_only(&["tls/health"]) };
        assert_eq!(list(&chosen).unwrap(), ["shutdown/idle", "shutdown/sigterm", "tls/health"]);
        assert_eq!(reported_only(&chosen), ["tls/health"]);
    }
}
