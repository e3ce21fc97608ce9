//! What came between two readings of one relay.

use super::{Distribution, Readings};

/// Two readings of one relay in one life, the earlier first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'r> {
    pub(crate) earlier: &'r Readings,
    pub(crate) later: &'r Readings,
}

/// Why two readings are no interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NoInterval {
    #[error("the readings are of two relays")]
    OtherRelay,
    #[error("the relay was started anew between the readings")]
    OtherLife,
    #[error("the second reading is not later than the first")]
    NotLater,
}

/// How far apart two readings of one start may lie, seconds.
const START_TOLERANCE_S: f64 = 1.0;
const UPTIME: &str = "relay_uptime_seconds";
const SHARD_UPTIME: &str = "relay_shard_uptime_seconds";
/// Counters that never fall while a shard lives.
const OF_SHARDS: [&str; 3] =
    [SHARD_UPTIME, "relay_shard_cpu_seconds_total", "relay_shard_frames_total"];

impl<'r> Interval<'r> {
    /// Everything since the start of the relay.
    pub(crate) fn since_start(nothing: &'r Readings, later: &'r Readings) -> Self {
        Self { earlier: nothing, later }
    }

    /// Errors: the readings are of two relays, of two lives of one, or in the wrong order.
    pub(crate) fn between(earlier: &'r Readings, later: &'r Readings) -> Result<Self, NoInterval> {
        let interval = Self { earlier, later };
        let both = |name: &str| earlier.value(name).zip(later.value(name));
        let of_relay = |readings: &'r Readings| readings.fact("relay_info", "relay_id");
        if of_relay(earlier).zip(of_relay(later)).is_some_and(|(one, other)| one != other) {
            return Err(NoInterval::OtherRelay);
        }
        let starts = both("process_start_time_seconds");
        if starts.is_some_and(|(one, other)| (one - other).abs() > START_TOLERANCE_S) {
            return Err(NoInterval::OtherLife);
        }
        if interval.seconds() <= 0.0 {
            return Err(NoInterval::NotLater);
        }
        let fell = |(before, now): (f64, f64)| now < before;
        let shards = later.shards().into_iter();
        let mut of_shards = shards.flat_map(|shard| OF_SHARDS.map(|name| (name, shard)));
        if both("process_cpu_seconds_total").is_some_and(fell)
            || of_shards.any(|(name, shard)| {
                earlier.of_shard(name, shard).zip(later.of_shard(name, shard)).is_some_and(fell)
            })
        {
            return Err(NoInterval::OtherLife);
        }
        Ok(interval)
    }

    /// How long it was by the clock of the control plane.
    pub(crate) fn seconds(&self) -> f64 {
        self.since(UPTIME)
    }

    /// The shards that can be told about, and how long each was looked at by the clock of its own
    /// process. One that the earlier reading does not know counts from its start.
    pub(crate) fn shards(&self) -> Vec<(u16, f64)> {
        let before = self.earlier.shards();
        let length = |shard: u16| match self.later.of_shard(SHARD_UPTIME, shard) {
            Some(uptime) => {
                Some(uptime - self.earlier.of_shard(SHARD_UPTIME, shard).unwrap_or_default())
            }
            // A relay that does not tell: its shards are as old as it is.
            None => (before.is_empty() || before.contains(&shard)).then(|| self.seconds()),
        };
        let shards = self.later.shards().into_iter();
        let shards = shards.filter_map(|shard| Some((shard, length(shard)?)));
        shards.filter(|(_, seconds)| *seconds > 0.0).collect()
    }

    /// What a counter of the whole relay grew by. One that fell, because a data plane left with
    /// what it had counted, counts from zero.
    pub(crate) fn since(&self, name: &str) -> f64 {
        grown(self.earlier.value(name), self.later.value(name))
    }

    /// What a shard's counter grew by.
    pub(crate) fn of_shard(&self, name: &str, shard: u16) -> f64 {
        grown(self.earlier.of_shard(name, shard), self.later.of_shard(name, shard))
    }

    /// What a shard measured.
    pub(crate) fn distribution(&self, name: &str, shard: u16) -> Distribution {
        let before = self.earlier.distribution(name, Some(shard));
        self.later.distribution(name, Some(shard)).since(&before)
    }

    /// What all shards measured that are still there.
    pub(crate) fn of_all(&self, name: &str) -> Distribution {
        let mut all = Distribution::default();
        for shard in self.later.shards() {
            all.merge(&self.distribution(name, shard));
        }
        all
    }
}

/// As Prometheus sees counters: what is smaller than before began anew.
fn grown(before: Option<f64>, now: Option<f64>) -> f64 {
    let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
    if now < before { now } else { now - before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> Readings {
        Readings::parse(text).expect("it is well formed")
    }

    fn life(relay: &str, start: f64, uptime: f64, cpu: f64) -> Readings {
        reading(&format!(
            "relay_info{{relay_id=\"{relay}\"}} 1\nprocess_start_time_seconds {start}\n\
             relay_uptime_seconds {uptime}\nprocess_cpu_seconds_total {cpu}\n"
        ))
    }

    #[test]
    fn readings_of_two_relays_or_two_lives_are_no_interval() {
        let before = life("a", 1000.0, 5.0, 3.0);
        for (later, expected) in [
            (life("a", 1000.2, 15.0, 4.0), None),
            (life("b", 1000.0, 15.0, 4.0), Some(NoInterval::OtherRelay)),
            (life("a", 1050.0, 100.0, 40.0), Some(NoInterval::OtherLife)),
            (life("a", 1000.0, 5.0, 3.0), Some(NoInterval::NotLater)),
            (life("a", 1000.0, 15.0, 2.0), Some(NoInterval::OtherLife)),
        ] {
            assert_eq!(Interval::between(&before, &later).err(), expected, "{later:?}");
        }
    }

    #[test]
    fn a_shard_s_clock_is_that_of_its_own_process() {
        let shard = |shard: u16, uptime: f64| {
            format!(
                "relay_shard_connections{{shard=\"{shard}\"}} 1\n\
                 relay_shard_uptime_seconds{{shard=\"{shard}\"}} {uptime}\n"
            )
        };
        // The control plane began ten seconds ago, the data plane a day ago; after a cut its shard
        // came back under another number.
        let later =
            format!("relay_uptime_seconds 12\n{}{}", shard(0, 86_402.0), shard(4, 86_402.0));
        let earlier = reading(&format!("relay_uptime_seconds 10\n{}", shard(0, 86_400.0)));
        let later = reading(&later);
        let interval = Interval::between(&earlier, &later).expect("one life");
        assert_eq!(interval.shards(), [(0, 2.0), (4, 86_402.0)]);
        let nothing = Readings::default();
        let alone = Interval::since_start(&nothing, &later);
        assert_eq!(alone.shards(), [(0, 86_402.0), (4, 86_402.0)]);
    }

    #[test]
    fn a_shard_whose_age_nobody_tells_is_left_out_until_it_was_read_twice() {
        let shard = |shard: u16| format!("relay_shard_connections{{shard=\"{shard}\"}} 1\n");
        let earlier = reading(&format!("relay_uptime_seconds 10\n{}", shard(0)));
        let later = reading(&format!("relay_uptime_seconds 12\n{}{}", shard(0), shard(1)));
        let interval = Interval::between(&earlier, &later).expect("one life");
        assert_eq!(interval.shards(), [(0, 2.0)]);
    }

    #[test]
    fn a_counter_that_fell_counts_from_zero() {
        let earlier = reading("relay_uptime_seconds 1\nrelay_x_total 50\n");
        let later = reading("relay_uptime_seconds 2\nrelay_x_total 4\n");
        assert_eq!(Interval { earlier: &earlier, later: &later }.since("relay_x_total"), 4.0);
    }
}
