//! A published key set (JWKS), reduced to the keys that can check a token.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

/// Public keys, each bound to the one algorithm it may check. Immutable; a rotation makes a new
/// one.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// A key of the document that is not used, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedKey {
    /// Its place in the document, from zero.
    pub index: usize,
    /// Why.
    pub reason: &'static str,
}

/// Tells one key from every other, whatever it is called: a digest of its id, its algorithm and
/// itself. Another key under an old id is another key.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyPrint([u8; 16]);

impl KeyPrint {
    /// One that was written down.
    pub fn from_bytes(digest: [u8; 16]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// One usable key of a set, without its material.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyFacts<'a> {
    /// Which key.
    pub print: KeyPrint,
    /// What tokens call it, if it has a name.
    pub id: Option<&'a str>,
    /// The one algorithm it checks.
    pub algorithm: &'static str,
}

/// Why a document is not a key set. What was in force stays in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or no `keys` list in it.
    #[error("the document has no list of keys")]
    Malformed,
    /// No key of it can be used.
    #[error("none of the keys can be used")]
    Empty,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) print: KeyPrint,
    name: &'static str,
    material: Material,
}

/// What checks a signature.
#[derive(Clone, Debug)]
pub(crate) enum Material {
    /// A point of P-256, looked at once: every check would do so again otherwise.
    Prepared(ParsedPublicKey),
    /// Any other key.
    Plain(DecodingKey),
}

impl Key {
    fn facts(&self) -> KeyFacts<'_> {
        KeyFacts { print: self.print, id: self.id.as_deref(), algorithm: self.name }
    }

    fn shares_name_with(&self, other: &Self) -> bool {
        self.id.is_some() && self.id == other.id && self.algorithm == other.algorithm
    }

    /// Whether this key signed the message. The signature is base64url.
    pub(crate) fn has_signed(&self, message: &str, signature: &str) -> bool {
        let message = message.as_bytes();
        match &self.material {
            Material::Prepared(key) => URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|signature| key.verify_sig(message, &signature).is_ok()),
            Material::Plain(key) => {
                crypto::verify(signature, message, key, self.algorithm).unwrap_or(false)
            }
        }
    }
}

impl KeySet {
    /// Keys of a set. Protects memory from a document that never ends.
    pub const KEYS_MAX: usize = 64;

    /// Entries of a document that are looked at. Protects time and memory from one of which very
    /// many are no keys. Reached: the first one beyond is skipped, with that reason.
    pub const ENTRIES_MAX: usize = 4 * Self::KEYS_MAX;

    /// Keys that a token without key id is tried with, the first ones of its algorithm. Protects
    /// the processor: each costs a signature check.
    pub const TRIED_MAX: usize = 8;

    /// Reads a document: RSA keys check RS256, P-256 keys ES256, Ed25519 keys EdDSA. Everything
    /// else is skipped with its reason, symmetric keys above all: whoever can read a public
    /// document could sign with them.
    ///
    /// Of two keys with one id and one algorithm the first wins: a token must name one key.
    ///
    /// # Errors
    /// [`KeySetError`] when no usable key remains.
    ///
    /// Source: RFC 7517, RFC 7518 §6, RFC 8037 §2; RFC 8259 §8.1 for its encoding.
    pub fn parse(document: &[u8]) -> Result<(Self, Vec<SkippedKey>), KeySetError> {
        // Members that nobody asks for are skipped by readers, whatever bytes they are made of.
        let text = str::from_utf8(document).map_err(|_| KeySetError::Malformed)?;
        // Derived readers also take a list of members in their order.
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(KeySetError::Malformed);
        }
        let document: Document = serde_json::from_str(text).map_err(|_| KeySetError::Malformed)?;
        let mut keys: Vec<Key> = Vec::new();
        let mut skipped = Vec::new();
        if document.keys.len() > Self::ENTRIES_MAX {
            let index = Self::ENTRIES_MAX;
            skipped.push(SkippedKey { index, reason: "this and what follows is not looked at" });
        }
        for (index, value) in document.keys.into_iter().take(Self::ENTRIES_MAX).enumerate() {
            let key = if keys.len() < Self::KEYS_MAX {
                parse_key(value)
            } else {
                Err("more keys than are kept")
            };
            match key {
                Ok(key) if keys.iter().any(|known| known.shares_name_with(&key)) => {
                    skipped.push(SkippedKey { index, reason: "an earlier key has its id" });
                }
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(SkippedKey { index, reason }),
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok((Self { keys }, skipped))
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has no key, as before the first fetch.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is known of its keys, in the document's order.
    pub fn facts(&self) -> impl Iterator<Item = KeyFacts<'_>> {
        self.keys.iter().map(Key::facts)
    }

    /// The keys a token with this key id may have been signed with; all, if it names none.
    pub(crate) fn candidates(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Fields {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn parse_key(value: Value) -> Result<Key, &'static str> {
    if !value.is_object() {
        return Err("not a key");
    }
    let fields: Fields = serde_json::from_value(value).map_err(|_| "not a key")?;
    if fields.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err("not for signatures");
    }
    let may_verify = |operations: &Vec<String>| operations.iter().any(|name| name == "verify");
    if !fields.key_ops.as_ref().is_none_or(may_verify) {
        return Err("not for verifying");
    }
    let (algorithm, name, material) = match (fields.kty.as_str(), fields.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256", Material::Plain(rsa(&fields)?)),
        ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", Material::Prepared(p256(&fields)?)),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", Material::Plain(ed25519(&fields)?)),
        ("oct", _) => return Err("a symmetric key in a public document"),
        _ => return Err("an unknown kind of key"),
    };
    // RFC 9864 names the curve's own algorithm beside the older name of the family.
    let is_own = |alg: &str| alg == name || (name == "EdDSA" && alg == "Ed25519");
    if !fields.alg.as_deref().is_none_or(is_own) {
        return Err("an algorithm we do not check");
    }
    let print = KeyPrint::of(name, &fields);
    Ok(Key { id: fields.kid, algorithm, print, name, material })
}

impl KeyPrint {
    fn of(algorithm: &str, fields: &Fields) -> Self {
        let Fields { kid, n, e, x, y, .. } = fields;
        let mut digest = Context::new(&SHA256);
        digest.update(algorithm.as_bytes());
        for part in [kid, n, e, x, y] {
            // Lengths keep parts apart; a part that is not there is not an empty one.
            let len = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            digest.update(&len.to_be_bytes());
            digest.update(part.as_deref().unwrap_or_default().as_bytes());
        }
        let digest = digest.finish();
        Self(digest.as_ref()[..16].try_into().expect("a digest has 32 bytes"))
    }
}

fn rsa(fields: &Fields) -> Result<DecodingKey, &'static str> {
    let modulus = bytes(fields.n.as_ref())?;
    let exponent = bytes(fields.e.as_ref())?;
    let significant = modulus.iter().skip_while(|&&byte| byte == 0).count();
    if !(RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&significant) {
        return Err("an RSA key of unacceptable size");
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn p256(fields: &Fields) -> Result<ParsedPublicKey, &'static str> {
    let (x, y) = (bytes(fields.x.as_ref())?, bytes(fields.y.as_ref())?);
    if x.len() != 32 || y.len() != 32 {
        return Err("a P-256 key of wrong length");
    }
    let point = [[UNCOMPRESSED].as_slice(), &x, &y].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| "no point of P-256")
}

fn ed25519(fields: &Fields) -> Result<DecodingKey, &'static str> {
    let key = bytes(fields.x.as_ref())?;
    if key.len() != 32 {
        return Err("an Ed25519 key of wrong length");
    }
    Ok(DecodingKey::from_ed_der(&key))
}

fn bytes(text: Option<&String>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or(INCOMPLETE)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| INCOMPLETE)
}

const INCOMPLETE: &str = "an incomplete key";

/// Stands before the two coordinates of a point. Source: SEC 1, §2.3.3.
const UNCOMPRESSED: u8 = 4;

/// 2048 bits: the shortest that is still accepted by anybody. Source: NIST SP 800-131A.
const RSA_BYTES_MIN: usize = 256;
/// 8192 bits: the longest the verifier takes.
const RSA_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode([9; 32])})
    }

    #[track_caller]
    fn reason(key: Value) -> &'static str {
        let document = json!({"keys": [ed("good"), key]}).to_string();
        let (set, skipped) = KeySet::parse(document.as_bytes()).unwrap();
        assert_eq!(set.len(), 1, "{skipped:?}");
        assert_eq!(skipped[0].index, 1);
        skipped[0].reason
    }

    #[test]
    fn an_unusable_key_does_not_spoil_the_others() {
        assert_eq!(reason(json!("x")), "not a key");
        let x = URL_SAFE_NO_PAD.encode([9; 32]);
        let list = json!(["OKP", "Ed25519", null, null, null, null, null, null, x, null]);
        assert_eq!(reason(list), "not a key");
        assert_eq!(reason(json!({"kty": "XYZ"})), "an unknown kind of key");
        assert_eq!(reason(json!({"kty": "RSA"})), "an incomplete key");
        assert_eq!(reason(json!({"kty": "EC", "crv": "secp256k1"})), "an unknown kind of key");
    }

    #[test]
    fn a_symmetric_key_is_never_used() {
        let key = json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"});
        assert_eq!(reason(key), "a symmetric key in a public document");
    }

    #[test]
    fn a_short_rsa_key_is_not_used() {
        let key = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([1; 128]), "e": "AQAB"});
        assert_eq!(reason(key), "an RSA key of unacceptable size");
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_not_used() {
        let [x, y] = [1, 2].map(|byte| URL_SAFE_NO_PAD.encode([byte; 32]));
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        assert_eq!(reason(key), "no point of P-256");
    }

    #[test]
    fn a_key_for_another_purpose_or_algorithm_is_not_used() {
        let mut key = ed("k");
        key["use"] = json!("enc");
        assert_eq!(reason(key), "not for signatures");
        let mut key = ed("k");
        key["key_ops"] = json!(["sign"]);
        assert_eq!(reason(key), "not for verifying");
        let mut key = ed("k");
        key["alg"] = json!("RS256");
        assert_eq!(reason(key), "an algorithm we do not check");
    }

    #[test]
    fn a_document_that_is_not_utf_8_is_no_key_set() {
        let mut document = json!({"x": "?", "keys": [ed("k")]}).to_string().into_bytes();
        assert!(KeySet::parse(&document).is_ok());
        let place = document.iter().position(|&byte| byte == b'?').expect("a place");
        document[place] = 0xa5;
        assert_eq!(KeySet::parse(&document).unwrap_err(), KeySetError::Malformed);
    }

    #[test]
    fn a_document_without_usable_keys_is_an_error() {
        let list = json!([[ed("k")]]).to_string();
        for malformed in ["", "[]", &list, "{}", r#"{"keys":1}"#] {
            let error = KeySet::parse(malformed.as_bytes()).unwrap_err();
            assert_eq!(error, KeySetError::Malformed, "{malformed}");
        }
        let error = KeySet::parse(br#"{"keys":[{"kty":"oct"}]}"#).unwrap_err();
        assert_eq!(error, KeySetError::Empty);
    }

    #[test]
    fn of_two_keys_with_one_id_the_first_wins_unless_they_check_different_algorithms() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let other = json!({"kty": "OKP", "crv": "Ed25519", "kid": "good", "x": x});
        assert_eq!(reason(other), "an earlier key has its id");
        let rsa = json!({
            "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([1; 256]), "e": "AQAB", "kid": "good",
        });
        let nameless = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        let document = json!({"keys": [ed("good"), rsa, nameless, nameless]}).to_string();
        assert_eq!(KeySet::parse(document.as_bytes()).unwrap().0.len(), 4);
    }

    #[test]
    fn another_key_under_an_old_id_has_another_print() {
        let print = |key: Value| {
            let document = json!({ "keys": [key] }).to_string();
            let (set, _) = KeySet::parse(document.as_bytes()).unwrap();
            set.facts().next().unwrap().print
        };
        let mut other = ed("k");
        other["x"] = json!(URL_SAFE_NO_PAD.encode([8; 32]));
        assert_eq!(print(ed("k")), print(ed("k")));
        assert_ne!(print(ed("k")), print(ed("l")));
        assert_ne!(print(ed("k")), print(other));
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let keys: Vec<_> = (0..100).map(|n| ed(&n.to_string())).collect();
        let document = json!({ "keys": keys }).to_string();
        let (set, skipped) = KeySet::parse(document.as_bytes()).unwrap();
        assert_eq!((set.len(), skipped.len()), (KeySet::KEYS_MAX, 36));
    }

    #[test]
    fn of_very_many_entries_that_are_no_keys_few_are_looked_at() {
        let mut entries = vec![ed("k")];
        entries.resize(130_000, json!(0));
        let document = json!({ "keys": entries }).to_string();
        let (set, skipped) = KeySet::parse(document.as_bytes()).unwrap();
        assert_eq!((set.len(), skipped.len()), (1, KeySet::ENTRIES_MAX));
        assert_eq!(skipped[0].index, KeySet::ENTRIES_MAX, "it says where it ended");
    }
}
