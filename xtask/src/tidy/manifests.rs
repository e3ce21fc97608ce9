//! One version of each dependency, written once, with what it saves us.

use std::collections::HashSet;

use toml::Table;

use super::Finding;
use super::tree::{File, Tree};
use crate::workspace::Workspace;

pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let members: Vec<&File> =
        workspace.members().filter_map(|package| tree.get(&workspace.manifest(package))).collect();
    let mut findings: Vec<Finding> = members.iter().flat_map(|file| judge_member(file)).collect();
    if let Some(root) = tree.get("Cargo.toml") {
        findings.extend(judge_root(root));
        let users: Vec<&File> = members.into_iter().chain(tree.get(FUZZ)).collect();
        findings.extend(judge_use(root, &users));
    }
    findings
}

/// Every dependency in the root manifest is one of a member, or of the fuzz workspace, which names
/// the same crates but cannot inherit them.
fn judge_use(root: &File, users: &[&File]) -> Vec<Finding> {
    let manifests: Vec<Table> = users.iter().filter_map(|file| file.text.parse().ok()).collect();
    let used: HashSet<&String> =
        manifests.iter().flat_map(dependencies).map(|(name, _)| name).collect();
    let Ok(manifest) = root.text.parse::<Table>() else {
        return vec![Finding::file(&root.path, RULE, "not a TOML file")];
    };
    let entries = manifest.get("workspace").and_then(|table| table.get("dependencies"));
    let names = entries.and_then(toml::Value::as_table).into_iter().flat_map(Table::keys);
    names
        .filter(|name| !used.contains(name))
        .map(|name| {
            let starts = |line: &str| line.split([' ', '.', '=']).next() == Some(name.as_str());
            let index = root.text.lines().position(starts).unwrap_or(0);
            let text = format!("no member inherits {name}: a version nobody uses goes stale");
            Finding::at(&root.path, index, RULE, text)
        })
        .collect()
}

/// Every external dependency in the root manifest says on its line what it saves us.
fn judge_root(file: &File) -> Vec<Finding> {
    let mut in_dependencies = false;
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.starts_with("[workspace.dependencies]");
        }
        let Some((name, value)) = line.split_once(" = ") else {
            continue;
        };
        let is_ours = value.contains("path = ");
        let says_why = value.rsplit_once("# ").is_some_and(|(_, why)| !why.trim().is_empty());
        if in_dependencies && !line.starts_with('#') && !is_ours && !says_why {
            let text = format!("{name} lacks a comment on its line that says what it saves us");
            findings.push(Finding::at(&file.path, index, RULE, text));
        }
    }
    findings
}

/// A member inherits versions, package fields and lints from the root.
fn judge_member(file: &File) -> Vec<Finding> {
    let Ok(manifest) = file.text.parse::<Table>() else {
        return vec![Finding::file(&file.path, RULE, "not a TOML file")];
    };
    let mut findings = Vec::new();
    let mut report = |key: &str, text: String| {
        let starts = |line: &str| line.trim_start().starts_with(key);
        let index = file.text.lines().position(starts).unwrap_or(0);
        findings.push(Finding::at(&file.path, index, RULE, text));
    };
    let package = manifest.get("package").and_then(toml::Value::as_table);
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !package.is_some_and(|package| inherits(package.get(key))) {
            report(key, format!("write `{key}.workspace = true`: one place decides it for all"));
        }
    }
    if !inherits(manifest.get("lints")) {
        report("[lints]", "write `workspace = true` under [lints]".to_owned());
    }
    for (name, value) in dependencies(&manifest) {
        if !inherits(Some(value)) {
            let text = format!("write `{name}.workspace = true`: one version of each dependency");
            report(name, text);
        }
    }
    findings
}

/// The entries of every dependency table, those of single targets too.
fn dependencies(manifest: &Table) -> Vec<(&String, &toml::Value)> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values());
    let places = targets.filter_map(toml::Value::as_table).chain([manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    places
        .flat_map(|place| kinds.iter().filter_map(|kind| place.get(*kind)?.as_table()))
        .flatten()
        .collect()
}

fn inherits(value: Option<&toml::Value>) -> bool {
    let inherited = value.and_then(|value| value.get("workspace"));
    inherited.and_then(toml::Value::as_bool) == Some(true)
}

const RULE: &str = "manifests";

/// A workspace of its own beside ours.
const FUZZ: &str = "fuzz/Cargo.toml";

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(judge: fn(&File) -> Vec<Finding>, text: &str) -> Vec<usize> {
        let tree = sample(&[("x/Cargo.toml", text)]);
        judge(&tree.files[0]).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_dependency_without_its_reason_is_found() {
        let text = "[workspace.dependencies]\nrelay-wire = { path = \"x\" }\n\
                    anyhow = \"1\" # context\nclap = \"4\"\n\n[profile.dev]\ndebug = 1\n";
        assert_eq!(lines(judge_root, text), [4]);
    }

    #[test]
    fn a_root_entry_that_no_member_inherits_is_found() {
        let root = "[workspace.dependencies]\nhttp = \"1\" # names\nhttp-body = \"1\" # bodies\n\
                    loom = \"0.7\" # lanes\nserde = \"1\" # JSON\n";
        let tree = sample(&[
            ("Cargo.toml", root),
            ("a/Cargo.toml", "[dependencies]\nhttp-body.workspace = true\n"),
            ("b/Cargo.toml", "[target.'cfg(loom)'.dependencies]\nloom.workspace = true\n"),
            (FUZZ, "[dependencies]\nserde = \"1\" # values\n"),
        ]);
        let users = ["a/Cargo.toml", "b/Cargo.toml", FUZZ].map(|path| tree.get(path).unwrap());
        let findings = judge_use(tree.get("Cargo.toml").unwrap(), &users);
        let lines: Vec<usize> = findings.into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2]);
    }

    const MEMBER: &str = "[package]\nname = \"x\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        publish.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn a_member_that_inherits_everything_is_fine() {
        let text = format!("{MEMBER}[dependencies]\nserde = {{ workspace = true }}\n");
        assert_eq!(lines(judge_member, &text), NONE);
    }

    #[test]
    fn a_version_of_its_own_is_found_in_every_table() {
        for table in ["dependencies", "dev-dependencies", "target.'cfg(loom)'.dependencies"] {
            let text = format!("{MEMBER}[{table}]\nloom = \"0.7\"\n");
            assert_eq!(lines(judge_member, &text), [11], "{table}");
        }
    }

    #[test]
    fn a_package_field_of_its_own_is_found() {
        let text = MEMBER.replace("edition.workspace = true", "edition = \"2021\"");
        assert_eq!(lines(judge_member, &text), [4]);
    }
}
