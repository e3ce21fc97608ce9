//! From a token to an answer: the key set, the platform, or both.

use std::sync::Arc;

use relay_admission::{Checker, Doubt, Verdict};
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

/// What looking at a token found.
pub(crate) enum Look {
    /// Nobody has to be asked.
    Settled(Answer),
    /// Somebody has to.
    Open(Question),
}

/// Whom to ask about a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Question {
    /// The platform, what it is worth.
    Platform,
    /// Whether there is a newer key set that has its key.
    NewerKeys,
}

impl Decider {
    /// Whether [`Self::look`] can settle anything.
    pub(crate) fn looks_at_tokens(&self) -> bool {
        self.local.is_some() && self.admission != Admission::Validate
    }

    /// Finds out what a token is worth, as far as the keys in force tell. Source: relay
    /// specification, section 0b.
    ///
    /// Cost: one signature check where tokens are checked locally.
    pub(crate) fn look(&self, request: &UpgradeRequest, token: &Secret) -> Look {
        let local = match (&self.local, self.admission) {
            (None, _) | (_, Admission::Validate) => return Look::Open(Question::Platform),
            (Some(local), Admission::Jwks | Admission::Both) => local,
        };
        match self.check(local, token) {
            None | Some(Verdict::Undecided(Doubt::UnknownKey)) => Look::Open(Question::NewerKeys),
            verdict => self.conclude(verdict, request),
        }
    }

    /// Asks, and then the platform where a newer key set does not settle it.
    pub(crate) async fn ask(
        &self,
        question: Question,
        request: &UpgradeRequest,
        token: &Secret,
    ) -> Answer {
        if let (Question::NewerKeys, Some(local)) = (question, &self.local) {
            local.keys.refresh_for_unknown_key().await;
            if let Look::Settled(answer) = self.conclude(self.check(local, token), request) {
                return answer;
            }
        }
        match self.validator.validate(&self.platform, request, token).await {
            Ok(claims) => Answer::Claims(claims),
            Err(denial) => Answer::Denied(denial),
        }
    }

    /// What follows from a verdict, or from there being no key set.
    fn conclude(&self, verdict: Option<Verdict>, request: &UpgradeRequest) -> Look {
        let answer = match (verdict, self.admission) {
            (Some(Verdict::Bad(proof)), _) => Answer::Denied(proof.denial()),
            (_, Admission::Both | Admission::Validate) => return Look::Open(Question::Platform),
            (None, Admission::Jwks) => Answer::Unavailable,
            (Some(Verdict::Undecided(doubt)), Admission::Jwks) => Answer::Denied(doubt.denial()),
            (Some(Verdict::Verified(token)), Admission::Jwks) => {
                match token.claims_for(request.role) {
                    Ok(claims) => Answer::Claims(claims),
                    Err(unmapped) => Answer::Denied(unmapped.denial()),
                }
            }
        };
        Look::Settled(answer)
    }

    /// Checks against the set in force. `None` when there is none.
    fn check(&self, local: &LocalCheck, token: &Secret) -> Option<Verdict> {
        let keys = local.keys.current()?;
        let now_secs = self.clock.unix_ms().div_euclid(1000);
        Some(local.checker.check(token.expose(), &keys, now_secs))
    }
}
