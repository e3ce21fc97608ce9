//! What stands behind an admission.

/// The token an upgrade showed, as far as it decides how long the connection may stay.
///
/// For the control plane alone: it travels with the [`crate::Grant`] so that whoever remembers
/// grants can tell a control plane that starts anew what it had decided. A shard drops it when it
/// opens the connection. Nothing of it is a secret, and nothing of it lets anybody in.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Credential {
    /// Who issued the token (`iss`).
    pub issuer: Option<Box<str>>,
    /// The key it was signed with (`kid`).
    pub key_id: Option<Box<str>>,
    /// Its own id (`jti`).
    pub token_id: Option<Box<str>>,
    /// Whom it is about (`sub`).
    pub subject: Option<Box<str>>,
    /// When it expires (`exp`), seconds since 1970.
    pub expires_at_secs: Option<i64>,
    /// Digest of the key by which the control plane checked its signature, if it did: what is
    /// compared with the keys that its issuer publishes later.
    pub key_print: Option<[u8; 16]>,
}
