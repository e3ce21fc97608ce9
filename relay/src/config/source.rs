//! Where values come from: flags over environment over defaults.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
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
    /// The configuration file.
    Settings {
        /// Its path.
        path: String,
        /// The line, from 1.
        line: usize,
    },
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
            Self::Settings { path, line } => write!(f, "{path}:{line}"),
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

impl FlagValue {
    /// What `--set NAME=VALUE` stands for.
    pub(crate) fn set(name: &str, value: &str) -> Self {
        Self { flag: "--set".to_owned(), name: name.to_owned(), value: value.to_owned() }
    }
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
    /// The text of a file, refused beyond [`FILE_BYTES_MAX`].
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The same of a configuration file, refused beyond [`CONFIG_BYTES_MAX`].
    fn read_long(&self, path: &Path) -> io::Result<String>;
    /// Whether every user of the machine may read a file.
    fn is_open_to_all(&self, path: &Path) -> bool;
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
        // Without a copy, which nobody would wipe, unless it is needed.
        let text = std::env::var_os(name)?.into_string();
        Some(text.unwrap_or_else(|bytes| bytes.to_string_lossy().into_owned()))
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        read_bounded(path, FILE_BYTES_MAX)
    }

    fn read_long(&self, path: &Path) -> io::Result<String> {
        read_bounded(path, CONFIG_BYTES_MAX)
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & OTHERS_READ != 0)
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

fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<String> {
    let file = File::open(path)?;
    // Sized before it is filled: a buffer that grows leaves pieces of a secret behind.
    let expected = file.metadata().map_or(0, |facts| facts.len());
    let expected = usize::try_from(expected).unwrap_or(bytes_max).clamp(4096, bytes_max);
    let mut text = String::with_capacity(expected + 1);
    file.take(bytes_max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > bytes_max {
        let error = format!("it is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(text)
}

/// Bytes of a configuration file. Protects the start from a path that names something else.
/// Reached: the file is refused. Source: some twenty thousand workspaces with limits of their own.
pub(super) const CONFIG_BYTES_MAX: usize = 4 << 20;

/// Bytes of a file that holds one value. Protects the start from a path that names a device or a
/// log. Reached: the variable is refused.
pub(super) const FILE_BYTES_MAX: usize = 64 << 10;

/// The permission of everybody to read.
const OTHERS_READ: u32 = 0o004;

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
    fn a_file_is_read_up_to_its_bound_and_its_openness_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, "s3cret\n").expect("written");
        assert_eq!(Machine.read(&path).expect("read"), "s3cret\n");
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("changed");
            assert_eq!(Machine.is_open_to_all(&path), is_open, "{mode:o}");
        }
        std::fs::write(&path, vec![b'x'; FILE_BYTES_MAX + 1]).expect("written");
        assert_eq!(Machine.read(&path).expect_err("long").kind(), io::ErrorKind::FileTooLarge);
        let endless = Machine.read(Path::new("/dev/zero")).expect_err("endless");
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn control_groups_of_container_runtimes_are_recognised() {
        assert!(names_a_container("12:cpu:/docker/0123456789ab\n"));
        assert!(names_a_container("0::/kubepods/besteffort/pod1\n"));
        assert!(!names_a_container("0::/init.scope\n"));
        assert!(!names_a_container("0::/\n"));
    }
}
