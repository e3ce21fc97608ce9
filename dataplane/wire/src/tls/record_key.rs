//! Opening and sealing of single records.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};

use super::direction::IV_BYTES;
use super::record::SEALED_VERSION;
use super::{Aead, ContentType, Direction, HEADER_BYTES, PLAIN_BYTES_MAX, RecordError, Version};

/// The key of one direction, ready for use, and the number of the next record.
///
/// Cost: an allocation of about 600 bytes when made, none when used.
pub struct RecordKey {
    direction: Direction,
    key: LessSafeKey,
    iv: [u8; IV_BYTES],
}

/// A record after it was opened in place.
pub(super) struct Opened {
    pub(super) kind: ContentType,
    /// Where in the record its content lies.
    pub(super) plain: Range<usize>,
}

/// Bytes of the authentication tag of every AEAD here.
const TAG_BYTES: usize = 16;
/// Bytes of a nonce that travel with the record: TLS 1.2 with AES-GCM. Source: RFC 5288 §3.
const EXPLICIT_BYTES: usize = 8;

impl From<Direction> for RecordKey {
    fn from(direction: Direction) -> Self {
        let material = direction.material();
        let key = &material.key[..direction.aead().key_len()];
        let key = UnboundKey::new(direction.aead().algorithm(), key);
        let key = LessSafeKey::new(key.expect("the key has the algorithm's length"));
        Self { direction, key, iv: material.iv }
    }
}

impl RecordKey {
    /// The same as plain data.
    pub(super) fn direction(&self) -> &Direction {
        &self.direction
    }

    pub(super) fn version(&self) -> Version {
        self.direction.version()
    }

    /// Records under this key so far.
    pub(super) fn sequence(&self) -> u64 {
        self.direction.sequence
    }

    /// Changes to the next key, as TLS 1.3 does behind a KeyUpdate. Source: RFC 8446 §7.2.
    pub fn update(&mut self) {
        *self = Self::from(self.direction.updated());
    }

    /// Bytes of the whole record that begins here; see [`Version::record_len`].
    pub(super) fn record_len(&self, record: &[u8]) -> Result<Option<usize>, RecordError> {
        let overhead = self.explicit_len() + self.type_len() + TAG_BYTES;
        self.version().record_len(record, overhead)
    }

    /// Opens the whole record in place.
    ///
    /// Errors: it is not what the peer sealed as its next record, or no content type is in it, or
    /// too much. Its bytes are spoilt then.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        let start = HEADER_BYTES + self.explicit_len();
        let (head, body) = record.split_at_mut(start);
        let plain_len = body.len().checked_sub(TAG_BYTES).ok_or(RecordError::TooShort)?;
        let nonce = match head.get(HEADER_BYTES..) {
            Some([]) | None => self.nonce(),
            Some(explicit) => self.explicit_nonce(explicit),
        };
        let outside = ContentType(head[0]);
        let aad = self.associated_data(head, outside, plain_len);
        let aad = Aad::from(aad.bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, aad, body).map_err(|_| RecordError::NotAuthentic)?;
        self.direction.sequence += 1;
        let (kind, len) = match self.version() {
            Version::Tls12 => (outside, plain_len),
            Version::Tls13 => inner_type(&body[..plain_len])?,
        };
        if len > PLAIN_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        Ok(Opened { kind, plain: start..start + len })
    }

    /// Begins a record at the end of `out`; content follows, then [`Self::seal`]. Returns where the
    /// record begins.
    pub(super) fn begin(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.resize(start + HEADER_BYTES + self.explicit_len(), 0);
        start
    }

    /// Bytes of content so far in a record that begins at `start`.
    pub(super) fn content_len(&self, out: &[u8], start: usize) -> usize {
        out.len() - start - HEADER_BYTES - self.explicit_len()
    }

    /// Seals the record that was begun at `start` and reaches to the end of `out`.
    pub(super) fn seal(&mut self, kind: ContentType, out: &mut Vec<u8>, start: usize) {
        let plain_len = self.content_len(out, start);
        let nonce = self.nonce();
        let outside = match self.version() {
            Version::Tls12 => kind,
            Version::Tls13 => {
                out.push(kind.0);
                ContentType::APPLICATION_DATA
            }
        };
        let body_len = out.len() - start - HEADER_BYTES + TAG_BYTES;
        let [high, low] = u16::try_from(body_len).expect("records are small").to_be_bytes();
        let [major, minor] = SEALED_VERSION;
        let (head, body) = out[start..].split_at_mut(HEADER_BYTES + self.explicit_len());
        head[..HEADER_BYTES].copy_from_slice(&[outside.0, major, minor, high, low]);
        head[HEADER_BYTES..].copy_from_slice(&nonce[IV_BYTES - self.explicit_len()..]);
        let aad = self.associated_data(head, outside, plain_len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad.bytes()), body);
        let tag = tag.expect("records are far smaller than an AEAD's bound");
        out.extend_from_slice(tag.as_ref());
        self.direction.sequence += 1;
    }

    /// Adds one sealed record to `out`, for tests and tools that play the peer.
    ///
    /// # Panics
    /// When `plain` is more than [`PLAIN_BYTES_MAX`] bytes.
    pub fn seal_record(&mut self, kind: ContentType, plain: &[u8], out: &mut Vec<u8>) {
        assert!(plain.len() <= PLAIN_BYTES_MAX, "a record has a bound");
        let start = self.begin(out);
        out.extend_from_slice(plain);
        self.seal(kind, out, start);
    }

    fn explicit_len(&self) -> usize {
        match (self.version(), self.direction.aead()) {
            (Version::Tls12, Aead::Aes128Gcm | Aead::Aes256Gcm) => EXPLICIT_BYTES,
            (Version::Tls12, Aead::Chacha20Poly1305) | (Version::Tls13, _) => 0,
        }
    }

    /// Bytes of content type inside the sealed part.
    fn type_len(&self) -> usize {
        match self.version() {
            Version::Tls12 => 0,
            Version::Tls13 => 1,
        }
    }

    /// The nonce of the next record: the IV with the sequence number in its last bytes. Each number
    /// is used once per key, so each nonce is too. Source: RFC 8446 §5.3, RFC 7905 §2; for TLS 1.2
    /// with AES-GCM the peers are free in eight of its bytes.
    fn nonce(&self) -> [u8; IV_BYTES] {
        let mut nonce = self.iv;
        let sequence = self.direction.sequence.to_be_bytes();
        let tail = nonce.iter_mut().skip(IV_BYTES - sequence.len());
        tail.zip(sequence).for_each(|(byte, of_sequence)| *byte ^= of_sequence);
        nonce
    }

    /// The nonce of which the peer sent the end.
    fn explicit_nonce(&self, explicit: &[u8]) -> [u8; IV_BYTES] {
        let mut nonce = self.iv;
        nonce[IV_BYTES - explicit.len()..].copy_from_slice(explicit);
        nonce
    }

    /// Source: RFC 8446 §5.2, RFC 5246 §6.2.3.3.
    fn associated_data(&self, head: &[u8], kind: ContentType, plain_len: usize) -> AssociatedData {
        let mut data = AssociatedData { bytes: [0; 13], len: 0 };
        match self.version() {
            Version::Tls13 => data.push(&head[..HEADER_BYTES]),
            Version::Tls12 => {
                let plain_len = u16::try_from(plain_len).unwrap_or(u16::MAX);
                data.push(&self.direction.sequence.to_be_bytes());
                data.push(&[kind.0]);
                data.push(&SEALED_VERSION);
                data.push(&plain_len.to_be_bytes());
            }
        }
        data
    }
}

/// What is authenticated beside the content: 5 bytes in TLS 1.3, 13 in TLS 1.2.
struct AssociatedData {
    bytes: [u8; 13],
    len: usize,
}

impl AssociatedData {
    fn push(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The type and length of what a TLS 1.3 record carries: its last byte that is not padding, and the
/// bytes before it. Source: RFC 8446 §5.4.
fn inner_type(inner: &[u8]) -> Result<(ContentType, usize), RecordError> {
    let at = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::UnexpectedType(0))?;
    Ok((ContentType(inner[at]), at))
}
