//! Whether somebody quiet is talking, so that everybody else keeps turns short.
//!
//! Large shares and large sends are what costs least per byte, and nobody minds them while all that
//! talk are loud. A quiet connection's message waits for the turn that is going on when it comes:
//! in company turns are short.

use std::time::Duration;

use relay_contract::Tick;
use relay_driver::{Driver, Lease};

use crate::egress::SEND_BYTES_MAX;
use crate::shard::Shard;

/// When a quiet connection was heard last.
#[derive(Debug, Default)]
pub(crate) struct Company {
    heard: Option<Tick>,
}

/// How long a turn may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pace {
    /// Work of one connection.
    pub(crate) work: usize,
    /// Work of loud connections after which the next one waits.
    pub(crate) loud_work: usize,
    /// Heads, handshakes, ends and orders.
    pub(crate) errands: usize,
    /// TLS hellos that are answered; the last of them ends the turn's errands.
    pub(crate) hellos: usize,
    /// Bytes one connection sends.
    pub(crate) send_bytes: usize,
    /// Bytes all connections send that have more than a little to send.
    pub(crate) bulk_bytes: usize,
}

/// How long a turn stays short after a quiet connection was heard. Source: long enough for whoever
/// speaks once a second, or is asked for a sign of life by its own peer.
const MEMORY: Duration = Duration::from_secs(2);
/// A receive of fewer bytes is a quiet connection's.
const QUIET_BYTES: usize = 2048;
/// In company a receive that fills this part of its buffer makes its connection loud.
const BULK_PART: usize = 2;
/// In company everybody does this part of the work.
const WORK_PART: usize = 4;
/// And loud connections together this one, to the end of what the last of them does. Source: two
/// buffers of large messages, which take up to 40 µs each where they need memory that was not used
/// before; BENCHMARKS.md, "What does a quiet message wait for?"
const LOUD_PART: usize = 16;
/// Errands of a turn. Protects the latency of messages from crowds that come or go. Reached: the
/// others wait for the next turn. Source: one takes 10 to 20 µs, its system calls included.
const ERRANDS: usize = 16;
/// The same in company. Source: BENCHMARKS.md, "How many of a crowd in a turn?"
const COMPANY_ERRANDS: usize = 1;
/// The same in company, once every turn has left some for as long as `ERRANDS_LAST`. Protects
/// whoever comes or is ordered something from a crowd without an end.
const LASTING_ERRANDS: usize = 4;
/// Source: a crowd of 1,024 is done by then, and who waits is told to go after seconds.
const ERRANDS_LAST: Duration = Duration::from_millis(250);
/// TLS hellos answered in a turn. Protects the latency of messages from the signature that each
/// answer takes. Reached: other errands wait for the next turn. Source: BENCHMARKS.md, "What does
/// a handshake's signature take?"
const HELLOS: usize = 4;
/// The same in company.
const COMPANY_HELLOS: usize = 1;
/// Bytes one connection sends in a turn in company. Source: BENCHMARKS.md, "What does a quiet
/// message wait for?"
const SEND_BYTES: usize = 32 << 10;
/// Bytes of all who have much to send, in company.
const BULK_BYTES: usize = 64 << 10;

impl Company {
    /// Takes note of what arrived on a connection that is neither loud nor inside a frame: the last
    /// bytes of a large one are few, too.
    pub(crate) fn hear(&mut self, now: Tick, lease: &Lease) {
        if lease.len() < QUIET_BYTES {
            self.heard = Some(now);
        }
    }

    /// Whether a quiet connection was heard lately.
    fn is_there(&self, now: Tick) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) < MEMORY)
    }
}

impl<D: Driver> Shard<D> {
    /// What this turn may take.
    pub(crate) fn pace(&self) -> Pace {
        let work = self.limits.turn_work_max;
        if self.is_in_company() {
            Pace {
                work: (work / WORK_PART).max(1),
                loud_work: (work / LOUD_PART).max(1),
                errands: match self.errands.last_for(self.now) >= ERRANDS_LAST {
                    true => LASTING_ERRANDS,
                    false => COMPANY_ERRANDS,
                },
                hellos: COMPANY_HELLOS,
                send_bytes: SEND_BYTES,
                bulk_bytes: BULK_BYTES,
            }
        } else {
            Pace {
                work,
                loud_work: work,
                errands: ERRANDS,
                hellos: HELLOS,
                send_bytes: SEND_BYTES_MAX,
                bulk_bytes: usize::MAX,
            }
        }
    }

    /// Whether a quiet connection was heard lately.
    pub(crate) fn is_in_company(&self) -> bool {
        self.company.is_there(self.now)
    }

    /// Whether so much arrived at once that the rest of its kind has to wait, in company.
    pub(crate) fn is_bulk(&self, lease: &Lease) -> bool {
        lease.len() >= lease.buffer_bytes() / BULK_PART && self.is_in_company()
    }
}
