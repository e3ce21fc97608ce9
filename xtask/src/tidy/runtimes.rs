//! No async runtime in the data plane: a dropped future could free memory the kernel still writes
//! to.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Finding;
use crate::workspace::{Node, Package, Workspace};

pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let nodes = workspace.nodes();
    let names: HashMap<&str, &str> = workspace
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let mut findings = Vec::new();
    for package in workspace.members() {
        let manifest = workspace.manifest(package);
        if !manifest.starts_with("dataplane/") {
            continue;
        }
        if let Some(chain) = chain_to_banned(package, &nodes, &names) {
            let text = format!(
                "{}: the data plane has no async runtime, for a future that is dropped lets go of \
                 memory the kernel still owns",
                chain.join(" → ")
            );
            findings.push(Finding::file(&manifest, "runtimes", text));
        }
    }
    findings
}

/// The shortest path of normal dependencies from the package to a banned one.
fn chain_to_banned<'a>(
    package: &'a Package,
    nodes: &HashMap<&'a str, &'a Node>,
    names: &HashMap<&'a str, &'a str>,
) -> Option<Vec<&'a str>> {
    let mut seen = HashSet::from([package.id.as_str()]);
    let mut queue = VecDeque::from([(package.id.as_str(), vec![package.name.as_str()])]);
    while let Some((id, chain)) = queue.pop_front() {
        for edge in &nodes.get(id)?.deps {
            if !edge.is_normal() || !seen.insert(&edge.pkg) {
                continue;
            }
            let name = names.get(edge.pkg.as_str())?;
            let mut longer = chain.clone();
            longer.push(name);
            if is_banned(name) {
                return Some(longer);
            }
            queue.push_back((&edge.pkg, longer));
        }
    }
    None
}

fn is_banned(name: &str) -> bool {
    let is_futures = name == "futures" || name.starts_with("futures-");
    is_futures || matches!(name, "tokio" | "async-executor" | "async-std" | "smol")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{
        "packages": [
            {"id": "s", "name": "relay-shard", "version": "0", "source": null, "license": null,
             "manifest_path": "/r/dataplane/shard/Cargo.toml", "dependencies": [], "targets": []},
            {"id": "x", "name": "x", "version": "0", "source": "crates", "license": "MIT",
             "manifest_path": "/x/Cargo.toml", "dependencies": [], "targets": []},
            {"id": "t", "name": "tokio", "version": "0", "source": "crates", "license": "MIT",
             "manifest_path": "/t/Cargo.toml", "dependencies": [], "targets": []}
        ],
        "resolve": {"nodes": [
            {"id": "s", "deps": [{"pkg": "x", "dep_kinds": [{"kind": KIND}]}]},
            {"id": "x", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]},
            {"id": "t", "deps": []}
        ]},
        "target_directory": "/r/target", "workspace_root": "/r"
    }"#;

    fn findings(kind: &str) -> Vec<Finding> {
        let graph = serde_json::from_str(&GRAPH.replace("KIND", kind)).expect("it is a workspace");
        check(&graph)
    }

    #[test]
    fn a_runtime_behind_another_crate_is_found_with_the_way_to_it() {
        let findings = findings("null");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.starts_with("relay-shard → x → tokio"));
    }

    #[test]
    fn tests_of_the_data_plane_may_use_a_runtime() {
        assert_eq!(findings("\"dev\""), []);
    }
}
