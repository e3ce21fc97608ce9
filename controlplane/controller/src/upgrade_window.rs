//! How often an address may try to upgrade.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use relay_contract::{Site, Tick};

/// A fixed window of a minute per site. Every attempt counts, also a refused one.
///
/// At most `addresses_max` sites are remembered; the least recently seen one goes. Cost:
/// logarithmic in the number of sites.
#[derive(Debug)]
pub(crate) struct UpgradeWindow {
    attempts_max: u32,
    addresses_max: usize,
    windows: HashMap<Site, Window>,
    /// Sites by when they were last seen; the keys are [`Window::seen`].
    recency: BTreeMap<u64, Site>,
    /// Attempts so far: orders `recency`.
    attempts: u64,
}

#[derive(Debug)]
struct Window {
    start: Tick,
    attempts: u32,
    seen: u64,
}

impl UpgradeWindow {
    pub(crate) fn new(attempts_max: u32, addresses_max: usize) -> Self {
        Self {
            attempts_max,
            addresses_max,
            windows: HashMap::new(),
            recency: BTreeMap::new(),
            attempts: 0,
        }
    }

    /// Judges by other bounds from now on, attempts of this minute included.
    pub(crate) fn set_bounds(&mut self, attempts_max: u32, addresses_max: usize) {
        self.attempts_max = attempts_max;
        self.addresses_max = addresses_max;
        while self.windows.len() > addresses_max {
            self.forget_least_recent();
        }
    }

    /// Counts an attempt; whether it is within the limit.
    pub(crate) fn allow(&mut self, now: Tick, address: IpAddr) -> bool {
        let site = Site::from(address);
        self.forget_finished(now);
        self.attempts += 1;
        let seen = self.attempts;
        if !self.windows.contains_key(&site) && self.windows.len() >= self.addresses_max {
            self.forget_least_recent();
        }
        let window = self.windows.entry(site).or_insert(Window { start: now, attempts: 0, seen });
        self.recency.remove(&window.seen);
        self.recency.insert(seen, site);
        window.seen = seen;
        if now.since(window.start) >= WINDOW {
            window.start = now;
            window.attempts = 0;
        }
        window.attempts = window.attempts.saturating_add(1);
        window.attempts <= self.attempts_max
    }

    /// Forgets a few sites whose window has ended. Two per attempt, so that the map shrinks
    /// faster than attempts can make it grow.
    fn forget_finished(&mut self, now: Tick) {
        for _ in 0..2 {
            let Some((_, site)) = self.recency.first_key_value() else {
                return;
            };
            let is_finished = |window: &Window| now.since(window.start) >= WINDOW;
            if !self.windows.get(site).is_some_and(is_finished) {
                return;
            }
            self.forget_least_recent();
        }
    }

    fn forget_least_recent(&mut self) {
        if let Some((_, site)) = self.recency.pop_first() {
            self.windows.remove(&site);
        }
    }
}

/// Source: relay specification, section 7.
const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn at(secs: u64) -> Tick {
        Tick::from_millis(secs * 1000)
    }

    #[test]
    fn attempts_beyond_the_limit_are_refused_until_the_window_ends() {
        let mut window = UpgradeWindow::new(2, 10);
        let allowed: Vec<_> =
            [0, 10, 20, 59, 60, 61, 62].map(|secs| window.allow(at(secs), address(1))).into();
        assert_eq!(allowed, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn addresses_do_not_share_a_window() {
        let mut window = UpgradeWindow::new(1, 10);
        assert!(window.allow(at(0), address(1)));
        assert!(window.allow(at(0), address(2)));
        assert!(!window.allow(at(0), address(1)));
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_window() {
        let mut window = UpgradeWindow::new(1, 10);
        let at_host = |host: u16| [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into();
        assert!(window.allow(at(0), at_host(1)));
        assert!(!window.allow(at(0), at_host(2)));
    }

    #[test]
    fn the_least_recently_seen_address_goes_first() {
        let mut window = UpgradeWindow::new(1, 2);
        window.allow(at(0), address(1));
        window.allow(at(1), address(2));
        window.allow(at(2), address(1));
        window.allow(at(3), address(3));
        assert_eq!(window.windows.len(), 2);
        assert!(!window.allow(at(4), address(1)), "still remembered");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut window = UpgradeWindow::new(1, 100);
        for n in 0..10_000 {
            window.allow(at(0), address(n));
        }
        assert_eq!((window.windows.len(), window.recency.len()), (100, 100));
        for _ in 0..100 {
            window.allow(at(600), address(1));
        }
        assert_eq!((window.windows.len(), window.recency.len()), (1, 1));
    }
}
