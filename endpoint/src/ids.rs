//! Names of sessions, conversations and messages.

use std::fmt;
use std::sync::Arc;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

/// A session as both ends and the relay call it.
///
/// Shape: shared text; a clone is a reference count. Ours are `rs_` and 24 hex digits.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new name nobody can guess.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(hex_name::<12>("rs_", rng).into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SessionId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for SessionId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One client's chain of sessions at a daemon. It stays the same when keys rotate.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConversationId(pub u64);

/// One text handed to an end for sending; unique within that end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(pub u64);

/// A new `requestId` of a key exchange: `kex-` and 16 hex digits.
pub(crate) fn request_id(rng: &mut impl CryptoRng) -> Box<str> {
    hex_name::<8>("kex-", rng).into()
}

/// `prefix` and `N` random bytes in hex.
pub(crate) fn hex_name<const N: usize>(prefix: &str, rng: &mut impl CryptoRng) -> String {
    use fmt::Write;
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    let mut name = String::with_capacity(prefix.len() + 2 * N);
    name.push_str(prefix);
    for byte in bytes {
        write!(name, "{byte:02x}").expect("writing to a String cannot fail");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn names_have_the_customary_form() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let session = SessionId::random(&mut rng);
        assert_eq!(session.as_str().len(), 27);
        assert!(session.as_str().starts_with("rs_"));
        let request = request_id(&mut rng);
        assert_eq!(request.len(), 20);
        assert!(request.starts_with("kex-"));
        assert_ne!(request, request_id(&mut rng));
    }
}
