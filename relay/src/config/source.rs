//! Where values come from: flags over environment over defaults.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The origin of one effective value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The command line; the text is the flag.
    Flag(String),
    /// The environment, under this name.
    Environment(String),
    /// A file named by `<NAME>_FILE`.
    File(String),
    /// Nobody said anything.
    Default,
    /// Concluded from other values; the text says from which.
    Inferred(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
            Self::Inferred(reason) => write!(f, "inferred: {reason}"),
        }
    }
}

/// One value given on the command line. Its `Debug` shows no text: it may be a key.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct FlagValue {
    /// The flag as typed, for messages.
    pub flag: String,
    /// The variable it stands for.
    pub name: String,
    /// Its text.
    pub value: String,
}

impl fmt::Debug for FlagValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlagValue")
            .field("flag", &self.flag)
            .field("name", &self.name)
            .field("value_bytes", &self.value.len())
            .finish()
    }
}

/// What the parser knows of the world. It asks nothing else, so a test can be the world.
pub(crate) trait Surroundings {
    /// The text of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Whether a file can be there to be read.
    fn exists(&self, path: &Path) -> bool;
    /// Whether the process runs in a container.
    fn in_container(&self) -> bool;
    /// The user's home directory.
    fn home(&self) -> Option<PathBuf>;
    /// Cores this process may use: affinity and cgroup quota considered.
    fn core_count(&self) -> usize;
    /// Twelve hexadecimal digits that differ from process to process.
    fn nonce(&self) -> String;
}

/// The machine itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn in_container(&self) -> bool {
        let marked =
            ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
        marked
            || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            || std::fs::read_to_string("/proc/1/cgroup").is_ok_and(|text| names_a_container(&text))
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir()
    }

    fn core_count(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn nonce(&self) -> String {
        let mut bytes = [0; 6];
        if getrandom::fill(&mut bytes).is_err() {
            // Only uniqueness is asked for, and the process id is unique on this machine.
            bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Container runtimes put their containers into control groups of these names.
fn names_a_container(cgroup: &str) -> bool {
    ["docker", "kubepods", "containerd", "libpod", "lxc"]
        .iter()
        .any(|runtime| cgroup.contains(runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_container_runtimes_are_recognised() {
        assert!(names_a_container("12:cpu:/docker/0123456789ab\n"));
        assert!(names_a_container("0::/kubepods/besteffort/pod1\n"));
        assert!(!names_a_container("0::/init.scope\n"));
        assert!(!names_a_container("0::/\n"));
    }
}
