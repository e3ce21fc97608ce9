//! A token checked here, without asking the platform.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use relay_contract::Credential;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::denial::Denial;
use crate::keys::{KeyPrint, KeySet};
use crate::mapping::VerifiedToken;

/// What a token must say beside being signed.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// The `iss` it must have, if any is demanded.
    pub issuer: Option<String>,
    /// The `aud` it must name, if any is demanded.
    pub audience: Option<String>,
    /// How far our clock and the issuer's may disagree, in seconds.
    pub leeway_secs: u32,
}

/// What a check found.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Proven bad: nobody has to be asked.
    Bad(Proof),
    /// Signed by a key of the set, in time, from the right issuer, for the right audience.
    Verified(VerifiedToken),
    /// Neither can be shown here.
    Undecided(Doubt),
}

/// What proves a token bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The signature is not that of the key it names.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `iss` is another.
    WrongIssuer,
    /// `aud` does not name us.
    WrongAudience,
}

/// Why a token could not be decided.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Doubt {
    /// Not a JWT, or one with demands we do not know.
    Opaque,
    /// Signed with an algorithm we do not check, or that its key is not for.
    UnknownAlgorithm,
    /// No key of the set fits. A newer set may have it.
    UnknownKey,
}

impl Proof {
    /// The denial for the log.
    pub fn denial(self) -> Denial {
        let reason = match self {
            Self::BadSignature => "TOKEN_BAD_SIGNATURE",
            Self::Expired => "TOKEN_EXPIRED",
            Self::NotYetValid => "TOKEN_NOT_YET_VALID",
            Self::WrongIssuer => "TOKEN_WRONG_ISSUER",
            Self::WrongAudience => "TOKEN_WRONG_AUDIENCE",
        };
        Denial::new(reason, UNAUTHORIZED)
    }
}

impl Doubt {
    /// The denial for the log, where nobody else can be asked.
    pub fn denial(self) -> Denial {
        let reason = match self {
            Self::Opaque => "TOKEN_NOT_UNDERSTOOD",
            Self::UnknownAlgorithm => "TOKEN_UNKNOWN_ALGORITHM",
            Self::UnknownKey => "TOKEN_UNKNOWN_KEY",
        };
        Denial::new(reason, UNAUTHORIZED)
    }
}

impl Checker {
    /// Checks a token at `now_secs` (seconds since 1970): the signature first, so that nothing an
    /// unknown hand wrote is believed; then times, issuer, audience.
    ///
    /// The key decides which algorithm is checked, never the token. Cost: one signature check; for
    /// a token without key id one per key of its algorithm, at most [`KeySet::TRIED_MAX`]. Source:
    /// RFC 7515 §5.2, RFC 7519 §7.2, RFC 8725 §3.
    pub fn check(&self, token: &str, keys: &KeySet, now_secs: i64) -> Verdict {
        match Jwt::split(token) {
            Some(token) => self.check_jwt(&token, keys, now_secs),
            None => Verdict::Undecided(Doubt::Opaque),
        }
    }

    /// The same for a token that was cut already.
    pub fn check_jwt(&self, token: &Jwt<'_>, keys: &KeySet, now_secs: i64) -> Verdict {
        let key = match token.signed_by(keys) {
            Ok(Some(key)) => key,
            Ok(None) => return Verdict::Bad(Proof::BadSignature),
            Err(doubt) => return Verdict::Undecided(doubt),
        };
        self.check_signed(token, key, now_secs)
    }

    /// The same for a token whose signature was found to be this key's before: what is signed does
    /// not change, but time passes.
    pub fn check_signed(&self, token: &Jwt<'_>, key: KeyPrint, now_secs: i64) -> Verdict {
        let Some(claims) = decode::<Map<String, Value>>(token.payload) else {
            return Verdict::Undecided(Doubt::Opaque);
        };
        match self.proof_against(&claims, now_secs) {
            Some(proof) => Verdict::Bad(proof),
            None => {
                let key_id = token.header.kid.as_deref().map(Into::into);
                Verdict::Verified(VerifiedToken::new(claims, key, key_id))
            }
        }
    }

    fn proof_against(&self, claims: &Map<String, Value>, now_secs: i64) -> Option<Proof> {
        let leeway = f64::from(self.leeway_secs);
        #[expect(clippy::cast_precision_loss, reason = "exact in a double for 285 million years")]
        let now = now_secs as f64;
        let time = |name| claims.get(name).and_then(Value::as_f64);
        if time("exp").is_some_and(|expiry| now >= expiry + leeway) {
            return Some(Proof::Expired);
        }
        if time("nbf").is_some_and(|start| now + leeway < start) {
            return Some(Proof::NotYetValid);
        }
        let has = |name, wanted: &String| match claims.get(name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Array(items)) => items.iter().any(|item| item == wanted),
            _ => false,
        };
        if !self.issuer.as_ref().is_none_or(|issuer| has("iss", issuer)) {
            return Some(Proof::WrongIssuer);
        }
        if !self.audience.as_ref().is_none_or(|audience| has("aud", audience)) {
            return Some(Proof::WrongAudience);
        }
        None
    }
}

/// A compact JWT, cut but not believed: whatever it says is said by whoever sent it.
pub struct Jwt<'a> {
    header: Header,
    /// Header and payload as they were signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Jwt<'a> {
    /// Cuts a token. `None` if it is none, or demands what we do not know.
    pub fn split(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        // An extension marked critical must be understood or the token not used: RFC 7515 §4.1.11.
        let header = decode::<Header>(header).filter(|header| header.crit.is_none())?;
        Some(Self { header, message, payload, signature })
    }

    /// The key it names.
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The issuer it names: good for choosing the keys to check it with, and for nothing else.
    pub fn issuer(&self) -> Option<String> {
        decode::<Issued>(self.payload)?.iss
    }

    /// The one key of the set that it names, for the algorithm it names: whether that signed it is
    /// not said. `None` where it names no key, or one that is not there.
    pub fn named_key(&self, keys: &KeySet) -> Option<KeyPrint> {
        let algorithm = self.algorithm()?;
        let mut named = keys.candidates(Some(self.key_id()?));
        named.find(|key| key.algorithm == algorithm).map(|key| key.print)
    }

    /// What it says of itself: worth as much as whoever believes it.
    pub fn credential(&self) -> Credential {
        let said = decode::<Said>(self.payload).unwrap_or_default();
        let text = |value: Option<Value>| value.as_ref().and_then(Value::as_str).map(Into::into);
        Credential {
            issuer: text(said.iss),
            key_id: self.key_id().map(Into::into),
            token_id: text(said.jti),
            subject: text(said.sub),
            expires_at_secs: said.exp.as_ref().and_then(date),
            key_print: None,
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        match self.header.alg.as_str() {
            "RS256" => Some(Algorithm::RS256),
            "ES256" => Some(Algorithm::ES256),
            "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
            _ => None,
        }
    }

    /// Which key of the set signed this. A token that names its key can be proven false; one that
    /// names none cannot, because its key may be in a newer set.
    fn signed_by(&self, keys: &KeySet) -> Result<Option<KeyPrint>, Doubt> {
        let algorithm = self.algorithm().ok_or(Doubt::UnknownAlgorithm)?;
        let id = self.header.kid.as_deref();
        let mut known = false;
        let mut tried = 0;
        for key in keys.candidates(id) {
            known = true;
            if key.algorithm != algorithm || tried == KeySet::TRIED_MAX {
                continue;
            }
            tried += 1;
            if key.has_signed(self.message, self.signature) {
                return Ok(Some(key.print));
            }
        }
        match (id.is_some(), known, tried > 0) {
            (true, true, true) => Ok(None),
            (true, true, false) => Err(Doubt::UnknownAlgorithm),
            (true, false, _) | (false, _, _) => Err(Doubt::UnknownKey),
        }
    }
}

#[derive(Deserialize)]
struct Issued {
    iss: Option<String>,
}

/// What a payload says of the token it is in; everything else is passed over.
#[derive(Default, Deserialize)]
struct Said {
    iss: Option<Value>,
    jti: Option<Value>,
    sub: Option<Value>,
    exp: Option<Value>,
}

/// What identifies a token, as far as its claims have the form for it.
pub(crate) fn credential(claims: &Map<String, Value>, key_id: Option<&str>) -> Credential {
    let text = |name| claims.get(name).and_then(Value::as_str).map(Into::into);
    Credential {
        issuer: text("iss"),
        key_id: key_id.map(Into::into),
        token_id: text("jti"),
        subject: text("sub"),
        expires_at_secs: expiry(claims),
        key_print: None,
    }
}

/// `exp`.
pub(crate) fn expiry(claims: &Map<String, Value>) -> Option<i64> {
    date(claims.get("exp")?)
}

/// Whole seconds of a date, which RFC 7519 lets be a fraction.
fn date(value: &Value) -> Option<i64> {
    let expiry = value.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and a date beyond the range is as good as its end"
    )]
    expiry.is_finite().then_some(expiry as i64)
}

/// A JSON object. Derived readers would also take a list of members in their order, and whatever
/// bytes stand in a member they do not know.
fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

/// What the peer of a refused upgrade sees.
pub(crate) const UNAUTHORIZED: u16 = 401;
