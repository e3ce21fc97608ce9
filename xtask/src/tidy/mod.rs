//! What rustc, clippy and rustfmt do not check: floors, bans, sizes, names, manifests, links.
//!
//! Each rule is a file here. A rule looks at the [`Tree`] and returns findings; it has no other
//! effect.

mod decisions;
mod floors;
mod ground;
mod leftovers;
mod licences;
mod links;
mod manifests;
mod runtimes;
mod shape;
mod source;
mod supply;
mod tree;
mod unsafety;
mod witnesses;

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use tree::Tree;

/// One thing that is not as agreed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    path: String,
    /// From 1; 0 when the file as a whole is meant.
    line: usize,
    rule: &'static str,
    /// What is wrong and why that matters.
    text: String,
    weight: Weight,
}

/// Whether a finding fails the build.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Weight {
    Error,
    Warning,
}

impl Finding {
    /// A finding on the line with that index.
    fn at(path: &str, index: usize, rule: &'static str, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: index + 1,
            rule,
            text: text.into(),
            weight: Weight::Error,
        }
    }

    /// A finding about a file as a whole.
    fn file(path: &str, rule: &'static str, text: impl Into<String>) -> Self {
        Self { line: 0, ..Self::at(path, 0, rule, text) }
    }

    /// The same, without failing the build.
    fn warning(self) -> Self {
        Self { weight: Weight::Warning, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {weight}[{}] {}", self.rule, self.text)
    }
}

/// Checks everything and prints every finding. Fails when one of them is an error.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let tree = Tree::load(&workspace)?;
    let mut findings = Vec::new();
    for rule in RULES {
        findings.extend(rule(&tree, &workspace));
    }
    findings.extend(supply::check(&tree, &workspace)?);
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.weight == Weight::Error).count();
    let warnings = findings.len() - errors;
    println!("tidy: {} files, {errors} errors, {warnings} warnings", tree.files.len());
    if errors > 0 {
        bail!("tidy found {errors} errors");
    }
    Ok(())
}

type Rule = fn(&Tree, &Workspace) -> Vec<Finding>;

const RULES: &[Rule] = &[
    |_, workspace| floors::check(workspace),
    |_, workspace| runtimes::check(workspace),
    unsafety::check,
    |tree, _| ground::check(tree),
    |tree, _| shape::check(tree),
    |tree, _| leftovers::check(tree),
    manifests::check,
    |tree, _| decisions::check(tree),
    |tree, _| links::check(tree),
    |tree, _| witnesses::check(tree),
];
