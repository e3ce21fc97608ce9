//! What travels through the ring with an operation and comes back with its completions.

use crate::Key;

/// Which operation of which connection.
///
/// Shape: `kind` in the top byte, the slot in the next three, the generation in the lower half.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) key: Key,
}

/// What was asked. The order is that of the encoding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    Accept,
    Bell,
    Cancel,
    Close,
    Receive,
    Send,
    Shutdown,
    /// Of a connection: a plain descriptor is made for its socket.
    Export,
    /// Of a place in the table, which the key's slot names: it is emptied.
    Vacate,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Accept,
        Self::Bell,
        Self::Cancel,
        Self::Close,
        Self::Receive,
        Self::Send,
        Self::Shutdown,
        Self::Export,
        Self::Vacate,
    ];
}

impl Token {
    pub(super) fn new(kind: Kind, key: Key) -> Self {
        Self { kind, key }
    }

    /// The token of an operation that belongs to no connection.
    pub(super) fn of_driver(kind: Kind) -> Self {
        Self { kind, key: Key { slot: 0, generation: 0 } }
    }

    pub(super) fn encode(self) -> u64 {
        let Key { slot, generation } = self.key;
        debug_assert!(slot < Key::SLOT_MAX, "the table refuses such slots");
        u64::from(self.kind as u8) << 56 | u64::from(slot) << 32 | u64::from(generation)
    }

    /// # Panics
    /// When the value was never a token: the kernel returns what it was given.
    pub(super) fn decode(value: u64) -> Self {
        let [kind, high, middle, low, ..] = value.to_be_bytes();
        let slot = u32::from_be_bytes([0, high, middle, low]);
        let kind = Kind::ALL[usize::from(kind)];
        Self { kind, key: Key { slot, generation: value as u32 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_with_its_key() {
        let keys = [
            Key { slot: 0, generation: 0 },
            Key { slot: Key::SLOT_MAX - 1, generation: u32::MAX },
            Key { slot: 1, generation: 2 },
        ];
        for kind in Kind::ALL {
            for key in keys {
                let token = Token::new(kind, key);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }
}
