//! What was sent and may have to be sent again.

use std::collections::VecDeque;

/// A message that can be numbered.
pub(crate) trait Numbered: Clone {
    /// Writes its number and the last number received into it.
    fn stamp(&mut self, number: u64, received: u64);

    /// Its size.
    fn bytes(&self) -> usize;
}

/// The messages of one side that the other has not acknowledged, oldest first, each with the number
/// it has for as long as the two know each other.
///
/// ```text
///   acknowledged │ sent, kept │ not sent
///                │◀── first   │◀── first + sent
/// ```
#[derive(Debug)]
pub(crate) struct Outbox<M> {
    kept: VecDeque<M>,
    bytes: usize,
    /// The number of the oldest one kept.
    first: u64,
    /// How many of those kept are on their way.
    sent: usize,
}

/// The other side acknowledges what was never sent, or asks for what is no longer kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it says that it has received message {0}, which is none of those it may have")]
pub struct Mistaken(pub u64);

impl<M: Numbered> Outbox<M> {
    pub(crate) fn new() -> Self {
        Self { kept: VecDeque::new(), bytes: 0, first: 1, sent: 0 }
    }

    /// Takes one more. The bound is the caller's to keep: [`Outbox::is_full`].
    pub(crate) fn push(&mut self, message: M) {
        self.bytes += message.bytes();
        self.kept.push_back(message);
    }

    /// Whether as much is kept as may be.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether half of that is kept: time for whoever has a choice to wait.
    pub(crate) fn is_half_full(&self) -> bool {
        self.kept.len() >= MESSAGES_MAX / 2 || self.bytes >= BYTES_MAX / 2
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether anything is to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.kept.len()
    }

    /// The next one to send. It is kept until it is acknowledged.
    pub(crate) fn next_unsent(&mut self, received: u64) -> Option<M> {
        let mut message = self.kept.get(self.sent)?.clone();
        message.stamp(self.first + self.sent as u64, received);
        self.sent += 1;
        Some(message)
    }

    /// Forgets what the other side has received.
    pub(crate) fn acknowledge(&mut self, received: u64) -> Result<(), Mistaken> {
        // Older than the oldest: said before something newer was.
        let Some(done) = received.saturating_add(1).checked_sub(self.first) else {
            return Ok(());
        };
        let done = usize::try_from(done).ok().filter(|&done| done <= self.sent);
        let Some(done) = done else {
            return Err(Mistaken(received));
        };
        for message in self.kept.drain(..done) {
            self.bytes -= message.bytes();
        }
        self.first = received + 1;
        self.sent -= done;
        Ok(())
    }

    /// On a new stream everything after `received` is sent once more.
    pub(crate) fn resume(&mut self, received: u64) -> Result<(), Mistaken> {
        if received.saturating_add(1) < self.first {
            return Err(Mistaken(received));
        }
        self.acknowledge(received)?;
        self.sent = 0;
        Ok(())
    }

    /// Forgets everything and counts from one again; what was kept comes back.
    pub(crate) fn restart(&mut self) -> VecDeque<M> {
        std::mem::replace(self, Self::new()).kept
    }
}

/// Messages that wait for their acknowledgement. Protects memory from a plane that does not read,
/// or is away. Reached: a data plane lets its shards wait, or offers its inventory anew; at a
/// control plane orders wait before the berth, then in their shards' backlogs, then are refused and
/// counted. Source: a second of a storm of 30,000 upgrades.
pub(crate) const MESSAGES_MAX: usize = 32 << 10;
/// Their bytes.
pub(crate) const BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Eq, PartialEq)]
    struct Note(u64, u64);

    impl Numbered for Note {
        fn stamp(&mut self, number: u64, _received: u64) {
            self.1 = number;
        }

        fn bytes(&self) -> usize {
            1 << 20
        }
    }

    fn outbox(notes: u64) -> Outbox<Note> {
        let mut outbox = Outbox::new();
        (1..=notes).for_each(|note| outbox.push(Note(note, 0)));
        outbox
    }

    fn sent(outbox: &mut Outbox<Note>) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| outbox.next_unsent(0)).map(|note| (note.0, note.1)).collect()
    }

    #[test]
    fn everything_is_sent_once_in_order_and_numbered() {
        let mut outbox = outbox(3);
        assert_eq!(sent(&mut outbox), [(1, 1), (2, 2), (3, 3)]);
        outbox.push(Note(4, 0));
        assert_eq!(sent(&mut outbox), [(4, 4)]);
        assert!(!outbox.has_unsent());
    }

    #[test]
    fn a_new_stream_goes_on_after_what_was_received() {
        let mut outbox = outbox(4);
        sent(&mut outbox);
        outbox.acknowledge(1).unwrap();
        outbox.resume(2).unwrap();
        assert_eq!(sent(&mut outbox), [(3, 3), (4, 4)]);
        outbox.resume(2).unwrap();
        assert_eq!(sent(&mut outbox), [(3, 3), (4, 4)]);
    }

    #[test]
    fn what_is_acknowledged_cannot_be_sent_again() {
        let mut outbox = outbox(4);
        sent(&mut outbox);
        outbox.acknowledge(3).unwrap();
        assert_eq!(outbox.resume(1), Err(Mistaken(1)));
    }

    #[test]
    fn nobody_can_have_received_what_was_not_sent() {
        let mut outbox = outbox(2);
        assert_eq!(outbox.acknowledge(1), Err(Mistaken(1)));
        assert_eq!(outbox.acknowledge(u64::MAX - 1), Err(Mistaken(u64::MAX - 1)));
        sent(&mut outbox);
        outbox.acknowledge(2).unwrap();
        outbox.acknowledge(1).unwrap();
    }

    #[test]
    fn it_is_bounded_in_bytes_and_an_acknowledgement_makes_room() {
        let mut outbox = outbox(31);
        assert!(outbox.is_half_full() && !outbox.is_full());
        outbox.push(Note(32, 0));
        assert!(outbox.is_full());
        sent(&mut outbox);
        outbox.acknowledge(20).unwrap();
        assert!(!outbox.is_half_full());
    }
}
