//! Letting everybody go: on an order, which can be taken back, and before the process ends.

use std::future::Future;
use std::time::Duration;

use relay_contract::{Command, Counter, Level, LogEntry, ShardId, Tick, Versioned};
use relay_link::Block;
use relay_link::convert::{DrainInForce, Drained};
use tokio::time::{Instant, Interval, sleep_until};
use url::Url;

use crate::controller::{Controller, Ended};
use crate::events::count;

/// What an operator says of a drain.
#[derive(Clone, Debug, Default)]
pub struct DrainOrder {
    /// The time from the first to the last who is told, at most. None is what fits into
    /// `RELAY_DRAIN_MS` with time to say farewell.
    pub window: Option<Duration>,
    /// Another relay, which clients are told of before they are closed.
    pub redirect: Option<RedirectUrl>,
}

/// A drain that goes on.
#[derive(Clone, Debug)]
pub struct Draining {
    /// Since when, on the control plane's clock. One that was ordered by an earlier control plane:
    /// since this one heard of it.
    pub since: Tick,
    /// The time from the first to the last who is told.
    pub window: Duration,
    /// The most that may be, whoever else comes.
    pub window_max: Duration,
    /// Connections there were when it began, workers included.
    pub connections: usize,
    /// The relay that clients are sent to, as a WebSocket URL.
    pub redirect: Option<Box<str>>,
}

/// Counts the orders to drain and to admit again, so that a data plane which was away when one was
/// given is told what holds now, and a control plane that begins learns from the data planes what
/// holds.
#[derive(Debug, Default)]
pub(crate) struct DrainVersion {
    /// 0 as long as nobody ordered anything.
    number: u64,
    /// Whether it was decided in this life. Until then what data planes say is believed.
    is_own: bool,
}

/// Why a drain cannot be begun or taken back. Nothing is changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DrainError {
    /// The process is about to end, and lets everybody go already.
    #[error("the relay is shutting down")]
    Stopping,
    /// There is nothing to take back.
    #[error("the relay is not drained")]
    NotDraining,
}

/// The WebSocket URL of a relay that clients may be sent to.
///
/// Shape: `ws` or `wss` with a host, without user, query and fragment. Source: relay specification,
/// section 10.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectUrl(Box<str>);

/// Why a text is no [`RedirectUrl`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "not the WebSocket URL of a relay: it takes ws or wss, a host, and no user, query or fragment"
)]
pub struct RedirectUrlError;

impl RedirectUrl {
    /// Reads one.
    ///
    /// # Errors
    /// [`RedirectUrlError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, RedirectUrlError> {
        let url = Url::parse(text).map_err(|_| RedirectUrlError)?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let is_relay = matches!(url.scheme(), "ws" | "wss") && url.has_host();
        if is_plain && is_relay { Ok(Self(text.into())) } else { Err(RedirectUrlError) }
    }

    /// The URL, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Controller {
    /// Admits nobody from now on and has everybody told to reconnect elsewhere: `/ready` answers
    /// 503, `/health` 200, upgrades are refused with 503. Shards spread what they say evenly over
    /// the order's window, or over a millisecond per connection where that is less. A second order
    /// replaces the first, for those who are still there.
    ///
    /// # Errors
    /// [`DrainError::Stopping`].
    pub fn drain(&mut self, order: DrainOrder) -> Result<&Draining, DrainError> {
        if self.leaving || self.stopping {
            return Err(DrainError::Stopping);
        }
        Ok(self.begin_drain(order))
    }

    /// As [`Self::drain`], whoever wants it.
    fn begin_drain(&mut self, order: DrainOrder) -> &Draining {
        self.refuse_waiting();
        let connections = self.judge.admitted_count();
        let window_max = order.window.unwrap_or_else(|| spread(self.settings.drain));
        let redirect = order.redirect.map(|url| url.0);
        self.decide_drain();
        let since = self.clock.now();
        let window = paced(window_max, connections);
        let draining = Draining { since, window, window_max, connections, redirect };
        self.draining = Some(draining.clone());
        self.tell_all_of_drain();
        self.log_draining(&draining);
        self.draining.insert(draining)
    }

    fn log_draining(&mut self, draining: &Draining) {
        let Draining { window, connections, redirect, .. } = draining;
        let entry = LogEntry::new(Level::Info, "relay_draining")
            .with("connections", i64::try_from(*connections).unwrap_or(i64::MAX))
            .with("windowMs", i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
            .with("redirected", redirect.is_some());
        self.log(entry.ours());
    }

    /// What is ordered next is this control plane's own decision, and newer than any before it.
    fn decide_drain(&mut self) {
        let date = u64::try_from(self.clock.unix_ms()).unwrap_or(0);
        let number = self.drain_version.number.saturating_add(1).max(date);
        self.drain_version = DrainVersion { number, is_own: true };
    }

    fn tell_all_of_drain(&mut self) {
        for shard in self.link.shards.ids() {
            self.tell_of_drain(shard);
        }
    }

    /// Tells a shard whether it is drained, as far as anybody ever ordered that. One that takes no
    /// command now is told later.
    pub(crate) fn tell_of_drain(&mut self, shard: ShardId) {
        let version = self.drain_version.number;
        if version == 0 {
            return;
        }
        let order = match &self.draining {
            Some(Draining { window_max, redirect, .. }) => {
                // Others may be there than when it began.
                let window = paced(*window_max, self.judge.admitted_count());
                let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                Command::Drain { version, window_ms, redirect: redirect.clone() }
            }
            None => Command::Resume { version },
        };
        if self.link.shards.send(shard, order).is_err() {
            self.note_undelivered(1);
            self.acknowledged.owe_drain(shard);
        }
    }

    /// A data plane came, and says whether it is drained. The newest order holds: that of an
    /// earlier control plane, unless this one has decided otherwise. Shards that do not keep to it
    /// are told.
    pub(crate) fn settle_drain(&mut self, block: Block, held: Option<DrainInForce>) {
        let version = self.drain_version.number;
        let mut concerned: Vec<_> = block.shards().collect();
        if let Some(held) = held {
            for &shard in held.shards.iter().filter(|&&shard| block.contains(shard)) {
                self.acknowledged.note(shard, Versioned::Drain, held.version);
            }
            let is_mine = held.version < version
                || held.version == version && self.is_as_here(held.drained.as_ref());
            match self.drain_version.is_own {
                true if !is_mine => {
                    self.drain_version.number = held.version.saturating_add(1);
                    concerned = self.link.shards.ids().collect();
                }
                false if held.version > version => {
                    self.take_drain_over(held.version, held.drained);
                    concerned = self.link.shards.ids().collect();
                }
                true | false => {}
            }
        }
        for shard in concerned {
            if !self.acknowledged.keeps(shard, Versioned::Drain, self.drain_version.number) {
                self.tell_of_drain(shard);
            }
        }
    }

    fn is_as_here(&self, drained: Option<&Drained>) -> bool {
        let held = drained.map(|drained| &drained.redirect);
        held == self.draining.as_ref().map(|draining| &draining.redirect)
    }

    fn take_drain_over(&mut self, version: u64, drained: Option<Drained>) {
        self.drain_version.number = version;
        let connections = self.judge.admitted_count();
        self.draining = drained.map(|Drained { window_ms, redirect }| {
            let window = Duration::from_millis(window_ms);
            Draining { since: self.clock.now(), window, window_max: window, connections, redirect }
        });
        if let Some(draining) = self.draining.clone() {
            self.refuse_waiting();
            self.log_draining(&draining);
        }
    }

    /// Takes a drain back: upgrades are admitted again. Who was told to go is gone.
    ///
    /// # Errors
    /// [`DrainError`].
    pub fn resume(&mut self) -> Result<(), DrainError> {
        if self.leaving || self.stopping {
            return Err(DrainError::Stopping);
        }
        let draining = self.draining.take();
        if draining.is_some() || self.link.shards.are_apart() {
            // A data plane of another version may be drained without saying so.
            self.decide_drain();
            self.tell_all_of_drain();
        }
        let draining = draining.ok_or(DrainError::NotDraining)?;
        let took = self.clock.now().since(draining.since).as_millis();
        let entry = LogEntry::new(Level::Info, "relay_resumed")
            .with("connections", i64::try_from(self.judge.admitted_count()).unwrap_or(i64::MAX))
            .with("drainedMs", i64::try_from(took).unwrap_or(i64::MAX));
        self.log(entry.ours());
        Ok(())
    }

    /// The drain that goes on, if there is one.
    pub fn draining(&self) -> Option<&Draining> {
        self.draining.as_ref()
    }

    /// Whether nobody is admitted any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving || self.stopping || self.draining.is_some()
    }

    /// Drains, and then stops the shards with what is left of the time. Over as soon as everybody
    /// is gone; `hurry` leaves those who are there a moment. Shards of data planes that run apart
    /// go on.
    pub(crate) async fn leave(
        &mut self,
        pulse: &mut Interval,
        hurry: impl Future<Output = ()>,
    ) -> Ended {
        if self.link.shards.are_apart() {
            // Their shards go on, and offer what they hold, and who waits, to whoever comes next.
            return Ended::Stopped;
        }
        // From here on nobody takes it back.
        self.leaving = true;
        let began = Instant::now();
        tokio::pin!(hurry);
        let mut hurried = false;
        let mut left = self.settings.drain;
        let redirect = self.draining.take().and_then(|draining| draining.redirect).map(RedirectUrl);
        if self.judge.admitted_count() > 0 {
            let told = began + self.begin_drain(DrainOrder { window: None, redirect }).window;
            while self.judge.admitted_count() > 0 && !hurried {
                tokio::select! {
                    () = sleep_until(told) => break,
                    () = &mut hurry => hurried = true,
                    ended = self.turn(pulse) => if let Some(ended) = ended {
                        return ended;
                    }
                }
            }
            left = left.saturating_sub(began.elapsed());
        }
        if hurried {
            return self.stop(pulse, left.min(HURRIED), std::future::pending()).await;
        }
        self.stop(pulse, left, hurry).await
    }

    /// Counts orders that did not reach their shard.
    pub(crate) fn note_undelivered(&mut self, orders: usize) {
        self.counters.add(Counter::CommandsUndelivered, count(orders));
    }
}

/// The part of the time for leaving over which peers are told: the last of them need the rest.
fn spread(drain: Duration) -> Duration {
    drain * 4 / 5
}

/// The time over which so many are told, where it may be that long.
fn paced(window_max: Duration, connections: usize) -> Duration {
    window_max.min(PACE.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX)))
}

/// From one connection to the next, at most. Source: relay specification, section 0b.
const PACE: Duration = Duration::from_millis(1);

/// What is left to those who are there once somebody is in a hurry.
pub(crate) const HURRIED: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use relay_grpc::control::v1::UnreadyReason;

    use super::*;
    use crate::dismissal_tests::{bench, credential};

    #[test]
    fn only_the_url_of_a_relay_is_one() {
        for good in ["wss://b.example.net/ws", "ws://127.0.0.1:7781/ws", "wss://[::1]/ws"] {
            assert_eq!(RedirectUrl::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "b.example.net",
            "https://b.example.net/ws",
            "wss://user@b.example.net/ws",
            "wss://user:secret@b.example.net/ws",
            "wss://b.example.net/ws?token=x",
            "wss://b.example.net/ws#x",
        ] {
            assert_eq!(RedirectUrl::parse(bad), Err(RedirectUrlError), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_end_is_nobody_s_to_take_back_or_to_replace() {
        let mut bench = bench();
        bench.admit("ws1", &credential("t1", "s1", "k1"));
        let mut pulse = tokio::time::interval(Duration::from_secs(1));
        pulse.tick().await;
        tokio::select! {
            biased;
            _ = bench.controller.leave(&mut pulse, std::future::pending()) => panic!("all at once"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(bench.controller.resume(), Err(DrainError::Stopping));
        let again = bench.controller.drain(DrainOrder::default());
        assert_eq!(again.map(|draining| draining.window), Err(DrainError::Stopping));
        assert!(bench.controller.draining().is_some(), "everybody goes on leaving");
        let reasons = bench.controller.readiness().reasons;
        assert!(reasons.contains(&UnreadyReason::Stopping.into()), "{reasons:?}");
    }
}
