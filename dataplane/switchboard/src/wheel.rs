//! Deadlines in a hierarchical timing wheel.

use std::iter;

use relay_contract::Tick;

/// One pending deadline. It names nothing once the deadline has fired or was cancelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

impl Default for TimerId {
    /// Names nothing.
    fn default() -> Self {
        Self { index: NONE, generation: 0 }
    }
}

/// Many deadlines, each with a key that says whose it is.
///
/// Shape: eight levels of 64 slots; a slot of the lowest level is [`Wheel::GRAIN_NS`] wide, one of
/// the next level 64 times that. A deadline lies in the lowest level whose slot still tells it from
/// the present and moves down as the present comes closer, at most seven times.
/// Units: a deadline fires at the first multiple of the grain that is not before it, never early.
/// Order: by that multiple; deadlines on the same one fire in the order of their insertion.
/// Cost: insert and cancel are O(1), firing is O(1) amortised; memory is [`Wheel::ENTRY_BYTES`] per
/// deadline of the busiest moment, and nothing is allocated until that moment is surpassed.
#[derive(Debug)]
pub struct Wheel<K> {
    /// The present, in grains. Everything before it has fired.
    position: u64,
    /// First entry of each slot, or `NONE`. Shape: level-major.
    heads: Box<[u32]>,
    /// For each level, which slots have entries.
    occupied: [u64; LEVELS],
    entries: Vec<Entry<K>>,
    /// First of the unused entries, or `NONE`.
    free: u32,
    len: usize,
}

/// Every idle connection has one, so it has no gaps: 20 bytes and a key.
#[derive(Debug)]
struct Entry<K> {
    /// When it fires.
    due: Due,
    /// Neighbours in the slot's ring; `next` alone, in the list of unused entries.
    next: u32,
    previous: u32,
    generation: u32,
    /// Index into `heads`, or `NO_SLOT` when unused.
    slot: u16,
    key: K,
}

/// A number of grains in 48 bits, which hold every one that a [`Tick`] can name. Shape: little
/// endian, aligned as its neighbours are.
#[derive(Clone, Copy, Debug)]
struct Due([u16; 3]);

impl Due {
    fn new(grains: u64) -> Self {
        Self([grains as u16, (grains >> 16) as u16, (grains >> 32) as u16])
    }

    fn grains(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

impl<K: Copy> Wheel<K> {
    /// Width of the finest slot in nanoseconds: how late a deadline may fire.
    pub const GRAIN_NS: u64 = 1_000_000;

    /// Memory of one pending deadline.
    pub const ENTRY_BYTES: usize = size_of::<Entry<K>>();

    /// An empty wheel whose present is `now`.
    pub fn new(now: Tick) -> Self {
        Self {
            position: now.0 / Self::GRAIN_NS,
            heads: vec![NONE; LEVELS * SLOTS].into_boxed_slice(),
            occupied: [0; LEVELS],
            entries: Vec::with_capacity(ENTRIES_MIN),
            free: NONE,
            len: 0,
        }
    }

    /// How many deadlines are pending.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no deadline is pending.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a deadline. One in the past fires at the next call of [`Wheel::expire`].
    pub fn insert(&mut self, at: Tick, key: K) -> TimerId {
        let due = at.0.div_ceil(Self::GRAIN_NS).max(self.position);
        let index = self.unused(Due::new(due), key);
        self.link(index);
        self.len += 1;
        TimerId { index, generation: self.entry(index).generation }
    }

    /// Takes a deadline back and returns its key, unless it has fired or was cancelled before.
    pub fn cancel(&mut self, timer: TimerId) -> Option<K> {
        let entry = self.entries.get(timer.index as usize)?;
        if entry.generation != timer.generation || entry.slot == NO_SLOT {
            return None;
        }
        Some(self.release(timer.index))
    }

    /// When [`Wheel::expire`] should be called next; `None` while nothing is pending.
    ///
    /// Never later than the earliest deadline allows. It may be earlier than that deadline, by
    /// which call the deadline only moves closer; this happens at most seven times per deadline.
    pub fn next_deadline(&self) -> Option<Tick> {
        let (_, start) = self.next_slot()?;
        Some(Tick(start.saturating_mul(Self::GRAIN_NS)))
    }

    /// Fires the first deadline that is due at `now` and returns its key. Call it until it returns
    /// `None`; deadlines may be added and cancelled in between.
    pub fn expire(&mut self, now: Tick) -> Option<K> {
        let target = now.0 / Self::GRAIN_NS;
        while let Some((slot, start)) = self.next_slot() {
            if start > target {
                break;
            }
            self.position = self.position.max(start);
            if slot < SLOTS {
                return Some(self.release(self.heads[slot]));
            }
            self.cascade(slot);
        }
        self.position = self.position.max(target);
        None
    }

    /// The pending deadlines. Order: inserting them in this order into a wheel at the same
    /// position makes them fire in the same order.
    pub fn pending(&self) -> impl Iterator<Item = (Tick, K)> + '_ {
        self.heads.iter().flat_map(|&head| self.ring(head)).map(|index| {
            let entry = self.entry(index);
            (Tick(entry.due.grains().saturating_mul(Self::GRAIN_NS)), entry.key)
        })
    }

    /// The present as the wheel knows it: a multiple of the grain.
    pub fn position(&self) -> Tick {
        Tick(self.position.saturating_mul(Self::GRAIN_NS))
    }

    /// The entries of one slot from its head on.
    fn ring(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        let first = (head != NONE).then_some(head);
        iter::successors(first, move |&index| {
            let next = self.entry(index).next;
            (next != head).then_some(next)
        })
    }

    /// The occupied slot that comes first, and the grain at which it begins.
    ///
    /// Everything on one level comes before everything on the next, and on each level the occupied
    /// slots lie after the position's own slot (at it, on the lowest level).
    fn next_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let within = self.occupied[level].trailing_zeros() as usize;
        let shift = LEVEL_BITS * level as u32;
        let above = self.position >> shift >> LEVEL_BITS << LEVEL_BITS;
        Some((level * SLOTS + within, (above | within as u64) << shift))
    }

    /// Distributes a slot of a higher level, whose time has come, over the levels below.
    fn cascade(&mut self, slot: usize) {
        let head = self.heads[slot];
        self.heads[slot] = NONE;
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        let mut index = head;
        loop {
            let next = self.entry(index).next;
            self.link(index);
            if next == head {
                return;
            }
            index = next;
        }
    }

    /// Puts an entry at the end of the slot its deadline belongs to.
    fn link(&mut self, index: u32) {
        let due = self.entry(index).due.grains();
        let level = (due ^ self.position).checked_ilog2().unwrap_or(0) / LEVEL_BITS;
        let within = (due >> (LEVEL_BITS * level)) as usize % SLOTS;
        let slot = level as usize * SLOTS + within;
        self.occupied[level as usize] |= 1 << within;
        self.entry_mut(index).slot = slot as u16;
        let head = self.heads[slot];
        if head == NONE {
            self.heads[slot] = index;
            self.join(index, index);
        } else {
            let last = self.entry(head).previous;
            self.join(last, index);
            self.join(index, head);
        }
    }

    fn join(&mut self, first: u32, second: u32) {
        self.entry_mut(first).next = second;
        self.entry_mut(second).previous = first;
    }

    /// Takes an entry out of its slot and makes it unused.
    fn release(&mut self, index: u32) -> K {
        let &Entry { next, previous, slot, key, .. } = self.entry(index);
        let slot = usize::from(slot);
        if next == index {
            self.heads[slot] = NONE;
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        } else {
            self.join(previous, next);
            if self.heads[slot] == index {
                self.heads[slot] = next;
            }
        }
        let free = self.free;
        let entry = self.entry_mut(index);
        entry.slot = NO_SLOT;
        entry.next = free;
        entry.generation = entry.generation.wrapping_add(1);
        self.free = index;
        self.len -= 1;
        key
    }

    /// An unused entry, now holding this deadline.
    fn unused(&mut self, due: Due, key: K) -> u32 {
        if self.free != NONE {
            let index = self.free;
            let entry = self.entry_mut(index);
            entry.due = due;
            entry.key = key;
            self.free = self.entry(index).next;
            return index;
        }
        let index = u32::try_from(self.entries.len()).expect("connections are numbered by u32");
        let (next, previous) = (index, index);
        self.entries.push(Entry { due, next, previous, generation: 0, slot: NO_SLOT, key });
        index
    }

    fn entry(&self, index: u32) -> &Entry<K> {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<K> {
        &mut self.entries[index as usize]
    }
}

/// Six bits of the deadline choose the slot on each level.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Eight levels hold every deadline a [`Tick`] can name: 2^64 ns are less than 2^48 grains.
const LEVELS: usize = 8;
/// Places for entries that there are from the start, touched or not. A table of this size is mapped
/// for itself, and grows without leaving smaller copies of itself behind in the heap.
const ENTRIES_MIN: usize = 1 << 13;
const NONE: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = Wheel::<u32>::GRAIN_NS;

    fn fired(wheel: &mut Wheel<u32>, now: Tick) -> Vec<u32> {
        iter::from_fn(|| wheel.expire(now)).collect()
    }

    #[test]
    fn a_deadline_fires_at_its_grain_and_not_before() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.insert(Tick(70 * MS + 1), 7);
        assert_eq!(fired(&mut wheel, Tick(71 * MS - 1)), []);
        assert_eq!(fired(&mut wheel, Tick(71 * MS)), [7]);
    }

    #[test]
    fn the_last_moment_there_is_can_be_a_deadline() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.insert(Tick(u64::MAX), 1);
        wheel.insert(Tick(u64::MAX - 3 * MS), 2);
        let last = u64::MAX.div_ceil(MS);
        assert_eq!(Due::new(last).grains(), last);
        assert_eq!(fired(&mut wheel, Tick(u64::MAX - 4 * MS)), []);
        assert_eq!(fired(&mut wheel, Tick(u64::MAX - MS)), [2]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new(Tick(500 * MS));
        wheel.insert(Tick(3), 1);
        assert_eq!(wheel.next_deadline(), Some(Tick(500 * MS)));
        assert_eq!(fired(&mut wheel, Tick(500 * MS)), [1]);
    }

    #[test]
    fn a_cancelled_deadline_never_fires_and_its_id_names_no_later_one() {
        let mut wheel = Wheel::new(Tick(0));
        let first = wheel.insert(Tick(5 * MS), 1);
        assert_eq!(wheel.cancel(first), Some(1));
        wheel.insert(Tick(5 * MS), 2);
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(fired(&mut wheel, Tick(9 * MS)), [2]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_end_of_time_is_a_deadline_like_any_other() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.insert(Tick(u64::MAX / MS * MS), 1);
        assert_eq!(fired(&mut wheel, Tick(u64::MAX / MS * MS - 1)), []);
        assert_eq!(fired(&mut wheel, Tick(u64::MAX)), [1]);
    }

    #[test]
    fn a_freed_entry_is_used_again() {
        let mut wheel = Wheel::new(Tick(0));
        for round in 0..1000 {
            wheel.insert(Tick(round * 7 * MS), 0);
            fired(&mut wheel, Tick(round * 7 * MS));
        }
        assert_eq!(wheel.entries.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { in_ns: u64 },
        Cancel { which: usize },
        Advance { by_ns: u64 },
        Rebuild,
    }

    fn span() -> impl Strategy<Value = u64> {
        prop_oneof![0..3 * MS, 0..200 * MS, 0..10_000 * MS, 0..u64::MAX >> 8]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => span().prop_map(|in_ns| Step::Insert { in_ns }),
            1 => any::<usize>().prop_map(|which| Step::Cancel { which }),
            2 => span().prop_map(|by_ns| Step::Advance { by_ns }),
            1 => Just(Step::Rebuild),
        ]
    }

    /// A deadline of the model: when it fires, which came first, its key.
    type Modelled = (u64, u32);

    proptest! {
        #[test]
        fn the_wheel_does_what_a_sorted_list_does(steps in prop::collection::vec(step(), 1..120)) {
            let mut wheel = Wheel::new(Tick(0));
            let mut model: Vec<Modelled> = Vec::new();
            let mut ids: Vec<(u32, TimerId)> = Vec::new();
            let mut now = 0u64;
            for (key, step) in (0u32..).zip(steps) {
                match step {
                    Step::Insert { in_ns } => {
                        let at = now.saturating_add(in_ns);
                        model.push((at.div_ceil(MS), key));
                        ids.push((key, wheel.insert(Tick(at), key)));
                    }
                    Step::Cancel { which } if !ids.is_empty() => {
                        let (key, id) = ids.swap_remove(which % ids.len());
                        let known = model.iter().any(|&(_, k)| k == key);
                        model.retain(|&(_, k)| k != key);
                        prop_assert_eq!(wheel.cancel(id), known.then_some(key));
                    }
                    Step::Cancel { .. } => {}
                    Step::Advance { by_ns } => {
                        now = now.saturating_add(by_ns);
                        model.sort();
                        let due = model.partition_point(|&(at, _)| at <= now / MS);
                        let expected: Vec<u32> = model.drain(..due).map(|(_, key)| key).collect();
                        prop_assert_eq!(fired(&mut wheel, Tick(now)), expected);
                    }
                    Step::Rebuild => {
                        let mut rebuilt = Wheel::new(wheel.position());
                        ids = wheel
                            .pending()
                            .map(|(at, key)| (key, rebuilt.insert(at, key)))
                            .collect();
                        wheel = rebuilt;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.iter().map(|&(at, _)| at).min();
                prop_assert!(wheel.next_deadline().map(|at| at.0 / MS) <= earliest);
                prop_assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
            }
        }

        #[test]
        fn following_next_deadline_misses_nothing(spans in prop::collection::vec(span(), 1..40)) {
            let mut wheel = Wheel::new(Tick(0));
            for (key, &at) in (0u32..).zip(&spans) {
                wheel.insert(Tick(at), key);
            }
            let mut calls = 0;
            let mut seen = 0;
            while let Some(at) = wheel.next_deadline() {
                for key in fired(&mut wheel, at) {
                    prop_assert_eq!(spans[key as usize].div_ceil(MS), at.0 / MS);
                    seen += 1;
                }
                calls += 1;
            }
            prop_assert_eq!(seen, spans.len());
            prop_assert!(calls <= spans.len() * LEVELS);
        }
    }
}
