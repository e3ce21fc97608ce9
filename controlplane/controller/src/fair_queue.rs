//! Upgrades that wait until somebody has time for them, in a fair order.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use relay_contract::{Role, WorkspaceId};

/// What waits, by key. Daemons go first, because without them their clients have nobody to talk to;
/// among equals workspaces take turns, and within one who came first is first. So a workspace with
/// five thousand waiting costs another with one no more than one turn.
///
/// Daemons go first, but not for ever: after [`DAEMONS_IN_A_ROW`] of them it is somebody else's
/// turn, so that daemons which nobody admits hold up nobody.
///
/// Its bound is that of all upgrades that wait, which the judge keeps. Cost: O(1), amortised. Who
/// leaves takes its ticket and the token in it along at once; its place goes later.
pub(crate) struct FairQueue<K, T> {
    tickets: HashMap<K, T>,
    daemons: Rounds<K>,
    others: Rounds<K>,
    daemons_in_a_row: u32,
}

/// Workspaces that take turns.
struct Rounds<K> {
    lines: HashMap<WorkspaceId, VecDeque<K>>,
    turns: VecDeque<WorkspaceId>,
    /// In all lines, also those whose ticket is gone.
    places: usize,
}

impl<K: Copy + Eq + Hash, T> FairQueue<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            tickets: HashMap::new(),
            daemons: Rounds::new(),
            others: Rounds::new(),
            daemons_in_a_row: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Takes a place, unless the key has one.
    pub(crate) fn push(&mut self, key: K, role: Role, workspace_id: &WorkspaceId, ticket: T) {
        if self.tickets.insert(key, ticket).is_some() {
            return;
        }
        let rounds = match role {
            Role::Daemon => &mut self.daemons,
            Role::Client | Role::Worker => &mut self.others,
        };
        rounds.push(key, workspace_id);
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<(K, T)> {
        let daemons_first = self.daemons_in_a_row < DAEMONS_IN_A_ROW;
        for of_daemons in [daemons_first, !daemons_first] {
            let rounds = if of_daemons { &mut self.daemons } else { &mut self.others };
            if let Some(next) = rounds.pop(&mut self.tickets) {
                self.daemons_in_a_row = if of_daemons { self.daemons_in_a_row + 1 } else { 0 };
                return Some(next);
            }
        }
        None
    }

    /// Forgets one that is gone.
    pub(crate) fn remove(&mut self, key: &K) -> Option<T> {
        let ticket = self.tickets.remove(key)?;
        let places = self.daemons.places + self.others.places;
        if places > 2 * self.tickets.len() + EMPTY_PLACES {
            self.daemons.retain(&self.tickets);
            self.others.retain(&self.tickets);
        }
        Some(ticket)
    }

    /// Everybody who waits.
    pub(crate) fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.tickets.keys().copied()
    }
}

impl<K: Copy + Eq + Hash> Rounds<K> {
    fn new() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), places: 0 }
    }

    fn push(&mut self, key: K, workspace_id: &WorkspaceId) {
        self.places += 1;
        match self.lines.get_mut(workspace_id) {
            Some(line) => line.push_back(key),
            None => {
                self.lines.insert(workspace_id.clone(), VecDeque::from([key]));
                self.turns.push_back(workspace_id.clone());
            }
        }
    }

    fn pop<T>(&mut self, tickets: &mut HashMap<K, T>) -> Option<(K, T)> {
        while let Some(workspace_id) = self.turns.pop_front() {
            let line = self.lines.get_mut(&workspace_id).expect("who has a turn has a line");
            let mut found = None;
            while found.is_none()
                && let Some(key) = line.pop_front()
            {
                self.places -= 1;
                found = tickets.remove(&key).map(|ticket| (key, ticket));
            }
            if line.is_empty() {
                self.lines.remove(&workspace_id);
            } else {
                self.turns.push_back(workspace_id);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Clears places away whose ticket is gone.
    fn retain<T>(&mut self, tickets: &HashMap<K, T>) {
        let mut places = 0;
        self.lines.retain(|_, line| {
            line.retain(|key| tickets.contains_key(key));
            places += line.len();
            !line.is_empty()
        });
        self.turns.retain(|workspace_id| self.lines.contains_key(workspace_id));
        self.places = places;
    }
}

/// Daemons before it is the turn of somebody else who waits.
const DAEMONS_IN_A_ROW: u32 = 4;

/// Places of those who left, beyond as many as there are of others, before they are cleared away.
const EMPTY_PLACES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(waiting: &[(u32, Role, &str)]) -> FairQueue<u32, ()> {
        let mut queue = FairQueue::new();
        for (key, role, workspace) in waiting {
            queue.push(*key, *role, &(*workspace).into(), ());
        }
        queue
    }

    fn popped(queue: &mut FairQueue<u32, ()>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(key, ())| key).collect()
    }

    #[test]
    fn within_a_workspace_who_comes_first_is_first_and_who_left_is_not() {
        let mut queue = queue(&[0, 1, 2, 3, 4].map(|key| (key, Role::Client, "a")));
        queue.remove(&0);
        queue.remove(&3);
        assert_eq!(popped(&mut queue), [1, 2, 4]);
    }

    #[test]
    fn a_crowd_of_one_workspace_costs_another_one_turn() {
        let mut queue = queue(&[]);
        for key in 0..5000 {
            queue.push(key, Role::Client, &"crowded".into(), ());
        }
        queue.push(5000, Role::Client, &"small".into(), ());
        let order = popped(&mut queue);
        assert_eq!(order.iter().position(|&key| key == 5000), Some(1));
        assert_eq!(order.len(), 5001);
    }

    #[test]
    fn daemons_go_first_whoever_came_before() {
        let mut queue = queue(&[
            (0, Role::Client, "a"),
            (1, Role::Worker, "a"),
            (2, Role::Daemon, "b"),
            (3, Role::Daemon, "a"),
        ]);
        assert_eq!(popped(&mut queue), [2, 3, 0, 1]);
    }

    #[test]
    fn daemons_without_end_hold_up_nobody() {
        let mut queue = queue(&[(1000, Role::Client, "a")]);
        for key in 0..100 {
            queue.push(key, Role::Daemon, &"b".into(), ());
        }
        let order = popped(&mut queue);
        let place = order.iter().position(|&key| key == 1000);
        assert_eq!(place, Some(DAEMONS_IN_A_ROW as usize));
        assert_eq!(order.len(), 101);
    }

    #[test]
    fn those_who_come_and_leave_take_no_memory() {
        let mut queue = queue(&[(0, Role::Client, "a")]);
        for key in 1..10_000 {
            queue.push(key, Role::Client, &format!("ws{key}").into(), ());
            queue.remove(&key);
        }
        assert!(queue.others.places <= 2 + EMPTY_PLACES + 1, "{} places", queue.others.places);
        assert!(queue.others.lines.len() <= queue.others.places);
        assert_eq!(queue.others.lines.len(), queue.others.turns.len());
        assert_eq!(queue.len(), 1);
        assert_eq!(popped(&mut queue), [0]);
        assert!(queue.is_empty() && queue.others.lines.is_empty());
    }

    #[test]
    fn a_key_that_comes_again_waits_once() {
        let mut queue = queue(&[(1, Role::Client, "a"), (2, Role::Client, "a")]);
        queue.remove(&1);
        queue.push(1, Role::Client, &"a".into(), ());
        assert_eq!(popped(&mut queue), [1, 2]);
    }
}
