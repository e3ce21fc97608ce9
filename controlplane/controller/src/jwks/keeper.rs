//! The key set of one issuer: the one in force, and the task that fetches it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::Full;
use relay_admission::{KeySet, SkippedKey};
use relay_contract::{Level, LogEntry};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::schedule::KeySchedule;
use super::servers::KeyServers;
use super::status::{KeySetStatus, KeyStatus};
use super::unit_random;
use super::unknown::UnknownKeys;
use crate::notices::Notices;
use crate::platform_http::CallLimits;

/// Fetches one issuer's key set and keeps the last good one for at most
/// [`KeySchedule::age_max`].
///
/// ```text
///            schedule due, or a token with an unknown key (not in a cooldown)
///   resting ────────────────────────────────────────────────────────────────▶ fetching
///      ▲              good: put in force, bad: the last good one stays            │
///      └──────────────────────────────────────────────────────────────────────────┘
/// ```
///
/// One task fetches, so there is one request in flight at most.
#[derive(Debug)]
pub(crate) struct KeyKeeper {
    servers: KeyServers,
    state: Mutex<State>,
    /// Somebody wants a fetch before the schedule does.
    wanted: Notify,
    /// A fetch is over, whatever came of it. Shared by all keepers.
    settled: Arc<Notify>,
    notices: Notices,
    /// When it began.
    born: Instant,
}

/// Whose keys, where they are, and how often they are fetched. May change.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The `iss` of its tokens; unnamed, everybody whom nothing else names.
    pub(super) issuer: Option<String>,
    pub(super) url: Uri,
    pub(super) limits: CallLimits,
    pub(super) schedule: KeySchedule,
}

impl Rules {
    /// What an operator is told, and of whose keys.
    fn entry(&self, level: Level, event: &'static str, reason: Option<String>) -> LogEntry {
        let mut entry = LogEntry::new(level, event);
        if let Some(reason) = reason {
            entry = entry.with("reason", reason);
        }
        if let Some(issuer) = &self.issuer {
            entry = entry.with("issuer", issuer.clone());
        }
        entry.with("url", shown(&self.url))
    }
}

#[derive(Debug)]
struct State {
    rules: Rules,
    kept: Option<Kept>,
    unknown: UnknownKeys,
    /// From the moment a fetch is decided until it is over.
    fetching: bool,
    /// When the last fetch was decided.
    began: Option<Instant>,
    due: Instant,
    failures_in_a_row: u32,
    fetches: u64,
    failures: u64,
    last_error: Option<String>,
    /// What was said of keys that are not used: it is said once.
    skipped: Vec<SkippedKey>,
}

#[derive(Clone, Debug)]
struct Kept {
    keys: Arc<KeySet>,
    since: Instant,
}

/// What somebody who needs a newer set may expect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Newer {
    /// One is being fetched: wait until that is over.
    Coming,
    /// Not now: the key was not found lately, or the last fetch was a moment ago.
    NotNow,
}

impl KeyKeeper {
    pub(super) fn new(
        rules: Rules,
        servers: KeyServers,
        settled: Arc<Notify>,
        notices: Notices,
    ) -> Self {
        let state = State {
            rules,
            kept: None,
            unknown: UnknownKeys::default(),
            fetching: false,
            began: None,
            due: Instant::now(),
            failures_in_a_row: 0,
            fetches: 0,
            failures: 0,
            last_error: None,
            skipped: Vec::new(),
        };
        let (state, wanted) = (Mutex::new(state), Notify::new());
        Self { servers, state, wanted, settled, notices, born: Instant::now() }
    }

    /// Whose keys these are.
    pub(super) fn issuer(&self) -> Option<String> {
        self.state().rules.issuer.clone()
    }

    /// Where they are.
    pub(super) fn url(&self) -> Uri {
        self.state().rules.url.clone()
    }

    /// Goes by other rules from now on. Keys from elsewhere are fetched at once; until they are
    /// here, those that were fetched before are in force for as long as they may be.
    pub(super) fn change(&self, rules: Rules) {
        let now = Instant::now();
        let mut state = self.state();
        let latest = match state.rules.url == rules.url {
            true => now + rules.schedule.longest(),
            false => now,
        };
        state.rules = rules;
        state.due = state.due.min(latest);
        self.wanted.notify_one();
    }

    /// The keys in force; `None` before the first good fetch, and when the last one is too long
    /// ago.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        let state = self.state();
        let kept = state.kept.as_ref()?;
        (kept.since.elapsed() < state.rules.schedule.age_max).then(|| Arc::clone(&kept.keys))
    }

    /// Time since the last good fetch; without any, since it is waited for.
    pub(super) fn age(&self) -> Duration {
        let state = self.state();
        state.kept.as_ref().map_or(self.born, |kept| kept.since).elapsed()
    }

    /// The keys of the last good fetch, however old.
    pub(super) fn last(&self) -> Option<Arc<KeySet>> {
        self.state().kept.as_ref().map(|kept| Arc::clone(&kept.keys))
    }

    /// A token names a key that the set in force does not have, or there is no set. Starts a fetch,
    /// unless this key was not found lately or the last fetch was a moment ago: tokens with
    /// invented key ids must not become requests. In a cooldown the next fetch is moved to its end.
    pub(crate) fn need(&self, key_id: Option<&str>) -> Newer {
        let now = Instant::now();
        let mut state = self.state();
        if state.kept.is_some() && state.unknown.contains(key_id, now) {
            return Newer::NotNow;
        }
        if state.fetching {
            return Newer::Coming;
        }
        let rested = state.began.map_or(now, |began| began + state.rules.schedule.cooldown);
        if now < rested {
            if rested < state.due {
                state.due = rested;
                self.wanted.notify_one();
            }
            return Newer::NotNow;
        }
        state.begin(now);
        self.wanted.notify_one();
        Newer::Coming
    }

    /// The set that was just fetched does not have this key either.
    pub(crate) fn not_found(&self, key_id: Option<&str>) {
        self.state().unknown.insert(key_id, Instant::now());
    }

    /// Whether a fetch is in flight.
    pub(crate) fn is_fetching(&self) -> bool {
        self.state().fetching
    }

    /// Fetches on schedule and when somebody needs it, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            self.fetch().await;
            loop {
                let due = {
                    let state = self.state();
                    if state.fetching { Instant::now() } else { state.due }
                };
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break,
                    () = self.wanted.notified() => {}
                }
            }
        }
    }

    async fn fetch(&self) {
        let (url, limits) = {
            let mut state = self.state();
            if !state.fetching {
                state.begin(Instant::now());
            }
            state.fetches += 1;
            (state.rules.url.clone(), state.rules.limits)
        };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = url.clone();
        let outcome = match self.servers.of(&url).call(request, limits).await {
            Ok(answer) if answer.status.is_success() => match KeySet::parse(&answer.body) {
                Ok((keys, skipped)) => Ok((keys, skipped, answer.headers)),
                Err(error) => Err(error.to_string()),
            },
            Ok(answer) => Err(format!("status {}", answer.status.as_u16())),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            // The keys are elsewhere meanwhile: what was here does not count.
            _ if self.url() != url => self.state().rest(Instant::now()),
            Ok((keys, skipped, headers)) => self.put_in_force(keys, skipped, &headers),
            Err(problem) => self.put_up_with(problem),
        }
        self.settled.notify_one();
    }

    fn put_in_force(&self, keys: KeySet, skipped: Vec<SkippedKey>, headers: &HeaderMap) {
        let now = Instant::now();
        let mut state = self.state();
        let is_same = state.kept.as_ref().is_some_and(|kept| kept.keys.facts().eq(keys.facts()));
        if !is_same {
            state.unknown.clear();
        }
        for key in skipped.iter().filter(|key| !state.skipped.contains(key)) {
            let reason = format!("key {}: {}", key.index, key.reason);
            self.notices.send(state.rules.entry(Level::Warn, "jwks_key_skipped", Some(reason)));
        }
        if state.failures_in_a_row > 0 {
            self.notices.send(state.rules.entry(Level::Info, "jwks_fetched_again", None));
        }
        state.skipped = skipped;
        state.kept = Some(Kept { keys: Arc::new(keys), since: now });
        state.last_error = None;
        state.failures_in_a_row = 0;
        let pause = state.rules.schedule.after_success(headers, unit_random());
        state.rest(now + pause);
    }

    fn put_up_with(&self, problem: String) {
        let mut state = self.state();
        state.failures += 1;
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        let failures = state.failures_in_a_row;
        let pause = state.rules.schedule.after_failure(failures, unit_random());
        state.rest(Instant::now() + pause);
        state.last_error = Some(problem.clone());
        self.notices.send(state.rules.entry(Level::Warn, "jwks_fetch_failed", Some(problem)));
    }

    /// Fetches so far, and how many of them failed.
    pub(super) fn fetches(&self) -> (u64, u64) {
        let state = self.state();
        (state.fetches, state.failures)
    }

    /// What an operator may want to know of it.
    pub(super) fn status(&self) -> KeySetStatus {
        let state = self.state();
        let now = Instant::now();
        let kept = state.kept.as_ref();
        let keys =
            kept.map_or_else(Vec::new, |kept| kept.keys.facts().map(KeyStatus::of).collect());
        let age = kept.map(|kept| now.duration_since(kept.since));
        KeySetStatus {
            issuer: state.rules.issuer.clone(),
            url: shown(&state.rules.url),
            keys,
            skipped: state.skipped.clone(),
            age,
            is_expired: age.is_some_and(|age| age >= state.rules.schedule.age_max),
            next_fetch_in: state.due.saturating_duration_since(now),
            is_fetching: state.fetching,
            fetches: state.fetches,
            failures: state.failures,
            unknown_keys: state.unknown.len(),
            last_error: state.last_error.clone(),
        }
    }

    /// Every change is whole before the lock is let go, so a panic elsewhere spoils nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, now: Instant) {
        self.fetching = true;
        self.began = Some(now);
    }

    fn rest(&mut self, until: Instant) {
        self.fetching = false;
        self.due = until;
    }
}

/// The URL without what may be a secret.
fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform_http::PlatformHttp;
    use crate::settings::PlatformTls;

    fn rules() -> Rules {
        Rules {
            issuer: None,
            url: Uri::from_static("http://user:pass@127.0.0.1:9/keys?secret=1"),
            limits: CallLimits { timeout: Duration::from_secs(1), response_bytes_max: 1 },
            schedule: KeySchedule::default(),
        }
    }

    fn keeper() -> KeyKeeper {
        let (notices, _) = Notices::channel();
        let tls = PlatformTls::default();
        let platform = Arc::new(PlatformHttp::new(tls.clone(), notices.clone()).unwrap());
        let url = url::Url::parse("http://127.0.0.1:9").unwrap();
        let servers = KeyServers::new(&platform, &url, &tls, notices.clone()).unwrap();
        KeyKeeper::new(rules(), servers, Arc::default(), notices)
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_never_came_are_as_old_as_the_wait_for_them() {
        let keeper = keeper();
        tokio::time::advance(Duration::from_secs(5)).await;
        keeper.put_up_with("down".into());
        assert_eq!(keeper.age(), Duration::from_secs(5));
        fetched(&keeper);
        assert_eq!(keeper.age(), Duration::ZERO);
    }

    fn fetched(keeper: &KeyKeeper) {
        keeper.put_in_force(KeySet::default(), Vec::new(), &HeaderMap::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_cannot_be_fetched_anew_is_used_until_it_is_too_old() {
        let keeper = keeper();
        let age_max = KeySchedule::default().age_max;
        assert!(keeper.current().is_none());
        fetched(&keeper);
        tokio::time::advance(age_max - Duration::from_secs(1)).await;
        keeper.put_up_with("down".into());
        assert!(keeper.current().is_some() && !keeper.status().is_expired);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(keeper.current().is_none());
        assert!(keeper.status().is_expired);
        assert_eq!(keeper.status().last_error.as_deref(), Some("down"));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_one_fetch_in_a_cooldown() {
        let keeper = keeper();
        assert_eq!(keeper.need(Some("a")), Newer::Coming);
        assert_eq!(keeper.need(Some("b")), Newer::Coming, "the same one");
        fetched(&keeper);
        keeper.not_found(Some("a"));
        assert_eq!(keeper.need(Some("c")), Newer::NotNow);
        let cooldown = KeySchedule::default().cooldown;
        assert_eq!(keeper.status().next_fetch_in, cooldown, "moved to the end of the cooldown");
        tokio::time::advance(cooldown).await;
        assert_eq!(keeper.need(Some("a")), Newer::NotNow, "not found lately");
        assert_eq!(keeper.need(Some("c")), Newer::Coming);
    }

    #[tokio::test(start_paused = true)]
    async fn other_rules_hold_for_the_set_that_is_there() {
        let keeper = keeper();
        fetched(&keeper);
        let schedule = KeySchedule {
            interval_max: Duration::from_secs(90),
            age_max: Duration::from_secs(100),
            ..KeySchedule::default()
        };
        keeper.change(Rules { schedule, ..rules() });
        assert!(keeper.status().next_fetch_in <= Duration::from_secs(90));
        assert!(keeper.current().is_some());
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(keeper.current().is_none(), "it is too old by the new rule");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_from_elsewhere_are_fetched_at_once_and_the_last_good_ones_stay_until_then() {
        let keeper = keeper();
        fetched(&keeper);
        keeper.change(Rules { url: Uri::from_static("http://127.0.0.1:9/others"), ..rules() });
        assert_eq!(keeper.status().next_fetch_in, Duration::ZERO);
        assert_eq!(keeper.status().url, "http://127.0.0.1:9/others");
        assert!(keeper.current().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_is_shown_without_its_secrets() {
        assert_eq!(keeper().status().url, "http://127.0.0.1:9/keys");
    }
}
