//! The running state of a handshake: what both sides have said, and the keys that follow from it.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::aead::{Cipher, NONCE_BYTES, NotAuthentic, TAG_BYTES, expand};

/// Bytes of a hash, a chaining key and a proof.
pub(crate) const HASH_BYTES: usize = 32;

/// `ck`, `h`, `k` and `n` of the Noise specification, with this wire's little-endian nonce.
///
/// Source: Noise specification, revision 34, section 5.2; endpoint specification, section 2.
pub(crate) struct Symmetric {
    chaining_key: Zeroizing<[u8; HASH_BYTES]>,
    hash: [u8; HASH_BYTES],
    /// Absent until the first `mix_key`. This wire encrypts nothing before.
    cipher: Option<Cipher>,
    nonce: u64,
}

impl Symmetric {
    pub(crate) fn new(protocol_name: &str) -> Self {
        let mut hash = [0; HASH_BYTES];
        match hash.get_mut(..protocol_name.len()) {
            Some(start) => start.copy_from_slice(protocol_name.as_bytes()),
            None => hash = Sha256::digest(protocol_name).into(),
        }
        Self { chaining_key: Zeroizing::new(hash), hash, cipher: None, nonce: 0 }
    }

    pub(crate) fn hash(&self) -> &[u8; HASH_BYTES] {
        &self.hash
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        let mut hasher = Sha256::new();
        hasher.update(self.hash);
        hasher.update(data);
        self.hash = hasher.finalize().into();
    }

    pub(crate) fn mix_key(&mut self, secret: &[u8]) {
        let mut out = Zeroizing::new([0; 2 * HASH_BYTES]);
        expand(self.chaining_key.as_ref(), secret, &[], out.as_mut());
        let (chaining_key, key) = out.split_at(HASH_BYTES);
        self.chaining_key.copy_from_slice(chaining_key);
        self.set_key(key);
    }

    pub(crate) fn mix_key_and_hash(&mut self, secret: &[u8]) {
        let mut out = Zeroizing::new([0; 3 * HASH_BYTES]);
        expand(self.chaining_key.as_ref(), secret, &[], out.as_mut());
        let (chaining_key, rest) = out.split_at(HASH_BYTES);
        let (extra, key) = rest.split_at(HASH_BYTES);
        self.chaining_key.copy_from_slice(chaining_key);
        self.mix_hash(extra);
        self.set_key(key);
    }

    /// Returns ciphertext and tag.
    pub(crate) fn encrypt_and_hash(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(text.len() + TAG_BYTES);
        bytes.extend_from_slice(text);
        let nonce = self.next_nonce();
        let tag = self.keyed().seal(&nonce, &self.hash, &mut bytes);
        bytes.extend_from_slice(&tag);
        self.mix_hash(&bytes);
        bytes
    }

    /// The state is of no use after a failure; callers drop it.
    pub(crate) fn decrypt_and_hash(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(NotAuthentic)?;
        let mut bytes = text.to_vec();
        let nonce = self.next_nonce();
        self.keyed().open(&nonce, &self.hash, &mut bytes, tag)?;
        self.mix_hash(sealed);
        Ok(bytes)
    }

    /// `k1` and `k2`, one after the other.
    pub(crate) fn split(&self) -> Zeroizing<[u8; 2 * HASH_BYTES]> {
        let mut keys = Zeroizing::new([0; 2 * HASH_BYTES]);
        expand(self.chaining_key.as_ref(), &[], &[], keys.as_mut());
        keys
    }

    fn set_key(&mut self, key: &[u8]) {
        let key = key.try_into().expect("callers split off 32 bytes");
        self.cipher = Some(Cipher::new(key));
        self.nonce = 0;
    }

    fn keyed(&self) -> &Cipher {
        self.cipher.as_ref().expect("both patterns mix a key before they encrypt")
    }

    fn next_nonce(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_32_bytes_is_kept_and_a_longer_one_is_hashed() {
        assert_eq!(Symmetric::new("abc").hash()[..4], *b"abc\0");
        let name = "0123456789abcdef0123456789abcdef";
        assert_eq!(Symmetric::new(name).hash(), name.as_bytes());
        let long = format!("{name}!");
        let digest: [u8; 32] = Sha256::digest(&long).into();
        assert_eq!(*Symmetric::new(&long).hash(), digest);
    }

    #[test]
    fn two_states_that_heard_the_same_understand_each_other() {
        let mut a = Symmetric::new("test");
        let mut b = Symmetric::new("test");
        for state in [&mut a, &mut b] {
            state.mix_hash(b"public");
            state.mix_key(b"secret");
        }
        for text in [&b"one"[..], b"", b"three"] {
            let sealed = a.encrypt_and_hash(text);
            assert_eq!(b.decrypt_and_hash(&sealed).unwrap(), text);
        }
        assert_eq!(a.hash(), b.hash());
        assert_eq!(*a.split(), *b.split());
        assert!(b.decrypt_and_hash(&[0; 15]).is_err());
    }
}
