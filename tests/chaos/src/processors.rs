//! Who runs where: the relay on one half of the processors, everything else on the other.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, nice};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two halves of what this process may use, or the same whole twice where there is but one.
#[derive(Clone, Debug)]
pub struct Processors {
    relay: CpuSet,
    rest: CpuSet,
}

impl Processors {
    /// Divides what the calling thread may use.
    pub fn divide() -> Result<Self> {
        let all = sched_getaffinity(None).context("asking for processors")?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu)).collect();
        if usable.len() < 2 {
            return Ok(Self { relay: all, rest: all });
        }
        let (rest, relay) = usable.split_at(usable.len() / 2);
        Ok(Self { relay: set_of(relay), rest: set_of(rest) })
    }

    /// Does something with the relay's half, for children to inherit, and goes to the other with
    /// every thread of this process: those that read what the relay logs are the kit's too.
    pub fn apart<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(None, &self.relay).context("going to the relay's processors")?;
        let started = start();
        // This thread first: what it starts from here on begins where it should.
        sched_setaffinity(None, &self.rest).context("going to the other processors")?;
        for thread in own_threads()? {
            // It may have ended meanwhile.
            let _ended = sched_setaffinity(Some(thread), &self.rest);
        }
        started
    }
}

/// Lets the calling thread, and those it starts, go before the kit's others and all ordinary work
/// of their processors. Whether that was allowed; else it goes as early as it may.
pub(crate) fn go_first() -> bool {
    let is_first = relay_arrival::run_first(URGENCY);
    if !is_first {
        let _as_important = nice(FIRST);
    }
    is_first
}

/// Lets the calling thread, and those it starts, go after all others.
pub(crate) fn go_last() {
    let _noise = nice(LAST);
}

/// The least there is: it comes before whatever has none.
const URGENCY: i32 = 1;
/// Niceness where no urgency is allowed.
const FIRST: i32 = -15;
/// The least important there is.
const LAST: i32 = 19;

/// Every thread of this process. Source: proc(5), `/proc/self/task`.
fn own_threads() -> Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task").context("asking for this process's threads")? {
        let id = task?.file_name().to_str().and_then(|id| id.parse().ok());
        threads.extend(id.and_then(Pid::from_raw));
    }
    Ok(threads)
}

fn set_of(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor);
    }
    set
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_of_the_kit_stays_where_the_relay_is() {
        let before = sched_getaffinity(None).expect("affinity");
        let processors = Processors::divide().expect("processors");
        let (stop, stopped) = mpsc::channel::<()>();
        let reader = processors.apart(|| {
            let reader = thread::spawn(move || {
                let _stopped = stopped.recv();
                sched_getaffinity(None).expect("affinity")
            });
            Ok(reader)
        });
        drop(stop);
        let stayed = reader.expect("started").join().expect("ran");
        assert_eq!(stayed, processors.rest);
        assert_eq!(sched_getaffinity(None).expect("affinity"), processors.rest, "who called");
        // Other tests of this process have all of them again.
        for thread in own_threads().expect("threads") {
            let _ended = sched_setaffinity(Some(thread), &before);
        }
    }
}
