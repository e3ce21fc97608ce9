//! Upgrades that wait until somebody has time for them.

use std::collections::{HashMap, VecDeque};

use relay_contract::{ConnectionId, Secret, UpgradeRequest};

/// An upgrade whose token is to be judged.
pub(crate) struct Ticket {
    pub(crate) request: UpgradeRequest,
    pub(crate) token: Secret,
}

/// Tickets, and what is known of them, in the order in which they came. Its bound is that of all
/// upgrades that wait, which the judge keeps: each waiting upgrade has one ticket at most.
///
/// Cost: O(1), amortised. Who leaves takes its ticket and the token in it along at once; its place
/// goes later.
pub(crate) struct Queue<T> {
    order: VecDeque<ConnectionId>,
    tickets: HashMap<ConnectionId, T>,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { order: VecDeque::new(), tickets: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(crate) fn push(&mut self, connection: ConnectionId, ticket: T) {
        if self.tickets.insert(connection, ticket).is_none() {
            self.order.push_back(connection);
        }
    }

    /// Who has waited longest.
    pub(crate) fn pop(&mut self) -> Option<(ConnectionId, T)> {
        while let Some(connection) = self.order.pop_front() {
            if let Some(ticket) = self.tickets.remove(&connection) {
                return Some((connection, ticket));
            }
        }
        None
    }

    /// Forgets one that is gone.
    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        let is_there = self.tickets.remove(&connection).is_some();
        if is_there && self.order.len() > 2 * self.tickets.len() + EMPTY_PLACES {
            self.order.retain(|connection| self.tickets.contains_key(connection));
        }
    }

    /// Everybody who waits.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.tickets.keys().copied()
    }
}

/// Places of those who left, beyond as many as there are of others, before they are cleared away.
const EMPTY_PLACES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, ..ConnectionId::default() }
    }

    fn popped(queue: &mut Queue<()>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(connection, _)| connection.slot).collect()
    }

    #[test]
    fn who_comes_first_is_asked_about_first_and_who_left_is_not() {
        let mut queue = Queue::new();
        for slot in 0..5 {
            queue.push(connection(slot), ());
        }
        queue.remove(connection(0));
        queue.remove(connection(3));
        assert_eq!(popped(&mut queue), [1, 2, 4]);
    }

    #[test]
    fn those_who_come_and_leave_take_no_memory() {
        let mut queue = Queue::new();
        queue.push(connection(0), ());
        for slot in 1..10_000 {
            queue.push(connection(slot), ());
            queue.remove(connection(slot));
        }
        assert!(queue.order.len() <= 2 + EMPTY_PLACES + 1, "{} places", queue.order.len());
        assert!(!queue.is_empty());
        assert_eq!(popped(&mut queue), [0]);
        assert!(queue.is_empty());
    }
}
