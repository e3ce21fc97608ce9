//! How much memory the process may use, and who gets which part of it.

use std::path::Path;

use relay_contract::Limits;
use relay_shard::{IDLE_CONNECTION_BYTES, base_bytes};

use super::{Engine, Reader, Source, Surroundings};

/// The division of the process's memory. `docs/budgets.md` explains each part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Memory {
    /// All of it.
    pub budget_bytes: u64,
    /// Program, control plane and their tables.
    pub program_bytes: u64,
    /// What one shard needs for itself: receive buffers, free lists, tables of limiters.
    pub shard_base_bytes: u64,
    /// What peers may make one shard hold.
    pub shard_bytes: u64,
    /// Shards.
    pub shard_count: u64,
}

/// A budget as it is written: bytes, or a part of what there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Size {
    /// `1073741824`, `512MiB`
    Bytes(u64),
    /// `60%`
    Percent(u64),
}

/// What there is, and who says so.
struct Given {
    bytes: u64,
    reason: &'static str,
}

impl Memory {
    /// Of `limits` only the numbers of keys count.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        engine: &Engine,
        limits: &Limits,
        world: &dyn Surroundings,
    ) -> Self {
        let driver = engine.driver_config();
        let buffers = u64::from(driver.buffer_count) * u64::from(driver.buffer_bytes);
        let shard_base_bytes = buffers + base_bytes(limits) as u64;
        let shard_count = u64::from(engine.shard_count);
        let least = PROGRAM_BYTES + shard_count * (shard_base_bytes + SHARD_BYTES_MIN);
        let given = given(world);
        let budget_bytes = match reader.size(NAME) {
            Some(size) => {
                let bytes = size.of(given.bytes);
                if bytes < least {
                    let what = format!(
                        "{} is less than the {} that {shard_count} shards need",
                        shown(bytes),
                        shown(least)
                    );
                    reader.refuse(NAME, what);
                }
                bytes.max(least)
            }
            None => {
                let half = Size::Percent(DEFAULT_PERCENT).of(given.bytes);
                if half < least {
                    reader.warnings.push(format!(
                        "{NAME}: half of the {} that {} has is less than the relay needs; it may \
                         use {}",
                        shown(given.bytes),
                        given.reason,
                        shown(least)
                    ));
                }
                let bytes = half.max(least);
                reader.conclude(NAME, &bytes.to_string(), Source::Inferred(given.reason));
                bytes
            }
        };
        let program_bytes = PROGRAM_BYTES.max(budget_bytes / PROGRAM_SHARE);
        let for_shards = budget_bytes - program_bytes.min(budget_bytes);
        let shard_bytes = (for_shards / shard_count).saturating_sub(shard_base_bytes);
        Self {
            budget_bytes,
            program_bytes,
            shard_base_bytes,
            shard_bytes: shard_bytes.max(SHARD_BYTES_MIN),
            shard_count,
        }
    }

    /// Idle connections, as the budget counts them, that fit before new ones are refused.
    pub(crate) fn idle_connections(&self) -> u64 {
        (self.shard_bytes - self.shard_bytes / 8) / IDLE_CONNECTION_BYTES as u64 * self.shard_count
    }

    /// The whole sum in one line.
    pub(crate) fn sum(&self) -> String {
        format!(
            "memory: {} = {} for the program + {} shards x ({} of their own + {} for their peers); \
             about {} idle connections",
            shown(self.budget_bytes),
            shown(self.program_bytes),
            self.shard_count,
            shown(self.shard_base_bytes),
            shown(self.shard_bytes),
            self.idle_connections()
        )
    }
}

impl Size {
    /// Reads `1073741824`, `512MiB`, `1.5 GiB` or `60%`; nothing else, and nothing that is zero.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim().parse().ok()?;
            return (1..=100).contains(&percent).then_some(Self::Percent(percent));
        }
        let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (number, unit) = unit.unwrap_or((text, 1));
        let number = number.trim();
        let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let bytes = number.parse::<f64>().ok().filter(|_| is_decimal)? * unit as f64;
        (1.0..EXBI).contains(&bytes).then_some(Self::Bytes(bytes as u64))
    }

    fn of(self, all: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(100) => all,
            Self::Percent(percent) => all / 100 * percent + all % 100 * percent / 100,
        }
    }
}

/// Binary and decimal units; the longer names first.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// More than any machine has.
const EXBI: f64 = (1_u64 << 60) as f64;

const NAME: &str = "RELAY_MEMORY_BUDGET";

/// The default share of what there is. The rest is the kernel's: socket buffers, which a cgroup
/// counts too, page cache, and whatever else runs there.
const DEFAULT_PERCENT: u64 = 50;

/// The program with its libraries, the control plane's tables and answers of the platform, and
/// what the allocator keeps of memory that peers gave back. Source: the attack kit's class
/// `upgrade-crowd`; 4,096 upgrades within a moment take 37 MiB behind a shard that was full before,
/// on top of 11 MiB at rest.
const PROGRAM_BYTES: u64 = 48 << 20;

/// Of a large budget the control plane has one part in so many, because what it keeps grows with
/// the connections.
const PROGRAM_SHARE: u64 = 8;

/// With less for its peers a shard is of no use: one slow reader and one large message fit.
const SHARD_BYTES_MIN: u64 = 8 << 20;

/// What the process is given: the least of its cgroups' limits and the machine's memory.
fn given(world: &dyn Surroundings) -> Given {
    let machine = machine_bytes(world);
    let cgroup = cgroup_bytes(world);
    match (cgroup, machine) {
        (Some(cgroup), machine) if cgroup <= machine.unwrap_or(u64::MAX) => {
            Given { bytes: cgroup, reason: "the cgroup's memory limit" }
        }
        (_, Some(machine)) => Given { bytes: machine, reason: "the machine's memory" },
        (_, None) => Given { bytes: UNKNOWN_BYTES, reason: "a machine of unknown memory" },
    }
}

/// Where nothing says how much there is.
const UNKNOWN_BYTES: u64 = 1 << 30;

fn machine_bytes(world: &dyn Surroundings) -> Option<u64> {
    let text = world.read(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of the process's own cgroup and all those above it, of either version.
///
/// Inside a container the path may be that of the host, of which only the top is visible; then the
/// top has the limit. Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
fn cgroup_bytes(world: &dyn Surroundings) -> Option<u64> {
    let own = world.read(Path::new("/proc/self/cgroup")).ok()?;
    let limits = own.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next().unwrap_or_default();
        let path = parts.next().unwrap_or_default();
        let files: &[(&str, &str)] = match controllers {
            "" => &[(V2_ROOT, "memory.max"), (V2_ROOT, "memory.high")],
            v1 if v1.split(',').any(|one| one == "memory") => &[(V1_ROOT, "memory.limit_in_bytes")],
            _ => &[],
        };
        let ancestors = Path::new(path).ancestors();
        ancestors.flat_map(move |group| {
            let below = group.to_string_lossy().trim_start_matches('/').to_owned();
            files.iter().map(move |(root, file)| Path::new(root).join(&below).join(file))
        })
    });
    let limits = limits.filter_map(|file| world.read(&file).ok()?.trim().parse::<u64>().ok());
    // Version 1 writes "no limit" as the largest whole number of pages.
    limits.filter(|limit| *limit < 1 << 60).min()
}

const V2_ROOT: &str = "/sys/fs/cgroup";
const V1_ROOT: &str = "/sys/fs/cgroup/memory";

/// A number of bytes for people.
fn shown(bytes: u64) -> String {
    match bytes {
        0..=0xFFFFF => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{World, config, parse, problems, shown, world};

    #[test]
    fn sizes_have_units_or_are_a_part_of_what_there_is() {
        for (text, size) in [
            ("1073741824", Some(Size::Bytes(1 << 30))),
            ("512MiB", Some(Size::Bytes(512 << 20))),
            (" 1.5 GiB ", Some(Size::Bytes(3 << 29))),
            ("2GB", Some(Size::Bytes(2_000_000_000))),
            ("60%", Some(Size::Percent(60))),
            ("100 %", Some(Size::Percent(100))),
            ("0", None),
            ("0%", None),
            ("101%", None),
            ("-1", None),
            ("1e9", None),
            ("12 parsecs", None),
            ("inf", None),
            ("MiB", None),
            ("", None),
        ] {
            assert_eq!(Size::parse(text), size, "{text:?}");
        }
    }

    fn machine(files: &[(&str, &str)]) -> World {
        let mut world = world("");
        for (path, text) in files {
            world.files.insert(path.into(), (*text).to_owned());
        }
        world
    }

    #[test]
    fn the_memory_budget_is_half_of_the_least_limit() {
        const MACHINE: (&str, &str) =
            ("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
        const V2: (&str, &str) = ("/proc/self/cgroup", "0::/a.slice/b.service\n");
        const V1: (&str, &str) =
            ("/proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/docker/1\n0::/\n");
        let top = "/sys/fs/cgroup/a.slice/memory.max";
        let own = "/sys/fs/cgroup/a.slice/b.service/memory.max";
        let high = "/sys/fs/cgroup/a.slice/b.service/memory.high";
        let inside = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let none = "9223372036854771712";
        for (files, budget, source) in [
            (&[MACHINE][..], 4 << 30, "inferred: the machine's memory"),
            (&[MACHINE, V2, (own, "max")], 4 << 30, "inferred: the machine's memory"),
            (&[MACHINE, V2, (own, "max"), (top, "1073741824\n")], 1 << 29, CGROUP),
            (&[MACHINE, V2, (own, "1073741824"), (high, "536870912")], 1 << 28, CGROUP),
            (&[MACHINE, V2, (own, "99999999999999")], 4 << 30, "inferred: the machine's memory"),
            (&[MACHINE, V1, (inside, none)], 4 << 30, "inferred: the machine's memory"),
            (&[MACHINE, V1, (inside, "1073741824")], 1 << 29, CGROUP),
        ] {
            let parsed = Config::parse(&[], &machine(files)).expect("usable");
            assert_eq!(parsed.config.memory.budget_bytes, budget, "{files:?}");
            let (value, from) = shown(&parsed, "RELAY_MEMORY_BUDGET");
            assert_eq!((value, from.as_str()), (budget.to_string(), source));
        }
    }

    const CGROUP: &str = "inferred: the cgroup's memory limit";

    #[test]
    fn the_memory_budget_is_the_sum_of_its_parts() {
        for (text, shards) in [("512MiB", 1), ("4GiB", 8), ("50%", 3)] {
            let config = config(&format!("RELAY_MEMORY_BUDGET={text} RELAY_SHARDS={shards}"));
            let memory = config.memory;
            let per_shard = memory.shard_base_bytes + memory.shard_bytes;
            let sum = memory.program_bytes + shards * per_shard;
            assert!((memory.budget_bytes - shards..=memory.budget_bytes).contains(&sum), "{text}");
            assert_eq!(config.limits.memory_bytes_max as u64, memory.shard_bytes);
        }
    }

    #[test]
    fn a_budget_too_small_for_its_shards_is_refused_and_a_small_machine_is_not() {
        let refused = problems("RELAY_MEMORY_BUDGET=20MiB RELAY_SHARDS=2");
        assert!(
            refused[0].contains("20 MiB is less than the 121 MiB that 2 shards need"),
            "{refused:?}"
        );
        let refused = problems("RELAY_MEMORY_BUDGET=lots");
        assert!(refused[0].contains("512MiB"), "an example is given: {refused:?}");
        let world = machine(&[("/proc/meminfo", "MemTotal: 65536 kB\n")]);
        let parsed = Config::parse(&[], &world).expect("a small machine has a relay too");
        assert!(parsed.warnings.iter().any(|warning| warning.starts_with("RELAY_MEMORY_BUDGET")));
    }

    #[test]
    fn more_keys_of_limiters_leave_less_for_peers() {
        let of_peers = |more: &str| {
            config(&format!("RELAY_MEMORY_BUDGET=1GiB RELAY_SHARDS=2 {more}")).memory.shard_bytes
        };
        let usual = of_peers("");
        let many = of_peers("RELAY_RUNTIME_RATE_LIMITER_MAX_KEYS=1000000");
        assert!((96 << 20..192 << 20).contains(&(usual - many)), "{usual} became {many}");
    }

    #[test]
    fn limits_beyond_the_budget_are_warned_about() {
        let warnings = |pairs: &str| parse(pairs).expect("usable").warnings;
        assert!(!warnings("").iter().any(|warning| warning.starts_with("RELAY_MEMORY_BUDGET")));
        let greedy = warnings("RELAY_MEMORY_BUDGET=512MiB RELAY_MAX_PENDING_BYTES=1000000000");
        assert!(greedy[0].starts_with("RELAY_MEMORY_BUDGET leaves each shard"), "{greedy:?}");
    }
}
