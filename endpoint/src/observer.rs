//! A view into an end, for demonstrations and measurements.

use std::time::Instant;

use crate::daemon::{Caller, EndReason};
use crate::handshake::HandshakeError;
use crate::ids::{ConversationId, MessageId, SessionId};
use crate::outbox::Undelivered;
use crate::refusal::Refusal;
use crate::transport::LinkError;

/// Sees what an end does, on the end's own thread: it should be quick.
///
/// Plaintext passes by here. An observer that writes it down takes the secret out of the two ends.
pub trait Observer: Send {
    /// Something happened at `at`.
    fn observe(&mut self, at: Instant, what: &Observation<'_>);
}

/// Sees nothing.
impl Observer for () {
    fn observe(&mut self, _: Instant, _: &Observation<'_>) {}
}

impl<F: FnMut(Instant, &Observation<'_>) + Send> Observer for F {
    fn observe(&mut self, at: Instant, what: &Observation<'_>) {
        self(at, what);
    }
}

/// What can be seen at an end. Its `Debug` shows kinds and lengths, never a text.
pub enum Observation<'a> {
    /// The connection to the relay is open.
    Connected,
    /// It could not be opened, or is gone.
    Disconnected(&'a LinkError),
    /// The user's text entered the end. The moment its latency starts.
    TextQueued {
        /// Its name.
        message: MessageId,
        /// The text.
        text: &'a str,
    },
    /// A frame goes to the relay: what the relay can see.
    FrameSent {
        /// The text it carries, if any.
        message: Option<MessageId>,
        /// The frame.
        frame: &'a str,
    },
    /// A frame came from the relay.
    FrameReceived {
        /// The frame.
        frame: &'a str,
    },
    /// A text of the other end, decrypted. The moment its latency ends.
    TextReceived {
        /// From whom; at a client there is one conversation.
        from: Option<ConversationId>,
        /// The text.
        text: &'a str,
    },
    /// A client has a session.
    SessionOpened {
        /// Its name.
        session: &'a SessionId,
        /// Its epoch.
        epoch: u64,
        /// Whether it replaces another.
        rotated: bool,
    },
    /// A client's handshake came to nothing.
    HandshakeFailed(HandshakeError),
    /// The relay says that no daemon is there.
    DaemonAway,
    /// A daemon has a new conversation, or new keys for one.
    CallerOpened {
        /// Who.
        caller: &'a Caller,
        /// Whether the session replaces another.
        rotated: bool,
    },
    /// A daemon's conversation is over.
    CallerEnded {
        /// Which.
        conversation: ConversationId,
        /// Why.
        reason: EndReason,
    },
    /// A text was not sent.
    Undelivered {
        /// Which.
        message: MessageId,
        /// Why.
        reason: Undelivered,
    },
    /// A frame was dropped.
    Refused(Refusal),
    /// The relay said something.
    Status {
        /// Its code.
        code: &'a str,
    },
}
