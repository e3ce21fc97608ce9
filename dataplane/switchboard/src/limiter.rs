//! How often something may happen per minute and key.

use std::time::Duration;

use relay_contract::{Limits, Tick};
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, MINUTE};
use crate::key::Key;
use crate::recency::Recency;

/// Counts in windows of a minute that begin with a key's first use.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct FixedWindow {
    windows: Recency<Window>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    start: Tick,
    count: u32,
}

impl FixedWindow {
    /// Counts one use and says whether it is within the rate. At most `keys_max` keys are known;
    /// the least recently used goes.
    pub(crate) fn admit(&mut self, key: Key, now: Tick, rate: Rate) -> bool {
        let fresh = Window { start: now, count: 0 };
        let mut window = self.windows.get(key).map_or(fresh, |(window, _)| window);
        if now.since(window.start) >= MINUTE {
            window = fresh;
        }
        window.count = window.count.saturating_add(1);
        self.windows.put(key, window, now);
        self.windows.shrink(rate.keys_max.max(1));
        window.count <= rate.per_minute
    }
}

/// A bucket per key.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TokenBucket {
    buckets: Recency<Bucket>,
}

impl TokenBucket {
    /// Takes a token if there is one. At most `keys_max` keys are known; the least recently used
    /// goes, where uses within a second count as one.
    pub(crate) fn take(&mut self, key: Key, now: Tick, rate: Rate) -> bool {
        if let Some(bucket) = self.buckets.touch_roughly(key, now, USE_GRAIN) {
            return bucket.take(now, rate.per_minute);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(now, rate.per_minute);
        self.buckets.put(key, bucket, now);
        self.buckets.shrink(rate.keys_max.max(1));
        taken
    }
}

/// How exactly buckets are kept in the order of their use. They are forgotten when they have been
/// full for a minute, and a frame in thousands then writes to more than its own bucket.
const USE_GRAIN: Duration = Duration::from_secs(1);

/// How often, and how many keys to remember.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_minute: u32,
    pub(crate) keys_max: usize,
}

/// Memory of a shard's limiters when each knows as many keys as it may. More keys than 2^32 count
/// as so many.
pub fn limiters_bytes_max(limits: &Limits) -> usize {
    // A new key is there before the oldest goes.
    let entries = |keys_max: usize| keys_max.min(u32::MAX as usize) + 1;
    let windows = [limits.key_exchange_keys_max, limits.pairing_keys_max];
    let buckets =
        [limits.runtime_keys_max, limits.runtime_workspace_keys_max, limits.daemon_keys_max];
    let windows = windows.map(|keys_max| Recency::<Window>::bytes_max(entries(keys_max)));
    let buckets = buckets.map(|keys_max| Recency::<Bucket>::bytes_max(entries(keys_max)));
    windows.iter().chain(&buckets).sum()
}

/// All limiters of a shard. Source: relay specification, section 7.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Limiters {
    key_exchange: FixedWindow,
    pairing: FixedWindow,
    runtime_client: TokenBucket,
    runtime_workspace: TokenBucket,
    daemon: TokenBucket,
}

impl Limiters {
    /// A client starts a key exchange.
    pub(crate) fn key_exchange(&mut self, origin: Key, now: Tick, limits: &Limits) -> bool {
        let (per_minute, keys_max) = (limits.key_exchange_per_minute, limits.key_exchange_keys_max);
        self.key_exchange.admit(origin, now, Rate { per_minute, keys_max })
    }

    /// A client sends a pairing frame.
    pub(crate) fn pairing(&mut self, origin: Key, now: Tick, limits: &Limits) -> bool {
        let (per_minute, keys_max) = (limits.pairing_per_minute, limits.pairing_keys_max);
        self.pairing.admit(origin, now, Rate { per_minute, keys_max })
    }

    /// A client sends an encrypted frame or its viewer's presence. The workspace's bucket is asked
    /// only when the client's own had a token.
    pub(crate) fn runtime(&mut self, keys: RuntimeKeys, now: Tick, limits: &Limits) -> bool {
        let client =
            Rate { per_minute: limits.runtime_per_minute, keys_max: limits.runtime_keys_max };
        let workspace = Rate {
            per_minute: limits.runtime_per_minute_workspace,
            keys_max: limits.runtime_workspace_keys_max,
        };
        self.runtime_client.take(keys.client, now, client)
            && self.runtime_workspace.take(keys.workspace, now, workspace)
    }

    /// A daemon or worker sends anything.
    pub(crate) fn daemon(&mut self, workspace: Key, now: Tick, limits: &Limits) -> bool {
        let (per_minute, keys_max) = (limits.daemon_per_minute, limits.daemon_keys_max);
        self.daemon.take(workspace, now, Rate { per_minute, keys_max })
    }

    /// Forgets so many entries at most that were not used for two windows: a window is over by then
    /// and a bucket full. Returns how many.
    pub(crate) fn sweep(&mut self, now: Tick, most: usize) -> usize {
        let mut swept = 0;
        for windows in [&mut self.key_exchange.windows, &mut self.pairing.windows] {
            swept += windows.prune_some(now, 2 * MINUTE, most - swept);
        }
        for buckets in [&mut self.runtime_client, &mut self.runtime_workspace, &mut self.daemon] {
            swept += buckets.buckets.prune_some(now, 2 * MINUTE, most - swept);
        }
        swept
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.key_exchange.windows.is_empty()
            && self.pairing.windows.is_empty()
            && self.runtime_client.buckets.is_empty()
            && self.runtime_workspace.buckets.is_empty()
            && self.daemon.buckets.is_empty()
    }
}

/// What is left of one workspace's rates.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    key_exchange: Vec<(Key, Window)>,
    pairing: Vec<(Key, Window)>,
    runtime_client: Vec<(Key, Bucket)>,
    runtime_workspace: Option<(Key, Bucket)>,
    daemon: Option<(Key, Bucket)>,
}

impl Limiters {
    /// Takes out what is left of a workspace's rates, and of those of its clients: their keys, and
    /// those of where they come from.
    pub(crate) fn take_out(
        &mut self,
        workspace: Key,
        clients: impl Iterator<Item = (Key, Key)>,
    ) -> Quotas {
        let mut quotas = Quotas::default();
        for (client, origin) in clients {
            // Several connections of one client share what they have.
            let exchange = self.key_exchange.windows.remove(origin);
            quotas.key_exchange.extend(exchange.map(|window| (origin, window)));
            let pairing = self.pairing.windows.remove(origin);
            quotas.pairing.extend(pairing.map(|window| (origin, window)));
            let runtime = self.runtime_client.buckets.remove(client);
            quotas.runtime_client.extend(runtime.map(|bucket| (client, bucket)));
        }
        let shared = self.runtime_workspace.buckets.remove(workspace);
        quotas.runtime_workspace = shared.map(|bucket| (workspace, bucket));
        quotas.daemon = self.daemon.buckets.remove(workspace).map(|bucket| (workspace, bucket));
        quotas
    }

    /// Goes on with what is left of a workspace's rates.
    pub(crate) fn take_in(&mut self, quotas: Quotas, now: Tick) {
        for (table, windows) in
            [(&mut self.key_exchange, quotas.key_exchange), (&mut self.pairing, quotas.pairing)]
        {
            windows.into_iter().for_each(|(key, window)| table.windows.put(key, window, now));
        }
        for (table, buckets) in [
            (&mut self.runtime_client, quotas.runtime_client),
            (&mut self.runtime_workspace, quotas.runtime_workspace.into_iter().collect()),
            (&mut self.daemon, quotas.daemon.into_iter().collect()),
        ] {
            buckets.into_iter().for_each(|(key, bucket)| table.buckets.put(key, bucket, now));
        }
    }
}

/// Whose buckets an encrypted frame draws from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuntimeKeys {
    pub(crate) client: Key,
    pub(crate) workspace: Key,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keyer;

    fn key(name: &str) -> Key {
        Keyer::new([0; 16]).text(name.as_bytes())
    }

    fn rate(per_minute: u32) -> Rate {
        Rate { per_minute, keys_max: 2 }
    }

    #[test]
    fn a_window_begins_anew_a_minute_after_its_first_use() {
        let mut windows = FixedWindow::default();
        let at = Tick::from_millis;
        assert!(windows.admit(key("a"), at(0), rate(2)));
        assert!(windows.admit(key("a"), at(59_000), rate(2)));
        assert!(!windows.admit(key("a"), at(59_999), rate(2)));
        assert!(windows.admit(key("a"), at(60_000), rate(2)));
        assert!(windows.admit(key("a"), at(60_000), rate(2)));
        assert!(!windows.admit(key("a"), at(60_000), rate(2)));
    }

    #[test]
    fn only_so_many_keys_are_remembered_and_the_least_recently_used_goes() {
        let mut windows = FixedWindow::default();
        windows.admit(key("a"), Tick(0), rate(1));
        windows.admit(key("b"), Tick(1), rate(1));
        windows.admit(key("a"), Tick(2), rate(1));
        windows.admit(key("c"), Tick(3), rate(1));
        assert!(!windows.admit(key("a"), Tick(4), rate(1)));
        assert!(windows.admit(key("b"), Tick(5), rate(1)));
        assert_eq!(windows.windows.len(), 2);
    }

    #[test]
    fn buckets_in_use_are_kept_whatever_comes_and_goes() {
        let mut buckets = TokenBucket::default();
        let mut taken = 0;
        for second in 0..20 {
            let now = Tick::from_millis(second * 1000);
            taken += u32::from(buckets.take(key("busy"), now, rate(10)));
            buckets.take(key(&second.to_string()), now, rate(10));
        }
        // Ten at once and one every six seconds: a bucket that was forgotten would have been full.
        assert_eq!(taken, 13);
        assert_eq!(buckets.buckets.len(), 2);
    }

    #[test]
    fn limiters_that_are_full_hold_no_more_than_is_said() {
        let limits = Limits {
            key_exchange_keys_max: 1000,
            pairing_keys_max: 1024,
            runtime_keys_max: 3000,
            runtime_workspace_keys_max: 1,
            daemon_keys_max: 700,
            ..Limits::default()
        };
        let mut limiters = Limiters::default();
        let taken = allocation_counter::measure(|| {
            for number in 0..5000 {
                let (name, now) = (key(&number.to_string()), Tick::from_millis(number));
                limiters.key_exchange(name, now, &limits);
                limiters.pairing(name, now, &limits);
                limiters.runtime(RuntimeKeys { client: name, workspace: name }, now, &limits);
                limiters.daemon(name, now, &limits);
            }
        });
        let held = usize::try_from(taken.bytes_current).expect("tables take memory");
        let most = limiters_bytes_max(&limits);
        assert!((most / 2..=most).contains(&held), "{held} bytes where {most} are said");
    }

    #[test]
    fn what_was_not_used_for_two_windows_is_forgotten() {
        let mut limiters = Limiters::default();
        let limits = Limits::default();
        limiters.daemon(key("a"), Tick::from_millis(0), &limits);
        limiters.pairing(key("a"), Tick::from_millis(1), &limits);
        limiters.sweep(Tick::from_millis(120_000), usize::MAX);
        assert!(!limiters.is_empty());
        limiters.sweep(Tick::from_millis(120_002), usize::MAX);
        assert!(limiters.is_empty());
    }
}
