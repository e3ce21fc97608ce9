//! The connections of one shard, by slot.

use relay_contract::{ConnectionId, ShardId};
use relay_driver::Key;

use crate::connection::Connection;

/// A slab whose slots carry a generation: a reused slot is a different connection.
///
/// Shape: slots are dense from zero; the lowest free ones are reused last-in first-out. Cost: O(1).
pub(crate) struct Table {
    shard: ShardId,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Memory of one slot, taken or free.
pub(crate) const SLOT_BYTES: usize = size_of::<Slot>();
const _: () = assert!(SLOT_BYTES <= 112, "half a million idle connections have a slot each");

/// Slots that there are from the start, touched or not. A table of this size is mapped for itself,
/// and grows without leaving smaller copies of itself behind in the heap.
const SLOTS_MIN: usize = 1 << 11;

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Table {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, slots: Vec::with_capacity(SLOTS_MIN), free: Vec::new() }
    }

    /// Connections that hold a slot, whatever their state.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            u32::try_from(self.slots.len() - 1).expect("descriptors are fewer than 2^32")
        });
        let entry = &mut self.slots[slot as usize];
        entry.connection = Some(connection);
        Key { slot, generation: entry.generation }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.connection.as_mut()
    }

    /// A slot, taken or not. Looks at nothing but where it is.
    #[inline]
    pub(crate) fn get_ahead(&self, key: Key) -> Option<&impl Sized> {
        self.slots.get(key.slot as usize)
    }

    /// Frees the slot. The generation moves on, so what still names the old connection finds
    /// nothing.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Connection> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let connection = entry.connection.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(connection)
    }

    /// Everything in the table, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Connection)> {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| {
            Some((Key { slot, generation: entry.generation }, entry.connection.as_ref()?))
        })
    }

    /// The keys of everything in the table, in slot order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        occupied
            .map(|(slot, entry)| Key { slot: slot as u32, generation: entry.generation })
            .collect()
    }

    /// The name the other rooms know this connection by.
    #[inline]
    pub(crate) fn id(&self, key: Key) -> ConnectionId {
        ConnectionId { shard: self.shard, slot: key.slot, generation: key.generation }
    }

    /// The slot behind a name, if the name is of this shard.
    #[inline]
    pub(crate) fn key(&self, id: ConnectionId) -> Option<Key> {
        (id.shard == self.shard).then_some(Key { slot: id.slot, generation: id.generation })
    }
}
