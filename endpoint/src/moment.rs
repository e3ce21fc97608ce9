//! Now, on both clocks.

use relay_contract::Tick;

/// One moment. Decisions use `tick`; the date is for people and for what goes into offers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// On the monotonic clock; never goes backwards.
    pub tick: Tick,
    /// Milliseconds since 1970 on the wall clock.
    pub unix_ms: u64,
}
