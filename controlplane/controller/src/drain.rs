//! Letting everybody go: on an order, which can be taken back, and before the process ends.

use std::future::Future;
use std::time::Duration;

use relay_contract::{Command, Counter, Level, LogEntry, Tick};
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
    /// Since when, on the control plane's clock.
    pub since: Tick,
    /// The time from the first to the last who is told.
    pub window: Duration,
    /// Connections there were when it began, workers included.
    pub connections: usize,
    /// Where clients are sent.
    pub redirect: Option<RedirectUrl>,
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
        if self.stopping {
            return Err(DrainError::Stopping);
        }
        self.refuse_waiting();
        let connections = self.judge.admitted_count();
        let window = order.window.unwrap_or_else(|| spread(self.settings.drain));
        let window =
            window.min(PACE.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX)));
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let redirect = order.redirect;
        let missed = self.link.shards.broadcast(|| Command::Drain {
            window_ms,
            redirect: redirect.as_ref().map(|url| url.0.clone()),
        });
        self.note_undelivered(missed.len());
        let entry = LogEntry::new(Level::Info, "relay_draining")
            .with("connections", i64::try_from(connections).unwrap_or(i64::MAX))
            .with("windowMs", i64::try_from(window_ms).unwrap_or(i64::MAX))
            .with("redirected", redirect.is_some());
        self.log(entry.ours());
        let since = self.clock.now();
        Ok(self.draining.insert(Draining { since, window, connections, redirect }))
    }

    /// Takes a drain back: upgrades are admitted again. Who was told to go is gone.
    ///
    /// # Errors
    /// [`DrainError`].
    pub fn resume(&mut self) -> Result<(), DrainError> {
        if self.stopping {
            return Err(DrainError::Stopping);
        }
        let draining = self.draining.take().ok_or(DrainError::NotDraining)?;
        let missed = self.link.shards.broadcast(|| Command::Resume);
        self.note_undelivered(missed.len());
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
        self.stopping || self.draining.is_some()
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
        let began = Instant::now();
        tokio::pin!(hurry);
        let mut hurried = false;
        let mut left = self.settings.drain;
        let redirect = self.draining.take().and_then(|draining| draining.redirect);
        if self.judge.admitted_count() > 0
            && let Ok(draining) = self.drain(DrainOrder { window: None, redirect })
        {
            let told = began + draining.window;
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

/// From one connection to the next, at most. Source: relay specification, section 0b.
const PACE: Duration = Duration::from_millis(1);

/// What is left to those who are there once somebody is in a hurry.
pub(crate) const HURRIED: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

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
}
