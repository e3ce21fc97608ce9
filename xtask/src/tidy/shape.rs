//! Sizes and names a reader can rely on.

use super::Finding;
use super::tree::Tree;

/// Lines of a Rust file. Past it, the build fails.
const LINES_MAX: usize = 800;
/// Lines of a Rust file past which a second noun is likely hiding in it.
const LINES_AIM: usize = 600;
/// Characters of a line of Rust; rustfmt leaves long comments and literals alone.
const COLUMNS_MAX: usize = 100;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust() {
        findings.extend(judge_length(&file.path, file.text.lines().count()));
        findings.extend(judge_name(&file.path));
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let text = format!("{columns} columns, at most {COLUMNS_MAX}");
                findings.push(Finding::at(&file.path, index, "columns", text));
            }
        }
    }
    findings
}

fn judge_length(path: &str, lines: usize) -> Option<Finding> {
    let text = format!(
        "{lines} lines; aim for {LINES_AIM}, at most {LINES_MAX}: one file holds one noun, \
         look for the second"
    );
    let finding = Finding::file(path, "length", text);
    if lines > LINES_MAX {
        Some(finding)
    } else if lines > LINES_AIM {
        Some(finding.warning())
    } else {
        None
    }
}

fn judge_name(path: &str) -> Option<Finding> {
    let stem = path.trim_end_matches(".rs");
    let is_vague = |part: &str| {
        let words = ["common", "helper", "helpers", "manager", "managers", "util", "utils"];
        part.starts_with("new_") || part.split(['_', '-']).any(|word| words.contains(&word))
    };
    let part = stem.split('/').find(|part| is_vague(part))?;
    let text = format!("{part:?} says nothing: name the file after the one noun it holds");
    Some(Finding::file(path, "names", text))
}

#[cfg(test)]
mod tests {
    use super::super::Weight;
    use super::super::tree::sample;
    use super::*;

    #[test]
    fn a_long_file_warns_and_a_very_long_one_fails() {
        assert_eq!(judge_length("a.rs", 600), None);
        let weight = |lines| judge_length("a.rs", lines).map(|finding| finding.weight);
        assert_eq!(weight(601), Some(Weight::Warning));
        assert_eq!(weight(801), Some(Weight::Error));
    }

    #[test]
    fn a_long_line_is_found_by_characters_not_bytes() {
        let fits = "é".repeat(100);
        let tree = sample(&[("a.rs", &format!("// a\n//{fits}\n")), ("b.rs", &fits)]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("a.rs", 2));
    }

    #[test]
    fn vague_names_are_found() {
        for path in
            ["a/src/utils.rs", "a/src/common/x.rs", "a/src/new_ring.rs", "b/test_helpers.rs"]
        {
            assert!(judge_name(path).is_some(), "{path}");
        }
        for path in ["a/src/egress.rs", "a/src/renew.rs", "a/src/utility_bill.rs"] {
            assert_eq!(judge_name(path), None, "{path}");
        }
    }
}
