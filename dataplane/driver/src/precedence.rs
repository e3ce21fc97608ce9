//! How soon a thread runs once it has something to do.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;

/// Asks the scheduler for short slices for the calling thread: it runs as much as before, and
/// sooner after it was woken, because it takes less at a time. Before other ordinary threads of its
/// processor have used up their slices, too. Linux 6.12; an older kernel ignores the wish.
///
/// Priority and policy stay what they are.
///
/// # Errors
/// What the kernel says, for a thread of another policy as well. Not having it costs latency alone,
/// and only where another thread wants the same processor.
pub fn prefer_short_slices() -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: KEEP_POLICY,
        nice,
        runtime_ns: SLICE_NS,
        ..SchedulingAttributes::default()
    };
    // SAFETY: sched_setattr(2) reads one structure of the size it carries; zero is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct sched_attr` of its first version.
#[repr(C)]
#[derive(Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// The shortest slice the kernel knows.
const SLICE_NS: u64 = 100_000;
/// `SCHED_FLAG_KEEP_POLICY`.
const KEEP_POLICY: u64 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_ask_for_short_slices_and_keeps_its_niceness() {
        let outcome = std::thread::spawn(|| {
            let before = rustix::process::getpriority_process(None).expect("one's own");
            prefer_short_slices().expect("needs no privilege");
            let after = rustix::process::getpriority_process(None).expect("one's own");
            (before, after)
        });
        let (before, after) = outcome.join().expect("no panic");
        assert_eq!(before, after);
    }
}
