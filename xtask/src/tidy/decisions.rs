//! Decision records have a number each.

use std::collections::HashMap;

use super::Finding;
use super::tree::Tree;

const FOLDER: &str = "docs/adr/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first_of: HashMap<&str, &str> = HashMap::new();
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix(FOLDER) else {
            continue;
        };
        let Some(number) = number(name) else {
            let text = "a decision record is named NNNN-some-title.md";
            findings.push(Finding::file(&file.path, RULE, text));
            continue;
        };
        if let Some(other) = first_of.insert(number, name) {
            let text = format!("number {number} is taken by {other}: records are cited by number");
            findings.push(Finding::file(&file.path, RULE, text));
        }
        let title = file.text.lines().next().unwrap_or_default();
        if !title.starts_with(&format!("# {number}")) {
            let text = format!("the first line is the title: `# {number}. What was decided`");
            findings.push(Finding::at(&file.path, 0, RULE, text));
        }
    }
    findings
}

/// The number of `0001-some-title.md`.
fn number(name: &str) -> Option<&str> {
    let (number, title) = name.strip_suffix(".md")?.split_once('-')?;
    let is_number = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    let is_title = !title.is_empty()
        && title.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (is_number && is_title).then_some(number)
}

const RULE: &str = "decisions";

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    #[test]
    fn a_number_used_twice_is_found() {
        let tree = sample(&[
            ("docs/adr/0001-a.md", "# 0001. A\n"),
            ("docs/adr/0002-b.md", "# 0002. B\n"),
            ("docs/adr/0002-c.md", "# 0002. C\n"),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "docs/adr/0002-c.md");
    }

    #[test]
    fn names_and_titles_carry_the_number() {
        let tree =
            sample(&[("docs/adr/notes.md", "# Notes\n"), ("docs/adr/0001-a.md", "# 0002. A\n")]);
        assert_eq!(check(&tree).len(), 2);
    }
}
