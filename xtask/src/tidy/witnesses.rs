//! What a document calls a test is one.

use super::Finding;
use super::tree::Tree;

/// Documents whose claims name the tests that show them.
const DOCUMENTS: [&str; 1] = ["SECURITY.md"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in tree.files.iter().filter(|file| DOCUMENTS.contains(&file.path.as_str())) {
        for (index, line) in document.text.lines().enumerate() {
            // Every second piece between backticks is code.
            for name in line.split('`').skip(1).step_by(2).filter(|code| is_witness(code)) {
                if !stands(tree, name) {
                    let text = format!("{name} is no test, scenario or counter: a claim without");
                    findings.push(Finding::at(&document.path, index, "witnesses", text));
                }
            }
        }
    }
    findings
}

/// Whether code in a document names a test, a scenario or a counter: words of small letters joined
/// by two underscores at least, or a group and a name.
fn is_witness(code: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_test = code.matches('_').count() >= 2 && code.chars().all(is_word);
    is_test || code.starts_with("robust/")
}

fn stands(tree: &Tree, name: &str) -> bool {
    let scenario = format!("tests/conformance/scenarios/{name}.json");
    let (function, counter) = (format!("fn {name}("), format!("\"{name}\""));
    tree.files.iter().any(|file| {
        let is_rust = file.path.ends_with(".rs");
        file.path == scenario
            || (is_rust && (file.text.contains(&function) || file.text.contains(&counter)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let tree = sample(&[
            ("SECURITY.md", text),
            ("README.md", "`a_test_that_is_gone`"),
            (
                "a/src/lib.rs",
                "fn a_test_that_stands() {}\nconst NAME: &str = \"relay_some_total\";",
            ),
            ("tests/conformance/scenarios/robust/x.json", "{}"),
        ]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_stands_may_be_named() {
        let text = "`a_test_that_stands`, `relay_some_total`, `robust/x`, `ip`, `RELAY_X_Y`, `a_b`";
        assert_eq!(lines(text), [0_usize; 0]);
    }

    #[test]
    fn a_claim_whose_test_is_gone_is_found() {
        assert_eq!(lines("fine\n`a_test_that_is_gone`"), [2]);
        assert_eq!(lines("`robust/y` and `relay_other_total`"), [1, 1]);
    }
}
