//! Who runs first where several want a processor.

/// Lets the calling thread, and everything it starts from now on, run before all ordinary work of
/// the machine: `SCHED_FIFO`, a higher `urgency` (from 1) before a lower one. Whether that was
/// allowed.
///
/// Niceness would not do. With autogroups it ranks a session's own threads only, and even among
/// those one that has had more than its share waits for the next tick of the clock, up to 4 ms.
/// Who runs like this for close to a second at a stretch is made to wait (sched(7)), so windows
/// have to be short.
pub fn run_first(urgency: i32) -> bool {
    run_thread_first(0, urgency)
}

/// The same for any thread, by its id; zero is the calling one.
#[expect(unsafe_code, reason = "no safe wrapper is among the dependencies")]
pub fn run_thread_first(thread: libc::pid_t, urgency: i32) -> bool {
    // SAFETY: sched_param is integers, for which zero is a value.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = urgency;
    // SAFETY: sched_setscheduler(2) reads one sched_param during the call; zero is this thread.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameter) == 0 }
}
