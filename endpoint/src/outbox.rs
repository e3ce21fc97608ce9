//! Texts that wait to be sent.

use std::collections::VecDeque;

use crate::Fault;
use crate::ids::MessageId;
use crate::limits::Limits;

/// Why a text was not sent. Its sender is told; the other end never hears of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Undelivered {
    /// Newer texts needed its place in the queue.
    #[error("the queue was full and newer messages came")]
    QueueFull,
    /// Its frame would be larger than the relay lets pass.
    #[error("the message is larger than a frame may be")]
    TooLarge,
    /// It has no bytes, so its ciphertext would be blank, and the relay lets no such frame pass.
    #[error("an empty message cannot be sent")]
    Empty,
    /// Nobody is there under that name: never was, or the session has ended.
    #[error("there is no such conversation")]
    NoConversation,
    /// The session's key has carried all it may.
    #[error("the session's key is worn out")]
    KeyWornOut,
    /// The connection ended before the socket had taken all of the frame. It may have arrived.
    #[error("the connection ended while the message was on its way")]
    ConnectionLost,
    /// The end was stopped first.
    #[error("the end was stopped")]
    Stopped,
}

impl Undelivered {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::TooLarge
            | Self::Empty
            | Self::NoConversation
            | Self::KeyWornOut
            | Self::Stopped => Fault::Us,
            Self::QueueFull | Self::ConnectionLost => Fault::Upstream,
        }
    }

    /// Whether sending the same text again may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::QueueFull | Self::ConnectionLost | Self::KeyWornOut)
    }
}

/// One waiting text and whom it is for.
pub(crate) struct Waiting<To> {
    pub(crate) to: To,
    pub(crate) message: MessageId,
    pub(crate) text: String,
}

/// First in, first out, bounded in messages and in bytes.
pub(crate) struct Outbox<To> {
    waiting: VecDeque<Waiting<To>>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
    text_bytes_max: usize,
}

impl<To> Outbox<To> {
    pub(crate) fn new(limits: &Limits) -> Self {
        let frame_text = limits.frame_bytes_max.saturating_sub(ENVELOPE_BYTES_MAX);
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            messages_max: limits.queue_messages_max.max(1),
            bytes_max: limits.queue_bytes_max,
            text_bytes_max: frame_text / 4 * 3,
        }
    }

    /// Takes a text in. Calls `refused` for each that had to go, oldest first.
    ///
    /// A text larger than the whole queue passes when nothing else waits: bounds are judged before
    /// adding.
    pub(crate) fn push(
        &mut self,
        item: Waiting<To>,
        mut refused: impl FnMut(MessageId, Undelivered),
    ) {
        if item.text.is_empty() {
            return refused(item.message, Undelivered::Empty);
        }
        if item.text.len() > self.text_bytes_max {
            return refused(item.message, Undelivered::TooLarge);
        }
        while self.waiting.len() >= self.messages_max
            || self.bytes + item.text.len() > self.bytes_max
        {
            let Some(oldest) = self.pop() else { break };
            refused(oldest.message, Undelivered::QueueFull);
        }
        self.bytes += item.text.len();
        self.waiting.push_back(item);
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting<To>> {
        let item = self.waiting.pop_front()?;
        self.bytes -= item.text.len();
        Some(item)
    }
}

/// Bytes of an envelope besides its ciphertext, generously.
const ENVELOPE_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tiny() -> Outbox<()> {
        Outbox::new(&Limits {
            queue_messages_max: 3,
            queue_bytes_max: 10,
            frame_bytes_max: ENVELOPE_BYTES_MAX + 16,
            ..Limits::default()
        })
    }

    fn item(message: u64, len: usize) -> Waiting<()> {
        Waiting { to: (), message: MessageId(message), text: "x".repeat(len) }
    }

    #[test]
    fn an_empty_text_is_refused_to_its_sender() {
        let mut outbox = Outbox::new(&Limits::default());
        let mut refused = Vec::new();
        outbox.push(item(7, 0), |id, why| refused.push((id.0, why)));
        assert_eq!(refused, [(7, Undelivered::Empty)]);
    }

    #[test]
    fn the_oldest_is_refused_to_its_sender() {
        let mut outbox = tiny();
        let mut refused = Vec::new();
        for message in 0..5 {
            outbox.push(item(message, 1), |id, why| refused.push((id.0, why)));
        }
        assert_eq!(refused, [(0, Undelivered::QueueFull), (1, Undelivered::QueueFull)]);
        assert_eq!(outbox.pop().map(|item| item.message.0), Some(2));
    }

    #[test]
    fn a_text_no_frame_can_carry_is_refused_at_once() {
        let mut refused = Vec::new();
        tiny().push(item(0, 13), |id, why| refused.push((id.0, why)));
        assert_eq!(refused, [(0, Undelivered::TooLarge)]);
    }

    #[test]
    fn a_text_larger_than_the_queue_passes_alone() {
        let mut outbox = tiny();
        outbox.push(item(0, 12), |_, _| panic!("refused"));
        assert!(outbox.pop().is_some());
    }

    proptest! {
        #[test]
        fn every_text_comes_out_or_is_refused(lens in prop::collection::vec(0_usize..16, 0..50)) {
            let mut outbox = tiny();
            let mut out = Vec::new();
            for (message, &len) in lens.iter().enumerate() {
                outbox.push(item(message as u64, len), |id, _| out.push(id.0));
                prop_assert!(outbox.waiting.len() <= 3);
                prop_assert!(outbox.bytes <= 12);
            }
            while let Some(item) = outbox.pop() {
                out.push(item.message.0);
            }
            out.sort_unstable();
            prop_assert_eq!(out, (0..lens.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(outbox.bytes, 0);
        }
    }
}
