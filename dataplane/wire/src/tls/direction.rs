//! What protects one direction of a session, as plain data.

use aws_lc_rs::{aead, hkdf};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Which protocol the peers agreed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// How records are sealed. In TLS 1.3 it names the whole suite, and so the hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is its name")]
pub enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// One direction of a session as plain data: from it everything else can be derived, here or in
/// another process.
///
/// Shape: in TLS 1.3 the traffic secret, from which key, IV and the next secret follow; in TLS 1.2
/// key and IV, which last as long as the session. It has no `Debug`, and its secret is wiped when
/// dropped.
#[derive(Clone, Serialize, Deserialize)]
pub struct Direction {
    version: Version,
    aead: Aead,
    /// Records under this key so far; the number of the next one.
    pub(super) sequence: u64,
    secret: Secret,
}

/// Secret bytes; those after its use's length are zero.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Halves", into = "Halves")]
struct Secret([u8; SECRET_BYTES]);

/// Serde knows arrays up to 32 bytes.
#[derive(Clone, Serialize, Deserialize)]
struct Halves([u8; 32], [u8; SECRET_BYTES - 32]);

/// A key and what nonces are made from.
pub(super) struct Material {
    pub(super) key: Zeroizing<[u8; KEY_BYTES_MAX]>,
    pub(super) iv: [u8; IV_BYTES],
}

/// Bytes of a nonce, and of the IV it is made from.
pub(super) const IV_BYTES: usize = aead::NONCE_LEN;
const KEY_BYTES_MAX: usize = 32;
/// The longest secret: one of SHA-384.
const SECRET_BYTES: usize = 48;

impl Aead {
    /// Bytes of its key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Bytes of a traffic secret of the TLS 1.3 suite with this AEAD.
    pub const fn secret_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Chacha20Poly1305 => 32,
            Self::Aes256Gcm => 48,
        }
    }

    /// Records one key may seal. Protects confidentiality, which wears off with use. Reached: TLS
    /// 1.3 changes the key, TLS 1.2 ends the session. Source: RFC 8446 §5.5, rounded down to what
    /// rustls uses; ChaCha20-Poly1305 has no limit before the sequence number's.
    pub const fn records_max(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 24,
            Self::Chacha20Poly1305 => u64::MAX,
        }
    }

    pub(super) const fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    const fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::Chacha20Poly1305 => hkdf::HKDF_SHA256,
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
        }
    }
}

impl Direction {
    /// A direction of TLS 1.3 under an application traffic secret. `None` when the secret's length
    /// is not the suite's.
    pub fn tls13(aead: Aead, traffic_secret: &[u8], sequence: u64) -> Option<Self> {
        let secret = Secret::new(&[traffic_secret]);
        let fits = traffic_secret.len() == aead.secret_len();
        fits.then_some(Self { version: Version::Tls13, aead, sequence, secret })
    }

    /// A direction of TLS 1.2. `iv` is the whole nonce's length: with AES-GCM four bytes from the
    /// key block and eight that our explicit nonces begin from. `None` when the key's length is not
    /// the suite's.
    pub fn tls12(aead: Aead, key: &[u8], iv: &[u8; 12], sequence: u64) -> Option<Self> {
        let secret = Secret::new(&[key, iv]);
        let fits = key.len() == aead.key_len();
        fits.then_some(Self { version: Version::Tls12, aead, sequence, secret })
    }

    /// Which protocol it belongs to.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// How its records are sealed.
    pub const fn aead(&self) -> Aead {
        self.aead
    }

    /// Whether this key and IV are the ones in use: a check of where the secret came from. Not
    /// constant-time; both sides are ours.
    pub fn is_under(&self, key: &[u8], iv: &[u8]) -> bool {
        let material = self.material();
        material.key[..self.aead.key_len()] == *key && material.iv == *iv
    }

    /// The direction after a KeyUpdate. Source: RFC 8446 §7.2.
    pub(super) fn updated(&self) -> Self {
        let mut secret = Secret([0; SECRET_BYTES]);
        self.expand(b"traffic upd", &mut secret.0[..self.aead.secret_len()]);
        Self { sequence: 0, secret, ..*self }
    }

    /// The key and IV in use. Source: RFC 8446 §7.3.
    pub(super) fn material(&self) -> Material {
        let key_len = self.aead.key_len();
        let mut key = Zeroizing::new([0; KEY_BYTES_MAX]);
        let mut iv = [0; IV_BYTES];
        match self.version {
            Version::Tls13 => {
                self.expand(b"key", &mut key[..key_len]);
                self.expand(b"iv", &mut iv);
            }
            Version::Tls12 => {
                let (of_key, rest) = self.secret.0.split_at(key_len);
                key[..key_len].copy_from_slice(of_key);
                iv.copy_from_slice(&rest[..IV_BYTES]);
            }
        }
        Material { key, iv }
    }

    /// HKDF-Expand-Label with an empty context. Source: RFC 8446 §7.1.
    fn expand(&self, label: &[u8], out: &mut [u8]) {
        let out_len = u8::try_from(out.len()).expect("keys, IVs and secrets are short");
        let label_len = u8::try_from(PREFIX.len() + label.len()).expect("labels are short");
        let secret = &self.secret.0[..self.aead.secret_len()];
        hkdf::Prk::new_less_safe(self.aead.hash(), secret)
            .expand(&[&[0, out_len, label_len], PREFIX, label, &[0]], OutLen(out.len()))
            .and_then(|okm| okm.fill(out))
            .expect("HKDF gives up to 255 hashes");
    }
}

const PREFIX: &[u8] = b"tls13 ";

struct OutLen(usize);

impl hkdf::KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// The parts behind each other; what does not fit is left out.
    fn new(parts: &[&[u8]]) -> Self {
        let mut secret = Self([0; SECRET_BYTES]);
        let bytes = parts.iter().copied().flatten();
        secret.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        secret
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<Halves> for Secret {
    fn from(Halves(left, right): Halves) -> Self {
        Self::new(&[&left, &right])
    }
}

impl From<Secret> for Halves {
    fn from(secret: Secret) -> Self {
        let mut halves = Self([0; 32], [0; SECRET_BYTES - 32]);
        let (left, right) = secret.0.split_at(32);
        halves.0.copy_from_slice(left);
        halves.1.copy_from_slice(right);
        halves
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        self.0.zeroize();
        self.1.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits: Vec<_> = hexadecimal.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    #[test]
    fn a_traffic_secret_gives_the_keys_of_rfc_8448() {
        // RFC 8448 §3: "derive write traffic keys for application data".
        let server = bytes("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
        let direction = Direction::tls13(Aead::Aes128Gcm, &server, 0).expect("its length fits");
        let key = bytes("9f02283b6c9c07efc26bb9f2ac92e356");
        let iv = bytes("cf782b88dd83549aadf1e984");
        assert!(direction.is_under(&key, &iv));
        assert!(!direction.updated().is_under(&key, &iv));
    }

    #[test]
    fn a_secret_of_another_suite_is_refused() {
        assert!(Direction::tls13(Aead::Aes256Gcm, &[1; 32], 0).is_none());
        assert!(Direction::tls13(Aead::Chacha20Poly1305, &[1; 48], 0).is_none());
        assert!(Direction::tls12(Aead::Aes128Gcm, &[1; 32], &[0; 12], 0).is_none());
    }

    #[test]
    fn a_direction_survives_being_written_down() {
        let before = Direction::tls12(Aead::Aes256Gcm, &[7; 32], &[9; 12], 5).expect("it fits");
        let written = postcard::to_allocvec(&before).expect("plain data");
        let after: Direction = postcard::from_bytes(&written).expect("as written");
        assert!(after.is_under(&[7; 32], &[9; 12]));
        assert_eq!((after.sequence, after.version), (5, Version::Tls12));
    }
}
