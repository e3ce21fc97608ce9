//! AES-256-GCM with detached tags, the one cipher of this wire.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

/// Bytes of an AES-256 key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of an authentication tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;

/// A key that was expanded once. The expanded key is wiped when dropped.
pub(crate) struct Cipher(Aes256Gcm);

/// The tag does not fit. Nothing more is known, on purpose.
#[derive(Debug)]
pub(crate) struct NotAuthentic;

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// Encrypts in place and returns the tag.
    ///
    /// The caller never uses a nonce twice under one key.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        self.0
            .encrypt_inout_detached(nonce.into(), associated, text.into())
            .expect("no text in memory reaches the cipher's bound of 2^36 bytes")
            .into()
    }

    /// Decrypts in place. On failure `text` holds nothing of use.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), NotAuthentic> {
        self.0
            .decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
            .map_err(|_| NotAuthentic)
    }
}

/// 32 secret bytes derived by HKDF-SHA256. Source: RFC 5869.
pub(crate) fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    expand(salt, secret, info, key.as_mut());
    key
}

/// Fills `out`, at most 255 × 32 bytes, by HKDF-SHA256.
pub(crate) fn expand(salt: &[u8], secret: &[u8], info: &[u8], out: &mut [u8]) {
    hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), secret)
        .expand(info, out)
        .expect("callers ask for at most 96 bytes, the bound is 8,160");
}
