//! Connections by slot.

use crate::Key;

/// What a driver keeps per connection, found by its key. A key of an earlier generation finds
/// nothing.
///
/// Shape: indexed by slot; grows to the highest slot used and stays there.
pub(crate) struct Table<C> {
    slots: Vec<Option<Occupant<C>>>,
    occupied: u64,
}

/// Slots that there are from the start, touched or not. A table of this size is mapped for itself,
/// and grows without leaving smaller copies of itself behind in the heap.
const SLOTS_MIN: usize = 1 << 13;

/// Memory of one slot, taken or free.
pub(crate) const fn slot_bytes<C>() -> usize {
    size_of::<Option<Occupant<C>>>()
}

struct Occupant<C> {
    generation: u32,
    connection: C,
}

impl<C> Table<C> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::with_capacity(SLOTS_MIN), occupied: 0 }
    }

    /// Puts a connection into a free slot.
    ///
    /// # Panics
    /// When the slot is not free, or beyond [`Key::SLOT_MAX`]: the caller manages slots.
    pub(crate) fn insert(&mut self, key: Key, connection: C) {
        assert!(key.slot < Key::SLOT_MAX, "slots stay below their maximum");
        let index = key.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let slot = &mut self.slots[index];
        assert!(slot.is_none(), "a slot is used again only after it was closed or released");
        *slot = Some(Occupant { generation: key.generation, connection });
        self.occupied += 1;
    }

    pub(crate) fn find(&mut self, key: Key) -> Option<&mut C> {
        match self.slots.get_mut(key.slot as usize)? {
            Some(occupant) if occupant.generation == key.generation => {
                Some(&mut occupant.connection)
            }
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<C> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        let occupant = slot.take_if(|occupant| occupant.generation == key.generation)?;
        self.occupied -= 1;
        Some(occupant.connection)
    }

    pub(crate) fn occupied(&self) -> u64 {
        self.occupied
    }

    /// Empties the table.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = C> + '_ {
        self.occupied = 0;
        self.slots.drain(..).flatten().map(|occupant| occupant.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Key = Key { slot: 3, generation: 0 };
    const SECOND: Key = Key { slot: 3, generation: 1 };

    #[test]
    fn a_key_of_an_earlier_generation_finds_nothing() {
        let mut table = Table::new();
        table.insert(FIRST, "first");
        assert_eq!(table.remove(FIRST), Some("first"));
        table.insert(SECOND, "second");
        assert_eq!(table.find(FIRST), None);
        assert_eq!(table.remove(FIRST), None);
        assert_eq!(table.find(SECOND), Some(&mut "second"));
        assert_eq!(table.occupied(), 1);
    }

    #[test]
    #[should_panic(expected = "a slot is used again only after")]
    fn an_occupied_slot_is_not_given_twice() {
        let mut table = Table::new();
        table.insert(FIRST, ());
        table.insert(SECOND, ());
    }
}
