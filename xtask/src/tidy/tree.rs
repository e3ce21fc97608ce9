//! The files under version control.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::source::Source;
use crate::workspace::Workspace;

/// Every file Git tracks, or would track.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

/// One text file.
pub(super) struct File {
    /// Below the root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// Present for Rust files.
    pub(super) source: Option<Source>,
}

impl Tree {
    /// Reads the files. Those that are no UTF-8 text are left out.
    pub(super) fn load(workspace: &Workspace) -> Result<Self> {
        let root = &workspace.workspace_root;
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("git does not start; tidy needs it to know which files are ours")?;
        ensure!(output.status.success(), "git ls-files failed");
        let listing = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut named: Vec<(String, String)> = listing
            .split('\0')
            .filter(|path| !path.is_empty())
            .filter_map(|path| Some((path.to_owned(), read_text(&root.join(path))?)))
            .collect();
        named.sort();
        named.dedup();
        Ok(Self::new(named))
    }

    /// A tree of the given paths and texts.
    pub(super) fn new(named: Vec<(String, String)>) -> Self {
        let tests: HashSet<String> = named
            .iter()
            .filter(|(path, _)| path.ends_with(".rs"))
            .flat_map(|(path, text)| test_modules(path, text))
            .collect();
        let files = named
            .into_iter()
            .map(|(path, text)| {
                let source = path.ends_with(".rs").then(|| {
                    let source = Source::parse(&text);
                    if is_test_file(&path) || tests.contains(&path) {
                        source.all_test()
                    } else {
                        source
                    }
                });
                File { path, text, source }
            })
            .collect();
        Self { files }
    }

    /// The Rust files with their masked text.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| Some((file, file.source.as_ref()?)))
    }

    /// The file at that path.
    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// A file that disappeared meanwhile, or is no text, is nothing to check.
fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(path).ok()?).ok()
}

/// Whether the file is a test by its place: below a package's `tests/` or `benches/`, or
/// `tests.rs`. The packages in the root's own `tests/` are programs with a `src/` of their own.
fn is_test_file(path: &str) -> bool {
    let below = path.strip_prefix("tests/").unwrap_or(path);
    let mut parts = below.split('/');
    parts
        .any(|part| matches!(part, "tests" | "tests.rs" | "benches") || part.ends_with("_tests.rs"))
}

/// Files declared by `#[cfg(test)] mod name;`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let source = Source::parse(text);
    let folder = match path.rsplit_once('/') {
        Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    let declared = source.code.iter().zip(&source.is_test).filter(|(_, is_test)| **is_test);
    declared
        .filter_map(|(line, _)| {
            let line = line.trim().trim_start_matches("#[cfg(test)]").trim();
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
            Some([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")])
        })
        .flatten()
        .collect()
}

#[cfg(test)]
pub(super) fn sample(files: &[(&str, &str)]) -> Tree {
    let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    Tree::new(files.iter().map(owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_under_cfg_test_is_test_code() {
        let tree = sample(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod vectors;\nmod wire;"),
            ("a/src/vectors.rs", "fn f() {}"),
            ("a/src/wire.rs", "fn f() {}"),
            ("a/tests/whole.rs", "fn f() {}"),
            ("tests/sim/src/main.rs", "fn f() {}"),
        ]);
        let is_test = |path: &str| {
            let file = tree.get(path).expect("it is in the sample");
            file.source.as_ref().expect("it is Rust").is_test[0]
        };
        assert!(is_test("a/src/vectors.rs"));
        assert!(is_test("a/tests/whole.rs"));
        assert!(!is_test("a/src/wire.rs"));
        assert!(!is_test("tests/sim/src/main.rs"));
    }
}
