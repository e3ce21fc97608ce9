//! Fixed-size names for texts that peers choose.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Stands for a text, or a list of texts, of any length. Two texts with the same key are taken for
/// the same text: with 128 bits and a secret hash key nobody can bring that about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub(crate) struct Key(u64, u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Makes keys. Cost: no allocation, one pass.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Keyer {
    secret: [u8; 16],
}

impl Keyer {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// The key of one text.
    pub(crate) fn text(&self, text: &[u8]) -> Key {
        self.texts([text])
    }

    /// The key of a list of texts; where one ends and the next begins counts.
    pub(crate) fn texts<const N: usize>(&self, texts: [&[u8]; N]) -> Key {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        for text in texts {
            hasher.write(text);
            hasher.write_u64(text.len() as u64);
        }
        let hash = hasher.finish128();
        Key(hash.h1, hash.h2)
    }
}

impl std::fmt::Debug for Keyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyer(..)")
    }
}

/// A table of things under keys.
pub(crate) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<Direct>>;

/// Takes half of a key as its hash: keys are hashes already, and unpredictable ones.
#[derive(Debug, Default)]
pub(crate) struct Direct(u64);

impl Hasher for Direct {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_text_ends_and_the_next_begins_counts() {
        let keyer = Keyer::new([7; 16]);
        assert_ne!(keyer.texts([b"a:b", b""]), keyer.texts([b"a", b":b"]));
        assert_ne!(keyer.texts([b"ab", b"c"]), keyer.texts([b"a", b"bc"]));
    }

    #[test]
    fn another_secret_gives_other_keys() {
        assert_ne!(Keyer::new([1; 16]).text(b"x"), Keyer::new([2; 16]).text(b"x"));
    }
}
