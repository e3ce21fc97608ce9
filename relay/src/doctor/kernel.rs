//! The kernel's version, and whether it lets us have a ring.

use relay_driver::{Choice, DriverError};
use rustix::io::Errno;

use super::finding::Finding;
use super::kernel_files::KernelFiles;
use super::limits;
use crate::config::Engine;
use crate::cores;

/// Which Linux this is.
pub(crate) fn version(files: &KernelFiles) -> Finding {
    const CHECK: &str = "kernel";
    let release = files.text("proc/sys/kernel/osrelease").unwrap_or_default();
    match numbers(&release) {
        Some(version) if version >= MOVES_SINCE => Finding::ok(CHECK, format!("Linux {release}")),
        Some(version) if version >= RING_SINCE => Finding::ok(
            CHECK,
            format!("Linux {release}; workspaces move between shards on io_uring from 6.8 on"),
        ),
        Some(version) if version >= OLDEST => Finding::warn(
            CHECK,
            format!("Linux {release} has no io_uring as the relay needs it: epoll carries it"),
            "Linux 6.1 or later, for two thirds of the CPU per frame under load",
        ),
        Some(_) => Finding::fail(
            CHECK,
            format!("Linux {release} is older than anything the relay is tested on"),
            "Linux 5.10 or later; 6.1 for io_uring",
        ),
        None => Finding::warn(
            CHECK,
            "/proc/sys/kernel/osrelease cannot be read",
            "mount /proc, without which several checks know nothing",
        ),
    }
}

/// Whether every shard can have its ring, and which driver the shards will therefore run on.
pub(crate) fn ring(engine: &Engine, files: &KernelFiles) -> Finding {
    judge_rings(engine, open_rings(engine), files)
}

/// `opened` is how many rings could be held together before one was refused, and why it was.
fn judge_rings(
    engine: &Engine,
    (opened, refused): (usize, Option<DriverError>),
    files: &KernelFiles,
) -> Finding {
    const CHECK: &str = "io_uring";
    let is_unwanted = engine.driver == Choice::Epoll;
    let Some(error) = refused else {
        return Finding::ok(
            CHECK,
            match is_unwanted {
                true => "allowed, but RELAY_DRIVER=epoll: the shards run on epoll".to_owned(),
                false => format!("allowed: the shards run on it ({opened} rings)"),
            },
        );
    };
    let shards = usize::from(engine.shard_count);
    let (of_shards, these) = match opened {
        0 => (String::new(), "the shards"),
        _ => (format!(" for {} of {shards} shards", shards - opened.min(shards)), "these"),
    };
    let remedy = ring_remedy(&error, engine.shard_count, files);
    match engine.driver {
        Choice::Epoll => {
            Finding::ok(CHECK, format!("not asked for (RELAY_DRIVER=epoll), nor allowed: {error}"))
        }
        Choice::Auto => Finding::warn(
            CHECK,
            format!("refused{of_shards} ({error}): {these} run on epoll"),
            remedy,
        ),
        Choice::Uring => Finding::fail(
            CHECK,
            format!("refused{of_shards} ({error}), and RELAY_DRIVER=uring insists on it"),
            format!("{remedy}; or RELAY_DRIVER=auto"),
        ),
    }
}

/// Opens the rings of all shards and holds them together, as the start does: each takes its part of
/// the memory that may be locked. Where none is wanted, one says as much.
///
/// A thread of its own does it: what the kernel still has to clean up interrupts system calls of
/// the thread that had them.
fn open_rings(engine: &Engine) -> (usize, Option<DriverError>) {
    let config = engine.driver_config();
    let wanted = match engine.driver {
        Choice::Epoll => 1,
        Choice::Auto | Choice::Uring => engine.shard_count,
    };
    // The start does so too; a ring has its table and its descriptors by this limit.
    cores::raise_descriptor_limit();
    let opened = std::thread::spawn(move || {
        let mut rings = Vec::new();
        for _ in 0..wanted {
            match relay_driver::open(Choice::Uring, &config) {
                Ok(ring) => rings.push(ring),
                Err(error) => return (rings.len(), Some(error)),
            }
        }
        (rings.len(), None)
    });
    opened.join().expect("opening a ring returns what went wrong")
}

/// What stands between us and the ring, from the most to the least certain.
fn ring_remedy(error: &DriverError, shard_count: u16, files: &KernelFiles) -> String {
    let DriverError::Setup { source, .. } = error;
    let errno = Errno::from_io_error(source);
    match files.number("proc/sys/kernel/io_uring_disabled") {
        Some(2) => return "sysctl -w kernel.io_uring_disabled=0".to_owned(),
        Some(1) if errno == Some(Errno::PERM) => {
            return "sysctl -w kernel.io_uring_disabled=0, or run as a member of the group \
                    kernel.io_uring_group"
                .to_owned();
        }
        _ => {}
    }
    let is_filtered = files.status("Seccomp").is_some_and(|mode| mode == "2");
    match errno {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) if is_filtered => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile, as deploy/seccomp.json does (docker run --security-opt seccomp=…)"
        }
        Some(Errno::PERM | Errno::ACCESS) => {
            "let the security module (SELinux, AppArmor) allow io_uring to this process"
        }
        Some(Errno::NOSYS) => "a kernel built with CONFIG_IO_URING",
        Some(Errno::NOMEM) => {
            return format!(
                "{}; rings of a relay that runs as this user, or ended a moment ago, count too",
                limits::more_locked_memory(shard_count)
            );
        }
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit of descriptors (ulimit -n)",
        Some(Errno::INVAL) => "Linux 6.1 or later",
        _ => "Linux 6.1 or later, with io_uring allowed",
    }
    .to_owned()
}

/// Major and minor version.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What the uring driver asks of the kernel.
const RING_SINCE: (u32, u32) = (6, 1);

/// What a move asks of it, to give a connection out of the ring.
const MOVES_SINCE: (u32, u32) = (6, 8);

/// The oldest kernel with long-term support when this was written.
const OLDEST: (u32, u32) = (5, 10);

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::finding::Verdict;
    use super::super::kernel_files::made_of;
    use super::*;

    fn of_release(release: &str) -> Finding {
        let (_dir, files) = made_of(&[("proc/sys/kernel/osrelease", release)]);
        version(&files)
    }

    #[test]
    fn an_old_kernel_is_named_with_what_it_lacks() {
        assert_eq!(of_release("6.18.5-cloud\n").verdict, Verdict::Ok);
        assert_eq!(of_release("6.1.0-13-amd64").verdict, Verdict::Ok);
        assert!(
            of_release("6.7.9").found.contains("move")
                && !of_release("6.8.0").found.contains("move")
        );
        assert_eq!(of_release("5.15.0-91-generic").verdict, Verdict::Warn);
        assert_eq!(of_release("4.19.0").verdict, Verdict::Fail);
        assert_eq!(of_release("").verdict, Verdict::Warn);
    }

    fn remedy(errno: Errno, files: &[(&str, &str)]) -> String {
        let (_dir, files) = made_of(files);
        let source = io::Error::from(errno);
        ring_remedy(&DriverError::Setup { step: "io_uring_setup", source }, 4, &files)
    }

    #[test]
    fn each_reason_without_a_ring_has_its_remedy() {
        let disabled = |value| [("proc/sys/kernel/io_uring_disabled", value)];
        let filtered = [("proc/self/status", "Name:\trelay\nSeccomp:\t2\nSeccomp_filters:\t1\n")];
        assert!(remedy(Errno::PERM, &disabled("2\n")).starts_with("sysctl -w"));
        assert!(remedy(Errno::PERM, &disabled("1\n")).contains("io_uring_group"));
        assert!(remedy(Errno::PERM, &filtered).contains("seccomp"));
        assert!(remedy(Errno::NOSYS, &filtered).contains("seccomp"));
        assert!(remedy(Errno::NOSYS, &[]).contains("CONFIG_IO_URING"));
        assert!(remedy(Errno::PERM, &disabled("0\n")).contains("SELinux"));
        assert!(remedy(Errno::NOMEM, &[]).contains("LimitMEMLOCK=1024K"));
        assert!(remedy(Errno::INVAL, &[]).contains("6.1"));
    }

    fn engine(driver: Choice, shard_count: u16) -> Engine {
        Engine { driver, shard_count, busy_poll_us: 0, drain_ms: 1, core_dumps: false }
    }

    #[test]
    fn the_ring_check_agrees_with_the_driver() {
        let files = KernelFiles::of_this_machine();
        let has_ring = relay_driver::Uring::probe().is_ok();
        let expected = if has_ring { Verdict::Ok } else { Verdict::Fail };
        assert_eq!(ring(&engine(Choice::Uring, 1), &files).verdict, expected);
        assert_eq!(ring(&engine(Choice::Epoll, 1), &files).verdict, Verdict::Ok);
        let (opened, refused) = open_rings(&engine(Choice::Auto, 3));
        assert_eq!(opened == 3, refused.is_none(), "a ring for each shard: {opened}, {refused:?}");
    }

    #[test]
    fn memory_for_some_of_the_rings_is_not_enough() {
        let (_dir, files) = made_of(&[]);
        let judged = |driver, opened| {
            let source = io::Error::from(Errno::NOMEM);
            let refused = DriverError::Setup { step: "io_uring_setup", source };
            judge_rings(&engine(driver, 8), (opened, Some(refused)), &files)
        };
        let some = judged(Choice::Auto, 4);
        assert_eq!(some.verdict, Verdict::Warn);
        assert!(some.found.starts_with("refused for 4 of 8 shards ("), "{some:?}");
        assert!(some.found.ends_with("these run on epoll"), "{some:?}");
        assert!(some.remedy.is_some_and(|remedy| remedy.contains("memlock=2097152")));
        assert!(judged(Choice::Auto, 0).found.ends_with("the shards run on epoll"));
        assert_eq!(judged(Choice::Uring, 7).verdict, Verdict::Fail);
        assert_eq!(judged(Choice::Epoll, 0).verdict, Verdict::Ok);
    }
}
