//! Relative links in documents lead somewhere.

use std::collections::HashSet;

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut places: HashSet<&str> = HashSet::new();
    for file in &tree.files {
        let mut path = file.path.as_str();
        places.insert(path);
        while let Some((folder, _)) = path.rsplit_once('/') {
            places.insert(folder);
            path = folder;
        }
    }
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, target) in links(&file.text) {
            let Some(path) = resolve(&file.path, target) else {
                continue;
            };
            if !path.is_empty() && !places.contains(path.as_str()) {
                let text = format!("the link to {target} leads nowhere");
                findings.push(Finding::at(&file.path, index, "links", text));
            }
        }
    }
    findings
}

/// Targets of `[text](target)` and `[label]: target` with their line; code is left out.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_fence = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        if in_fence {
            continue;
        }
        // Every second piece between backticks is code; a link whose text is code keeps its target.
        for piece in line.split('`').step_by(2) {
            for (at, _) in piece.match_indices("](") {
                let target = piece[at + 2..].split([')', ' ']).next().unwrap_or_default();
                links.push((index, target.trim_matches(['<', '>'])));
            }
        }
        let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition {
            links.push((index, target.split(' ').next().unwrap_or_default()));
        }
    }
    links
}

/// The path below the root that a link in `from` means; nothing for links out of the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let is_url = target.split_once(':').is_some_and(|(scheme, _)| !scheme.contains('/'));
    if path.is_empty() || is_url {
        return None;
    }
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(text: &str) -> Vec<usize> {
        let tree = sample(&[
            ("docs/a.md", text),
            ("docs/adr/0001-a.md", "# 0001"),
            ("README.md", "# Relay"),
        ]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn links_to_files_and_folders_resolve_from_the_document() {
        assert_eq!(lines("[a](../README.md) [b](adr/) [c](adr/0001-a.md#x) [d](/README.md)"), NONE);
        assert_eq!(lines("[`code`](../README.md)\n[x]: adr/0001-a.md"), NONE);
    }

    #[test]
    fn dead_links_are_found() {
        assert_eq!(lines("ok\n[a](README.md)"), [2]);
        assert_eq!(lines("[`a`](gone.md)"), [1]);
        assert_eq!(lines("[x]: gone.md"), [1]);
    }

    #[test]
    fn code_and_links_out_of_the_repository_are_left_alone() {
        assert_eq!(lines("`[a](gone.md)`\n```text\n[a](gone.md)\n```"), NONE);
        assert_eq!(lines("[a](https://example.org/x) [b](#part) [c](mailto:a@b)"), NONE);
    }
}
