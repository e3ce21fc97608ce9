//! All findings, as people and as programs read them.

use std::fmt::Write;

use serde_json::json;

use super::finding::{Finding, Verdict};

/// A line per finding, then the sum. A remedy follows its finding behind an arrow.
pub(crate) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, remedy } in findings {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:4}  {check:width$}  {}", verdict.name(), one_line(found));
        if let Some(remedy) = remedy {
            let _ = write!(text, " → {}", one_line(remedy));
        }
        text.push('\n');
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(count);
    let _ = writeln!(text, "{ok} ok, {warn} to look at, {fail} to mend");
    text
}

/// One JSON object: `ok` is false as soon as one check failed; `change` is null where all is well.
pub(crate) fn json(findings: &[Finding]) -> String {
    let list: Vec<_> = findings
        .iter()
        .map(|Finding { check, verdict, found, remedy }| {
            json!({ "check": check, "verdict": verdict.name(), "found": found, "change": remedy })
        })
        .collect();
    format!("{}\n", json!({ "ok": failed(findings) == 0, "findings": list }))
}

/// How many checks failed.
pub(crate) fn failed(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count()
}

/// Text of others may break lines, or colour a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("kernel", "Linux 6.18"),
            Finding::warn("backlog", "small", "make it larger"),
            Finding::fail("port", "in use\nby\x1b[31m", "use another"),
        ]
    }

    #[test]
    fn each_finding_is_one_line_that_says_what_to_change() {
        assert_eq!(
            text(&findings()),
            "ok    kernel   Linux 6.18\n\
             warn  backlog  small → make it larger\n\
             fail  port     in use by [31m → use another\n\
             1 ok, 1 to look at, 1 to mend\n"
        );
    }

    #[test]
    fn programs_get_the_same() {
        let json: serde_json::Value = serde_json::from_str(&json(&findings())).expect("JSON");
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][0]["change"], serde_json::Value::Null);
        assert_eq!(json["findings"][1]["verdict"], "warn");
        assert_eq!(json["findings"][2]["change"], "use another");
    }
}
