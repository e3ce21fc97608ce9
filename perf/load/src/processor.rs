//! Processors: which one a process runs on, and how much of it a process has used.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps the calling thread, and everything it starts from now on, on one processor.
pub(crate) fn pin_to(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to processor {processor}"))
}

/// Lets a process's threads of this name, and of names that begin with it, run before all ordinary
/// work of the machine. Whether that was allowed.
pub(crate) fn run_threads_first(process: u32, name: &str, urgency: i32) -> Result<bool> {
    let mut is_allowed = true;
    for task in fs::read_dir(format!("/proc/{process}/task")).context("the process is gone")? {
        let task = task?;
        // A thread may end between the listing and the reading.
        let Ok(own_name) = fs::read_to_string(task.path().join("comm")) else {
            continue;
        };
        let is_named = own_name.starts_with(name);
        let id = task.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(thread) = id.and_then(Pid::from_raw)
            && is_named
        {
            is_allowed &= relay_arrival::run_thread_first(Some(thread), urgency);
        }
    }
    Ok(is_allowed)
}

/// Nanoseconds that all threads of a process have run, user and kernel together, those that have
/// ended too: it never goes backwards.
///
/// Source: clock_getcpuclockid(3). Interrupts that happen to run on top of the process count as its
/// own, for a relay and for a pass-through alike.
#[expect(unsafe_code, reason = "no safe wrapper takes any process's clock")]
pub(crate) fn used_ns(process: u32) -> Result<u64> {
    let process = libc::pid_t::try_from(process).context("a process id")?;
    let mut clock = 0;
    // SAFETY: clock_getcpuclockid(3) writes one clockid_t during the call.
    let error = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
    ensure!(error == 0, "the process under test is gone");
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec during the call.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(failed == 0, "the process under test is gone");
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// What all threads of a process have done so far, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// They ran.
    pub(crate) used_ns: u64,
    /// They could have run, but something else had the processor. Threads that have ended are not
    /// in it.
    pub(crate) waited_ns: u64,
}

/// Reads both times of a process. Source of the second: proc(5), `/proc/pid/task/tid/schedstat`.
pub(crate) fn times(process: u32) -> Result<Times> {
    let mut total = Times { used_ns: used_ns(process)?, waited_ns: 0 };
    let folder = format!("/proc/{process}/task");
    for task in fs::read_dir(&folder).context("the process under test is gone")? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let waited = text.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        total.waited_ns += waited.context("schedstat has no waiting time")?;
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

/// Lets the calling thread be woken when it asked to be, not up to 50 µs later.
///
/// Source: prctl(2), `PR_SET_TIMERSLACK`. Where it fails, timers stay as they were: the lag of an
/// open loop shows it.
pub(crate) fn wake_precisely() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// The same, until some moment on the monotonic clock.
pub(crate) fn rest_until(moment_ns: u64) {
    loop {
        let left_ns = moment_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            return;
        }
        let timeout = Timespec {
            tv_sec: (left_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (left_ns % 1_000_000_000).cast_signed(),
        };
        // Nothing to wait for but the time; a signal only ends this wait early.
        let _ = rustix::event::poll(&mut [], Some(&timeout));
    }
}

/// What the figures were taken on.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processor_count: usize,
    pub(crate) memory_bytes: u64,
    /// Processes that wanted to run when this was read, on average of a minute.
    pub(crate) load_average: String,
    /// Whether the processor says that it is a virtual one.
    pub(crate) is_virtual: bool,
}

/// Describes this machine.
pub(crate) fn machine() -> Machine {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let model = information.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name);
    Machine {
        kernel: kernel.trim().to_owned(),
        processor: model.to_owned(),
        processor_count: information.lines().filter(|line| line.starts_with("processor")).count(),
        memory_bytes: memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(first_number)
            .unwrap_or_default()
            * 1024,
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        is_virtual: information.lines().any(|line| {
            line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor")
        }),
    }
}

/// Nanoseconds on the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Lets time pass without using any.
pub(crate) fn rest(time: std::time::Duration) {
    rest_until(now_ns() + time.as_nanos() as u64);
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_used_stays_when_it_has_ended() {
        let process = std::process::id();
        let before = used_ns(process).expect("it lives");
        let burn = move || {
            let begun = now_ns();
            while now_ns() - begun < 20_000_000 {}
            used_ns(process).expect("it lives")
        };
        let at_its_end = std::thread::spawn(burn).join().expect("it ran");
        let after = used_ns(process).expect("it lives");
        assert!(before < at_its_end && at_its_end <= after, "{before} {at_its_end} {after}");
    }

    #[test]
    fn this_process_has_run_and_holds_memory() {
        let process = std::process::id();
        assert!(used_ns(process).expect("it lives") > 0);
        let resident = resident(process).expect("it lives");
        let parts = resident.anonymous_bytes + resident.file_bytes + resident.shared_bytes;
        assert!(resident.total_bytes > 0 && parts > 0);
    }
}
