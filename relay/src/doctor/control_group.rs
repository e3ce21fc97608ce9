//! What the control group allows, beside what the configuration takes.

use super::finding::Finding;
use super::kernel_files::KernelFiles;
use crate::config::Config;

/// Limits of this process's control group, the tightest of all its ancestors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    memory_bytes: Option<u64>,
    cores: Option<f64>,
}

/// Whether the kernel allows the budget, and whether the budget holds what the caps allow.
pub(crate) fn memory(config: &Config, files: &KernelFiles) -> Finding {
    let machine = files.text("proc/meminfo").and_then(|text| total_memory(&text));
    let group = Limits::read(files).memory_bytes;
    judge_memory(config, group.into_iter().chain(machine).min())
}

fn judge_memory(config: &Config, limit: Option<u64>) -> Finding {
    const CHECK: &str = "memory";
    let budget = config.memory.budget_bytes;
    let budget_mib = budget >> 20;
    // Socket buffers, which the kernel counts too, are not part of the budget.
    if let Some(limit) = limit.filter(|limit| budget > limit / 10 * 9) {
        let limit_mib = limit >> 20;
        let found = format!("a budget of {budget_mib} MiB where {limit_mib} MiB are allowed");
        let remedy = "RELAY_MEMORY_BUDGET=50%, or a higher limit (MemoryMax, docker run --memory)";
        return match budget > limit {
            true => Finding::fail(CHECK, format!("{found}: the kernel would kill it"), remedy),
            false => Finding::warn(CHECK, format!("{found}: too little is left beside"), remedy),
        };
    }
    let fitting = config.memory.idle_connections();
    let wanted = u64::try_from(config.capacity.connections_max).unwrap_or(u64::MAX);
    if fitting < wanted {
        return Finding::warn(
            CHECK,
            format!(
                "a budget of {budget_mib} MiB holds about {fitting} idle connections; \
                 RELAY_MAX_TOTAL_CONNECTIONS={wanted}: those beyond are answered 503"
            ),
            "a larger RELAY_MEMORY_BUDGET, or a lower RELAY_MAX_TOTAL_CONNECTIONS",
        );
    }
    Finding::ok(CHECK, format!("a budget of {budget_mib} MiB holds {wanted} connections"))
}

/// Whether each shard can have a core.
pub(crate) fn cpu(config: &Config, files: &KernelFiles) -> Finding {
    judge_cpu(config.engine.shard_count, Limits::read(files).cores)
}

fn judge_cpu(shard_count: u16, quota: Option<f64>) -> Finding {
    const CHECK: &str = "cpu";
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = quota.map_or(usable as f64, |quota| quota.min(usable as f64));
    if f64::from(shard_count) > cores.max(1.0).ceil() {
        let fitting = cores.max(1.0).floor();
        return Finding::warn(
            CHECK,
            format!("{shard_count} shards share {cores:.1} cores: each waits for the others"),
            format!("RELAY_SHARDS={fitting}, or leave it unset"),
        );
    }
    if cores < 1.0 {
        return Finding::warn(
            CHECK,
            format!("a quota of {cores:.2} cores: the relay stands still for parts of each period"),
            "CPUQuota=100% or more in the unit, docker run --cpus 1 or more",
        );
    }
    Finding::ok(CHECK, format!("{shard_count} shards on {cores:.1} cores"))
}

impl Limits {
    fn read(files: &KernelFiles) -> Self {
        let groups = files.text("proc/self/cgroup").unwrap_or_default();
        let mut limits = Self::default();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            for folder in ancestors(path) {
                limits.tighten(&of_folder(files, controllers, &folder));
            }
        }
        limits
    }

    fn tighten(&mut self, other: &Self) {
        let bytes = self.memory_bytes.into_iter().chain(other.memory_bytes);
        self.memory_bytes = bytes.min();
        let cores = self.cores.into_iter().chain(other.cores);
        self.cores = cores.min_by(f64::total_cmp);
    }
}

/// The limits of one folder; `controllers` is empty in version 2 of the interface.
fn of_folder(files: &KernelFiles, controllers: &str, folder: &str) -> Limits {
    let has = |name| controllers.split(',').any(|controller| controller == name);
    let mut limits = Limits::default();
    if controllers.is_empty() {
        limits.memory_bytes = files.number(&format!("sys/fs/cgroup{folder}/memory.max"));
        let quota = files.text(&format!("sys/fs/cgroup{folder}/cpu.max"));
        limits.cores = quota.and_then(|quota| {
            let (quota, period) = quota.split_once(' ')?;
            ratio(quota.parse().ok()?, period.parse().ok()?)
        });
    }
    if has("memory") {
        let path = format!("sys/fs/cgroup/memory{folder}/memory.limit_in_bytes");
        limits.memory_bytes = files.number(&path);
    }
    if has("cpu") {
        let read = |name| files.number(&format!("sys/fs/cgroup/cpu{folder}/{name}"));
        // Without a quota it reads -1, which is no such number.
        let quota = read("cpu.cfs_quota_us").zip(read("cpu.cfs_period_us"));
        limits.cores = quota.and_then(|(quota, period)| ratio(quota, period));
    }
    limits
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// The folder and all above it, the root as nothing.
fn ancestors(path: &str) -> Vec<String> {
    let path = path.trim_end_matches('/');
    let mut folders = vec![path.to_owned()];
    folders.extend(path.rmatch_indices('/').map(|(at, _)| path[..at].to_owned()));
    folders
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::kernel_files::made_of;
    use super::*;
    use crate::config::{FlagValue, Machine};

    fn config(connections: &str) -> Config {
        let flags = [
            FlagValue::set("HOST", "127.0.0.1"),
            FlagValue::set("RELAY_SHARDS", "2"),
            FlagValue::set("RELAY_MEMORY_BUDGET", "512MiB"),
            FlagValue::set("RELAY_MAX_TOTAL_CONNECTIONS", connections),
        ];
        Config::parse(&flags, &Machine).expect("usable").config
    }

    #[test]
    fn the_tightest_ancestor_counts() {
        let (_dir, files) = made_of(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "104857600\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ]);
        let limits = Limits { memory_bytes: Some(100 << 20), cores: Some(1.5) };
        assert_eq!(Limits::read(&files), limits);
    }

    #[test]
    fn the_older_interface_is_read_too() {
        let (_dir, files) = made_of(&[
            ("proc/self/cgroup", "4:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n"),
            ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1048576\n"),
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n"),
        ]);
        let limits = Limits { memory_bytes: Some(1 << 20), cores: None };
        assert_eq!(Limits::read(&files), limits);
    }

    #[test]
    fn a_budget_the_kernel_does_not_allow_is_a_failure() {
        let config = config("2000");
        let budget = config.memory.budget_bytes;
        assert_eq!(judge_memory(&config, Some(budget * 2)).verdict, Verdict::Ok);
        assert_eq!(judge_memory(&config, None).verdict, Verdict::Ok);
        assert_eq!(judge_memory(&config, Some(budget)).verdict, Verdict::Warn);
        let finding = judge_memory(&config, Some(budget / 2));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.remedy.expect("a remedy").contains("RELAY_MEMORY_BUDGET"));
    }

    #[test]
    fn a_budget_that_does_not_hold_the_caps_is_worth_a_look() {
        assert_eq!(judge_memory(&config("100000000"), None).verdict, Verdict::Warn);
    }

    #[test]
    fn more_shards_than_cores_are_worth_a_look() {
        assert_eq!(judge_cpu(1, None).verdict, Verdict::Ok);
        let finding = judge_cpu(64, Some(1.5));
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.remedy.expect("a remedy").starts_with("RELAY_SHARDS=1"));
        assert_eq!(judge_cpu(1, Some(0.5)).verdict, Verdict::Warn);
    }
}
