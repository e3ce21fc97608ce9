//! Processors: which one a process runs on, and how much of it a process has used.

use std::fs;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps the calling thread, and everything it starts from now on, on one processor.
pub(crate) fn pin_to(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to processor {processor}"))
}

/// Lets the calling thread, and everything it starts from now on, run before all ordinary work of
/// the machine: `SCHED_FIFO`, a higher `urgency` before a lower one. Whether that was allowed.
///
/// Niceness would not do: with autogroups it ranks a session's own threads only. Who runs like that
/// for close to a second at a stretch is made to wait (sched(7)), so windows have to be short.
#[expect(unsafe_code, reason = "no safe wrapper is among the dependencies")]
pub(crate) fn run_first(urgency: i32) -> bool {
    // SAFETY: sched_param is integers, for which zero is a value.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = urgency;
    // SAFETY: sched_setscheduler(2) reads one sched_param during the call; zero is this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) == 0 }
}

/// Nanoseconds that all threads of a process have run, user and kernel together.
///
/// Source: proc(5), `/proc/pid/task/tid/schedstat`, first field. Interrupts that happen to run on
/// top of the process count as its own, for a relay and for a pass-through alike.
pub(crate) fn used_ns(process: u32) -> Result<u64> {
    let folder = format!("/proc/{process}/task");
    let mut total = 0;
    for task in fs::read_dir(&folder).context("the process under test is gone")? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        total += first_number(&text).context("schedstat has no run time")?;
    }
    Ok(total)
}

/// Resident memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Resident {
    /// Everything.
    pub(crate) total_bytes: u64,
    /// Heap, stacks, anonymous mappings: what connections make grow.
    pub(crate) anonymous_bytes: u64,
    /// Mapped files: the program itself.
    pub(crate) file_bytes: u64,
    /// Shared memory: rings with the kernel.
    pub(crate) shared_bytes: u64,
}

/// Reads the resident memory of a process. Source: proc(5), `/proc/pid/status`.
pub(crate) fn resident(process: u32) -> Result<Resident> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))
        .context("the process under test is gone")?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Some(first_number(line?)? * 1024)
    };
    Ok(Resident {
        total_bytes: bytes("VmRSS:").context("status has no VmRSS")?,
        anonymous_bytes: bytes("RssAnon:").context("status has no RssAnon")?,
        file_bytes: bytes("RssFile:").context("status has no RssFile")?,
        shared_bytes: bytes("RssShmem:").context("status has no RssShmem")?,
    })
}

/// What the figures were taken on.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processor_count: usize,
}

/// Describes this machine.
pub(crate) fn machine() -> Machine {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name);
    Machine {
        kernel: kernel.trim().to_owned(),
        processor: model.to_owned(),
        processor_count: information.lines().filter(|line| line.starts_with("processor")).count(),
    }
}

/// Nanoseconds on the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Lets time pass without using any.
pub(crate) fn rest(time: std::time::Duration) {
    let end = now_ns() + time.as_nanos() as u64;
    loop {
        let left = end.saturating_sub(now_ns());
        if left == 0 {
            return;
        }
        let left = std::time::Duration::from_nanos(left);
        let timeout = rustix::event::Timespec::try_from(left).ok();
        // Nothing to wait for but the time; a signal only ends this wait early.
        let _ = rustix::event::poll(&mut [], timeout.as_ref());
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_run_and_holds_memory() {
        let process = std::process::id();
        assert!(used_ns(process).expect("it lives") > 0);
        let resident = resident(process).expect("it lives");
        let parts = resident.anonymous_bytes + resident.file_bytes + resident.shared_bytes;
        assert!(resident.total_bytes > 0 && parts > 0);
    }
}
