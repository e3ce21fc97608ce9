//! Things that are fine while working and not afterwards.

use super::Finding;
use super::source::{Source, has_word};
use super::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.path.ends_with(".lock") || file.path.ends_with(".json") {
            continue;
        }
        findings.extend(machine_paths(file));
        match &file.source {
            Some(source) => findings.extend(rust(file, source)),
            None => findings.extend(
                file.text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| is_plan(line))
                    .map(|(index, _)| Finding::at(&file.path, index, RULE, PLAN)),
            ),
        }
    }
    findings
}

fn rust(file: &File, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, (code, comment)) in source.code.iter().zip(&source.comments).enumerate() {
        let mut report = |text: &str| findings.push(Finding::at(&file.path, index, RULE, text));
        if is_plan(comment) {
            report(PLAN);
        }
        if has_word(code, "todo!") || has_word(code, "unimplemented!") {
            report("an unwritten branch: what is merged is finished");
        }
        if code.contains("#[ignore]") {
            report("a test is ignored without a reason: write #[ignore = \"why, and whose\"]");
        }
    }
    let sleeps = source.paths().into_iter().filter(|(line, path)| {
        source.is_test[*line] && (path.ends_with("thread::sleep") || path.ends_with("time::sleep"))
    });
    findings.extend(sleeps.map(|(line, _)| {
        let text = "a test sleeps: wait for the thing itself or advance the clock; a sleep is too \
                    short on a busy machine and too long on every other";
        Finding::at(&file.path, line, RULE, text)
    }));
    findings
}

/// Whether a line holds a note to come back later.
fn is_plan(line: &str) -> bool {
    ["TO", "FIX"].iter().zip(["DO", "ME"]).any(|(a, b)| has_word(line, &format!("{a}{b}")))
}

/// Places that exist on one machine only.
fn machine_paths(file: &File) -> Vec<Finding> {
    let places = ["home", "root", "Users", "work"].map(|name| format!("/{name}/"));
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let is_absolute = |(at, _): (usize, &str)| {
            let before = line[..at].chars().next_back();
            // The home of the container's user is the same everywhere.
            !line[at..].starts_with("/home/relay")
                && !before.is_some_and(|c| c.is_alphanumeric() || ".-_/}$*".contains(c))
        };
        if places.iter().any(|place| line.match_indices(place.as_str()).any(is_absolute)) {
            let text = "an absolute path of one machine: it exists nowhere else";
            findings.push(Finding::at(&file.path, index, "paths", text));
        }
    }
    findings
}

const RULE: &str = "leftovers";
const PLAN: &str = "a note to come back later: do it now, or write down why it is right as it is";

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let tree = sample(&[(path, text)]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn notes_to_come_back_are_found_in_comments() {
        let note = ["TO", "DO"].concat();
        assert_eq!(lines("a/src/x.rs", &format!("let a = \"{note}\";\n// {note}: x")), [2]);
        assert_eq!(lines("a.md", &format!("Fine.\n{note}\n")), [2]);
    }

    #[test]
    fn unwritten_branches_are_found() {
        assert_eq!(lines("a/src/x.rs", "fn f() {\n    todo!()\n}"), [2]);
        assert_eq!(lines("a/src/x.rs", "fn f() { unimplemented!(\"x\") }"), [1]);
    }

    #[test]
    fn a_test_is_ignored_with_a_reason_or_not_at_all() {
        assert_eq!(lines("a/src/x.rs", "#[ignore]\nfn f() {}"), [1]);
        assert_eq!(lines("a/src/x.rs", "#[ignore = \"needs a NIC\"]\nfn f() {}"), NONE);
    }

    #[test]
    fn only_tests_may_not_sleep() {
        let call = "fn f() {\n    std::thread::sleep(d);\n}";
        assert_eq!(lines("a/tests/x.rs", call), [2]);
        assert_eq!(lines("a/src/x.rs", call), NONE);
        assert_eq!(lines("a/src/x.rs", &format!("#[cfg(test)]\nmod tests {{\n{call}\n}}")), [4]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let place = |name: &str| format!("see /{name}/x/y");
        assert_eq!(lines("a.md", &place("root")), [1]);
        assert_eq!(lines("a.toml", &place("home")), [1]);
        assert_eq!(lines("a.md", "see https://example.org/work/x and ./work/x"), NONE);
    }
}
