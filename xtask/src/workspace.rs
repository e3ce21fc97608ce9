//! What Cargo knows of this workspace: packages, their dependencies, their licences.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The answer of `cargo metadata`, as far as the checks need it.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) resolve: Resolve,
    pub(crate) target_directory: PathBuf,
    pub(crate) workspace_root: PathBuf,
}

/// One package, ours or a dependency.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where it comes from; ours come from nowhere.
    pub(crate) source: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// One line of a `[dependencies]` table.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
}

/// One thing Cargo builds.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

/// The resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One package in the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// One use of a package by another.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

/// Why the package is used.
#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

impl Workspace {
    /// Asks Cargo. Only dependencies of Linux count: Relay runs nowhere else.
    pub(crate) fn load() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .output()
            .context("cargo metadata does not start")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("cargo metadata prints something unknown")
    }

    /// Packages of this repository.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// Labels of the packages that are built on Linux over edges of the given kinds, for example
    /// `normal,build`.
    ///
    /// `cargo metadata` also lists packages behind features nobody switches on; `cargo tree` does
    /// not.
    pub(crate) fn linked(&self, kinds: &str) -> Result<HashSet<String>> {
        let output = Command::new(cargo())
            .args(["tree", "--workspace", "--prefix", "none", "--format", "{p}"])
            .args(["--target", "x86_64-unknown-linux-gnu", "--edges", kinds])
            .current_dir(&self.workspace_root)
            .output()
            .context("cargo tree does not start")?;
        ensure!(
            output.status.success(),
            "cargo tree failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = String::from_utf8_lossy(&output.stdout);
        let label = |line: &str| {
            let (name, rest) = line.split_once(" v")?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        };
        Ok(lines.lines().filter_map(label).collect())
    }

    /// The graph by package id.
    pub(crate) fn nodes(&self) -> HashMap<&str, &Node> {
        self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect()
    }

    /// The manifest's path below the root.
    pub(crate) fn manifest(&self, package: &Package) -> String {
        self.relative(&package.manifest_path)
    }

    /// A path below the root, with slashes.
    pub(crate) fn relative(&self, path: &std::path::Path) -> String {
        let path = path.strip_prefix(&self.workspace_root).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }
}

impl Package {
    /// Name and version.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

impl Edge {
    /// Whether the package is linked into programs, not only into tests or build scripts.
    pub(crate) fn is_normal(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.is_none())
    }
}

/// The Cargo that runs us, else the one in `PATH`.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
