//! The key sets in force, one of each issuer.

mod keeper;
mod schedule;
mod servers;
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
pub(crate) use servers::KeyServers;
pub use status::{KeySetStatus, KeyStatus};

use keeper::Rules;
use verified::VerifiedTokens;

use crate::notices::Notices;
use crate::platform_http::CallLimits;
use crate::settings::{IssuerSettings, JwksSettings};

/// The key sets of all issuers.
pub(crate) struct KeyRing {
    sets: Vec<IssuerKeys>,
    /// Tokens that need no signature check any more.
    verified: Arc<Mutex<VerifiedTokens>>,
    /// Wakes whoever waits for a newer set.
    settled: Arc<Notify>,
    /// Fetches for issuers that are ours no more, and how many of them failed.
    former: (u64, u64),
}

#[derive(Clone, Debug)]
struct IssuerKeys {
    number: IssuerNumber,
    checker: Checker,
    keeper: Arc<KeyKeeper>,
}

/// One issuer for as long as it is ours; no other ever has its number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct IssuerNumber(pub(crate) usize);

/// What holding a token against the ring found.
pub(crate) enum Held {
    /// This verdict, with the keys of this issuer.
    Judged(IssuerNumber, Verdict),
    /// Its issuer has no key set now.
    NoKeys(IssuerNumber),
    /// The set of its issuer lacks its key.
    KeyMissing(IssuerNumber),
}

/// A key set's URL that HTTP cannot call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadUrl;

impl KeyRing {
    /// A ring without issuers: [`Self::with`] says whose keys there are.
    pub(crate) fn empty(connections_max: usize) -> Self {
        let verified = Arc::new(Mutex::new(VerifiedTokens::of(connections_max)));
        Self { sets: Vec::new(), verified, settled: Arc::default(), former: (0, 0) }
    }

    /// The ring for these issuers. One that was ours before keeps its keys: it is known by its
    /// name, or by where its keys are if its name is what changed. Nothing is fetched for others
    /// before [`Self::keep`]. Numbers are taken from `next`.
    ///
    /// # Errors
    /// [`BadUrl`]; nothing has changed then.
    pub(crate) fn with(
        &self,
        settings: &JwksSettings,
        limits: CallLimits,
        next: &mut IssuerNumber,
        servers: &KeyServers,
        notices: &Notices,
    ) -> Result<Self, BadUrl> {
        let rules = |issuer: &IssuerSettings| {
            let url: Uri = issuer.url.as_str().parse().map_err(|_| BadUrl)?;
            let issuer = issuer.issuer.clone();
            Ok(Rules { issuer, url, limits, schedule: settings.schedule })
        };
        let rules: Vec<Rules> = settings.issuers.iter().map(rules).collect::<Result<_, _>>()?;
        let mut before: Vec<_> = self.sets.iter().collect();
        let mut known: Vec<Option<&IssuerKeys>> = vec![None; rules.len()];
        let by_name = |set: &IssuerKeys, rules: &Rules| set.keeper.issuer() == rules.issuer;
        let by_url = |set: &IssuerKeys, rules: &Rules| set.keeper.url() == rules.url;
        for is_same in [by_name, by_url] {
            for (known, rules) in known.iter_mut().zip(&rules) {
                if known.is_none()
                    && let Some(at) = before.iter().position(|set| is_same(set, rules))
                {
                    *known = Some(before.remove(at));
                }
            }
        }
        let mut former = self.former;
        for (fetches, failures) in before.iter().map(|set| set.keeper.fetches()) {
            former = (former.0 + fetches, former.1 + failures);
        }
        let issuer_keys = |(known, rules): (Option<&IssuerKeys>, Rules)| {
            let checker = Checker {
                issuer: rules.issuer.clone(),
                audience: settings.audience.clone(),
                leeway_secs: u32::try_from(settings.leeway.as_secs()).unwrap_or(u32::MAX),
            };
            if let Some(set) = known {
                set.keeper.change(rules);
                return IssuerKeys { checker, ..set.clone() };
            }
            let number = *next;
            next.0 += 1;
            let (servers, settled) = (servers.clone(), Arc::clone(&self.settled));
            let keeper = KeyKeeper::new(rules, servers, settled, notices.clone());
            IssuerKeys { number, checker, keeper: Arc::new(keeper) }
        };
        let sets = known.into_iter().zip(rules).map(issuer_keys).collect();
        let (verified, settled) = (Arc::clone(&self.verified), Arc::clone(&self.settled));
        Ok(Self { sets, verified, settled, former })
    }

    /// Whose keys there are.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = IssuerNumber> + '_ {
        self.sets.iter().map(|set| set.number)
    }

    /// Begins to fetch for an issuer. The task ends when its handle is aborted.
    pub(crate) fn keep(&self, number: IssuerNumber) -> Option<AbortHandle> {
        let keeper = Arc::clone(&self.set(number)?.keeper);
        Some(tokio::spawn(keeper.keep()).abort_handle())
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
            return Held::Judged(NOBODY, Verdict::Undecided(Doubt::Opaque));
        };
        let Some(set) = self.find(&token) else {
            return Held::Judged(NOBODY, Verdict::Bad(Proof::WrongIssuer));
        };
        let Some(keys) = set.keeper.current() else {
            return Held::NoKeys(set.number);
        };
        // A panic while it is locked leaves a table that is as good as before.
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let named = token.named_key(&keys).map(|key| (key, verified.print(text, key)));
        if let Some((key, print)) = named
            && verified.contains(print)
        {
            return Held::Judged(set.number, set.checker.check_signed(&token, key, now_secs));
        }
        match set.checker.check_jwt(&token, &keys, now_secs) {
            Verdict::Undecided(Doubt::UnknownKey) => Held::KeyMissing(set.number),
            verdict => {
                if let (Verdict::Verified(_), Some((_, print))) = (&verdict, named) {
                    verified.insert(print);
                }
                Held::Judged(set.number, verdict)
            }
        }
    }

    /// Whether it is worth waiting for a newer set of this issuer.
    pub(crate) fn need(&self, number: IssuerNumber, token: &str) -> Newer {
        let token = Jwt::split(token);
        let key_id = token.as_ref().and_then(Jwt::key_id);
        self.set(number).map_or(Newer::NotNow, |set| set.keeper.need(key_id))
    }

    /// A newer set of this issuer lacks the token's key too.
    pub(crate) fn not_found(&self, number: IssuerNumber, token: &str) {
        let token = Jwt::split(token);
        if let Some(set) = self.set(number) {
            set.keeper.not_found(token.as_ref().and_then(Jwt::key_id));
        }
    }

    /// Whether a newer set of this issuer is on its way.
    pub(crate) fn is_fetching(&self, number: IssuerNumber) -> bool {
        self.set(number).is_some_and(|set| set.keeper.is_fetching())
    }

    /// Keys that can be used now; `None` when no issuer has a set that is young enough.
    pub(crate) fn key_count(&self) -> Option<usize> {
        let counts = self.sets.iter().filter_map(|set| Some(set.keeper.current()?.len()));
        counts.reduce(|sum, count| sum + count)
    }

    /// The keys of each issuer whose set was ever fetched, in force or too old.
    pub(crate) fn sets(&self) -> impl Iterator<Item = (IssuerNumber, Arc<KeySet>)> + '_ {
        self.sets.iter().filter_map(|set| Some((set.number, set.keeper.last()?)))
    }

    /// Whether the key is known to be withdrawn: the last set of this issuer lacks it, or it is no
    /// issuer of ours any more.
    pub(crate) fn lacks(&self, number: IssuerNumber, print: KeyPrint) -> bool {
        let Some(set) = self.set(number) else {
            return true;
        };
        let keys = set.keeper.last();
        keys.is_some_and(|keys| keys.facts().all(|key| key.print != print))
    }

    /// Whose key a token was checked with by another control plane, going by its `iss`.
    pub(crate) fn issuer_named(&self, issuer: Option<&str>) -> IssuerNumber {
        self.find_named(issuer).map_or(NOBODY, |set| set.number)
    }

    /// Time since the last good fetch, of the issuer of whom that is longest ago. An issuer without
    /// any is as old as the wait for its keys.
    pub(crate) fn age(&self) -> Duration {
        let ages = self.sets.iter().map(|set| set.keeper.age());
        ages.max().unwrap_or_default()
    }

    /// How far clocks may disagree, in seconds.
    pub(crate) fn leeway_secs(&self) -> u32 {
        self.sets.iter().map(|set| set.checker.leeway_secs).max().unwrap_or(0)
    }

    /// Fetches so far, and how many of them failed.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        let both = self.sets.iter().map(|set| set.keeper.fetches());
        both.fold(self.former, |sum, (fetches, failures)| (sum.0 + fetches, sum.1 + failures))
    }

    /// What an operator may want to know, in the order of the configuration.
    pub(crate) fn status(&self) -> Vec<KeySetStatus> {
        self.sets.iter().map(|set| set.keeper.status()).collect()
    }

    fn find(&self, token: &Jwt<'_>) -> Option<&IssuerKeys> {
        if let [sole] = self.sets.as_slice() {
            return Some(sole);
        }
        self.find_named(token.issuer().as_deref())
    }

    fn find_named(&self, issuer: Option<&str>) -> Option<&IssuerKeys> {
        if let [sole] = self.sets.as_slice() {
            return Some(sole);
        }
        let named = |set: &&IssuerKeys| issuer.is_some() && set.checker.issuer.as_deref() == issuer;
        let any = || self.sets.iter().find(|set| set.checker.issuer.is_none());
        self.sets.iter().find(named).or_else(any)
    }

    fn set(&self, number: IssuerNumber) -> Option<&IssuerKeys> {
        self.sets.iter().find(|set| set.number == number)
    }
}

/// The issuer of tokens that no set was asked about, or of whom none is.
const NOBODY: IssuerNumber = IssuerNumber(usize::MAX);

/// A number in `0.0..1.0` that nobody can foresee; good for spreading, not for secrets.
pub(crate) fn unit_random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let unit = bits as f64 / (1_u64 << 53) as f64;
    unit
}
