//! The keys that connections were admitted under, numbered, and which of them were withdrawn.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use relay_admission::KeySet;
use relay_contract::Tick;

use crate::decide::SignedWith;
use crate::facts::KeyNumber;
use crate::jwks::IssuerNumber;

/// Gives keys numbers, so that a seat of the ledger remembers its key in two bytes.
///
/// A key is *signed with* when its signature was checked here; of others only the name is known,
/// from tokens that the platform accepted. Those are never withdrawn.
#[derive(Debug, Default)]
pub(crate) struct KeyBook {
    numbers: HashMap<Known, KeyNumber>,
    /// By number, from one on.
    entries: Vec<Entry>,
    /// Places of entries that nobody needs any more.
    free: Vec<usize>,
    /// When it was looked for such places last.
    reclaimed: Option<Tick>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Known {
    Key(SignedWith),
    Name(Box<str>),
}

#[derive(Debug)]
struct Entry {
    known: Known,
    id: Option<Box<str>>,
    withdrawn: Option<Tick>,
}

/// A number, and whose it was until now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) number: KeyNumber,
    /// Seats that have it must forget it first.
    pub(crate) is_reused: bool,
}

impl KeyBook {
    /// Keys with a number. Protects memory from a key server that publishes new ones for ever.
    /// Reached: those of names that no connection stands on are used again, then the number of the
    /// key withdrawn longest ago; with none withdrawn a new key has no number, and connections
    /// under it stay when it is withdrawn or revoked. That is counted, and logged.
    pub(crate) const KEYS_MAX: usize = 4096;

    /// The number of a key by which a token was checked.
    pub(crate) fn number_of(&mut self, key: SignedWith, id: Option<&str>) -> Numbered {
        self.number(Known::Key(key), id)
    }

    /// The number of a key of which the name alone is known.
    pub(crate) fn number_of_name(&mut self, id: &str) -> Numbered {
        self.number(Known::Name(id.into()), Some(id))
    }

    /// Since when a key is in no set any more.
    pub(crate) fn withdrawn_since(&self, number: KeyNumber) -> Option<Tick> {
        self.entry(number)?.withdrawn
    }

    /// What tokens call a key.
    pub(crate) fn id_of(&self, number: KeyNumber) -> Option<&str> {
        self.entry(number)?.id.as_deref()
    }

    /// The numbers of all keys of this name, whoever the issuer.
    pub(crate) fn named(&self, id: &str) -> Vec<KeyNumber> {
        let numbers = self.numbers.values();
        numbers.copied().filter(|number| self.id_of(*number) == Some(id)).collect()
    }

    /// Compares with what an issuer publishes now. Returns the keys that were withdrawn since the
    /// last time; one that is published again is withdrawn no more.
    pub(crate) fn compare(
        &mut self,
        now: Tick,
        issuer: IssuerNumber,
        keys: &KeySet,
    ) -> Vec<KeyNumber> {
        let mut withdrawn = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let Known::Key(key) = &entry.known else {
                continue;
            };
            if key.issuer != issuer {
                continue;
            }
            let is_published = keys.facts().any(|facts| facts.print == key.print);
            match (is_published, entry.withdrawn) {
                (true, _) => entry.withdrawn = None,
                (false, Some(_)) => {}
                (false, None) => {
                    entry.withdrawn = Some(now);
                    withdrawn.push(number_at(index));
                }
            }
        }
        withdrawn
    }

    /// A key that is in no set, although a connection is to be admitted under it: it was withdrawn
    /// while the platform was asked.
    pub(crate) fn withdraw(&mut self, now: Tick, number: KeyNumber) {
        let index = usize::from(number.0).checked_sub(1);
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.withdrawn.get_or_insert(now);
        }
    }

    /// Whether it is worth looking for numbers that nobody needs: all are given out, and the last
    /// look, which goes through all connections, was not a moment ago.
    pub(crate) fn wants_reclaiming(&self, now: Tick) -> bool {
        self.wants_room() && self.reclaimed.is_none_or(|at| now.since(at) >= RECLAIM_PAUSE)
    }

    /// Whether a new key finds no number that was not another's.
    pub(crate) fn wants_room(&self) -> bool {
        self.free.is_empty() && self.entries.len() >= Self::KEYS_MAX
    }

    /// Takes back the numbers of names that no connection stands on.
    pub(crate) fn reclaim(&mut self, now: Tick, used: &HashSet<KeyNumber>) {
        self.reclaimed = Some(now);
        for (index, entry) in self.entries.iter().enumerate() {
            let is_name = matches!(entry.known, Known::Name(_));
            if is_name
                && !used.contains(&number_at(index))
                && self.numbers.remove(&entry.known).is_some()
            {
                self.free.push(index);
            }
        }
    }

    fn entry(&self, number: KeyNumber) -> Option<&Entry> {
        self.entries.get(usize::from(number.0).checked_sub(1)?)
    }

    fn number(&mut self, known: Known, id: Option<&str>) -> Numbered {
        if let Some(&number) = self.numbers.get(&known) {
            return Numbered { number, is_reused: false };
        }
        let entry = Entry { known: known.clone(), id: id.map(Into::into), withdrawn: None };
        let (number, is_reused) = if let Some(index) = self.free.pop() {
            self.entries[index] = entry;
            (number_at(index), false)
        } else if self.entries.len() < Self::KEYS_MAX {
            self.entries.push(entry);
            (number_at(self.entries.len() - 1), false)
        } else {
            let old = self.entries.iter().enumerate();
            let old = old.filter_map(|(index, entry)| Some((entry.withdrawn?, index)));
            let Some((_, index)) = old.min() else {
                return Numbered { number: KeyNumber::NONE, is_reused: false };
            };
            let old = std::mem::replace(&mut self.entries[index], entry);
            self.numbers.remove(&old.known);
            (number_at(index), true)
        };
        self.numbers.insert(known, number);
        Numbered { number, is_reused }
    }
}

fn number_at(index: usize) -> KeyNumber {
    KeyNumber(u16::try_from(index + 1).expect("there are fewer keys than numbers"))
}

/// How often numbers are looked for that nobody needs.
const RECLAIM_PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(KeyBook::KEYS_MAX < u16::MAX as usize);

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const ISSUER: IssuerNumber = IssuerNumber(0);

    fn set(keys: std::ops::Range<u8>) -> KeySet {
        let keys: Vec<_> = keys
            .map(|n| {
                let x = URL_SAFE_NO_PAD.encode([n; 32]);
                json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("k{n}"), "x": x})
            })
            .collect();
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().0
    }

    fn key(n: u8) -> SignedWith {
        let set = set(n..n + 1);
        SignedWith { issuer: ISSUER, print: set.facts().next().unwrap().print }
    }

    /// Prints of so many keys.
    pub(crate) fn prints(count: u8) -> Vec<relay_admission::KeyPrint> {
        set(1..count + 1).facts().map(|key| key.print).collect()
    }

    #[test]
    fn a_key_keeps_its_number_and_its_name() {
        let mut book = KeyBook::default();
        let one = book.number_of(key(1), Some("k1")).number;
        let two = book.number_of(key(2), Some("k2")).number;
        assert_ne!(one, two);
        assert_eq!(book.number_of(key(1), Some("k1")).number, one);
        assert_eq!(book.id_of(one), Some("k1"));
        let by_name = book.number_of_name("k1").number;
        let mut named = book.named("k1");
        named.sort_unstable();
        assert_eq!(named, [one, by_name]);
        assert_eq!(book.id_of(KeyNumber::NONE), None);
    }

    #[test]
    fn a_key_that_is_published_no_more_is_withdrawn_once_and_may_come_back() {
        let mut book = KeyBook::default();
        let one = book.number_of(key(1), Some("k1")).number;
        let two = book.number_of(key(2), Some("k2")).number;
        book.number_of_name("k1");
        assert_eq!(book.compare(Tick(1), ISSUER, &set(1..3)), []);
        assert_eq!(book.compare(Tick(2), ISSUER, &set(2..4)), [one]);
        assert_eq!(book.compare(Tick(3), ISSUER, &set(2..4)), []);
        assert_eq!(book.withdrawn_since(one), Some(Tick(2)));
        assert_eq!(book.withdrawn_since(two), None);
        assert_eq!(book.compare(Tick(4), ISSUER, &set(1..3)), []);
        assert_eq!(book.withdrawn_since(one), None);
        assert_eq!(book.compare(Tick(5), IssuerNumber(1), &set(9..10)), [], "of another issuer");
    }

    #[test]
    fn a_key_server_without_end_takes_bounded_memory() {
        let mut book = KeyBook::default();
        let first = book.number_of(key(1), Some("k1")).number;
        for n in 1..KeyBook::KEYS_MAX {
            book.number_of_name(&n.to_string());
        }
        let none = Numbered { number: KeyNumber::NONE, is_reused: false };
        assert_eq!(book.number_of(key(2), Some("k2")), none);
        book.compare(Tick(1), ISSUER, &set(2..3));
        let reused = Numbered { number: first, is_reused: true };
        assert_eq!(book.number_of(key(2), Some("k2")), reused);
        assert_eq!(book.withdrawn_since(first), None);
        assert_eq!(book.entries.len(), KeyBook::KEYS_MAX);
        assert_eq!(book.numbers.len(), KeyBook::KEYS_MAX);
    }

    #[test]
    fn names_that_nobody_stands_on_make_room_for_others() {
        let mut book = KeyBook::default();
        let now = Tick::from_millis(5000);
        let first = book.number_of_name("name 0").number;
        for n in 1..KeyBook::KEYS_MAX {
            book.number_of_name(&format!("name {n}"));
        }
        assert_eq!(book.number_of_name("one more").number, KeyNumber::NONE);
        assert!(book.wants_reclaiming(now));
        book.reclaim(now, &HashSet::from([first]));
        let next = book.number_of_name("one more");
        assert!(next.number != KeyNumber::NONE && next.number != first && !next.is_reused);
        assert_eq!((book.named("name 0"), book.named("name 1")), (vec![first], vec![]));
        for n in 2..KeyBook::KEYS_MAX {
            book.number_of_name(&format!("other {n}"));
        }
        assert_eq!(book.number_of_name("beyond").number, KeyNumber::NONE);
        assert!(!book.wants_reclaiming(now), "a look costs too much to be taken at once again");
        assert!(book.wants_reclaiming(now.after(RECLAIM_PAUSE)));
    }
}
