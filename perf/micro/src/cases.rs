//! What is counted.

use anyhow::Result;

use crate::decisions::{self, Decision};
use crate::records::{self, Direction};
use crate::turns::{self, Traffic};
use crate::{texts, tokens};

/// Something done over and over.
pub(crate) trait Operation {
    /// Puts in place what the next run uses up. Not counted.
    fn prepare(&mut self) {}

    /// Counted.
    fn run(&mut self);

    /// Whether `runs` runs did what they were for: a count of something else is worse than none.
    fn judge(&self, runs: u64) -> Result<()>;
}

/// A named operation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Runs that are counted; the figure is their mean.
    pub(crate) repetitions: u32,
    /// Brings it to where it can be run.
    pub(crate) start: Box<dyn Fn() -> Result<Box<dyn Operation>>>,
}

fn case<O: Operation + 'static>(
    name: &'static str,
    repetitions: u32,
    start: impl Fn() -> Result<O> + 'static,
) -> Case {
    Case { name, repetitions, start: Box::new(move || Ok(Box::new(start()?))) }
}

/// Every case. A turn is one turn of a shard: what was received is decoded, scanned, decided and
/// queued to be sent, and what the turn before had sent is settled.
pub(crate) fn all() -> Vec<Case> {
    let traffic = |payload_bytes, frames, pairs| Traffic { payload_bytes, frames, pairs };
    let turn = |name, repetitions, traffic| {
        case(name, repetitions, move || turns::Forwarding::start(traffic))
    };
    vec![
        turn("turn/256B", 512, traffic(256, 1, 1)),
        turn("turn/4KiB", 512, traffic(4096, 1, 1)),
        turn("turn/64KiB", 128, traffic(65_536, 1, 1)),
        turn("turn/256B-16-frames", 256, traffic(256, 16, 1)),
        turn("turn/4KiB-16-frames", 64, traffic(4096, 16, 1)),
        turn("turn/256B-16-pairs", 256, traffic(256, 1, 16)),
        case("turn/nothing", 512, turns::Idling::start),
        case("unmask/256B", 512, || Ok(texts::Unmasking::new(256))),
        case("unmask/4KiB", 512, || Ok(texts::Unmasking::new(4096))),
        case("unmask/64KiB", 128, || Ok(texts::Unmasking::new(65_536))),
        case("scan/256B", 512, || Ok(texts::Scanning::new(256))),
        case("scan/4KiB", 512, || Ok(texts::Scanning::new(4096))),
        case("scan/64KiB", 128, || Ok(texts::Scanning::new(65_536))),
        case("scan/key-exchange", 512, || Ok(texts::Scanning::key_exchange())),
        case("reread/worker-call-64KiB", 128, || Ok(texts::Rereading::new(65_536))),
        case("decide/client-to-daemon", 512, || decisions::Deciding::start(Decision::ToDaemon)),
        case("decide/daemon-to-client", 512, || decisions::Deciding::start(Decision::ToClient)),
        case("decide/key-exchange", 512, || decisions::Deciding::start(Decision::KeyExchange)),
        case("decide/presence-8-viewers", 512, || decisions::Deciding::start(Decision::Presence)),
        case("upgrade/head", 512, || Ok(texts::Upgrading::default())),
        case("token/es256", 32, || tokens::Checking::start("es256")),
        case("token/rs256", 32, || tokens::Checking::start("rs256")),
        case("token/eddsa", 32, || tokens::Checking::start("eddsa")),
        case("record/seal-256B", 512, || records::Protecting::start(Direction::Out, 256)),
        case("record/seal-16KiB", 128, || records::Protecting::start(Direction::Out, 16_384)),
        case("record/open-256B", 512, || records::Protecting::start(Direction::In, 256)),
        case("record/open-16KiB", 128, || records::Protecting::start(Direction::In, 16_384)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_does_what_it_is_for() {
        for case in all() {
            let mut operation = (case.start)().expect(case.name);
            for _ in 0..3 {
                operation.prepare();
                operation.run();
            }
            operation.judge(3).expect(case.name);
            assert!(operation.judge(4).is_err(), "{} counts its runs", case.name);
        }
    }

    #[test]
    fn a_name_stands_for_one_case() {
        let cases = all();
        let names: HashSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
    }
}
