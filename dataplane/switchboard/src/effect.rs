//! What a decision asks the shard to do.

use std::fmt;

use relay_contract::{AdmissionId, CloseReason, ConnectionId, LogEntry, Secret, WorkerRequest};

/// One thing to do, for the shard to perform. Its `Debug` shows of a text its length alone.
pub enum Effect {
    /// Send the message being judged, as one text frame, its text unchanged. A message is
    /// forwarded at most once.
    Forward {
        /// Who receives it.
        to: ConnectionId,
    },
    /// Send a text of the relay's own, as one text frame.
    Send {
        /// Who receives it.
        to: ConnectionId,
        /// JSON.
        text: Box<[u8]>,
    },
    /// Send a ping without payload.
    Ping {
        /// Who is to answer.
        to: ConnectionId,
    },
    /// Send a close frame behind what is queued, then end TCP once the peer has answered. For
    /// [`CloseReason::BufferOverflow`] whole queued frames are dropped first.
    Close {
        /// Who goes.
        connection: ConnectionId,
        /// Code and text of the close frame.
        reason: CloseReason,
    },
    /// Cut TCP without a close frame.
    Terminate {
        /// Who goes.
        connection: ConnectionId,
    },
    /// Make a worker's call; the answer comes back as [`crate::Input::WorkerReply`].
    CallPlatform {
        /// The worker.
        from: ConnectionId,
        /// Its admission: when that is released, nobody waits for the answer.
        admission: AdmissionId,
        /// The call, inside the worker's own paths.
        request: Box<WorkerRequest>,
    },
    /// Ask the control plane whether a fresh token is as good as the one before; the answer comes
    /// back as [`crate::Input::Renewed`].
    AskRenewal(Box<FreshToken>),
    /// Tell the control plane that an admitted connection is gone.
    Release {
        /// Its ledger entry.
        admission: AdmissionId,
    },
    /// Pass an entry to the log.
    Log(Box<LogEntry>),
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward { to } => f.debug_struct("Forward").field("to", to).finish(),
            Self::Send { to, text } => {
                f.debug_struct("Send").field("to", to).field("text_bytes", &text.len()).finish()
            }
            Self::Ping { to } => f.debug_struct("Ping").field("to", to).finish(),
            Self::Close { connection, reason } => f
                .debug_struct("Close")
                .field("connection", connection)
                .field("reason", reason)
                .finish(),
            Self::Terminate { connection } => {
                f.debug_struct("Terminate").field("connection", connection).finish()
            }
            Self::CallPlatform { from, admission, request } => f
                .debug_struct("CallPlatform")
                .field("from", from)
                .field("admission", admission)
                .field("request", request)
                .finish(),
            Self::AskRenewal(fresh) => f.debug_tuple("AskRenewal").field(fresh).finish(),
            Self::Release { admission } => {
                f.debug_struct("Release").field("admission", admission).finish()
            }
            Self::Log(entry) => f.debug_tuple("Log").field(entry).finish(),
        }
    }
}

/// A token that a peer sent over its open connection.
#[derive(Debug)]
pub struct FreshToken {
    /// Who sent it.
    pub from: ConnectionId,
    /// Its admission.
    pub admission: AdmissionId,
    /// The digest in its grant.
    pub claims_digest: u64,
    /// The token.
    pub token: Secret,
}

// Every frame leads to an effect, and each is moved once or twice.
const _: () = assert!(size_of::<Effect>() <= 40);

/// The effects of one or more inputs, in the order to perform them.
///
/// Cost: keeps its memory when drained or cleared, so it stops allocating once it has grown to its
/// working size.
#[derive(Debug, Default)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// No effects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an effect behind the others.
    #[inline]
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Takes all effects out, first to last.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.0.drain(..)
    }

    /// Forgets all effects.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Looks at the effects, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> + '_ {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use relay_contract::ShardId;

    use super::*;

    #[test]
    fn debug_shows_of_a_text_its_length_alone() {
        let text: Box<[u8]> = b"hush".as_slice().into();
        let bytes = format!("{text:?}");
        let to = ConnectionId { shard: ShardId(0), slot: 1, generation: 2 };
        let shown = format!("{:?}", Effect::Send { to, text });
        assert!(!shown.contains("hush") && !shown.contains(&bytes), "{shown}");
        assert!(shown.contains("text_bytes: 4"), "{shown}");
    }
}
