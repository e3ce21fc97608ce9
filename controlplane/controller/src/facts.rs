//! What the ledger keeps of a connection's token: enough to end it, too little to use it.

use std::hash::{BuildHasher, RandomState};

use relay_contract::{CloseReason, ConnectionId, Credential, ShardId};

/// One of the keys that connections were admitted under, by its number in the key book.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct KeyNumber(pub(crate) u16);

impl KeyNumber {
    /// No key is known.
    pub(crate) const NONE: Self = Self(0);
}

/// Digests of what names a token and its bearer. Two that differ have different digests but for
/// once in half a thousand million; whoever is closed by such an accident connects again.
///
/// Shape: 30 bits of the token id's, 29 of the subject's, 29 of the client id's; zero for none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Prints([u8; 11]);

/// The names that prints are made of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum NameKind {
    /// `jti`
    TokenId,
    /// `sub`
    Subject,
    /// The client id of a grant.
    Client,
}

/// What a seat remembers of the token behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) key: KeyNumber,
    pub(crate) prints: Prints,
    /// When the token expires.
    pub(crate) expiry: Expiry,
}

impl Default for Facts {
    fn default() -> Self {
        Self { key: KeyNumber::NONE, prints: Prints::default(), expiry: Expiry::NEVER }
    }
}

/// A date in seconds since 1970, in half the space. Dates before are the first of them, dates after
/// the year 2105 never come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Expiry(u32);

impl Expiry {
    pub(crate) const NEVER: Self = Self(u32::MAX);

    pub(crate) fn at(secs: Option<i64>) -> Self {
        match secs {
            Some(secs) => Self(u32::try_from(secs.max(0)).unwrap_or(u32::MAX)),
            None => Self::NEVER,
        }
    }

    /// The date, unless it never comes.
    pub(crate) fn secs(self) -> Option<i64> {
        (self != Self::NEVER).then_some(i64::from(self.0))
    }
}

/// Where a connection lives.
///
/// ```text
///   Admitted ──opened──▶ Open ──dismissed──▶ Dismissed
///       └──dismissed──▶ Doomed ──opened──▶ Dismissed (told at once)
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Life {
    /// Not open yet.
    Admitted,
    /// Not open yet, and told to go as soon as it is.
    Doomed(CloseReason),
    /// At this id.
    Open(ConnectionId),
    /// It was told to go, for this reason.
    Dismissed(ConnectionId, CloseReason),
}

/// A [`Life`] in ten bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) shard: u16,
}

impl Place {
    pub(crate) fn of(life: Life) -> Self {
        let nowhere = |generation| Self { slot: NOWHERE, generation, shard: 0 };
        let (id, told) = match life {
            Life::Admitted => return nowhere(NOT_DOOMED),
            Life::Doomed(reason) => return nowhere(index_of(reason)),
            Life::Open(id) => (id, 0),
            Life::Dismissed(id, reason) => (id, TOLD | index_of(reason) << REASON_SHIFT),
        };
        // A slot is an index of connections on one shard: far fewer than 2^29.
        let slot = (id.slot & SLOT) | told;
        Self { slot, generation: id.generation, shard: id.shard.0 }
    }

    pub(crate) fn life(self) -> Life {
        if self.slot == NOWHERE {
            return match DOOMS.get(self.generation as usize) {
                Some(reason) => Life::Doomed(*reason),
                None => Life::Admitted,
            };
        }
        let id = ConnectionId {
            shard: ShardId(self.shard),
            slot: self.slot & SLOT,
            generation: self.generation,
        };
        if self.slot & TOLD == 0 {
            return Life::Open(id);
        }
        let index = (self.slot & !TOLD) >> REASON_SHIFT;
        let reason = DOOMS.get(index as usize).copied();
        Life::Dismissed(id, reason.unwrap_or(CloseReason::ClosedByOperator))
    }
}

fn index_of(reason: CloseReason) -> u32 {
    let index = DOOMS.iter().position(|doom| *doom == reason);
    index.and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
}

/// No slot has this number.
const NOWHERE: u32 = u32::MAX;
/// The bit of a slot that says that its connection was told to go.
const TOLD: u32 = 1 << 31;
/// Where behind that bit lies the number of the reason; below it is the slot.
const REASON_SHIFT: u32 = 29;
const SLOT: u32 = (1 << REASON_SHIFT) - 1;
const NOT_DOOMED: u32 = u32::MAX;

/// Why the control plane tells a connection to go.
const DOOMS: [CloseReason; 4] = [
    CloseReason::TokenRevoked,
    CloseReason::TokenExpired,
    CloseReason::KeyWithdrawn,
    CloseReason::ClosedByOperator,
];
// The last of all slots would be nowhere.
const _: () = assert!(DOOMS.len() <= 4);

/// Makes prints, keyed with randomness of this process.
#[derive(Debug, Default)]
pub(crate) struct NamePrinter(RandomState);

impl NamePrinter {
    /// The prints of a token.
    pub(crate) fn prints(&self, credential: &Credential, client: Option<&str>) -> Prints {
        let print = |kind, name: &Option<Box<str>>| {
            name.as_deref().map_or(0, |name| u128::from(self.print(kind, name)))
        };
        let token = print(NameKind::TokenId, &credential.token_id);
        let subject = print(NameKind::Subject, &credential.subject);
        let client = client.map_or(0, |name| u128::from(self.print(NameKind::Client, name)));
        let packed = token | subject << TOKEN_BITS | client << (TOKEN_BITS + NAME_BITS);
        let bytes = packed.to_le_bytes();
        let (kept, _) = bytes.split_first_chunk().expect("sixteen are more than eleven");
        Prints(*kept)
    }

    /// The print of one name; never zero.
    pub(crate) fn print(&self, kind: NameKind, name: &str) -> u32 {
        let digest = self.0.hash_one((kind, name));
        let bits = if kind == NameKind::TokenId { TOKEN_BITS } else { NAME_BITS };
        let short = (digest >> (64 - bits)) as u32;
        short.max(1)
    }
}

impl Prints {
    /// Whether a name of this kind has this print.
    pub(crate) fn has(self, kind: NameKind, print: u32) -> bool {
        let mut bytes = [0; 16];
        bytes[..11].copy_from_slice(&self.0);
        let packed = u128::from_le_bytes(bytes);
        let (shift, bits) = match kind {
            NameKind::TokenId => (0, TOKEN_BITS),
            NameKind::Subject => (TOKEN_BITS, NAME_BITS),
            NameKind::Client => (TOKEN_BITS + NAME_BITS, NAME_BITS),
        };
        (packed >> shift) & ((1 << bits) - 1) == u128::from(print)
    }
}

const TOKEN_BITS: u32 = 30;
const NAME_BITS: u32 = 29;
const _: () = assert!(TOKEN_BITS + 2 * NAME_BITS == 8 * 11);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_what_was_put_into_it() {
        let id = ConnectionId { shard: ShardId(3), slot: 77, generation: u32::MAX };
        for life in [Life::Admitted, Life::Open(id)] {
            assert_eq!(Place::of(life).life(), life);
        }
        for reason in DOOMS {
            for life in [Life::Doomed(reason), Life::Dismissed(id, reason)] {
                assert_eq!(Place::of(life).life(), life);
            }
        }
    }

    #[test]
    fn prints_tell_names_and_kinds_apart() {
        let printer = NamePrinter::default();
        let credential = Credential {
            token_id: Some("name".into()),
            subject: Some("other".into()),
            ..Credential::default()
        };
        let prints = printer.prints(&credential, Some("third"));
        let names = [
            (NameKind::TokenId, "name"),
            (NameKind::Subject, "other"),
            (NameKind::Client, "third"),
        ];
        for (kind, name) in names {
            for (_, other) in names {
                let print = printer.print(kind, other);
                assert_eq!(prints.has(kind, print), name == other, "{kind:?} {other}");
            }
        }
        let nobody = printer.prints(&Credential::default(), None);
        assert!(names.iter().all(|(kind, name)| !nobody.has(*kind, printer.print(*kind, name))));
    }

    #[test]
    fn dates_beyond_the_range_are_its_ends() {
        assert_eq!(Expiry::at(None), Expiry::NEVER);
        assert_eq!(Expiry::at(Some(i64::MAX)), Expiry::NEVER);
        assert_eq!(Expiry::at(Some(-5)).secs(), Some(0));
        assert_eq!(Expiry::at(Some(1_800_000_000)).secs(), Some(1_800_000_000));
    }
}
