//! The key set in force, and when it is fetched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use relay_admission::KeySet;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::notices::Notices;
use crate::platform_http::{CallLimits, PlatformHttp};

/// Fetches the key set and keeps the last good one for at most [`AGE_MAX`].
#[derive(Debug)]
pub(crate) struct KeyKeeper {
    url: Uri,
    limits: CallLimits,
    platform: Arc<PlatformHttp>,
    current: Mutex<Option<Kept>>,
    /// When the last fetch began. Held while one is in flight: there is one at a time.
    last_fetch: AsyncMutex<Option<Instant>>,
    notices: Notices,
}

#[derive(Clone, Debug)]
struct Kept {
    keys: Arc<KeySet>,
    since: Instant,
}

impl KeyKeeper {
    pub(crate) fn new(
        url: Uri,
        limits: CallLimits,
        platform: Arc<PlatformHttp>,
        notices: Notices,
    ) -> Self {
        Self {
            url,
            limits,
            platform,
            current: Mutex::new(None),
            last_fetch: AsyncMutex::new(None),
            notices,
        }
    }

    /// The keys in force; `None` before the first good fetch, and when the last one is too long
    /// ago.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = current.as_ref()?;
        (kept.since.elapsed() < AGE_MAX).then(|| Arc::clone(&kept.keys))
    }

    /// Fetches on schedule, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.refresh(RETRY_INTERVAL).await;
            let pause = match self.current() {
                Some(_) => REFRESH_INTERVAL,
                None => RETRY_INTERVAL,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks for a key that the set does not have. Returns at once when the last fetch was a moment
    /// ago: tokens with invented key ids must not become requests.
    pub(crate) async fn refresh_for_unknown_key(&self) {
        self.refresh(COOLDOWN).await;
    }

    /// Fetches, unless the last fetch began less than `pause` ago. Waits for one in flight.
    async fn refresh(&self, pause: Duration) {
        let mut last_fetch = self.last_fetch.lock().await;
        if last_fetch.is_some_and(|began| began.elapsed() < pause) {
            return;
        }
        *last_fetch = Some(Instant::now());
        self.fetch().await;
    }

    async fn fetch(&self) {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = self.url.clone();
        let problem = match self.platform.call(request, self.limits).await {
            Ok(answer) if answer.status.is_success() => match KeySet::parse(&answer.body) {
                Ok((keys, skipped)) => {
                    for key in skipped {
                        self.notices.warn("jwks_key_skipped", key.reason.to_owned());
                    }
                    self.put_in_force(keys);
                    return;
                }
                Err(error) => error.to_string(),
            },
            Ok(answer) => format!("status {}", answer.status.as_u16()),
            Err(error) => error.to_string(),
        };
        self.notices.warn("jwks_fetch_failed", problem);
    }

    fn put_in_force(&self, keys: KeySet) {
        let kept = Kept { keys: Arc::new(keys), since: Instant::now() };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// How often the set is fetched anew, so that a withdrawn key goes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// How soon a failed first fetch is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often unknown key ids may cause a fetch.
const COOLDOWN: Duration = Duration::from_secs(30);

/// How long a set is used that cannot be fetched anew.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PlatformTls;

    #[tokio::test(start_paused = true)]
    async fn a_set_that_cannot_be_fetched_anew_is_used_for_a_day() {
        let (notices, _) = Notices::channel();
        let platform = PlatformHttp::new(PlatformTls::default(), notices.clone()).unwrap();
        let platform = Arc::new(platform);
        let limits = CallLimits { timeout: Duration::from_secs(1), response_bytes_max: 1 };
        let url = Uri::from_static("http://127.0.0.1:9/");
        let keeper = KeyKeeper::new(url, limits, platform, notices);
        assert!(keeper.current().is_none());
        keeper.put_in_force(KeySet::default());
        tokio::time::advance(AGE_MAX - Duration::from_secs(1)).await;
        assert!(keeper.current().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(keeper.current().is_none());
    }
}
