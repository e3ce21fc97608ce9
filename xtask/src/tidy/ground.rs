//! Ground crates compute. They see no clock, socket, file, thread or environment.

use super::Finding;
use super::tree::Tree;

const GROUND: &[&str] = &[
    "proto/contract/src/",
    "dataplane/wire/src/",
    "dataplane/switchboard/src/",
    "controlplane/admission/src/",
];

/// Modules of the standard library that reach outside.
const MODULES: &[(&str, &str)] = &[
    ("std::env", "the environment"),
    ("std::fs", "files"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("std::os", "the operating system"),
];

/// Types that reach outside, whatever path they are named by. Addresses are plain values and fine.
const TYPES: &[(&str, &str)] = &[
    ("Instant", "the clock"),
    ("SystemTime", "the clock"),
    ("TcpListener", "sockets"),
    ("TcpStream", "sockets"),
    ("ToSocketAddrs", "name resolution"),
    ("UdpSocket", "sockets"),
    ("UnixStream", "sockets"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust() {
        if !GROUND.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        let mut report = |line: usize, what: &str, reach: &str| {
            if !source.is_test[line] {
                let text = format!(
                    "{what}: a ground crate reaches {reach}; time, identity and randomness are \
                     arguments there, so that same inputs give same outputs"
                );
                findings.push(Finding::at(&file.path, line, "ground", text));
            }
        };
        for (line, path) in source.paths() {
            for (module, reach) in MODULES {
                if path == *module || path.starts_with(&format!("{module}::")) {
                    report(line, &path, reach);
                }
            }
        }
        for (name, reach) in TYPES {
            for line in source.word_lines(name) {
                report(line, name, reach);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tree::sample;
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(text: &str) -> Vec<usize> {
        let tree = sample(&[("dataplane/wire/src/lib.rs", text)]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_reaches_outside_is_found_however_it_is_imported() {
        assert_eq!(lines("use std::{\n    fs,\n    net::IpAddr,\n};"), [2]);
        assert_eq!(lines("use std::time::{Duration, Instant};"), [1]);
        assert_eq!(lines("fn f() {\n    std::thread::spawn(g);\n}"), [2]);
        assert_eq!(lines("use std::net::TcpStream;"), [1]);
    }

    #[test]
    fn plain_values_of_the_same_modules_are_fine() {
        assert_eq!(lines("use std::net::{IpAddr, Ipv4Addr};\nuse std::time::Duration;"), NONE);
    }

    #[test]
    fn tests_may_read_their_vectors() {
        assert_eq!(lines("#[cfg(test)]\nmod tests {\n    use std::fs;\n}"), NONE);
    }

    #[test]
    fn upper_floors_are_free() {
        let tree = sample(&[("relay/src/main.rs", "use std::env;")]);
        assert_eq!(check(&tree), []);
    }
}
