//! What the kernel says of this process.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Facts of this moment; absent where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Processor time of all threads.
    pub(crate) cpu: Duration,
    /// Processors it may use.
    pub(crate) processors: Option<u64>,
    pub(crate) resident_bytes: Option<u64>,
    /// Descriptors in use. Those in tables of rings are not among them.
    pub(crate) open_descriptors: Option<u64>,
    /// How many there may be; absent without a limit.
    pub(crate) max_descriptors: Option<u64>,
}

impl Process {
    /// Cost: some system calls, however many descriptors there are.
    pub(crate) fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let nanos = u32::try_from(cpu.tv_nsec).unwrap_or(0);
        Self {
            cpu: Duration::new(u64::try_from(cpu.tv_sec).unwrap_or(0), nanos),
            processors: std::thread::available_parallelism().ok().map(|count| count.get() as u64),
            resident_bytes: resident_bytes(),
            open_descriptors: open_descriptors(),
            max_descriptors: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Source: proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// The size of the directory is the number of descriptors, since Linux 6.2; before, it is zero.
fn open_descriptors() -> Option<u64> {
    let len = fs::metadata("/proc/self/fd").ok()?.len();
    (len > 0).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_descriptors_and_uses_its_processor() {
        let before = Process::now();
        let files: Vec<_> =
            (0..10).map(|_| fs::File::open("/proc/self/statm").expect("it is there")).collect();
        let now = Process::now();
        assert!(now.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(now.cpu >= before.cpu);
        if let (Some(before), Some(now)) = (before.open_descriptors, now.open_descriptors) {
            // Other tests open and close some meanwhile.
            assert!(now + 5 >= before + files.len() as u64, "{before} {now}");
        }
    }
}
