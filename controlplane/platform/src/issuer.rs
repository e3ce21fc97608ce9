//! Makes tokens and judges them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use relay_contract::Secret;

use crate::{AUDIENCE, ISSUER, KeyError, SigningKey, TokenClaims};

/// Signs claims with one key and recognises its own signature.
pub struct Issuer {
    key: SigningKey,
    validation: Validation,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// No token of ours, or expired, or for somebody else.
    #[error("INVALID_RELAY_TOKEN")]
    Token,
    /// A token of ours that is for another role.
    #[error("RELAY_TOKEN_ROLE_MISMATCH")]
    Role,
    /// A token of ours that is for another workspace.
    #[error("RELAY_TOKEN_WORKSPACE_MISMATCH")]
    Workspace,
    /// A token of ours that is for another target.
    #[error("RELAY_TOKEN_TARGET_MISMATCH")]
    Target,
}

impl Issuer {
    /// An issuer of the standard issuer and audience names.
    pub fn new(key: SigningKey) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = 30;
        Self { key, validation }
    }

    /// The key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Signs the claims, valid from `now` for `lifetime`.
    ///
    /// Issuer, audience, times and a random `jti` are filled in here. Errors: no randomness, or the
    /// signing library refuses.
    pub fn issue(
        &self,
        mut claims: TokenClaims,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Secret, KeyError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| KeyError::Entropy)?;
        let issued = seconds(now);
        claims.iss = Some(ISSUER.to_owned());
        claims.aud = Some(AUDIENCE.to_owned());
        claims.jti = Some(URL_SAFE_NO_PAD.encode(id));
        claims.iat = Some(issued);
        claims.exp = Some(issued.saturating_add(as_seconds(lifetime)));
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key.key_id().to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.key.encoding);
        token.map(Secret::new).map_err(|_| KeyError::Refused)
    }

    /// The claims of a token that this issuer made and that has not expired.
    pub fn judge(&self, token: &str) -> Result<TokenClaims, Refused> {
        let decoded =
            jsonwebtoken::decode::<TokenClaims>(token, &self.key.decoding, &self.validation);
        decoded.map(|data| data.claims).map_err(|_| Refused::Token)
    }

    /// The public key set. Source: RFC 7517 §5.
    pub fn key_set(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [self.key.public_jwk()] })
    }
}

fn seconds(moment: SystemTime) -> i64 {
    as_seconds(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn as_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        Issuer::new(SigningKey::generate().expect("randomness"))
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_comes_back_with_what_it_was_issued_for() {
        let issuer = issuer();
        let asked = TokenClaims::client("ws1", "rt1", "cl1");
        let token = issuer.issue(asked.clone(), SystemTime::now(), HOUR);
        let claims = issuer.judge(token.expect("issued").expose()).expect("ours");
        assert_eq!(claims.client_id, asked.client_id);
        assert_eq!(claims.scope, asked.scope);
        assert_eq!(claims.iss.as_deref(), Some(ISSUER));
        assert!(claims.jti.is_some_and(|id| id.len() == 22));
    }

    #[test]
    fn an_expired_token_is_refused() {
        let issuer = issuer();
        let then = SystemTime::now() - 2 * HOUR;
        let token = issuer.issue(TokenClaims::daemon("ws1", "rt1"), then, HOUR);
        let judged = issuer.judge(token.expect("issued").expose());
        assert_eq!(judged, Err(Refused::Token));
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let token = issuer().issue(TokenClaims::daemon("ws1", "rt1"), SystemTime::now(), HOUR);
        let judged = issuer().judge(token.expect("issued").expose());
        assert_eq!(judged, Err(Refused::Token));
    }
}
