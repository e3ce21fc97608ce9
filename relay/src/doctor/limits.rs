//! The process's own limits.

use relay_driver::Choice;
use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use super::kernel_files::KernelFiles;
use crate::config::{Config, Engine};

/// Whether every connection can have its descriptor.
pub(crate) fn descriptors(config: &Config) -> Finding {
    judge_descriptors(getrlimit(Resource::Nofile).maximum, config.capacity.connections_max)
}

fn judge_descriptors(hard: Option<u64>, connections_max: usize) -> Finding {
    const CHECK: &str = "descriptors";
    let needed = u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_add(RESERVE);
    let Some(hard) = hard.filter(|hard| *hard < needed) else {
        let limit = hard.map_or("no limit".to_owned(), |hard| format!("a limit of {hard}"));
        let found = format!("{limit} for RELAY_MAX_TOTAL_CONNECTIONS={connections_max}");
        return Finding::ok(CHECK, found);
    };
    Finding::warn(
        CHECK,
        format!(
            "a hard limit of {hard}; RELAY_MAX_TOTAL_CONNECTIONS={connections_max} and {RESERVE} \
             beside it need {needed}: accepting pauses before the cap is reached"
        ),
        format!(
            "LimitNOFILE={needed} in the unit, docker run --ulimit nofile={needed}, or ulimit -Hn \
             {needed}; or a lower RELAY_MAX_TOTAL_CONNECTIONS"
        ),
    )
}

/// Whether the rings of all shards fit into the memory that this user may lock.
pub(crate) fn locked_memory(engine: &Engine, files: &KernelFiles) -> Finding {
    const CHECK: &str = "locked memory";
    if engine.driver == Choice::Epoll {
        return Finding::ok(CHECK, "none needed (RELAY_DRIVER=epoll)");
    }
    if may_lock_anything(files) {
        return Finding::ok(CHECK, "no limit for this process (CAP_IPC_LOCK)");
    }
    judge_locked_memory(getrlimit(Resource::Memlock).current, engine.shard_count)
}

fn judge_locked_memory(limit: Option<u64>, shard_count: u16) -> Finding {
    const CHECK: &str = "locked memory";
    let Some(limit) = limit else {
        return Finding::ok(CHECK, "no limit");
    };
    let found = format!("a limit of {} KiB for the rings of {shard_count} shards", limit >> 10);
    let needed = rings_bytes(shard_count);
    if limit < needed {
        return Finding::warn(
            CHECK,
            format!("{found}, which may take {} KiB", needed >> 10),
            more_locked_memory(shard_count),
        );
    }
    Finding::ok(CHECK, found)
}

/// How to let the rings of so many shards be locked.
pub(super) fn more_locked_memory(shard_count: u16) -> String {
    let needed = rings_bytes(shard_count);
    format!(
        "a higher limit of locked memory (LimitMEMLOCK={}K in the unit, docker run --ulimit \
         memlock={needed}), or fewer RELAY_SHARDS",
        needed >> 10
    )
}

fn rings_bytes(shard_count: u16) -> u64 {
    u64::from(shard_count) * RING_BYTES_MAX
}

/// Whether the kernel counts nothing as locked. It asks for the capability on the whole machine:
/// one of a user namespace is none.
fn may_lock_anything(files: &KernelFiles) -> bool {
    let effective = files.status("CapEff");
    let effective = effective.and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0);
    let users = files.text("proc/self/uid_map").unwrap_or_default();
    let is_of_machine = users.split_whitespace().eq(["0", "0", "4294967295"]);
    effective & CAP_IPC_LOCK != 0 && is_of_machine
}

/// Guests before their upgrade, workers, platform calls, rings, files.
const RESERVE: u64 = 1024;

/// What the ring of a shard takes at most of the memory that may be locked. Source: measured on
/// Linux 6.18, deploy/README.md, "LimitMEMLOCK".
const RING_BYTES_MAX: u64 = 256 << 10;

/// Source: linux/capability.h.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// The core file a crash may leave.
pub(crate) fn core_dumps(are_allowed: bool) -> Finding {
    const CHECK: &str = "core dumps";
    match are_allowed {
        false => Finding::ok(CHECK, "the relay leaves none"),
        true => Finding::warn(
            CHECK,
            "RELAY_CORE_DUMPS=1: a crash writes memory, with every key in it, to a file",
            "RELAY_CORE_DUMPS=0 once the fault is found",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::kernel_files::made_of;
    use super::*;

    #[test]
    fn too_few_descriptors_are_answered_with_the_number_needed() {
        assert_eq!(judge_descriptors(None, 2000).verdict, Verdict::Ok);
        assert_eq!(judge_descriptors(Some(3024), 2000).verdict, Verdict::Ok);
        let finding = judge_descriptors(Some(1024), 2000);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.remedy.expect("a remedy").contains("LimitNOFILE=3024"));
    }

    #[test]
    fn locked_memory_is_judged_by_the_rings_of_all_shards() {
        assert_eq!(judge_locked_memory(None, 8).verdict, Verdict::Ok);
        assert_eq!(judge_locked_memory(Some(2 << 20), 8).verdict, Verdict::Ok);
        let little = judge_locked_memory(Some(1 << 20), 8);
        assert_eq!(little.verdict, Verdict::Warn);
        assert!(little.remedy.expect("a remedy").contains("LimitMEMLOCK=2048K"));
        assert_eq!(judge_locked_memory(Some(1 << 20), 4).verdict, Verdict::Ok);
    }

    #[test]
    fn whoever_may_lock_anything_on_the_whole_machine_has_no_limit() {
        for (capabilities, users, expected) in [
            ("000001ffffffffff", "         0          0 4294967295", true),
            ("0000000000004000", "         0          0 4294967295", true),
            ("00000000a80425fb", "         0          0 4294967295", false),
            ("000001ffffffffff", "         0       1000          1", false),
        ] {
            let status = format!("Name:\trelay\nCapEff:\t{capabilities}\n");
            let files = [("proc/self/status", status.as_str()), ("proc/self/uid_map", users)];
            let (_dir, files) = made_of(&files);
            assert_eq!(may_lock_anything(&files), expected, "{capabilities} {users}");
        }
    }

    #[test]
    fn a_core_file_is_worth_a_look() {
        assert_eq!(core_dumps(false).verdict, Verdict::Ok);
        assert_eq!(core_dumps(true).verdict, Verdict::Warn);
    }
}
