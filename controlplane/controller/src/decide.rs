//! From a token to an answer: the key sets, the platform, or both.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use relay_admission::{Doubt, Jwt, KeyPrint, Verdict, VerifiedToken};
use relay_contract::{Claims, Credential, Secret, UpgradeRequest};

use crate::clock::Clock;
use crate::doubts::DoubtKind;
use crate::judge::{Accepted, Answer};
use crate::jwks::{Held, IssuerNumber, KeyRing, Newer};
use crate::platform_http::PlatformHttp;
use crate::settings::{Admission, UnknownKeys};
use crate::validate::Validator;

/// Decides about tokens. Shared by all upgrades that wait; holds nothing of any of them. Other
/// settings make another one; who is being asked already goes on with the one they have.
#[derive(Clone)]
pub(crate) struct Decider {
    pub(crate) admission: Admission,
    pub(crate) ring: Option<Arc<KeyRing>>,
    pub(crate) unknown_keys: UnknownKeys,
    pub(crate) validator: Arc<Validator>,
    pub(crate) platform: Arc<PlatformHttp>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Tells kinds of doubt apart.
    pub(crate) hasher: RandomState,
}

/// What looking at a token found.
pub(crate) enum Look {
    /// Nobody has to be asked.
    Settled(Answer),
    /// The platform decides.
    Open(Basis),
    /// A newer key set of this issuer is on its way, and may have the token's key.
    KeysComing(IssuerNumber),
}

/// What is known of a token before the platform is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Basis {
    /// Nothing: there are no keys to check it with.
    Unchecked,
    /// It was signed with this key, and is in time.
    Signed(SignedWith),
    /// It cannot be decided here.
    Doubtful(DoubtKind),
}

/// A key of a set.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct SignedWith {
    pub(crate) issuer: IssuerNumber,
    pub(crate) print: KeyPrint,
}

/// How often a token was looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LookedAt {
    /// Not yet.
    Never,
    /// Once, and then it waited for a newer key set.
    BeforeNewerKeys,
}

impl Decider {
    /// Whether [`Self::look`] can settle anything.
    pub(crate) fn looks_at_tokens(&self) -> bool {
        self.ring.is_some() && self.admission != Admission::Validate
    }

    /// Finds out what a token is worth, as far as the keys in force tell. Source: relay
    /// specification, section 0b.
    ///
    /// Cost: one signature check where tokens are checked locally.
    pub(crate) fn look(&self, request: &UpgradeRequest, token: &Secret, before: LookedAt) -> Look {
        let Some(ring) = self.ring.as_ref().filter(|_| self.looks_at_tokens()) else {
            return Look::Open(Basis::Unchecked);
        };
        let now_secs = self.clock.unix_ms().div_euclid(1000);
        let waited = before == LookedAt::BeforeNewerKeys;
        match ring.hold(token.expose(), now_secs) {
            Held::Judged(issuer, verdict) => self.conclude(request, token, issuer, verdict),
            Held::NoKeys(issuer) => {
                if !waited && ring.need(issuer, token.expose()) == Newer::Coming {
                    return Look::KeysComing(issuer);
                }
                match self.admission {
                    Admission::Jwks => Look::Settled(Answer::Unavailable),
                    // Without keys a forged token looks like a good one: it is as doubtful as one
                    // whose key nobody knows.
                    Admission::Both | Admission::Validate => {
                        Look::Open(Basis::Doubtful(self.kind_of(Doubt::UnknownKey, token)))
                    }
                }
            }
            Held::KeyMissing(issuer) => {
                if waited {
                    ring.not_found(issuer, token.expose());
                } else if ring.need(issuer, token.expose()) == Newer::Coming {
                    return Look::KeysComing(issuer);
                }
                let doubt = Verdict::Undecided(Doubt::UnknownKey);
                self.conclude(request, token, issuer, doubt)
            }
        }
    }

    /// Asks the platform.
    pub(crate) async fn ask(
        &self,
        basis: Basis,
        request: &UpgradeRequest,
        token: &Secret,
    ) -> Answer {
        match self.validator.validate(&self.platform, request, token).await {
            Ok(claims) => {
                let key = match basis {
                    Basis::Signed(key) => Some(key),
                    Basis::Unchecked | Basis::Doubtful(_) => None,
                };
                let key_print = key.map(|key| *key.print.as_bytes());
                let credential = Credential { key_print, ..validated(token, &claims) };
                Answer::Accepted(Box::new(Accepted { claims, credential, key }))
            }
            Err(denial) => Answer::Denied(denial),
        }
    }

    fn conclude(
        &self,
        request: &UpgradeRequest,
        token: &Secret,
        issuer: IssuerNumber,
        verdict: Verdict,
    ) -> Look {
        let asks = self.admission != Admission::Jwks;
        match verdict {
            Verdict::Bad(proof) => Look::Settled(Answer::Denied(proof.denial())),
            Verdict::Verified(token) => {
                let key = SignedWith { issuer, print: token.key() };
                match asks {
                    true => Look::Open(Basis::Signed(key)),
                    false => Look::Settled(mapped(request, &token, key)),
                }
            }
            Verdict::Undecided(Doubt::UnknownKey) if self.unknown_keys == UnknownKeys::Refuse => {
                Look::Settled(Answer::Denied(Doubt::UnknownKey.denial()))
            }
            Verdict::Undecided(doubt) if asks => {
                Look::Open(Basis::Doubtful(self.kind_of(doubt, token)))
            }
            Verdict::Undecided(doubt) => Look::Settled(Answer::Denied(doubt.denial())),
        }
    }

    fn kind_of(&self, doubt: Doubt, token: &Secret) -> DoubtKind {
        let token = Jwt::split(token.expose());
        let key = self.hasher.hash_one(token.as_ref().map(Jwt::key_id));
        DoubtKind { doubt, key }
    }
}

/// What a verified token is worth where the platform is not asked.
fn mapped(request: &UpgradeRequest, token: &VerifiedToken, key: SignedWith) -> Answer {
    match token.claims_for(request.role) {
        Ok(claims) => {
            let key_print = Some(*key.print.as_bytes());
            let credential = Credential { key_print, ..token.credential() };
            Answer::Accepted(Box::new(Accepted { claims, credential, key: Some(key) }))
        }
        Err(unmapped) => Answer::Denied(unmapped.denial()),
    }
}

/// The credential of a token that the platform has accepted. What the platform says of it goes
/// before what it says of itself; that counts too, because the platform has believed it.
fn validated(token: &Secret, claims: &Claims) -> Credential {
    let said = Jwt::split(token.expose()).map(|token| token.credential());
    let said = said.unwrap_or_default();
    Credential {
        token_id: claims.token_id.clone().or(said.token_id),
        expires_at_secs: claims.expires_at_secs.or(said.expires_at_secs),
        ..said
    }
}
