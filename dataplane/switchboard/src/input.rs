//! What happens to a switchboard.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use relay_contract::{
    CloseReason, ConnectionId, Grant, Limits, Profile, Renewal, Routes, WorkerRequest,
    WorkerResponse,
};
use relay_wire::envelope::{Envelope, Invalid, ProfileMember};

/// One thing that happened. An input that names a connection the switchboard does not know, or no
/// longer knows, changes nothing.
#[derive(Debug)]
pub enum Input<'a> {
    /// The upgrade's 101 is queued. The claims are compared with the request now.
    Opened {
        /// The new connection.
        connection: ConnectionId,
        /// What admission found.
        grant: Box<Grant>,
    },
    /// A whole message arrived.
    Message {
        /// Who sent it.
        from: ConnectionId,
        /// What it is.
        message: Message<'a>,
    },
    /// The shard holds more than it may: of what nobody needs goes as much, or a portion.
    MemoryShort {
        /// How much more.
        bytes: usize,
    },
    /// A message larger than allowed began; the shard closes with 1009 itself.
    TooLarge {
        /// Who sent it.
        from: ConnectionId,
    },
    /// The peer broke the protocol; the shard closes with 1002 or 1007 itself.
    ProtocolError {
        /// Who broke it.
        from: ConnectionId,
    },
    /// A ping or a small fragment of a message arrived: cheap to send, and of use to nobody else.
    SmallFrame {
        /// Who sent it.
        from: ConnectionId,
    },
    /// A pong arrived.
    Pong {
        /// Who sent it.
        from: ConnectionId,
    },
    /// Bytes arrived that leave the peer inside a frame, where it cannot answer a ping.
    Progress {
        /// Who is sending it.
        from: ConnectionId,
    },
    /// Bytes that [`crate::Effect::Forward`] and [`crate::Effect::Send`] had queued left for the
    /// kernel, headers included. Frames the shard makes itself and pings are not part of the count.
    Sent {
        /// Whose queue became shorter.
        to: ConnectionId,
        /// By how much.
        bytes: usize,
    },
    /// The answer to [`crate::Effect::CallPlatform`].
    WorkerReply {
        /// The worker.
        to: ConnectionId,
        /// The answer.
        response: &'a WorkerResponse,
    },
    /// The answer to [`crate::Effect::AskRenewal`].
    Renewed {
        /// Who sent the token.
        to: ConnectionId,
        /// What it is told.
        outcome: Renewal,
    },
    /// A close frame arrived. Nothing is routed to or from the connection any more; its socket must
    /// be gone within `close_timeout`.
    Closing {
        /// Who leaves.
        connection: ConnectionId,
    },
    /// The shard is short of memory and this connection holds more than any other.
    Evicted {
        /// Who goes.
        connection: ConnectionId,
        /// What it is told: [`CloseReason::BufferOverflow`] when it reads too slowly.
        reason: CloseReason,
    },
    /// The control plane ends this connection.
    Dismissed {
        /// Who goes.
        connection: ConnectionId,
        /// What it is told.
        reason: CloseReason,
    },
    /// The relay is drained, and it is this connection's turn to go.
    Drained {
        /// Who goes, with [`CloseReason::ShuttingDown`].
        connection: ConnectionId,
        /// Where a client is sent, if another relay is known.
        redirect: Option<&'a str>,
    },
    /// The socket is gone, for whatever reason.
    Closed {
        /// Who left.
        connection: ConnectionId,
    },
    /// Deadlines up to now are due, of which a bounded number is acted on.
    Elapsed,
    /// Limits changed. A version that is not newer is ignored.
    SetLimits(Arc<Limits>),
    /// Routes changed. A version that is not newer is ignored.
    SetRoutes(Arc<Routes>),
    /// Everybody has to go.
    Stop,
}

/// A whole message, scanned.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Payload bytes, as they would be forwarded.
    pub bytes: usize,
    /// What the scanner found.
    pub envelope: Result<&'a Envelope<'a>, Invalid>,
    /// Gives the text in one piece. Called for rare kinds only, and not where `call` is set: of
    /// such a message no text is left.
    pub text: &'a dyn Fn() -> Cow<'a, [u8]>,
    /// Gives the call of a worker that was read before, at most once; else it is read from the
    /// text.
    pub call: Option<&'a dyn Fn() -> Result<WorkerRequest, Invalid>>,
}

impl Message<'_> {
    /// Whether the frame's `profile` member, if it has one, is a profile that fits.
    pub(crate) fn profile_fits(&self, fits: impl FnOnce(Profile) -> bool) -> bool {
        match self.envelope.map(Envelope::profile) {
            Ok(ProfileMember::Known(profile)) => fits(profile),
            Ok(ProfileMember::Unknown) => false,
            Ok(ProfileMember::Absent) | Err(_) => true,
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither text nor members: they belong to the peers.
        f.debug_struct("Message").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
