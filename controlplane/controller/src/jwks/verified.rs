//! Tokens whose signature was checked before.

use relay_admission::KeyPrint;

use crate::question::Printer;

/// Remembers which tokens a key was found to have signed, so that a client that comes back with its
/// token costs a digest instead of a signature check. What was signed stays signed: times, issuer
/// and audience are judged anew each time, and a key that is in no set any more is not asked about.
///
/// Shape: a table of pairs of digests of token and key, keyed with randomness of this process; of
/// each pair the older goes. No token is kept, and without the key of this process nobody can make
/// a token that is taken for one of these. Memory: 32 bytes for each pair, touched as it is used.
pub(super) struct VerifiedTokens {
    printer: Printer,
    pairs: Box<[[u128; 2]]>,
}

/// A token, and a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TokenPrint(u128);

impl VerifiedTokens {
    /// Pairs at most: two megabytes.
    const PAIRS_MAX: usize = 1 << 16;

    /// Pairs at least.
    const PAIRS_MIN: usize = 1 << 8;

    /// Room for the tokens of so many connections, each with room beside it.
    pub(super) fn of(connections: usize) -> Self {
        let pairs = connections.clamp(Self::PAIRS_MIN, Self::PAIRS_MAX).next_power_of_two();
        Self { printer: Printer::new(), pairs: vec![[EMPTY; 2]; pairs].into_boxed_slice() }
    }

    /// Stands for a token and the key that may have signed it. Cost: a SHA-256 of the token.
    pub(super) fn print(&self, token: &str, key: KeyPrint) -> TokenPrint {
        let digest = self.printer.digest(&[key.as_bytes(), token.as_bytes()]);
        TokenPrint(u128::from_le_bytes(digest).max(EMPTY + 1))
    }

    /// Whether this key was found to have signed this token.
    pub(super) fn contains(&self, TokenPrint(print): TokenPrint) -> bool {
        self.pairs[self.place(print)].contains(&print)
    }

    /// This key has signed this token.
    pub(super) fn insert(&mut self, TokenPrint(print): TokenPrint) {
        let place = self.place(print);
        let pair = &mut self.pairs[place];
        if !pair.contains(&print) {
            *pair = [print, pair[0]];
        }
    }

    fn place(&self, print: u128) -> usize {
        // The number of pairs is a power of two, and a digest's low bits are as good as any.
        print as usize & (self.pairs.len() - 1)
    }
}

const EMPTY: u128 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_itself_and_its_key() {
        let mut verified = VerifiedTokens::of(1);
        let keys = crate::key_book::tests::prints(2);
        let good = verified.print("token-a", keys[0]);
        assert!(!verified.contains(good));
        verified.insert(good);
        assert!(verified.contains(good));
        assert!(!verified.contains(verified.print("token-a", keys[1])));
        assert!(!verified.contains(verified.print("token-b", keys[0])));
    }

    #[test]
    fn most_of_those_it_has_room_for_are_remembered_and_memory_is_bounded() {
        let mut verified = VerifiedTokens::of(1000);
        let key = KeyPrint::default();
        let prints = (0..1000).map(|n| verified.print(&format!("token-{n}"), key));
        let prints: Vec<_> = prints.collect();
        prints.iter().for_each(|print| verified.insert(*print));
        let known = prints.iter().filter(|print| verified.contains(**print)).count();
        assert!(known > 850, "{known}");
        assert_eq!(verified.pairs.len(), 1024);
        assert_eq!(VerifiedTokens::of(usize::MAX).pairs.len(), VerifiedTokens::PAIRS_MAX);
    }
}
