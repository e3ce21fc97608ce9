//! Imports between our crates go down.

use super::Finding;
use crate::workspace::Workspace;

/// Every crate, the floor it lives on, and the neighbours on that floor it may import.
///
/// The ground has two steps: `switchboard` stands on `wire`. On the first floor the driver rings
/// the mailbox's bell. Source: style guide, section 1.
const FLOORS: &[(&str, Floor, &[&str])] = &[
    ("relay-contract", Floor::Contract, &[]),
    ("relay-wire", Floor::Ground, &[]),
    ("relay-admission", Floor::Ground, &[]),
    ("relay-switchboard", Floor::Ground, &["relay-wire"]),
    ("relay-mailbox", Floor::First, &[]),
    ("relay-grpc", Floor::First, &[]),
    ("relay-arrival", Floor::First, &[]),
    ("relay-driver", Floor::First, &["relay-mailbox"]),
    ("relay-shard", Floor::Second, &[]),
    ("relay-backplane", Floor::Second, &[]),
    ("relay-link", Floor::Second, &[]),
    ("relay-platform", Floor::Second, &[]),
    ("relay-endpoint", Floor::Second, &[]),
    ("relay-controller", Floor::Third, &[]),
    ("relay", Floor::Roof, &[]),
    ("relay-flamegraph", Floor::Roof, &[]),
    ("relay-load", Floor::Roof, &[]),
    ("relay-micro", Floor::Roof, &[]),
    ("relay-autobahn", Floor::Roof, &[]),
    ("relay-chaos", Floor::Roof, &["relay-e2e"]),
    ("relay-conformance", Floor::Roof, &[]),
    ("relay-e2e", Floor::Roof, &[]),
    ("relay-sim", Floor::Roof, &[]),
    ("xtask", Floor::Roof, &[]),
];

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Floor {
    Contract,
    Ground,
    First,
    Second,
    Third,
    Roof,
}

pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in workspace.members() {
        let manifest = workspace.manifest(package);
        if floor(&package.name).is_none() {
            let text = format!("{} has no floor yet: name it in xtask's floors", package.name);
            findings.push(Finding::file(&manifest, RULE, text));
        }
        for dependency in &package.dependencies {
            let plane = workspace.members().find(|other| other.name == dependency.name);
            let Some(other) = plane.map(|other| workspace.manifest(other)) else {
                continue;
            };
            let upwards = judge(&package.name, &dependency.name);
            let across = judge_planes(&manifest, &other);
            for text in upwards.into_iter().chain(across) {
                findings.push(Finding::file(&manifest, RULE, text));
            }
        }
    }
    findings
}

/// Why `from` may not import `to`, if it may not.
fn judge(from: &str, to: &str) -> Option<String> {
    let (from_floor, neighbours) = floor(from)?;
    let (to_floor, _) = floor(to)?;
    if to_floor < from_floor || neighbours.contains(&to) {
        return None;
    }
    Some(format!(
        "{from} ({from_floor:?}) imports {to} ({to_floor:?}): imports go down, so that a reader \
         who knows the floor knows what the crate cannot do"
    ))
}

/// Why a crate at `from` may not import one at `to`, judged by their planes.
fn judge_planes(from: &str, to: &str) -> Option<String> {
    let crosses = |a: &str, b: &str| from.starts_with(a) && to.starts_with(b);
    let is_across =
        crosses("dataplane/", "controlplane/") || crosses("controlplane/", "dataplane/");
    is_across.then(|| {
        format!("imports {to} of the other plane: the planes meet in proto/ and nowhere else")
    })
}

fn floor(name: &str) -> Option<(Floor, &'static [&'static str])> {
    let entry = FLOORS.iter().find(|entry| entry.0 == name)?;
    Some((entry.1, entry.2))
}

const RULE: &str = "floors";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_go_down() {
        assert_eq!(judge("relay-shard", "relay-driver"), None);
        assert_eq!(judge("relay-switchboard", "relay-wire"), None);
        assert_eq!(judge("relay-driver", "relay-mailbox"), None);
        assert_eq!(judge("relay-controller", "relay-platform"), None);
    }

    #[test]
    fn imports_up_or_sideways_are_found() {
        assert!(judge("relay-wire", "relay-switchboard").is_some());
        assert!(judge("relay-mailbox", "relay-driver").is_some());
        assert!(judge("relay-contract", "relay-wire").is_some());
        assert!(judge("relay-link", "relay-controller").is_some());
    }

    #[test]
    fn the_planes_do_not_import_each_other() {
        assert!(
            judge_planes("dataplane/shard/Cargo.toml", "controlplane/link/Cargo.toml").is_some()
        );
        assert!(
            judge_planes("controlplane/link/Cargo.toml", "dataplane/wire/Cargo.toml").is_some()
        );
        assert_eq!(judge_planes("relay/Cargo.toml", "dataplane/wire/Cargo.toml"), None);
        assert_eq!(judge_planes("dataplane/shard/Cargo.toml", "proto/mailbox/Cargo.toml"), None);
    }
}
