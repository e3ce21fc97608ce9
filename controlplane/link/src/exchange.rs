//! One side of the numbered messages that two planes send each other.

use std::collections::VecDeque;

use crate::outbox::{Mistaken, Numbered, Outbox};

/// What a side has sent, what it has received, and when it has to say so. Both sides keep one each,
/// for as long as they know each other, whatever streams there are between them.
#[derive(Debug)]
pub(crate) struct Exchange<M> {
    outbox: Outbox<M>,
    /// The last number received.
    received: u64,
    /// Messages received since that was last said.
    unsaid: u32,
    says_alive: bool,
    /// Beats since the other side was heard, or since there is no stream.
    silent: u32,
}

/// A message that makes a side say that it is there, and nothing else.
pub(crate) trait Beating: Numbered {
    /// One without a number.
    fn beat() -> Self;
}

/// The numbers of the two sides do not fit together. The stream is to be cut, and what is known of
/// the other side to be learnt anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExchangeError {
    /// Messages are missing.
    #[error("message {0} does not follow the one before it")]
    Gap(u64),
    /// It acknowledges what it cannot have.
    #[error(transparent)]
    Mistaken(#[from] Mistaken),
}

/// What a message is, going by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// Not seen before, or without a number.
    New,
    /// Sent once more because of a cut.
    Again,
}

impl<M: Beating> Exchange<M> {
    /// Between two that do not know each other yet.
    pub(crate) fn new() -> Self {
        Self { outbox: Outbox::new(), received: 0, unsaid: 0, says_alive: false, silent: 0 }
    }

    /// There is a stream, or there is none any more: silence counts from now on.
    pub(crate) fn begin_silence(&mut self) {
        self.silent = 0;
    }

    /// Something came with these numbers.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(crate) fn hear(&mut self, number: u64, received: u64) -> Result<Heard, ExchangeError> {
        self.silent = 0;
        self.outbox.acknowledge(received)?;
        if number == 0 {
            return Ok(Heard::New);
        }
        if number <= self.received {
            return Ok(Heard::Again);
        }
        if number != self.received + 1 {
            return Err(ExchangeError::Gap(number));
        }
        self.received = number;
        self.unsaid += 1;
        self.says_alive |= self.unsaid >= UNSAID_MAX;
        Ok(Heard::New)
    }

    /// On a new stream everything after `received` is sent once more.
    ///
    /// # Errors
    /// [`Mistaken`]: that is not possible.
    pub(crate) fn resume(&mut self, received: u64) -> Result<(), Mistaken> {
        self.silent = 0;
        self.outbox.resume(received)
    }

    /// Forgets what was exchanged and counts from one again; what was not acknowledged comes back.
    pub(crate) fn restart(&mut self) -> VecDeque<M> {
        (self.received, self.unsaid) = (0, 0);
        self.outbox.restart()
    }

    /// The last number received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What is kept until it is acknowledged.
    pub(crate) fn outbox(&self) -> &Outbox<M> {
        &self.outbox
    }

    /// Takes one more to send.
    pub(crate) fn push(&mut self, message: M) {
        self.outbox.push(message);
    }

    /// Whether there is something to send.
    pub(crate) fn has_message(&self) -> bool {
        self.outbox.has_unsent() || self.says_alive
    }

    /// The next message to send: one that waits, or a beat when it is time for one.
    pub(crate) fn next_message(&mut self) -> Option<M> {
        let message = self.outbox.next_unsent(self.received).or_else(|| {
            let mut beat = self.says_alive.then(M::beat)?;
            beat.stamp(0, self.received);
            Some(beat)
        })?;
        self.says_alive = false;
        self.unsaid = 0;
        Some(message)
    }

    /// Time has passed; to be called every [`crate::BEAT`].
    pub(crate) fn beat(&mut self) {
        self.silent += 1;
        self.says_alive = true;
    }

    /// Whether nothing was heard for so long that the other side counts as gone. Beats are counted,
    /// and not time, because a process that was stopped has not listened.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent > SILENT_BEATS_MAX
    }
}

/// Beats of silence after which the other side counts as gone. A data plane that is killed is gone
/// from the control plane's state within 2 s.
const SILENT_BEATS_MAX: u32 = 5;

/// Messages received before that is said without anything else to say.
const UNSAID_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Eq, PartialEq)]
    struct Note(&'static str, u64, u64);

    impl Numbered for Note {
        fn stamp(&mut self, number: u64, received: u64) {
            (self.1, self.2) = (number, received);
        }

        fn bytes(&self) -> usize {
            1
        }
    }

    impl Beating for Note {
        fn beat() -> Self {
            Self("beat", 0, 0)
        }
    }

    #[test]
    fn what_was_received_is_said_with_what_is_sent_and_with_beats() {
        let mut exchange = Exchange::new();
        assert_eq!(exchange.hear(1, 0), Ok(Heard::New));
        exchange.push(Note("a", 0, 0));
        assert_eq!(exchange.next_message(), Some(Note("a", 1, 1)));
        assert_eq!(exchange.next_message(), None::<Note>);
        exchange.hear(2, 1).unwrap();
        exchange.beat();
        assert!(exchange.has_message());
        assert_eq!(exchange.next_message(), Some(Note("beat", 0, 2)));
        assert!(!exchange.has_message());
    }

    #[test]
    fn much_that_was_received_is_said_without_waiting_for_a_beat() {
        let mut exchange: Exchange<Note> = Exchange::new();
        (1..u64::from(UNSAID_MAX)).for_each(|number| assert!(exchange.hear(number, 0).is_ok()));
        assert!(!exchange.has_message());
        exchange.hear(u64::from(UNSAID_MAX), 0).unwrap();
        assert_eq!(exchange.next_message(), Some(Note("beat", 0, u64::from(UNSAID_MAX))));
    }

    #[test]
    fn what_comes_again_is_known_and_what_is_missing_is_noticed() {
        let mut exchange: Exchange<Note> = Exchange::new();
        exchange.hear(1, 0).unwrap();
        assert_eq!(exchange.hear(1, 0), Ok(Heard::Again));
        assert_eq!(exchange.hear(0, 0), Ok(Heard::New), "a beat has no number");
        assert_eq!(exchange.hear(3, 0), Err(ExchangeError::Gap(3)));
        assert_eq!(exchange.hear(2, 9), Err(ExchangeError::Mistaken(Mistaken(9))));
    }

    #[test]
    fn silence_ends_when_something_is_heard_and_a_restart_counts_from_one() {
        let mut exchange: Exchange<Note> = Exchange::new();
        exchange.hear(1, 0).unwrap();
        exchange.push(Note("a", 0, 0));
        (0..=SILENT_BEATS_MAX).for_each(|_| exchange.beat());
        assert!(exchange.is_silent());
        exchange.hear(0, 0).unwrap();
        assert!(!exchange.is_silent());
        assert_eq!(exchange.restart().len(), 1);
        assert_eq!(exchange.hear(1, 0), Ok(Heard::New));
    }
}
