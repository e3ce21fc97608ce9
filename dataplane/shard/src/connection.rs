//! One socket, from accept to close.

use std::net::IpAddr;

use relay_contract::Tick;
use relay_wire::websocket::Decoder;

use crate::assembly::Assembly;
use crate::backlog::{Backlog, Spent};
use crate::budget::Charge;
use crate::deadline::Timer;
use crate::egress::Egress;
use crate::fronted::Fronted;
use crate::guest::Guest;
use crate::moves::Stay;
use crate::tls::TlsSession;

/// What a slot of the table holds. Small while idle: everything that is rarely there is boxed.
pub(crate) struct Connection {
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Bytes that wait or are in flight. Absent while there are none.
    pub(crate) egress: Option<Box<Egress>>,
    /// The TLS session, where TLS ends here.
    pub(crate) tls: Option<Box<TlsSession>>,
    /// The one deadline of the shard's own for this connection. The switchboard keeps those of open
    /// ones.
    pub(crate) timer: Timer,
    /// Whether it came through a Unix socket.
    pub(crate) is_local: bool,
    /// Whether it is one of those whose TLS handshake is going on.
    pub(crate) shakes_hands: bool,
    /// What the budget was last told that it holds.
    pub(crate) charge: Charge,
    /// The receive that is in flight.
    pub(crate) reading: Reading,
    /// What it sent beyond its share. Present while it is loud.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// What it has used of its share.
    pub(crate) spent: Spent,
    /// Whether the driver holds it as a resident: receives then repeat by themselves.
    pub(crate) settled: bool,
    /// Whether it is on its way to another shard.
    pub(crate) stay: Stay,
}

/// ```text
/// Fronted ──PROXY header──▶ Guest
/// Guest ──upgrade asked──▶ Waiting ──admit──▶ Open ──close handshake, violation──▶ Leaving ──▶
/// Closed
///   │  ▲                    │   │ admit elsewhere: the slot is freed                  ▲
///   │  └─keep-alive         │   └─refuse, deadline────────────────────────────────────┤
///   └─bad head, last answer, deadline─────────────────────────────────────────────────┘
/// ```
/// `Closed` is reached from every state when the socket fails or is cut; from `Fronted` also when
/// there is no header, or a bad one.
pub(crate) enum Phase {
    /// A trusted proxy's, which has not said yet who is behind it.
    Fronted(Box<Fronted>),
    /// Speaks HTTP.
    Guest(Box<Guest>),
    /// Asked to become a WebSocket; nothing is read meanwhile, so nothing is buffered either.
    Waiting(Box<Waiting>),
    /// Speaks WebSocket.
    Open(Open),
    /// Nothing it says matters any more: flush, FIN, wait for its FIN or the deadline.
    Leaving(Leaving),
    /// The driver is closing it.
    Closed,
}

/// Which receive was asked for and has not ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reading {
    /// None.
    Idle,
    /// One that ends by itself.
    Once,
    /// One that goes on.
    Repeatedly,
    /// One that goes on until the driver has paused it.
    Pausing,
}

/// An upgrade in the hands of the control plane.
pub(crate) struct Waiting {
    /// Where the socket comes from.
    pub(crate) peer: IpAddr,
    /// When the control plane was asked, or was to be asked and was behind.
    pub(crate) asked: Tick,
    /// Memory of what was asked: somebody has it until it is answered.
    pub(crate) asked_bytes: usize,
    /// What will be answered if it is admitted.
    pub(crate) handshake: Result<Vec<u8>, Vec<u8>>,
    /// Bytes that came with the head and belong to the WebSocket.
    pub(crate) early: Vec<u8>,
    /// It is admitted, and waits for its workspace, which is about to leave.
    pub(crate) is_held: bool,
}

impl Waiting {
    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        let (Ok(answer) | Err(answer)) = &self.handshake;
        size_of::<Self>() + self.asked_bytes + answer.capacity() + self.early.capacity()
    }
}

/// A WebSocket.
pub(crate) struct Open {
    /// Where in a frame the bytes so far end.
    pub(crate) decoder: Decoder,
    /// A message whose end has not come yet, or that is read once more.
    pub(crate) assembly: Option<Box<Assembly>>,
    /// How far the close handshake is.
    pub(crate) close: CloseHandshake,
}

/// RFC 6455 §7.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CloseHandshake {
    /// Nobody has begun.
    NotBegun,
    /// Our close frame is queued or sent; the peer's is awaited and its data ignored.
    Sent,
}

/// The last steps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Leaving {
    /// Whether FIN was submitted.
    pub(crate) fin: bool,
    /// Whether the peer's FIN came.
    pub(crate) peer_ended: bool,
    /// Whether TLS was told that nothing more will come.
    pub(crate) notified: bool,
    /// Whether the switchboard still has to be told that it is gone.
    pub(crate) registered: bool,
    /// Where it comes from, if it was never admitted: it counts among strangers to its end.
    pub(crate) stranger: Option<IpAddr>,
}

impl Connection {
    /// A socket fresh from accept, behind a proxy that has to introduce it.
    pub(crate) fn fronted(fronted: Fronted) -> Self {
        Self::new(Phase::Fronted(Box::new(fronted)), None)
    }

    /// A socket fresh from accept.
    pub(crate) fn guest(guest: Guest) -> Self {
        Self::new(Phase::Guest(Box::new(guest)), None)
    }

    /// A socket that another shard accepted; it is opened at once.
    pub(crate) fn arriving(tls: Option<Box<TlsSession>>) -> Self {
        Self::new(Phase::Leaving(Leaving::default()), tls)
    }

    fn new(phase: Phase, tls: Option<Box<TlsSession>>) -> Self {
        Self {
            phase,
            egress: None,
            tls,
            timer: Timer::default(),
            is_local: false,
            shakes_hands: false,
            charge: Charge::default(),
            reading: Reading::Idle,
            backlog: None,
            spent: Spent::default(),
            settled: false,
            stay: Stay::Here,
        }
    }

    /// Whether it was not admitted.
    pub(crate) fn is_stranger(&self) -> bool {
        self.stranger().is_some()
    }

    /// Whether it may still be admitted.
    pub(crate) fn is_applicant(&self) -> bool {
        matches!(self.phase, Phase::Fronted(_) | Phase::Guest(_) | Phase::Waiting(_))
    }

    /// Where a socket comes from that was not admitted.
    pub(crate) fn stranger(&self) -> Option<IpAddr> {
        match &self.phase {
            Phase::Fronted(fronted) => Some(fronted.peer.address),
            Phase::Guest(guest) => Some(guest.peer.address),
            Phase::Waiting(waiting) => Some(waiting.peer),
            Phase::Leaving(leaving) => leaving.stranger,
            Phase::Open(_) | Phase::Closed => None,
        }
    }

    /// Whether it was admitted and speaks WebSocket.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether what arrives next goes on with a frame that has begun.
    pub(crate) fn is_inside_frame(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.decoder.is_inside_payload())
    }
}
