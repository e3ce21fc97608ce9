//! What we link: licences, banned crates, sources and duplicates, as `deny.toml` states them.
//!
//! The same file steers cargo-deny, which adds the advisory database. Building cargo-deny costs
//! more than the rest of these checks together, so the part that needs no network is done here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use super::licences::is_permitted;
use super::tree::Tree;
use crate::workspace::{Package, Workspace};

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Entry>,
    /// Crates that may stand there in several versions.
    skip: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    /// A name, or `name@version`.
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// Fails only when `deny.toml` itself cannot be read.
pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Result<Vec<Finding>> {
    let file = tree.get(FILE).context("deny.toml is missing")?;
    let policy: Policy = toml::from_str(&file.text).context("deny.toml")?;
    let foreign = |kinds: &str| -> Result<Vec<&Package>> {
        let linked = workspace.linked(kinds)?;
        let packages = workspace.packages.iter();
        let is_foreign = |p: &&Package| p.source.is_some() && linked.contains(&p.label());
        Ok(packages.filter(is_foreign).collect())
    };
    let mut findings = policy.judge(&foreign("normal,build,dev")?);
    // What only tests use is not shipped: a second version there costs build time alone.
    findings.extend(policy.judge_duplicates(&foreign("normal,build")?));
    Ok(findings)
}

impl Policy {
    fn judge(&self, packages: &[&Package]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for Package { name, version, license, source, .. } in packages {
            let mut report = |text: String| findings.push(Finding::file(LOCK, RULE, text));
            let licence = license.as_deref().unwrap_or("none stated");
            if !is_permitted(licence, &self.licenses.allow) {
                report(format!("{name} {version} has licence {licence}, not allowed by {FILE}"));
            }
            if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == *name) {
                report(format!("{name} {version} is banned: {}", ban.reason));
            }
            let source = source.as_deref().unwrap_or_default();
            let is_known = |registry: &String| source == format!("registry+{registry}");
            if !self.sources.allow_registry.iter().any(is_known) {
                report(format!("{name} {version} comes from {source}, not allowed by {FILE}"));
            }
        }
        findings
    }

    fn judge_duplicates(&self, packages: &[&Package]) -> Vec<Finding> {
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in packages {
            versions.entry(&package.name).or_default().insert(&package.version);
        }
        let mut findings = Vec::new();
        for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
            let skipped = |version: &str| {
                let exact = format!("{name}@{version}");
                self.bans.skip.iter().any(|skip| skip.name == name || skip.name == exact)
            };
            let left: Vec<&str> = versions.iter().copied().filter(|v| !skipped(v)).collect();
            if left.len() > 1 {
                let text = format!(
                    "{name} is linked in versions {}: raise what holds the old one, or name it \
                     under skip in {FILE} with who holds it",
                    left.join(" and ")
                );
                findings.push(Finding::file(LOCK, RULE, text));
            }
        }
        findings
    }
}

const FILE: &str = "deny.toml";
const LOCK: &str = "Cargo.lock";
const RULE: &str = "supply";

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        [bans]
        deny = [{ crate = "openssl", reason = "rustls is the one" }]
        skip = [{ crate = "syn@1.0.0", reason = "held by x" }]
        [sources]
        allow-registry = ["https://r"]
    "#;

    fn package(name: &str, version: &str, licence: Option<&str>, source: &str) -> Package {
        Package {
            id: format!("{name} {version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            source: Some(source.to_owned()),
            license: licence.map(str::to_owned),
            manifest_path: "Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn policy() -> Policy {
        toml::from_str(POLICY).expect("it is a policy")
    }

    #[test]
    fn licences_bans_and_sources_are_judged() {
        let cases = [
            (package("a", "1.0.0", Some("MIT OR GPL-3.0"), "registry+https://r"), 0),
            (package("b", "1.0.0", Some("GPL-3.0"), "registry+https://r"), 1),
            (package("c", "1.0.0", None, "registry+https://r"), 1),
            (package("openssl", "1.0.0", Some("MIT"), "registry+https://r"), 1),
            (package("d", "1.0.0", Some("MIT"), "git+https://g"), 1),
        ];
        for (package, count) in &cases {
            assert_eq!(policy().judge(&[package]).len(), *count, "{}", package.name);
        }
    }

    #[test]
    fn a_second_version_is_found_unless_somebody_else_holds_it() {
        let make = |name, version| package(name, version, None, "");
        let [a, b] = [make("syn", "1.0.0"), make("syn", "2.0.0")];
        assert_eq!(policy().judge_duplicates(&[&a, &b]), []);
        let [a, b] = [make("url", "1.0.0"), make("url", "2.0.0")];
        assert_eq!(policy().judge_duplicates(&[&a, &b]).len(), 1);
    }
}
