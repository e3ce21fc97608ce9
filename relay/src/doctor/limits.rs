//! The process's own limits.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::config::Config;

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

/// Memory the kernel lets this process lock. Rings are charged to it before Linux 5.12; later
/// kernels charge them to the control group.
pub(crate) fn locked_memory() -> Finding {
    judge_locked_memory(getrlimit(Resource::Memlock).maximum)
}

fn judge_locked_memory(hard: Option<u64>) -> Finding {
    const CHECK: &str = "locked memory";
    match hard {
        Some(hard) if hard < LOCKED_BYTES_MIN => Finding::warn(
            CHECK,
            format!("a hard limit of {} KiB: a ring may not find room", hard >> 10),
            "LimitMEMLOCK=infinity in the unit, or docker run --ulimit memlock=-1",
        ),
        Some(hard) => Finding::ok(CHECK, format!("a limit of {} KiB", hard >> 10)),
        None => Finding::ok(CHECK, "no limit"),
    }
}

/// Guests before their upgrade, workers, platform calls, rings, files.
const RESERVE: u64 = 1024;

/// The kernel's own default since Linux 5.16 is 8 MiB; before, 64 KiB.
const LOCKED_BYTES_MIN: u64 = 64 << 10;

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
    fn little_locked_memory_is_worth_a_look() {
        assert_eq!(judge_locked_memory(None).verdict, Verdict::Ok);
        assert_eq!(judge_locked_memory(Some(8 << 20)).verdict, Verdict::Ok);
        assert_eq!(judge_locked_memory(Some(32 << 10)).verdict, Verdict::Warn);
    }

    #[test]
    fn a_core_file_is_worth_a_look() {
        assert_eq!(core_dumps(false).verdict, Verdict::Ok);
        assert_eq!(core_dumps(true).verdict, Verdict::Warn);
    }
}
