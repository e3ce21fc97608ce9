//! From a token to an answer: the key set, the platform, or both.

use std::sync::Arc;

use relay_admission::{Checker, Doubt, KeySet, Verdict};
use relay_contract::{Secret, UpgradeRequest};

use crate::clock::Clock;
use crate::judge::Answer;
use crate::jwks::KeyKeeper;
use crate::platform_http::PlatformHttp;
use crate::settings::Admission;
use crate::validate::Validator;

/// Decides about tokens. Shared by all upgrades that wait; holds nothing of any of them.
pub(crate) struct Decider {
    pub(crate) admission: Admission,
    pub(crate) local: Option<LocalCheck>,
    pub(crate) validator: Validator,
    pub(crate) platform: Arc<PlatformHttp>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What local checks need.
pub(crate) struct LocalCheck {
    pub(crate) checker: Checker,
    pub(crate) keys: Arc<KeyKeeper>,
}

impl Decider {
    /// Finds out what a token is worth. Source: relay specification, section 0b.
    pub(crate) async fn decide(&self, request: &UpgradeRequest, token: &Secret) -> Answer {
        let verdict = match (&self.local, self.admission) {
            (None, _) | (_, Admission::Validate) => return self.validate(request, token).await,
            (Some(local), _) => self.check(local, token).await,
        };
        match (verdict, self.admission) {
            (Some(Verdict::Bad(proof)), _) => Answer::Denied(proof.denial()),
            (_, Admission::Both | Admission::Validate) => self.validate(request, token).await,
            (None, Admission::Jwks) => Answer::Unavailable,
            (Some(Verdict::Undecided(doubt)), Admission::Jwks) => Answer::Denied(doubt.denial()),
            (Some(Verdict::Verified(token)), Admission::Jwks) => {
                match token.claims_for(request.role) {
                    Ok(claims) => Answer::Claims(claims),
                    Err(unmapped) => Answer::Denied(unmapped.denial()),
                }
            }
        }
    }

    async fn validate(&self, request: &UpgradeRequest, token: &Secret) -> Answer {
        match self.validator.validate(&self.platform, request, token).await {
            Ok(claims) => Answer::Claims(claims),
            Err(denial) => Answer::Denied(denial),
        }
    }

    /// Checks against the set in force, and once more against a newer one when the key is unknown.
    /// `None` when there is no set.
    async fn check(&self, local: &LocalCheck, token: &Secret) -> Option<Verdict> {
        let now_secs = self.clock.unix_ms().div_euclid(1000);
        let check = |keys: &KeySet| local.checker.check(token.expose(), keys, now_secs);
        let verdict = local.keys.current().map(|keys| check(&keys));
        match verdict {
            None | Some(Verdict::Undecided(Doubt::UnknownKey)) => {
                local.keys.refresh_for_unknown_key().await;
                local.keys.current().map(|keys| check(&keys))
            }
            decided => decided,
        }
    }
}
