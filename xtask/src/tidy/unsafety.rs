//! `unsafe` lives in one room, and in `perf/`, which builds rivals and limits.

use super::Finding;
use super::tree::Tree;
use crate::workspace::Workspace;

const ALLOWED: &[&str] = &["dataplane/driver/", "perf/"];

pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let targets = workspace.members().flat_map(|package| &package.targets);
    let roots: Vec<String> = targets
        .filter(|target| target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "bin")))
        .map(|target| workspace.relative(&target.src_path))
        .collect();
    judge(tree, &roots)
}

fn judge(tree: &Tree, roots: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust() {
        if ALLOWED.iter().any(|room| file.path.starts_with(room)) {
            continue;
        }
        findings.extend(source.word_lines("unsafe").map(|line| {
            let text = "unsafe outside dataplane/driver and perf/: one room is what a reviewer can \
                        hold in mind";
            Finding::at(&file.path, line, RULE, text)
        }));
        let forbids = source.code.iter().any(|line| line.trim() == "#![forbid(unsafe_code)]");
        if roots.contains(&file.path) && !forbids {
            let text = "the crate root lacks #![forbid(unsafe_code)]";
            findings.push(Finding::at(&file.path, 0, RULE, text));
        }
    }
    findings
}

const RULE: &str = "unsafe";

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    #[test]
    fn unsafe_code_is_found_outside_its_rooms_only() {
        let tree = sample(&[
            ("dataplane/wire/src/mask.rs", "fn f() {\n    unsafe { g() }\n}"),
            ("dataplane/driver/src/ring.rs", "unsafe fn f() {}"),
            ("proto/mailbox/src/bell.rs", "unsafe fn f() {}"),
            ("endpoint/src/lib.rs", "#![forbid(unsafe_code)]\n// unsafe\n"),
        ]);
        let findings = judge(&tree, &[]);
        let found: Vec<_> =
            findings.iter().map(|found| (found.path.as_str(), found.line)).collect();
        assert_eq!(found, [("dataplane/wire/src/mask.rs", 2), ("proto/mailbox/src/bell.rs", 1)]);
    }

    #[test]
    fn a_crate_root_that_does_not_forbid_unsafe_is_found() {
        let tree = sample(&[("endpoint/src/lib.rs", "//! Ends.\n// #![forbid(unsafe_code)]\n")]);
        let findings = judge(&tree, &["endpoint/src/lib.rs".to_owned()]);
        assert_eq!(findings.len(), 1);
    }
}
