//! A table that knows which of its entries was used least recently.

use std::time::Duration;

use relay_contract::Tick;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::key::{Key, KeyMap};

/// Values under keys, in the order of their last use.
///
/// Cost: every operation is O(1); memory is that of the fullest moment and nothing while never
/// used. Written down as that memory and the list of its entries, oldest first.
#[derive(Debug)]
pub(crate) struct Recency<V> {
    index: KeyMap<u32>,
    nodes: Vec<Node<V>>,
    /// Nodes that there was memory for at the fullest moment, here or before it was written down.
    room: u32,
    oldest: u32,
    newest: u32,
    /// The node that was looked up last.
    last: u32,
    /// First of the unused nodes, linked through `newer`.
    free: u32,
}

#[derive(Debug)]
struct Node<V> {
    key: Key,
    value: V,
    used: Tick,
    older: u32,
    newer: u32,
}

/// A place of the index: an entry and a byte that says what is in it.
const PLACE_BYTES: usize = size_of::<(Key, u32)>() + 1;

/// Places of a hash table for so many entries: a power of two, of which it fills seven eighths.
fn places(entries: usize) -> usize {
    (entries * 8).div_ceil(7).next_power_of_two()
}

impl<V: Copy> Recency<V> {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory of its own, by capacity; what was written down and restored counts as it did before.
    pub(crate) fn held_bytes(&self) -> usize {
        match self.room as usize {
            0 => 0,
            room => Self::room_bytes(room),
        }
    }

    /// Memory of a table with room for so many entries.
    pub(crate) fn room_bytes(room: usize) -> usize {
        room * size_of::<Node<V>>() + places(room) * PLACE_BYTES
    }

    /// Memory of a table that never has more entries than these, whatever comes and goes. It
    /// doubles as it grows; its index does so once more where entries that were removed leave it no
    /// room.
    pub(crate) fn bytes_max(entries: usize) -> usize {
        entries.next_power_of_two() * size_of::<Node<V>>() + places(2 * entries) * PLACE_BYTES
    }

    /// The value under a key and when it was last used.
    pub(crate) fn get(&self, key: Key) -> Option<(V, Tick)> {
        let node = self.node(*self.index.get(&key)?);
        Some((node.value, node.used))
    }

    /// Uses an entry: it becomes the newest.
    pub(crate) fn touch(&mut self, key: Key, now: Tick) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(self.renew(at, now))
    }

    /// Uses an entry whose use counts only to the `grain`: within that time of its last use it
    /// keeps its place in the order, and its date. Then neither its neighbours in that order are
    /// written to nor the newest entry, which with many keys lie far from each other in memory.
    pub(crate) fn touch_roughly(&mut self, key: Key, now: Tick, grain: Duration) -> Option<&mut V> {
        let at = self.find(key)?;
        if now.since(self.node(at).used) >= grain {
            return Some(self.renew(at, now));
        }
        self.last = at;
        Some(&mut self.node_mut(at).value)
    }

    /// Uses an entry if it has this value.
    pub(crate) fn touch_if(&mut self, key: Key, value: &V, now: Tick)
    where
        V: PartialEq,
    {
        if let Some(at) = self.find(key)
            && self.node(at).value == *value
        {
            self.renew(at, now);
        }
    }

    /// The node under a key. Whoever was used last is often used next: that costs no look-up.
    #[inline]
    fn find(&self, key: Key) -> Option<u32> {
        match self.nodes.get(self.last as usize) {
            Some(last) if last.key == key => Some(self.last),
            _ => self.index.get(&key).copied(),
        }
    }

    /// Makes a node the newest.
    fn renew(&mut self, at: u32, now: Tick) -> &mut V {
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
        self.last = at;
        let node = self.node_mut(at);
        node.used = now;
        &mut node.value
    }

    /// Adds or replaces an entry, which becomes the newest.
    pub(crate) fn put(&mut self, key: Key, value: V, now: Tick) {
        if let Some(present) = self.touch(key, now) {
            *present = value;
            return;
        }
        let node = Node { key, value, used: now, older: NONE, newer: NONE };
        let at = if self.free == NONE {
            self.nodes.push(node);
            self.room = self.room.max(u32::try_from(self.nodes.capacity()).unwrap_or(u32::MAX));
            u32::try_from(self.nodes.len() - 1).expect("limits keep tables far below 2^32 entries")
        } else {
            let at = self.free;
            self.free = self.node(at).newer;
            *self.node_mut(at) = node;
            at
        };
        self.index.insert(key, at);
        self.link(at);
        self.last = at;
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<V> {
        let at = self.index.remove(&key)?;
        self.unlink(at);
        if self.last == at {
            self.last = NONE;
        }
        let free = self.free;
        let node = self.node_mut(at);
        node.newer = free;
        let value = node.value;
        self.free = at;
        Some(value)
    }

    /// The entry that was not used for the longest time.
    pub(crate) fn oldest(&self) -> Option<(Key, V, Tick)> {
        (self.oldest != NONE).then(|| {
            let node = self.node(self.oldest);
            (node.key, node.value, node.used)
        })
    }

    /// Removes the oldest entry if it has not been used for longer than `age`.
    pub(crate) fn pop_older(&mut self, now: Tick, age: Duration) -> Option<(Key, V)> {
        let (key, value, used) = self.oldest()?;
        (now.since(used) > age).then(|| {
            self.remove(key);
            (key, value)
        })
    }

    /// Removes so many entries at most that have not been used for longer than `age`, the oldest
    /// first. Returns how many.
    pub(crate) fn prune_some(&mut self, now: Tick, age: Duration, most: usize) -> usize {
        (0..most).take_while(|_| self.pop_older(now, age).is_some()).count()
    }

    /// Removes every entry that has not been used for longer than `age`.
    pub(crate) fn prune(&mut self, now: Tick, age: Duration) {
        while self.pop_older(now, age).is_some() {}
    }

    /// Removes the oldest entries until at most `count` are left.
    pub(crate) fn shrink(&mut self, count: usize) {
        while self.len() > count
            && let Some((key, ..)) = self.oldest()
        {
            self.remove(key);
        }
    }

    /// Removes everything and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Changes every value; nothing counts as used by that.
    pub(crate) fn for_each_value(&mut self, change: impl FnMut(&mut V)) {
        // Values of unused nodes mean nothing.
        self.nodes.iter_mut().map(|node| &mut node.value).for_each(change);
    }

    /// All entries, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, V, Tick)> + '_ {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            (at != NONE).then(|| {
                let node = self.node(at);
                at = node.newer;
                (node.key, node.value, node.used)
            })
        })
    }

    /// Puts a node at the newest end.
    fn link(&mut self, at: u32) {
        let newest = self.newest;
        let node = self.node_mut(at);
        node.older = newest;
        node.newer = NONE;
        match newest {
            NONE => self.oldest = at,
            _ => self.node_mut(newest).newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let &Node { older, newer, .. } = self.node(at);
        match older {
            NONE => self.oldest = newer,
            _ => self.node_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.node_mut(newer).older = older,
        }
    }

    fn node(&self, at: u32) -> &Node<V> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<V> {
        &mut self.nodes[at as usize]
    }
}

impl<V> Default for Recency<V> {
    fn default() -> Self {
        let (index, nodes) = (KeyMap::default(), Vec::new());
        Self { index, nodes, room: 0, oldest: NONE, newest: NONE, last: NONE, free: NONE }
    }
}

impl<V: Copy + Serialize> Serialize for Recency<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries: Vec<_> = self.iter().collect();
        (self.room, entries).serialize(serializer)
    }
}

impl<'de, V: Copy + Deserialize<'de>> Deserialize<'de> for Recency<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (room, entries) = <(u32, Vec<(Key, V, Tick)>)>::deserialize(deserializer)?;
        let mut table = Self { room, ..Self::default() };
        for (key, value, used) in entries {
            table.put(key, value, used);
        }
        Ok(table)
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::Keyer;

    fn key(number: u8) -> Key {
        Keyer::new([0; 16]).text(&[number])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Touch(u8),
        Remove(u8),
        Prune(u64),
        Shrink(usize),
        Rewrite,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20u8).prop_map(Step::Put),
            2 => (0..20u8).prop_map(Step::Touch),
            2 => (0..20u8).prop_map(Step::Remove),
            1 => (0..30u64).prop_map(Step::Prune),
            1 => (0..10usize).prop_map(Step::Shrink),
            1 => Just(Step::Rewrite),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_in_order_of_use_does(
            steps in prop::collection::vec(step(), 1..150),
        ) {
            let mut table = Recency::<u64>::default();
            let mut model: Vec<(Key, u64, Tick)> = Vec::new();
            for (now, step) in (0u64..).zip(steps) {
                let now = Tick(now);
                match step {
                    Step::Put(number) => {
                        table.put(key(number), now.0, now);
                        model.retain(|entry| entry.0 != key(number));
                        model.push((key(number), now.0, now));
                    }
                    Step::Touch(number) => {
                        let found = model.iter().position(|entry| entry.0 == key(number));
                        let touched = table.touch(key(number), now).copied();
                        prop_assert_eq!(touched, found.map(|at| model[at].1));
                        if let Some(at) = found {
                            let entry = model.remove(at);
                            model.push((entry.0, entry.1, now));
                        }
                    }
                    Step::Remove(number) => {
                        let found = model.iter().position(|entry| entry.0 == key(number));
                        let removed = found.map(|at| model.remove(at).1);
                        prop_assert_eq!(table.remove(key(number)), removed);
                    }
                    Step::Prune(age) => {
                        table.prune(now, Duration::from_nanos(age));
                        model.retain(|entry| now.0 - entry.2.0 <= age);
                    }
                    Step::Shrink(count) => {
                        table.shrink(count);
                        model.drain(..model.len().saturating_sub(count));
                    }
                    Step::Rewrite => {
                        let held = table.held_bytes();
                        let bytes = postcard::to_allocvec(&table).unwrap();
                        table = postcard::from_bytes(&bytes).unwrap();
                        prop_assert_eq!(table.held_bytes(), held);
                    }
                }
                prop_assert_eq!(table.iter().collect::<Vec<_>>(), model.clone());
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
