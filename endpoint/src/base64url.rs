//! The text form of bytes on this wire: base64url without padding. Source: RFC 4648 §5.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The member is not canonical base64url without padding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotBase64Url;

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Cost: one allocation of three quarters of the text.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, NotBase64Url> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBase64Url)
}

/// Decodes exactly `N` bytes.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], NotBase64Url> {
    let mut bytes = [0; N];
    // The decoder wants room for whole groups of three, which `N` need not be.
    let decoded = decode(text)?;
    if decoded.len() != N {
        return Err(NotBase64Url);
    }
    bytes.copy_from_slice(&decoded);
    Ok(bytes)
}
