//! Events of all shards.

use std::sync::Arc;

use relay_contract::Event;
use relay_mailbox::{Bell, Receiver, Ring};
use tokio::sync::Notify;

/// Receives what the shards tell, a turn of each shard in rotation, so that none is starved.
#[derive(Debug)]
pub struct Events {
    lanes: Vec<Receiver<Event>>,
    bell: Arc<Bell>,
    wakeup: Arc<Wakeup>,
    /// The lane to look at first next time.
    turn: usize,
}

impl Events {
    pub(crate) fn new(lanes: Vec<Receiver<Event>>, bell: Arc<Bell>, wakeup: Arc<Wakeup>) -> Self {
        Self { lanes, bell, wakeup, turn: 0 }
    }

    /// The next event without waiting, if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        for offset in 0..self.lanes.len() {
            let lane = (self.turn + offset) % self.lanes.len();
            if let Some(event) = self.lanes[lane].receive() {
                self.turn = lane + 1;
                return Some(event);
            }
        }
        None
    }

    /// Whether there is nothing to receive at the moment.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Receiver::is_empty)
    }

    /// Waits for the next event. `None` when every shard is gone and everything they told was
    /// received.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            self.bell.rest();
            let resting = Resting(&self.bell);
            // Whoever pushed before `rest` did not ring: look once more. Closed is asked first,
            // because a shard sends its last event before it goes.
            let closed = self.lanes.iter().all(Receiver::is_closed);
            let idle = self.lanes.iter().all(Receiver::is_empty);
            match (idle, closed) {
                (true, true) => return None,
                (true, false) => self.wakeup.0.notified().await,
                (false, _) => {}
            }
            drop(resting);
        }
    }
}

/// Takes the announcement of sleep back, also when the waiting future is dropped.
struct Resting<'a>(&'a Bell);

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.rise();
    }
}

/// Wakes the task that waits in [`Events::next`]. A ring before the wait is kept for it.
#[derive(Debug)]
pub(crate) struct Wakeup(Notify);

impl Wakeup {
    /// The wake-up and the bell that rings it.
    pub(crate) fn new() -> (Arc<Self>, Arc<Bell>) {
        let wakeup = Arc::new(Self(Notify::new()));
        let bell = Bell::new(Arc::clone(&wakeup));
        (wakeup, bell)
    }
}

impl Ring for Wakeup {
    fn ring(&self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use relay_contract::{AdmissionId, ShardId};

    use crate::{ShardSide, local};

    use super::*;

    struct Silent;

    impl Ring for Silent {
        fn ring(&self) {}
    }

    fn two_shards() -> (Events, Vec<ShardSide>) {
        let (link, sides) = local((0..2).map(|_| Bell::new(Silent)).collect());
        (link.events, sides)
    }

    fn released(n: u64) -> Event {
        Event::Released { admission: AdmissionId(n) }
    }

    fn number(event: Option<Event>) -> u64 {
        match event {
            Some(Event::Released { admission }) => admission.0,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_busy_shard_does_not_starve_another() {
        let (mut events, sides) = two_shards();
        for n in 0..10 {
            sides[0].events.send(released(n)).unwrap();
        }
        sides[1].events.send(released(100)).unwrap();
        assert_eq!(number(events.next().await), 0);
        assert_eq!(number(events.next().await), 100);
        assert_eq!(number(events.next().await), 1);
    }

    #[tokio::test]
    async fn an_event_from_another_thread_wakes_the_waiter() {
        let (mut events, mut sides) = two_shards();
        let side = sides.remove(1);
        let waiter = tokio::spawn(async move { number(events.next().await) });
        tokio::task::yield_now().await;
        let thread = std::thread::spawn(move || side.events.send(released(5)).is_ok());
        assert_eq!(waiter.await.unwrap(), 5);
        assert!(thread.join().unwrap());
    }

    #[tokio::test]
    async fn the_end_of_all_shards_ends_the_events_after_the_last_one() {
        let (mut events, sides) = two_shards();
        sides[1].events.send(Event::Stopped { shard: ShardId(1) }).unwrap();
        drop(sides);
        assert!(matches!(events.next().await, Some(Event::Stopped { .. })));
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let (mut events, sides) = two_shards();
        tokio::select! {
            biased;
            _ = events.next() => panic!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        sides[0].events.send(released(1)).unwrap();
        assert_eq!(number(events.next().await), 1);
    }
}
