//! Looking out for news for a while before sleeping.

use std::time::Duration;

use relay_contract::Tick;

use crate::driver::monotonic;

/// One wait that begins awake.
///
/// Going to sleep and being woken costs a thread several microseconds, which whoever waits for the
/// next frame sees; looking out costs the whole core meanwhile.
pub(crate) struct Spin {
    patience: Option<Duration>,
    began: Tick,
    until: Tick,
}

impl Spin {
    /// A wait of at most `patience`, of which at most `busy_poll` is spent awake. `None` when there
    /// is nothing to look out for: the wait is none at all, or sleeps from its beginning.
    pub(crate) fn new(patience: Option<Duration>, busy_poll: Duration) -> Option<Self> {
        let awake = patience.map_or(busy_poll, |patience| patience.min(busy_poll));
        if awake.is_zero() {
            return None;
        }
        let began = monotonic();
        Some(Self { patience, began, until: began.after(awake) })
    }

    /// Whether to look once more.
    pub(crate) fn goes_on(&self) -> bool {
        std::hint::spin_loop();
        monotonic() < self.until
    }

    /// How long the rest of the wait may take.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let spent = monotonic().since(self.began);
        self.patience.map(|patience| patience.saturating_sub(spent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAKE: Duration = Duration::from_micros(50);

    #[test]
    fn a_wait_of_nothing_is_not_spun() {
        assert!(Spin::new(Some(Duration::ZERO), AWAKE).is_none());
        assert!(Spin::new(None, Duration::ZERO).is_none());
    }

    #[test]
    fn the_time_awake_is_part_of_the_wait() {
        let patience = Duration::from_millis(3);
        let spin = Spin::new(Some(patience), AWAKE).expect("it spins");
        let before = monotonic();
        while spin.goes_on() {}
        assert!(monotonic().since(before) < patience, "it ends long before the wait");
        assert!(spin.rest().is_some_and(|rest| rest <= patience - AWAKE));
    }

    #[test]
    fn a_wait_without_end_stays_without_end() {
        let spin = Spin::new(None, AWAKE).expect("it spins");
        while spin.goes_on() {}
        assert_eq!(spin.rest(), None);
    }

    #[test]
    fn a_short_wait_is_spent_awake() {
        let spin = Spin::new(Some(AWAKE), Duration::from_secs(1)).expect("it spins");
        while spin.goes_on() {}
        assert_eq!(spin.rest(), Some(Duration::ZERO));
    }
}
