//! Which core a shard runs on, who steps back, and how many descriptors the process may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Lets the calling thread, and those it starts from now on, step back behind the shards where they
/// want the same core: moving frames goes before deciding about newcomers, who still have a
/// thirtieth of it, and whatever the shards leave.
pub(crate) fn step_back() {
    // Not being allowed to costs latency alone.
    let _as_important = rustix::process::nice(STEP);
    // In small pieces: whoever waits for one waits less.
    let _long_slices = relay_driver::prefer_short_slices();
}

/// How far the control plane steps back: 36 to a shard's 1024. The scheduler settles at its ticks,
/// 4 ms apart where there are 250 a second, and pays the control plane its share of the time in
/// between then: 0.14 ms, which a frame can wait for. A tenth would be 0.4 ms. Source: sched(7);
/// `sched_prio_to_weight` in kernel/sched/core.c; BENCHMARKS.md, "What does each attack do".
const STEP: i32 = 15;

/// The core of each shard, or nothing where the scheduler does better.
///
/// Shards are pinned only when there is one for every core the process may use. A process that uses
/// some of many cores cannot know which of them its neighbours have taken: two containers under a
/// quota would both crowd the first ones.
pub(crate) fn of_shards(shard_count: usize) -> Vec<Option<usize>> {
    let usable = match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    };
    spread(shard_count, &usable)
}

fn spread(shard_count: usize, usable: &[usize]) -> Vec<Option<usize>> {
    let pinned = !usable.is_empty() && shard_count >= usable.len();
    (0..shard_count).map(|shard| pinned.then(|| usable[shard % usable.len()])).collect()
}

/// Keeps the calling thread on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// Raises the soft limit of descriptors to the hard one, because every guest takes one, and the
/// ring's table is capped by it. Returns what holds now; `None` means without limit.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_pinned_only_when_they_fill_the_cores() {
        assert_eq!(spread(2, &[4, 7]), [Some(4), Some(7)]);
        assert_eq!(spread(3, &[4, 7]), [Some(4), Some(7), Some(4)]);
        assert_eq!(spread(1, &[4, 7]), [None]);
        assert_eq!(spread(1, &[]), [None]);
    }

    #[test]
    fn a_pinned_thread_stays_on_its_core() {
        let before = sched_getaffinity(None).expect("affinity");
        let core = (0..CpuSet::MAX_CPU).find(|core| before.is_set(*core));
        let thread = std::thread::spawn(move || {
            pin(core.expect("a core")).expect("pinned");
            sched_getaffinity(None).expect("affinity").count()
        });
        assert_eq!(thread.join().expect("ran"), 1);
    }
}
