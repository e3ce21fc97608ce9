//! Whether a peer is still there.

use std::time::Duration;

use relay_contract::{Heartbeat, Tick};
use serde::{Deserialize, Serialize};

/// The heartbeat of one connection. Its pings are counted from its own start, so that those of many
/// connections spread by themselves, over [`GROUPS`] moments of an interval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Liveness {
    next_ping: Tick,
    /// When the first ping went out that no pong has answered yet, or [`NOTHING`].
    unanswered: Tick,
    /// When the last message or pong came.
    heard: Tick,
    /// When bytes of an unfinished frame last came. A pong cannot come before that frame's end.
    progress: Tick,
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Well,
    /// A ping.
    Ping,
    /// A ping was not answered in time.
    Stale,
    /// Neither message nor pong for too long.
    Idle,
}

impl Liveness {
    pub(crate) fn new(now: Tick, heartbeat: &Heartbeat) -> Self {
        Self {
            next_ping: ping_after(now, heartbeat),
            unanswered: NOTHING,
            heard: now,
            progress: now,
        }
    }

    /// A message came. It says nothing about pings.
    pub(crate) fn on_message(&mut self, now: Tick) {
        self.heard = now;
    }

    /// A pong came; it answers all pings so far.
    pub(crate) fn on_pong(&mut self, now: Tick) {
        self.heard = now;
        self.unanswered = NOTHING;
    }

    /// Part of a frame came. The answer to a ping has to wait behind the rest, so its time counts
    /// from here; silence is measured as before, which bounds how long a frame may drip.
    pub(crate) fn on_progress(&mut self, now: Tick) {
        self.progress = now;
    }

    fn unanswered(&self) -> Option<Tick> {
        (self.unanswered != NOTHING).then_some(self.unanswered)
    }

    /// When an unanswered ping is one too many.
    fn stale(&self, heartbeat: &Heartbeat) -> Option<Tick> {
        self.unanswered().map(|sent| sent.max(self.progress).after(heartbeat.pong_timeout))
    }

    /// When [`Liveness::on_timer`] is to be called next. What happens meanwhile only defers it.
    pub(crate) fn deadline(&self, heartbeat: &Heartbeat) -> Tick {
        let idle = self.heard.after(heartbeat.idle_timeout);
        let stale = self.stale(heartbeat).unwrap_or(idle);
        self.next_ping.min(idle).min(stale)
    }

    /// Judges the peer at `now`. After [`Verdict::Ping`] the ping counts as sent.
    ///
    /// `resumed` is when the shard last went on after it had been stopped. Silence before that is
    /// no fault of the peer, whose answer may still wait to be read: it is asked again first.
    pub(crate) fn on_timer(&mut self, now: Tick, resumed: Tick, heartbeat: &Heartbeat) -> Verdict {
        let stale = self.stale(heartbeat).is_some_and(|stale| now >= stale);
        let asked_before = self.unanswered().is_some_and(|sent| sent < resumed);
        let idle = now >= self.heard.after(heartbeat.idle_timeout);
        let excused = stale && asked_before || idle && self.heard < resumed;
        if excused {
            self.unanswered = now;
            self.heard = self.heard.max(resumed);
            self.next_ping = ping_after(now, heartbeat);
            return Verdict::Ping;
        }
        if stale {
            return Verdict::Stale;
        }
        if idle {
            return Verdict::Idle;
        }
        if now < self.next_ping {
            return Verdict::Well;
        }
        self.unanswered = self.unanswered.min(now);
        let next = ping_after(self.next_ping, heartbeat);
        self.next_ping = if next > now { next } else { ping_after(now, heartbeat) };
        Verdict::Ping
    }
}

/// Stands for no ping, later than every other: eight bytes less in every connection.
const NOTHING: Tick = Tick(u64::MAX);

/// The next ping after one at `at`: an interval later, and then with those of other connections
/// that are due at about the same time. What a ping costs is above all that somebody wakes for it,
/// and for its pong.
fn ping_after(at: Tick, heartbeat: &Heartbeat) -> Tick {
    let interval = interval(heartbeat);
    let next = at.after(interval);
    // Rounded up, so that an interval is a whole number of groups and pings do not drift.
    let group_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).div_ceil(GROUPS);
    if group_ns < GROUP_NS_MIN {
        return next;
    }
    Tick(next.0.checked_next_multiple_of(group_ns).unwrap_or(next.0))
}

/// Below this nothing is gained: deadlines are no finer. Source: [`crate::Wheel::GRAIN_NS`].
const GROUP_NS_MIN: u64 = 1_000_000;

/// How many moments of an interval pings go out at: none is later than that part of the interval.
/// Source: BENCHMARKS.md, "keeping them alive".
const GROUPS: u64 = 512;

/// At least a millisecond, so that time passes between two pings.
fn interval(heartbeat: &Heartbeat) -> Duration {
    heartbeat.ping_interval.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(ping_ms: u64, pong_ms: u64, idle_ms: u64) -> Heartbeat {
        Heartbeat {
            ping_interval: Duration::from_millis(ping_ms),
            pong_timeout: Duration::from_millis(pong_ms),
            idle_timeout: Duration::from_millis(idle_ms),
        }
    }

    /// The shard was never stopped.
    const NEVER: Tick = Tick(0);

    fn ms(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    #[test]
    fn patience_is_measured_from_the_first_unanswered_ping() {
        let heartbeat = heartbeat(100, 250, 10_000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        assert_eq!(liveness.on_timer(ms(100), NEVER, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.on_timer(ms(200), NEVER, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.on_timer(ms(300), NEVER, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.deadline(&heartbeat), ms(350));
        assert_eq!(liveness.on_timer(ms(349), NEVER, &heartbeat), Verdict::Well);
        assert_eq!(liveness.on_timer(ms(350), NEVER, &heartbeat), Verdict::Stale);
    }

    #[test]
    fn pings_that_are_due_at_about_the_same_time_go_out_together() {
        let heartbeat = heartbeat(30_000, 10_000, 300_000);
        let first = Liveness::new(ms(1000), &heartbeat).deadline(&heartbeat);
        let second = Liveness::new(ms(1010), &heartbeat).deadline(&heartbeat);
        assert_eq!(first, second);
        assert!((ms(31_000)..ms(31_059)).contains(&first), "{first:?}");
        let mut liveness = Liveness::new(ms(1000), &heartbeat);
        assert_eq!(liveness.on_timer(first, NEVER, &heartbeat), Verdict::Ping);
        liveness.on_pong(first);
        let apart = liveness.deadline(&heartbeat).since(first);
        assert!(apart.abs_diff(heartbeat.ping_interval) < Duration::from_micros(1), "{apart:?}");
        let later = Liveness::new(ms(1100), &heartbeat).deadline(&heartbeat);
        assert_ne!(first, later);
        assert_eq!(Liveness::new(ms(7), &heartbeat_of(511)).deadline(&heartbeat_of(511)), ms(518));
    }

    fn heartbeat_of(ping_ms: u64) -> Heartbeat {
        heartbeat(ping_ms, 10_000, 300_000)
    }

    #[test]
    fn a_pong_answers_all_pings_before_it() {
        let heartbeat = heartbeat(100, 250, 10_000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        liveness.on_timer(ms(100), NEVER, &heartbeat);
        liveness.on_timer(ms(200), NEVER, &heartbeat);
        liveness.on_pong(ms(340));
        assert_eq!(liveness.on_timer(ms(350), NEVER, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.deadline(&heartbeat), ms(400));
    }

    #[test]
    fn a_message_defers_silence_but_not_the_pong() {
        let heartbeat = heartbeat(100, 50, 120);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        liveness.on_timer(ms(100), NEVER, &heartbeat);
        liveness.on_message(ms(110));
        assert_eq!(liveness.on_timer(ms(120), NEVER, &heartbeat), Verdict::Well);
        assert_eq!(liveness.on_timer(ms(150), NEVER, &heartbeat), Verdict::Stale);
    }

    #[test]
    fn an_upload_in_progress_defers_the_pong_but_not_silence() {
        let heartbeat = heartbeat(100, 50, 400);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        assert_eq!(liveness.on_timer(ms(100), NEVER, &heartbeat), Verdict::Ping);
        liveness.on_progress(ms(140));
        assert_eq!(liveness.on_timer(ms(150), NEVER, &heartbeat), Verdict::Well);
        assert_eq!(liveness.deadline(&heartbeat), ms(190));
        liveness.on_progress(ms(189));
        assert_eq!(liveness.on_timer(ms(190), NEVER, &heartbeat), Verdict::Well);
        assert_eq!(liveness.on_timer(ms(239), NEVER, &heartbeat), Verdict::Stale);
        liveness.on_progress(ms(399));
        assert_eq!(liveness.on_timer(ms(400), NEVER, &heartbeat), Verdict::Idle);
    }

    #[test]
    fn silence_ends_a_connection_whose_pings_are_rarer() {
        let heartbeat = heartbeat(1000, 50, 120);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        assert_eq!(liveness.deadline(&heartbeat), ms(120));
        assert_eq!(liveness.on_timer(ms(120), NEVER, &heartbeat), Verdict::Idle);
    }

    #[test]
    fn after_a_stall_one_ping_goes_out_and_not_all_that_were_missed() {
        let heartbeat = heartbeat(10, 5000, 5000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        assert_eq!(liveness.on_timer(ms(100), NEVER, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.deadline(&heartbeat), ms(110));
    }

    #[test]
    fn a_ping_from_before_a_stop_is_sent_again_and_judged_later() {
        let heartbeat = heartbeat(100, 250, 10_000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        liveness.on_timer(ms(100), NEVER, &heartbeat);
        let resumed = ms(5000);
        assert_eq!(liveness.on_timer(resumed, resumed, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.on_timer(ms(5249), resumed, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.on_timer(ms(5250), resumed, &heartbeat), Verdict::Stale);
    }

    #[test]
    fn a_deadline_shortly_after_a_stop_is_excused_too() {
        let heartbeat = heartbeat(100, 5000, 10_000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        liveness.on_timer(ms(100), NEVER, &heartbeat);
        let resumed = ms(5000);
        assert_eq!(liveness.on_timer(ms(5100), resumed, &heartbeat), Verdict::Ping);
        assert_eq!(liveness.on_timer(ms(10_100), resumed, &heartbeat), Verdict::Stale);
    }

    #[test]
    fn silence_during_a_stop_does_not_count() {
        let heartbeat = heartbeat(60_000, 250, 1000);
        let mut liveness = Liveness::new(ms(0), &heartbeat);
        let resumed = ms(5000);
        assert_eq!(liveness.on_timer(ms(5001), resumed, &heartbeat), Verdict::Ping);
        liveness.on_pong(ms(5100));
        assert_eq!(liveness.on_timer(ms(6099), resumed, &heartbeat), Verdict::Well);
        assert_eq!(liveness.on_timer(ms(6100), resumed, &heartbeat), Verdict::Idle);
    }
}
