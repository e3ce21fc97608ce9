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

/// Whether the memory allowed holds what the caps allow.
pub(crate) fn memory(config: &Config, files: &KernelFiles) -> Finding {
    let machine = files.text("proc/meminfo").and_then(|text| total_memory(&text));
    let limit = Limits::read(files).memory_bytes;
    judge_memory(config, limit.filter(|limit| machine.is_none_or(|machine| *limit < machine)))
}

fn judge_memory(config: &Config, limit: Option<u64>) -> Finding {
    const CHECK: &str = "memory";
    let Some(limit) = limit else {
        return Finding::ok(CHECK, "no limit below the machine's");
    };
    let needed = quiet_bytes(config);
    let (limit_mib, needed_mib) = (limit >> 20, needed.div_ceil(1 << 20));
    if needed > limit {
        return Finding::warn(
            CHECK,
            format!(
                "a limit of {limit_mib} MiB; RELAY_MAX_TOTAL_CONNECTIONS={} with {} shards takes \
                 {needed_mib} MiB while every peer reads",
                config.capacity.connections_max, config.engine.shard_count
            ),
            format!(
                "MemoryMax={needed_mib}M in the unit, docker run --memory {needed_mib}m, or a \
                 lower RELAY_MAX_TOTAL_CONNECTIONS"
            ),
        );
    }
    Finding::ok(CHECK, format!("a limit of {limit_mib} MiB, {needed_mib} MiB needed at the caps"))
}

/// Memory at the caps while nobody falls behind. Slow readers come on top of it, up to
/// `RELAY_MAX_PENDING_BYTES` each.
fn quiet_bytes(config: &Config) -> u64 {
    let driver = config.engine.driver_config();
    let buffers = u64::from(driver.buffer_count) * u64::from(driver.buffer_bytes);
    let connections = u64::try_from(config.capacity.connections_max).unwrap_or(u64::MAX);
    let shards = u64::from(config.engine.shard_count).saturating_mul(buffers);
    BASE_BYTES.saturating_add(shards).saturating_add(connections.saturating_mul(CONNECTION_BYTES))
}

/// Code, control plane, tables.
const BASE_BYTES: u64 = 32 << 20;

/// An open connection with TLS, its kernel buffers at rest, and its place in every table.
const CONNECTION_BYTES: u64 = 16 << 10;

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
        let given = |name: &str, value: &str| FlagValue {
            flag: "--set".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let flags = [
            given("HOST", "127.0.0.1"),
            given("RELAY_SHARDS", "2"),
            given("RELAY_MAX_TOTAL_CONNECTIONS", connections),
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
    fn a_limit_below_what_the_caps_take_says_how_much_is_missing() {
        let finding = judge_memory(&config("100000"), Some(256 << 20));
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.remedy.expect("a remedy").contains("MemoryMax="));
        assert_eq!(judge_memory(&config("2000"), Some(256 << 20)).verdict, Verdict::Ok);
        assert_eq!(judge_memory(&config("100000"), None).verdict, Verdict::Ok);
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
