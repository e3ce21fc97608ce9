//! Key ids that a fresh key set did not have.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Remembers which key ids were looked for and not found, so that the same one does not cause a
/// fetch again and again. A digest of each is kept, no text that a peer chose.
///
/// Memory: [`UnknownKeys::IDS_MAX`] entries of a few words.
#[derive(Debug, Default)]
pub(super) struct UnknownKeys {
    hasher: RandomState,
    until: HashMap<u64, Instant>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl UnknownKeys {
    /// Ids remembered. Reached: the oldest is forgotten; it may cause a fetch again, at most one in
    /// a cooldown.
    pub(super) const IDS_MAX: usize = 1024;

    /// Whether this id was not found lately. A token that names no key counts as one id.
    pub(super) fn contains(&self, id: Option<&str>, now: Instant) -> bool {
        self.until.get(&self.digest(id)).is_some_and(|until| now < *until)
    }

    /// This id was not found.
    pub(super) fn insert(&mut self, id: Option<&str>, now: Instant) {
        let digest = self.digest(id);
        if self.until.insert(digest, now + REMEMBERED).is_some() {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > Self::IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// A set with other keys is in force: every id deserves another look.
    pub(super) fn clear(&mut self) {
        self.until.clear();
        self.order.clear();
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Keyed with randomness of this process: nobody can choose ids that collide.
    fn digest(&self, id: Option<&str>) -> u64 {
        self.hasher.hash_one(id)
    }
}

/// How long an id is believed to be unknown. A key that is published late is found by the schedule
/// as well.
const REMEMBERED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_id_is_remembered_for_a_while() {
        let mut unknown = UnknownKeys::default();
        let now = Instant::now();
        unknown.insert(Some("a"), now);
        unknown.insert(None, now);
        assert!(unknown.contains(Some("a"), now) && unknown.contains(None, now));
        assert!(!unknown.contains(Some("b"), now));
        assert!(!unknown.contains(Some("a"), now + REMEMBERED));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_ids_takes_bounded_memory_and_the_oldest_goes() {
        let mut unknown = UnknownKeys::default();
        let now = Instant::now();
        for n in 0..3000 {
            unknown.insert(Some(&n.to_string()), now);
        }
        assert_eq!(unknown.len(), UnknownKeys::IDS_MAX);
        assert_eq!(unknown.until.len(), UnknownKeys::IDS_MAX);
        assert!(unknown.contains(Some("2999"), now) && !unknown.contains(Some("0"), now));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_id_again_takes_no_second_place() {
        let mut unknown = UnknownKeys::default();
        for _ in 0..10 {
            unknown.insert(Some("a"), Instant::now());
        }
        assert_eq!(unknown.len(), 1);
    }
}
