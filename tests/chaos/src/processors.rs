//! Who runs where: the relay on one half of the processors, everything else on the other.

use anyhow::{Context, Result};
use rustix::process::nice;
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

    /// Does something with the relay's half, for children to inherit, and goes to the other.
    pub fn apart<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        sched_setaffinity(None, &self.relay).context("going to the relay's processors")?;
        let started = start();
        sched_setaffinity(None, &self.rest).context("going to the other processors")?;
        started
    }
}

/// Lets the calling thread, and those it starts, go before the kit's others. Whoever may not say so
/// measures with more noise.
pub(crate) fn go_first() {
    let _noise = nice(FIRST);
}

/// Lets the calling thread, and those it starts, go after all others.
pub(crate) fn go_last() {
    let _noise = nice(LAST);
}

const FIRST: i32 = -15;
const LAST: i32 = 19;

fn set_of(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor);
    }
    set
}
