//! How often the platform is asked about tokens that local checks cannot decide.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use relay_admission::Doubt;
use relay_contract::Tick;

/// A doubt, and what the token calls its key: of what kind the tokens are that are doubted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct DoubtKind {
    pub(crate) doubt: Doubt,
    /// A digest of the key's name; keyed, so that nobody can choose one.
    pub(crate) key: u64,
}

/// Credit of undecided tokens. A question takes one; an acceptance gives it back, a refusal does
/// not. So tokens that the platform knows are never held up, and a flood of invented ones reaches
/// it at the rate of [`Doubts::new`] and no more.
///
/// A kind of which the platform has accepted one has credit of its own: strangers cannot use it up
/// without naming its key.
#[derive(Debug)]
pub(crate) struct Doubts {
    per_second: u32,
    burst: u32,
    strangers: Vec<(Doubt, Credit)>,
    known: HashMap<DoubtKind, Credit>,
    /// The oldest first.
    order: VecDeque<DoubtKind>,
}

#[derive(Clone, Copy, Debug)]
struct Credit {
    left: u32,
    /// Until when what time gives back was given.
    at: Tick,
}

impl Doubts {
    /// Kinds with credit of their own. Reached: the oldest is a stranger again.
    const KNOWN_MAX: usize = 256;

    /// `asked_at_once` questions may be open at a time; with twice as much credit a storm of good
    /// tokens never runs out of it.
    pub(crate) fn new(per_second: u32, asked_at_once: usize) -> Self {
        let asked_at_once = u32::try_from(asked_at_once).unwrap_or(u32::MAX);
        Self {
            per_second,
            burst: asked_at_once.saturating_mul(2).max(per_second),
            strangers: Vec::new(),
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Goes by other rates from now on. Credit that is there stays, up to what there may be.
    pub(crate) fn set_rates(&mut self, per_second: u32, asked_at_once: usize) {
        let Self { per_second, burst, .. } = Self::new(per_second, asked_at_once);
        (self.per_second, self.burst) = (per_second, burst);
        let strangers = self.strangers.iter_mut().map(|(_, credit)| credit);
        for credit in strangers.chain(self.known.values_mut()) {
            credit.left = credit.left.min(burst);
        }
    }

    /// Whether the platform may be asked about a token of this kind now.
    pub(crate) fn may_ask(&mut self, now: Tick, kind: DoubtKind) -> bool {
        let (per_second, burst) = (self.per_second, self.burst);
        self.credit(now, kind).take(now, per_second, burst)
    }

    /// What the platform said of one.
    pub(crate) fn learn(&mut self, now: Tick, kind: DoubtKind, accepted: bool) {
        if !accepted {
            return;
        }
        let burst = self.burst;
        self.credit(now, kind).give_back(burst);
        if self.known.contains_key(&kind) {
            return;
        }
        self.known.insert(kind, Credit { left: burst, at: now });
        self.order.push_back(kind);
        if self.order.len() > Self::KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn credit(&mut self, now: Tick, kind: DoubtKind) -> &mut Credit {
        if self.known.contains_key(&kind) {
            return self.known.get_mut(&kind).expect("it was there a line ago");
        }
        let place = self.strangers.iter().position(|(doubt, _)| *doubt == kind.doubt);
        let place = place.unwrap_or_else(|| {
            self.strangers.push((kind.doubt, Credit { left: self.burst, at: now }));
            self.strangers.len() - 1
        });
        &mut self.strangers[place].1
    }
}

impl Credit {
    fn take(&mut self, now: Tick, per_second: u32, burst: u32) -> bool {
        let elapsed = now.since(self.at);
        let given = elapsed.as_millis().saturating_mul(u128::from(per_second)) / 1000;
        if given > 0 {
            let given = u32::try_from(given).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(given).min(burst);
            // What is less than one stays for the next time.
            let whole = Duration::from_millis(u64::from(given) * 1000 / u64::from(per_second));
            self.at = if self.left == burst { now } else { self.at.after(whole) };
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    fn give_back(&mut self, burst: u32) {
        self.left = (self.left + 1).min(burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(key: u64) -> DoubtKind {
        DoubtKind { doubt: Doubt::UnknownKey, key }
    }

    fn at(secs: u64) -> Tick {
        Tick(0).after(Duration::from_secs(secs))
    }

    /// Of ten thousand questions in each of so many seconds, those that may be asked.
    fn flood(doubts: &mut Doubts, secs: std::ops::Range<u64>) -> usize {
        let moments = secs.flat_map(|sec| (0..10_000).map(move |n| (sec, n)));
        moments.filter(|(sec, n)| doubts.may_ask(at(*sec), kind(*n))).count()
    }

    #[test]
    fn a_flood_of_invented_keys_asks_at_the_rate_and_no_more() {
        let mut doubts = Doubts::new(50, 100);
        assert_eq!(flood(&mut doubts, 0..11), 200 + 10 * 50);
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut doubts = Doubts::new(1000, 1000);
        doubts.set_rates(50, 100);
        assert_eq!(flood(&mut doubts, 0..11), 200 + 10 * 50);
        doubts.set_rates(10, 100);
        assert_eq!(flood(&mut doubts, 11..21), 10 * 10);
    }

    #[test]
    fn credit_beyond_a_lower_rate_is_gone() {
        let mut doubts = Doubts::new(1000, 1000);
        assert!(doubts.may_ask(at(0), kind(1)));
        doubts.set_rates(5, 10);
        assert_eq!(flood(&mut doubts, 0..1), 20);
    }

    #[test]
    fn tokens_that_the_platform_knows_are_never_held_up() {
        let mut doubts = Doubts::new(1, 256);
        for n in 0..100_000 {
            assert!(doubts.may_ask(at(0), kind(n)), "{n}");
            doubts.learn(at(0), kind(n), true);
        }
    }

    #[test]
    fn strangers_do_not_use_up_what_a_known_kind_has() {
        let mut doubts = Doubts::new(10, 50);
        assert!(doubts.may_ask(at(0), kind(u64::MAX)));
        doubts.learn(at(0), kind(u64::MAX), true);
        flood(&mut doubts, 0..5);
        assert!(!doubts.may_ask(at(4), kind(1)), "a stranger");
        assert!(doubts.may_ask(at(4), kind(u64::MAX)), "a known one");
    }

    #[test]
    fn doubts_of_one_sort_leave_others_alone() {
        let mut doubts = Doubts::new(10, 50);
        flood(&mut doubts, 0..1);
        assert!(doubts.may_ask(at(0), DoubtKind { doubt: Doubt::Opaque, key: 0 }));
    }

    #[test]
    fn the_kinds_that_are_known_are_bounded() {
        let mut doubts = Doubts::new(1000, 1000);
        for n in 0..1000 {
            doubts.learn(at(0), kind(n), true);
        }
        assert_eq!(doubts.known.len(), Doubts::KNOWN_MAX);
        assert!(doubts.known.contains_key(&kind(999)) && !doubts.known.contains_key(&kind(0)));
    }
}
