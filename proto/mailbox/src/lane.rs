//! One bounded lane: many senders, one receiver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam_queue::ArrayQueue;

use crate::Bell;

/// Opens a lane for at most `capacity` values. `bell` is the receiving thread's.
///
/// Cost: the lane's memory is taken here, once; sending and receiving allocate nothing.
///
/// # Panics
/// When `capacity` is zero: such a lane carries nothing.
pub fn lane<T>(capacity: usize, bell: Arc<Bell>) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a lane carries at least one value");
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        senders: AtomicUsize::new(1),
        received: AtomicBool::new(true),
        bell,
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

/// The lane was full, or nobody receives any more. The value comes back.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Full<T>(pub T);

/// The end values go in. A clone is another sender of the same lane.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The end values come out, in the order they were sent.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    senders: AtomicUsize,
    /// Whether the receiver still takes something.
    received: AtomicBool,
    bell: Arc<Bell>,
}

impl<T> Sender<T> {
    /// Sends without blocking and wakes the receiving thread if it sleeps.
    ///
    /// # Errors
    /// [`Full`] with the value when the lane has no room, or its receiver is gone. Nothing is left
    /// behind.
    pub fn send(&self, value: T) -> Result<(), Full<T>> {
        if !self.is_received() {
            return Err(Full(value));
        }
        self.shared.queue.push(value).map_err(Full)?;
        // With the fence of `close`: the receiver's last look at the lane finds the value, or the
        // sender sees that there was one.
        fence(Ordering::SeqCst);
        if !self.is_received() {
            // Whoever sent at the same moment may have this one's value and give back that.
            return self.shared.queue.pop().map_or(Ok(()), |value| Err(Full(value)));
        }
        self.shared.bell.notify();
        Ok(())
    }

    /// Whether somebody receives, or may yet: false once the receiver closed the lane or is gone.
    pub fn is_received(&self) -> bool {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Values there is room for right now. Others may send, and the receiver receive, meanwhile.
    ///
    /// Cost: two loads, repeated while others send.
    pub fn room(&self) -> usize {
        self.shared.queue.capacity() - self.shared.queue.len()
    }

    /// Values the lane carries at most.
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }
}

impl<T> Receiver<T> {
    /// The oldest value, or nothing; never waits.
    pub fn receive(&self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Whether [`receive`](Self::receive) has nothing to give right now.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Takes nothing any more: what is sent from now on comes back to its sender. What is in the
    /// lane can still be received; once it is empty, it stays so.
    pub fn close(&self) {
        self.shared.received.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether all senders are gone. What they sent before can still be received; once this is true
    /// and the lane is empty, it stays so. The last sender rings when it goes.
    pub fn is_closed(&self) -> bool {
        self.shared.senders.load(Ordering::Acquire) == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Release, with the acquire of `is_closed`: who sees zero sees every value sent before.
        if self.shared.senders.fetch_sub(1, Ordering::Release) == 1 {
            self.shared.bell.notify();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        // Values may own sockets and memory: let go of them now, not when the last sender goes.
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lane is full")
    }
}

impl<T> std::error::Error for Full<T> {}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.shared.queue.len()).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.shared.queue.len()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Ring;

    struct Park(std::thread::Thread);

    impl Ring for Park {
        fn ring(&self) {
            self.0.unpark();
        }
    }

    fn bell() -> Arc<Bell> {
        Bell::new(Park(std::thread::current()))
    }

    #[test]
    fn values_come_out_in_order() {
        let (sender, receiver) = lane(4, bell());
        for value in 0..4 {
            sender.send(value).unwrap();
        }
        let received: Vec<_> = std::iter::from_fn(|| receiver.receive()).collect();
        assert_eq!(received, [0, 1, 2, 3]);
    }

    #[test]
    fn a_full_lane_gives_the_value_back() {
        let (sender, receiver) = lane(1, bell());
        sender.send("first").unwrap();
        assert_eq!((sender.room(), sender.capacity()), (0, 1));
        assert_eq!(sender.send("second"), Err(Full("second")));
        assert_eq!(receiver.receive(), Some("first"));
        assert!(receiver.is_empty());
        assert_eq!(sender.room(), 1);
    }

    #[test]
    fn a_lane_is_closed_when_the_last_sender_is_gone_and_keeps_its_values() {
        let (sender, receiver) = lane(2, bell());
        let second = sender.clone();
        drop(sender);
        assert!(!receiver.is_closed());
        second.send(7).unwrap();
        drop(second);
        assert!(receiver.is_closed());
        assert_eq!(receiver.receive(), Some(7));
    }

    #[test]
    fn a_lane_without_receiver_takes_nothing_and_keeps_nothing() {
        let value = Arc::new(());
        let (sender, receiver) = lane(2, bell());
        sender.send(Arc::clone(&value)).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&value), 1);
        assert!(sender.send(Arc::clone(&value)).is_err());
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn what_was_sent_before_a_lane_is_closed_is_received_and_nothing_after() {
        let (sender, receiver) = lane(2, bell());
        sender.send(1).unwrap();
        assert!(sender.is_received());
        receiver.close();
        assert_eq!(sender.send(2), Err(Full(2)));
        assert!(!sender.is_received());
        assert_eq!((receiver.receive(), receiver.receive()), (Some(1), None));
    }

    #[test]
    fn a_lane_that_is_closed_while_others_send_loses_nothing() {
        const ROUNDS: usize = if cfg!(miri) { 5 } else { 200 };
        for _ in 0..ROUNDS {
            let (sender, receiver) = lane(64, bell());
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let sender = sender.clone();
                    std::thread::spawn(move || (0..20).filter(|_| sender.send(()).is_err()).count())
                })
                .collect();
            std::thread::yield_now();
            receiver.close();
            let received = std::iter::from_fn(|| receiver.receive()).count();
            let returned: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(received + returned, 40, "each is received or comes back");
            assert!(receiver.is_empty());
        }
    }

    #[test]
    fn senders_on_other_threads_wake_a_parked_receiver() {
        const PER_SENDER: u64 = if cfg!(miri) { 20 } else { 10_000 };
        let bell = bell();
        let (sender, receiver) = lane(8, Arc::clone(&bell));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for value in 1..=PER_SENDER {
                        let mut value = value;
                        while let Err(Full(back)) = sender.send(value) {
                            value = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        drop(sender);

        let mut sum = 0;
        while !(receiver.is_closed() && receiver.is_empty()) {
            while let Some(value) = receiver.receive() {
                sum += value;
            }
            bell.rest();
            if receiver.is_empty() && !receiver.is_closed() {
                std::thread::park();
            }
            bell.rise();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(sum, PER_SENDER * (PER_SENDER + 1));
    }
}
