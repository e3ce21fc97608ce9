//! What a document calls a test is one.

use super::Finding;
use super::tree::Tree;

/// Documents whose claims name the tests that show them.
const DOCUMENTS: [&str; 2] = ["SECURITY.md", LIST];

/// The list each row of which has a witness, or says that it comes later.
const LIST: &str = "docs/survived.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in tree.files.iter().filter(|file| DOCUMENTS.contains(&file.path.as_str())) {
        for (index, line) in document.text.lines().enumerate() {
            // Every second piece between backticks is code.
            let code = line.split('`').skip(1).step_by(2);
            let names: Vec<_> = code.filter(|code| is_witness(code)).collect();
            if document.path == LIST && names.is_empty() && is_claim(line) {
                let text = "a row without a test".to_owned();
                findings.push(Finding::at(&document.path, index, "witnesses", text));
            }
            for name in names.into_iter().filter(|name| !stands(tree, name)) {
                let text = format!("{name} is no test, scenario or counter: a claim without");
                findings.push(Finding::at(&document.path, index, "witnesses", text));
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

/// Whether a line is a row of a table that says something is so now.
fn is_claim(line: &str) -> bool {
    let is_row = line.starts_with("| ") && !line.ends_with("| shown by |");
    is_row && !line.ends_with("| later |")
}

fn stands(tree: &Tree, name: &str) -> bool {
    let scenario = format!("tests/conformance/scenarios/{name}.json");
    let counter = format!("\"{name}\"");
    tree.files.iter().any(|file| {
        let is_rust = file.path.ends_with(".rs");
        file.path == scenario
            || (is_rust && (has_test(&file.text, name) || file.text.contains(&counter)))
    })
}

/// Whether a source has a test of this name: a function below an attribute that ends in `test`, or
/// a line of a list that a macro makes tests of.
fn has_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(index, line)| {
        let attributes = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        let is_test = || attributes.clone().any(|attribute| attribute.ends_with("test]"));
        line.trim_end_matches(',') == name || (line.contains(&function) && is_test())
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        lines_of("SECURITY.md", text)
    }

    fn lines_of(document: &str, text: &str) -> Vec<usize> {
        let tree = sample(&[
            (document, text),
            ("README.md", "`a_test_that_is_gone`"),
            (
                "a/src/lib.rs",
                "#[test]\nfn a_test_that_stands() {}\nfn it_only_helps_it() {}\n\
                 conform! {\n    it_is_on_a_list,\n}\n\
                 const NAME: &str = \"relay_some_total\";",
            ),
            ("tests/conformance/scenarios/robust/x.json", "{}"),
        ]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_stands_may_be_named() {
        let text = "`a_test_that_stands`, `it_is_on_a_list`, `relay_some_total`, `robust/x`, \
                    `ip`, `RELAY_X_Y`, `a_b`";
        assert_eq!(lines(text), [0_usize; 0]);
    }

    #[test]
    fn a_claim_whose_test_is_gone_is_found() {
        assert_eq!(lines("fine\n`a_test_that_is_gone`"), [2]);
        assert_eq!(lines("`robust/y` and `relay_other_total`"), [1, 1]);
        assert_eq!(lines("`it_only_helps_it`"), [1], "a function, and no test");
    }

    #[test]
    fn a_row_of_the_list_has_a_test_or_comes_later() {
        let table = "| class | shown by |\n|---|---|\n| a | `a_test_that_stands` |\n| b | later |";
        assert_eq!(lines_of(LIST, table), [0_usize; 0]);
        assert_eq!(lines_of(LIST, &format!("{table}\n| c | all of it |")), [5]);
        assert_eq!(lines_of(LIST, &format!("{table}\n| c | `a_test_that_is_gone` |")), [5]);
        assert_eq!(lines("| c | all of it |"), [0_usize; 0], "other documents have other tables");
    }
}
