//! What the runner prints.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::scenario::Scenario;
use crate::suite::Selection;
use crate::trial::{Failure, Verdict};

/// Collects verdicts and prints a group as soon as its last one is in.
pub(crate) struct Report<'a, W> {
    out: W,
    selection: &'a Selection,
    groups: HashMap<&'a str, Group<'a>>,
    summary: Summary,
}

/// Counts of scenarios.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Scenarios that passed.
    pub passed: usize,
    /// Scenarios that failed.
    pub failed: usize,
}

#[derive(Default)]
struct Group<'a> {
    missing: usize,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    scenario: &'a Scenario,
    verdict: Verdict,
    /// The verdict is shown and does not count.
    report_only: bool,
}

impl<'a, W: Write> Report<'a, W> {
    /// A report that waits for the verdicts on `scenarios`.
    pub(crate) fn new(out: W, scenarios: &[&'a Scenario], selection: &'a Selection) -> Self {
        let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
        for scenario in scenarios {
            groups.entry(&scenario.group).or_default().missing += 1;
        }
        Self { out, selection, groups, summary: Summary::default() }
    }

    /// Takes the verdict on a scenario.
    pub(crate) fn add(&mut self, scenario: &'a Scenario, verdict: Verdict) -> io::Result<()> {
        let Some(group) = self.groups.get_mut(scenario.group.as_str()) else {
            return Ok(());
        };
        let report_only = self.selection.is_report_only(scenario);
        group.entries.push(Entry { scenario, verdict, report_only });
        group.missing -= 1;
        if group.missing > 0 {
            return Ok(());
        }
        let Some(mut group) = self.groups.remove(scenario.group.as_str()) else {
            return Ok(());
        };
        group.entries.sort_by_key(|entry| &entry.scenario.name);
        let counted = group.count(false);
        self.summary.passed += counted.passed;
        self.summary.failed += counted.failed;
        group.print(&mut self.out, &scenario.group)
    }

    /// Prints the last line.
    pub(crate) fn finish(mut self) -> io::Result<Summary> {
        writeln!(self.out, "{} passed, {} failed", self.summary.passed, self.summary.failed)?;
        Ok(self.summary)
    }
}

impl Group<'_> {
    /// Counts the entries that are only reported, or those that are not.
    fn count(&self, report_only: bool) -> Summary {
        let entries = self.entries.iter().filter(|entry| entry.report_only == report_only);
        let (passed, failed): (Vec<_>, Vec<_>) =
            entries.partition(|entry| matches!(entry.verdict, Verdict::Passed));
        Summary { passed: passed.len(), failed: failed.len() }
    }

    fn print(&self, out: &mut impl Write, name: &str) -> io::Result<()> {
        let (counted, reported) = (self.count(false), self.count(true));
        write!(out, "{name}: {} passed, {} failed", counted.passed, counted.failed)?;
        if reported != Summary::default() {
            write!(out, "; report only: {} passed, {} failed", reported.passed, reported.failed)?;
        }
        writeln!(out)?;
        for entry in &self.entries {
            entry.print(out)?;
        }
        out.flush()
    }
}

impl Entry<'_> {
    /// Prints a failure in full. A pass is worth a line where nobody relies on it yet.
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.verdict {
            Verdict::Failed(failure) => {
                let mark = if self.report_only { "failed, report only:" } else { "FAILED" };
                print_failure(out, mark, self.scenario, failure)
            }
            Verdict::Passed if self.report_only => {
                writeln!(out, "  passed, report only: {}", self.scenario.id())
            }
            Verdict::Passed => Ok(()),
        }
    }
}

fn print_failure(
    out: &mut impl Write,
    mark: &str,
    scenario: &Scenario,
    failure: &Failure,
) -> io::Result<()> {
    writeln!(out, "  {mark} {} ({})", scenario.id(), scenario.title)?;
    match &failure.step {
        Some((number, step)) => {
            writeln!(out, "    step {number} of {}: {step}", scenario.steps.len())?;
        }
        None => writeln!(out, "    before the first step")?,
    }
    for line in failure.reason.lines().chain(failure.relay_lines.iter().map(String::as_str)) {
        writeln!(out, "    {}", cut(line))?;
    }
    Ok(())
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Characters of one printed line.
const LINE_CHARS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn scenario(group: &str, name: &str) -> Scenario {
        let text = format!(
            r#"{{"format":1,"group":"{group}","name":"{name}","title":"T","relays":{{}},
                "steps":[{{"do":"sleep","ms":1}}]}}"#
        );
        Scenario::parse(&text).unwrap()
    }

    fn failed() -> Verdict {
        Verdict::Failed(Failure {
            step: Some((1, "{...}".to_owned())),
            reason: "at $.a\n  expected 1\n  got      2".to_owned(),
            relay_lines: vec!["relay A stderr: oops".to_owned()],
        })
    }

    fn report_only(names: &[&str]) -> Selection {
        let report_only = names.iter().map(|&name| name.to_owned()).collect();
        Selection { dir: PathBuf::new(), groups: Vec::new(), scenarios: Vec::new(), report_only }
    }

    #[test]
    fn a_group_is_printed_whole_and_failures_in_full() {
        let (one, two) = (scenario("g", "one"), scenario("g", "two"));
        let mut out = Vec::new();
        let selection = report_only(&[]);
        let mut report = Report::new(&mut out, &[&one, &two], &selection);
        report.add(&two, failed()).unwrap();
        report.add(&one, Verdict::Passed).unwrap();
        assert_eq!(report.finish().unwrap(), Summary { passed: 1, failed: 1 });
        let expected = "g: 1 passed, 1 failed\n  FAILED g/two (T)\n    step 1 of 1: {...}\n    \
            at $.a\n      expected 1\n      got      2\n    relay A stderr: oops\n\
            1 passed, 1 failed\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_report_only_group_lists_its_passes_and_does_not_count() {
        let (one, two) = (scenario("later", "one"), scenario("later", "two"));
        let mut out = Vec::new();
        let selection = report_only(&["later"]);
        let mut report = Report::new(&mut out, &[&one, &two], &selection);
        report.add(&one, Verdict::Passed).unwrap();
        report.add(&two, failed()).unwrap();
        assert_eq!(report.finish().unwrap(), Summary::default());
        let text = String::from_utf8(out).unwrap();
        let start = "later: 0 passed, 0 failed; report only: 1 passed, 1 failed\n  \
            passed, report only: later/one\n  failed, report only: later/two (T)\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("\n0 passed, 0 failed\n"), "{text}");
    }

    #[test]
    fn a_report_only_scenario_leaves_the_rest_of_its_group_counting() {
        let names = ["one", "two", "three", "four"];
        let [one, two, three, four] = names.map(|name| scenario("g", name));
        let mut out = Vec::new();
        let selection = report_only(&["g/one", "g/two"]);
        let mut report = Report::new(&mut out, &[&one, &two, &three, &four], &selection);
        report.add(&one, Verdict::Passed).unwrap();
        report.add(&two, failed()).unwrap();
        report.add(&three, failed()).unwrap();
        report.add(&four, Verdict::Passed).unwrap();
        assert_eq!(report.finish().unwrap(), Summary { passed: 1, failed: 1 });
        let text = String::from_utf8(out).unwrap();
        let start = "g: 1 passed, 1 failed; report only: 1 passed, 1 failed\n  \
            passed, report only: g/one\n  FAILED g/three (T)\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\n  failed, report only: g/two (T)\n"), "{text}");
    }
}
