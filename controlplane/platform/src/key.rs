//! The key that signs tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use p256::{PublicKey, SecretKey};
use relay_contract::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Entropy,
    /// The text is not a key we can sign with. What it is stays unsaid: it may be another secret.
    #[error("not a P-256 private key in PEM (PKCS #8, \"BEGIN PRIVATE KEY\")")]
    Form,
    /// The signing library refused the key.
    #[error("the signing library refused the key")]
    Refused,
}

/// An ECDSA key on P-256 for ES256 signatures.
pub struct SigningKey {
    secret: SecretKey,
    key_id: String,
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
}

impl SigningKey {
    /// Makes a key that nobody has had before.
    ///
    /// Errors: [`KeyError::Entropy`] when the operating system has no randomness to give.
    pub fn generate() -> Result<Self, KeyError> {
        loop {
            let mut scalar = Zeroizing::new([0_u8; 32]);
            getrandom::fill(&mut *scalar).map_err(|_| KeyError::Entropy)?;
            // Zero and numbers beyond the curve's order are no keys: once in 2^32 draws.
            if let Ok(secret) = SecretKey::from_slice(&*scalar) {
                return Self::new(secret);
            }
        }
    }

    /// Reads a key from PEM (PKCS #8).
    ///
    /// Errors: [`KeyError::Form`]. Nothing of the text reaches the error.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let secret = SecretKey::from_pkcs8_pem(pem).map_err(|_| KeyError::Form)?;
        Self::new(secret)
    }

    /// The key as PEM (PKCS #8), for a file of mode 0600.
    pub fn to_pem(&self) -> Result<Secret, KeyError> {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|_| KeyError::Refused)?;
        Ok(Secret::from(pem.as_str()))
    }

    /// Names the key in token headers and in the key set: its thumbprint. Source: RFC 7638.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key as a JSON Web Key. Source: RFC 7517, RFC 7518 §6.2.
    pub fn public_jwk(&self) -> serde_json::Value {
        let (x, y) = coordinates(&self.secret.public_key());
        serde_json::json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "use": "sig", "alg": "ES256", "kid": self.key_id,
        })
    }

    fn new(secret: SecretKey) -> Result<Self, KeyError> {
        let der = secret.to_pkcs8_der().map_err(|_| KeyError::Refused)?;
        let (x, y) = coordinates(&secret.public_key());
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Ok(Self {
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(members)),
            encoding: EncodingKey::from_ec_der(der.as_bytes()),
            decoding: DecodingKey::from_ec_components(&x, &y).map_err(|_| KeyError::Refused)?,
            secret,
        })
    }
}

/// The two coordinates of a public key, base64url.
fn coordinates(key: &PublicKey) -> (String, String) {
    let point = key.to_sec1_point(false);
    // An uncompressed point is the byte 4 and two coordinates of 32 bytes.
    let (x, y) = point.as_bytes()[1..].split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = SigningKey::generate().expect("randomness");
        let pem = key.to_pem().expect("encodable");
        let again = SigningKey::from_pem(pem.expose()).expect("the same form");
        assert_eq!(key.public_jwk(), again.public_jwk());
        assert_eq!(key.key_id(), again.key_id());
    }

    #[test]
    fn two_keys_differ() {
        let [one, two] = [(); 2].map(|()| SigningKey::generate().expect("randomness"));
        assert_ne!(one.key_id(), two.key_id());
    }

    #[test]
    fn another_text_is_refused_without_being_repeated() {
        let error = SigningKey::from_pem("hunter2").err().expect("no key");
        assert!(!error.to_string().contains("hunter2"));
    }
}
