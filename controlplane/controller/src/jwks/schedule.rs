//! When a key set is fetched again.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// How often key sets are fetched, and how long they are believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeySchedule {
    /// Between two fetches where the key server says nothing about it.
    pub interval: Duration,
    /// The shortest time between two scheduled fetches, whatever the key server says.
    pub interval_min: Duration,
    /// The longest.
    pub interval_max: Duration,
    /// Between two fetches that tokens with unknown keys cause.
    pub cooldown: Duration,
    /// How long a set is used that cannot be fetched anew.
    pub age_max: Duration,
}

impl Default for KeySchedule {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(600),
            interval_min: Duration::from_secs(60),
            interval_max: Duration::from_secs(3600),
            cooldown: Duration::from_secs(30),
            age_max: Duration::from_secs(24 * 3600),
        }
    }
}

impl KeySchedule {
    /// The pause after a good answer with these headers. `share` in `0.0..1.0` makes it up to a
    /// tenth shorter, so that relays which started together do not ask together.
    ///
    /// Shape: `max-age` less `Age`, or nothing at all for `no-store` and `no-cache`; kept within
    /// the two bounds before the share is taken. Source: RFC 9111 §4.2 and §5.2.2.
    pub(super) fn after_success(&self, headers: &HeaderMap, share: f64) -> Duration {
        let interval = match lifetime(headers) {
            Some(lifetime) => lifetime,
            None => self.interval,
        };
        shortened(interval.clamp(self.interval_min, self.longest()), share)
    }

    /// The longest pause there may be.
    pub(super) fn longest(&self) -> Duration {
        self.interval_max.max(self.interval_min)
    }

    /// The pause after so many failures in a row, from one on.
    pub(super) fn after_failure(&self, failures: u32, share: f64) -> Duration {
        let doubled = RETRY.saturating_mul(1 << failures.saturating_sub(1).min(8));
        shortened(doubled.min(RETRY_MAX).min(self.interval_max), share)
    }
}

/// What the key server says about how long its answer is good. The last word of a kind counts; a
/// word that is no number counts as zero.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim().trim_matches('"')),
                None => (directive.trim(), ""),
            };
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return Some(Duration::ZERO);
            }
            if name.eq_ignore_ascii_case("max-age") {
                max_age = Some(seconds(value));
            }
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()).map_or(0, seconds);
    Some(Duration::from_secs(max_age?.saturating_sub(age)))
}

/// Delta seconds; more digits than a number holds mean a very long time. Source: RFC 9111 §1.2.2.
fn seconds(text: &str) -> u64 {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX),
        false => 0,
    }
}

fn shortened(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(1.0 - share.clamp(0.0, 1.0) / 10.0)
}

/// How soon the first failed fetch is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How soon every later one is, at most.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Source: RFC 9111 §1.2.2.
const SECONDS_MAX: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(headers: &[(&'static str, &'static str)]) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        KeySchedule::default().after_success(&map, 0.0).as_secs()
    }

    #[test]
    fn the_key_server_says_how_long_within_bounds() {
        for (control, secs) in [
            ("max-age=300", 300),
            ("public, Max-Age=\"300\" , must-revalidate", 300),
            ("max-age=1", 60),
            ("max-age=86400", 3600),
            ("max-age=99999999999999999999999", 3600),
            ("max-age=-5", 60),
            ("max-age=", 60),
            ("max-age", 60),
            ("no-store", 60),
            ("no-cache, max-age=900", 60),
            ("public", 600),
            ("s-maxage=5", 600),
            ("", 600),
        ] {
            assert_eq!(pause(&[("cache-control", control)]), secs, "{control:?}");
        }
        assert_eq!(pause(&[]), 600);
    }

    #[test]
    fn what_a_cache_on_the_way_has_used_up_counts() {
        assert_eq!(pause(&[("cache-control", "max-age=900"), ("age", "600")]), 300);
        assert_eq!(pause(&[("cache-control", "max-age=900"), ("age", "9000")]), 60);
        assert_eq!(pause(&[("cache-control", "max-age=900"), ("age", "nonsense")]), 900);
        assert_eq!(pause(&[("age", "600")]), 600);
    }

    #[test]
    fn of_two_headers_the_last_word_counts() {
        let twice = [("cache-control", "max-age=900"), ("cache-control", "max-age=300")];
        assert_eq!(pause(&twice), 300);
    }

    #[test]
    fn relays_that_start_together_do_not_ask_together() {
        let schedule = KeySchedule::default();
        let pause = |share| schedule.after_success(&HeaderMap::new(), share);
        assert_eq!(pause(0.0), Duration::from_secs(600));
        assert_eq!(pause(0.5), Duration::from_secs(570));
        assert_eq!(pause(1.0), Duration::from_secs(540));
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let schedule = KeySchedule::default();
        let pauses = [1, 2, 3, 4, 5, 100].map(|n| schedule.after_failure(n, 0.0).as_secs());
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn bounds_that_contradict_each_other_do_not_stop_the_relay() {
        let schedule =
            KeySchedule { interval_max: Duration::from_secs(1), ..KeySchedule::default() };
        let pause = schedule.after_success(&HeaderMap::new(), 0.0);
        assert_eq!(pause, Duration::from_secs(60));
    }
}
