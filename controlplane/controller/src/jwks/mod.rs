//! The key sets in force, one of each issuer.

mod keeper;
mod schedule;
mod status;
mod unknown;
mod verified;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use relay_admission::{Checker, Doubt, Jwt, KeyPrint, KeySet, Proof, Verdict};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub(crate) use keeper::{KeyKeeper, Newer};
pub use schedule::KeySchedule;
pub use status::{KeySetStatus, KeyStatus};

use verified::VerifiedTokens;

use crate::notices::Notices;
use crate::platform_http::{CallLimits, PlatformHttp};
use crate::settings::{IssuerSettings, JwksSettings};

/// The key sets of all issuers.
pub(crate) struct KeyRing {
    sets: Vec<IssuerKeys>,
    /// Tokens that need no signature check any more.
    verified: Mutex<VerifiedTokens>,
    /// Wakes whoever waits for a newer set.
    settled: Arc<Notify>,
}

#[derive(Debug)]
struct IssuerKeys {
    checker: Checker,
    keeper: Arc<KeyKeeper>,
}

/// One issuer's place in the ring.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct IssuerIndex(pub(crate) usize);

/// What holding a token against the ring found.
pub(crate) enum Held {
    /// This verdict, with the keys of this issuer.
    Judged(IssuerIndex, Verdict),
    /// Its issuer has no key set now.
    NoKeys(IssuerIndex),
    /// The set of its issuer lacks its key.
    KeyMissing(IssuerIndex),
}

/// A key set's URL that HTTP cannot call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadUrl;

impl KeyRing {
    /// A ring that has fetched nothing yet.
    pub(crate) fn new(
        settings: &JwksSettings,
        limits: CallLimits,
        connections_max: usize,
        platform: &Arc<PlatformHttp>,
        notices: &Notices,
    ) -> Result<Self, BadUrl> {
        let settled = Arc::new(Notify::new());
        let issuer_keys = |issuer: &IssuerSettings| {
            let url: Uri = issuer.url.as_str().parse().map_err(|_| BadUrl)?;
            let keeper = KeyKeeper::new(
                issuer.issuer.clone(),
                url,
                limits,
                settings.schedule,
                Arc::clone(platform),
                Arc::clone(&settled),
                notices.clone(),
            );
            let checker = Checker {
                issuer: issuer.issuer.clone(),
                audience: settings.audience.clone(),
                leeway_secs: u32::try_from(settings.leeway.as_secs()).unwrap_or(u32::MAX),
            };
            Ok(IssuerKeys { checker, keeper: Arc::new(keeper) })
        };
        let sets = settings.issuers.iter().map(issuer_keys).collect::<Result<_, _>>()?;
        let verified = Mutex::new(VerifiedTokens::of(connections_max));
        Ok(Self { sets, verified, settled })
    }

    /// Begins to fetch. The tasks end when their handles are aborted.
    pub(crate) fn keep(&self) -> Vec<AbortHandle> {
        let keepers = self.sets.iter().map(|set| Arc::clone(&set.keeper));
        keepers.map(|keeper| tokio::spawn(keeper.keep()).abort_handle()).collect()
    }

    /// Completes when a fetch was over since the last time.
    pub(crate) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// Holds a token against the set of the issuer it names.
    ///
    /// A sole set checks every token. Of several the token chooses one; where none is for its
    /// issuer, a set without a name is, and where there is no such set the token is bad: if it is
    /// true, its issuer is not ours, and if it is not true, it is forged.
    ///
    /// Cost: one signature check, or a digest for a token that was good before; with several
    /// issuers the payload is read twice.
    pub(crate) fn hold(&self, text: &str, now_secs: i64) -> Held {
        let Some(token) = Jwt::split(text) else {
            return Held::Judged(IssuerIndex(0), Verdict::Undecided(Doubt::Opaque));
        };
        let Some(index) = self.find(&token) else {
            return Held::Judged(IssuerIndex(0), Verdict::Bad(Proof::WrongIssuer));
        };
        let set = &self.sets[index.0];
        let Some(keys) = set.keeper.current() else {
            return Held::NoKeys(index);
        };
        // A panic while it is locked leaves a table that is as good as before.
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let named = token.named_key(&keys).map(|key| (key, verified.print(text, key)));
        if let Some((key, print)) = named
            && verified.contains(print)
        {
            return Held::Judged(index, set.checker.check_signed(&token, key, now_secs));
        }
        match set.checker.check_jwt(&token, &keys, now_secs) {
            Verdict::Undecided(Doubt::UnknownKey) => Held::KeyMissing(index),
            verdict => {
                if let (Verdict::Verified(_), Some((_, print))) = (&verdict, named) {
                    verified.insert(print);
                }
                Held::Judged(index, verdict)
            }
        }
    }

    /// Whether it is worth waiting for a newer set of this issuer.
    pub(crate) fn need(&self, index: IssuerIndex, token: &str) -> Newer {
        let token = Jwt::split(token);
        self.sets[index.0].keeper.need(token.as_ref().and_then(Jwt::key_id))
    }

    /// A newer set of this issuer lacks the token's key too.
    pub(crate) fn not_found(&self, index: IssuerIndex, token: &str) {
        let token = Jwt::split(token);
        self.sets[index.0].keeper.not_found(token.as_ref().and_then(Jwt::key_id));
    }

    /// Whether a newer set of this issuer is on its way.
    pub(crate) fn is_fetching(&self, index: IssuerIndex) -> bool {
        self.sets[index.0].keeper.is_fetching()
    }

    /// Keys that can be used now; `None` when no issuer has a set that is young enough.
    pub(crate) fn key_count(&self) -> Option<usize> {
        let counts = self.sets.iter().filter_map(|set| Some(set.keeper.current()?.len()));
        counts.reduce(|sum, count| sum + count)
    }

    /// The keys of each issuer whose set was ever fetched, in force or too old.
    pub(crate) fn sets(&self) -> impl Iterator<Item = (IssuerIndex, Arc<KeySet>)> + '_ {
        let sets = self.sets.iter().enumerate();
        sets.filter_map(|(index, set)| Some((IssuerIndex(index), set.keeper.last()?)))
    }

    /// Whether the last set of this issuer has the key.
    pub(crate) fn has(&self, index: IssuerIndex, print: KeyPrint) -> bool {
        let keys = self.sets[index.0].keeper.last();
        keys.is_some_and(|keys| keys.facts().any(|key| key.print == print))
    }

    /// Time since the last good fetch, of the issuer of whom that is longest ago.
    pub(crate) fn age(&self) -> Duration {
        let ages = self.sets.iter().filter_map(|set| set.keeper.age());
        ages.max().unwrap_or_default()
    }

    /// How far clocks may disagree, in seconds.
    pub(crate) fn leeway_secs(&self) -> u32 {
        self.sets.iter().map(|set| set.checker.leeway_secs).max().unwrap_or(0)
    }

    /// Fetches so far, and how many of them failed.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        let both = self.sets.iter().map(|set| set.keeper.fetches());
        both.fold((0, 0), |sum, (fetches, failures)| (sum.0 + fetches, sum.1 + failures))
    }

    /// What an operator may want to know, in the order of the configuration.
    pub(crate) fn status(&self) -> Vec<KeySetStatus> {
        self.sets.iter().map(|set| set.keeper.status()).collect()
    }

    fn find(&self, token: &Jwt<'_>) -> Option<IssuerIndex> {
        if self.sets.len() == 1 {
            return Some(IssuerIndex(0));
        }
        let issuer = token.issuer();
        let named = |set: &IssuerKeys| issuer.is_some() && set.checker.issuer == issuer;
        let index = self.sets.iter().position(named);
        let any = || self.sets.iter().position(|set| set.checker.issuer.is_none());
        index.or_else(any).map(IssuerIndex)
    }
}

/// A number in `0.0..1.0` that nobody can foresee; good for spreading, not for secrets.
pub(crate) fn unit_random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let unit = bits as f64 / (1_u64 << 53) as f64;
    unit
}
