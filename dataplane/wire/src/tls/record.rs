//! The form of a record: a header of five bytes and what it announces.

use super::{RecordError, Version};

/// Bytes of a record's header: type, version, length.
pub const HEADER_BYTES: usize = 5;

/// Bytes of content one record may carry. Source: RFC 8446 §5.1.
pub const PLAIN_BYTES_MAX: usize = 1 << 14;

/// Bytes of the largest record, its header included. Protects memory from records that announce
/// more. Reached: alert record_overflow. Source: RFC 5246 §6.2.3; TLS 1.3 allows less.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAIN_BYTES_MAX + 2048;

/// What a record carries. Source: RFC 8446 §5.1.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ContentType(pub u8);

impl ContentType {
    /// TLS 1.2's signal that keys change; TLS 1.3 sends it for show during the handshake.
    pub const CHANGE_CIPHER_SPEC: Self = Self(20);
    /// See [`super::Alert`].
    pub const ALERT: Self = Self(21);
    /// In an established session: KeyUpdate, or an attempt to renegotiate.
    pub const HANDSHAKE: Self = Self(22);
    /// What the session is for; in TLS 1.3 also the outside of every sealed record.
    pub const APPLICATION_DATA: Self = Self(23);
}

impl Version {
    /// Bytes of the whole record that begins here, or `None` while its header is incomplete. The
    /// header is judged as soon as it is there, so that nothing is kept for a record that will be
    /// refused.
    ///
    /// Errors: a type, version or length that no sealed record of this version has.
    pub(super) fn record_len(
        self,
        record: &[u8],
        overhead: usize,
    ) -> Result<Option<usize>, RecordError> {
        let Some(&[kind, major, minor, high, low]) = record.first_chunk() else {
            return Ok(None);
        };
        let is_expected = match (self, ContentType(kind)) {
            (_, ContentType::APPLICATION_DATA) => true,
            (Self::Tls12, ContentType::ALERT | ContentType::HANDSHAKE) => true,
            (Self::Tls12 | Self::Tls13, _) => false,
        };
        if !is_expected {
            return Err(RecordError::UnexpectedType(kind));
        }
        if [major, minor] != SEALED_VERSION {
            return Err(RecordError::Version(u16::from_be_bytes([major, minor])));
        }
        let body_len = usize::from(u16::from_be_bytes([high, low]));
        if body_len < overhead {
            return Err(RecordError::TooShort);
        }
        if body_len > PLAIN_BYTES_MAX + self.expansion_max() {
            return Err(RecordError::TooLong);
        }
        Ok(Some(HEADER_BYTES + body_len))
    }

    /// Bytes sealing may add. Source: RFC 8446 §5.2, RFC 5246 §6.2.3.
    const fn expansion_max(self) -> usize {
        match self {
            Self::Tls12 => 2048,
            Self::Tls13 => 256,
        }
    }
}

/// The version in the header of every sealed record: 1.2, also in TLS 1.3.
pub(super) const SEALED_VERSION: [u8; 2] = [3, 3];
