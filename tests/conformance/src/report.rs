//! What the runner prints.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::scenario::Scenario;
use crate::trial::{Failure, Verdict};

/// Collects verdicts and prints a group as soon as its last one is in.
pub(crate) struct Report<'a, W> {
    out: W,
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

struct Group<'a> {
    /// Failures are shown but do not count.
    report_only: bool,
    missing: usize,
    verdicts: Vec<(&'a Scenario, Verdict)>,
}

impl<'a, W: Write> Report<'a, W> {
    /// A report that waits for the verdicts on `scenarios`.
    pub(crate) fn new(out: W, scenarios: &[&'a Scenario], report_only: &[String]) -> Self {
        let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
        for scenario in scenarios {
            let group = groups.entry(&scenario.group).or_insert_with(|| Group {
                report_only: report_only.contains(&scenario.group),
                missing: 0,
                verdicts: Vec::new(),
            });
            group.missing += 1;
        }
        Self { out, groups, summary: Summary::default() }
    }

    /// Takes the verdict on a scenario.
    pub(crate) fn add(&mut self, scenario: &'a Scenario, verdict: Verdict) -> io::Result<()> {
        let Some(group) = self.groups.get_mut(scenario.group.as_str()) else {
            return Ok(());
        };
        group.verdicts.push((scenario, verdict));
        group.missing -= 1;
        if group.missing > 0 {
            return Ok(());
        }
        let Some(mut group) = self.groups.remove(scenario.group.as_str()) else {
            return Ok(());
        };
        group.verdicts.sort_by_key(|(scenario, _)| &scenario.name);
        if !group.report_only {
            self.summary.passed += group.passed();
            self.summary.failed += group.verdicts.len() - group.passed();
        }
        group.print(&mut self.out, &scenario.group)
    }

    /// Prints the last line.
    pub(crate) fn finish(mut self) -> io::Result<Summary> {
        writeln!(self.out, "{} passed, {} failed", self.summary.passed, self.summary.failed)?;
        Ok(self.summary)
    }
}

impl Group<'_> {
    fn passed(&self) -> usize {
        let verdicts = self.verdicts.iter();
        verdicts.filter(|(_, verdict)| matches!(verdict, Verdict::Passed)).count()
    }

    fn print(&self, out: &mut impl Write, name: &str) -> io::Result<()> {
        let passed = self.passed();
        let failed = self.verdicts.len() - passed;
        let remark = if self.report_only { " (report only)" } else { "" };
        writeln!(out, "{name}: {passed} passed, {failed} failed{remark}")?;
        for (scenario, verdict) in &self.verdicts {
            match verdict {
                Verdict::Failed(failure) => print_failure(out, scenario, failure)?,
                Verdict::Passed if self.report_only => {
                    writeln!(out, "  passed {}", scenario.id())?;
                }
                Verdict::Passed => {}
            }
        }
        out.flush()
    }
}

fn print_failure(out: &mut impl Write, scenario: &Scenario, failure: &Failure) -> io::Result<()> {
    writeln!(out, "  FAILED {} ({})", scenario.id(), scenario.title)?;
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

    #[test]
    fn a_group_is_printed_whole_and_failures_in_full() {
        let (one, two) = (scenario("g", "one"), scenario("g", "two"));
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, &[&one, &two], &[]);
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
        let mut report = Report::new(&mut out, &[&one, &two], &["later".to_owned()]);
        report.add(&one, Verdict::Passed).unwrap();
        report.add(&two, failed()).unwrap();
        assert_eq!(report.finish().unwrap(), Summary::default());
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("later: 1 passed, 1 failed (report only)\n  passed later/one\n"));
        assert!(text.ends_with("\n0 passed, 0 failed\n"), "{text}");
    }
}
