//! Who runs first where several want a processor.

use rustix::process::Pid;

/// Lets the calling thread, and everything it starts from now on, run before all ordinary work of
/// the machine: `SCHED_FIFO`, a higher `urgency` (from 1) before a lower one. Whether that was
/// allowed; if not, nothing has changed.
///
/// Niceness would not do. With autogroups it ranks a session's own threads only, and even there a
/// thread that has had more than its share waits for the next tick of the clock, which comes every
/// 4 ms where there are 250 a second. Who runs like this for close to a second at a stretch is made
/// to wait (sched(7)), so windows have to be short.
pub fn run_first(urgency: i32) -> bool {
    run_thread_first(None, urgency)
}

/// The same for any thread; none is the calling one.
#[expect(unsafe_code, reason = "no safe wrapper is among the dependencies")]
pub fn run_thread_first(thread: Option<Pid>, urgency: i32) -> bool {
    let thread = Pid::as_raw(thread);
    // SAFETY: sched_param is integers, for which zero is a value.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = urgency;
    // SAFETY: sched_setscheduler(2) reads one sched_param during the call; zero is this thread.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameter) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_run_first_does_and_else_nothing_changes() {
        let outcome = std::thread::spawn(|| {
            let is_allowed = run_first(1);
            #[expect(unsafe_code, reason = "as above")]
            // SAFETY: sched_getscheduler(2) takes no memory; zero is this thread.
            let policy = unsafe { libc::sched_getscheduler(0) };
            (is_allowed, policy)
        });
        let (is_allowed, policy) = outcome.join().expect("no panic");
        assert_eq!(is_allowed, policy == libc::SCHED_FIFO);
    }
}
