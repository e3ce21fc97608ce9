//! A client and a daemon, and the frames between them.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use anyhow::{Result, anyhow, bail, ensure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::envelope::{Envelope, key_exchange_init, key_exchange_response};
use crate::flow::{Between, Flow};
use crate::platform;
use crate::script::Script;
use crate::sealed::Keys;
use crate::subject::Subject;
use crate::target::Target;
use crate::traffic::Traffic;
use crate::upgrade::{Upgrade, expect_text, send_text};
use crate::wire::Wire;

/// What pairs send each other.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Shape {
    /// How many pairs.
    pub(crate) pairs: usize,
    /// Bytes of a message.
    pub(crate) payload_bytes: usize,
    /// Frames in flight per pair.
    pub(crate) depth: usize,
    /// Whether daemons send every frame back.
    pub(crate) echo: bool,
}

/// Which socket of a pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Daemon,
}

/// What epoll gives back: the pair's index, and the side in the lowest bit.
pub(crate) fn token(index: usize, side: Side) -> u64 {
    (index as u64) << 1 | u64::from(side == Side::Daemon)
}

/// The index and side that a token names.
pub(crate) fn pair_and_side(token: u64) -> (usize, Side) {
    let side = if token & 1 == 1 { Side::Daemon } else { Side::Client };
    ((token >> 1) as usize, side)
}

/// One workspace with one target: its two sockets, and what goes in each direction.
pub(crate) struct Pair {
    client: End,
    daemon: End,
    /// Client to daemon.
    forward: Traffic,
    /// Daemon to client, when frames are sent back.
    back: Option<Traffic>,
    /// Bytes of one write, at most.
    pub(crate) write_bytes_max: usize,
}

/// One socket.
struct End {
    wire: Wire,
    /// Whether it took less than it was given, and epoll watches for room.
    is_full: bool,
}

impl Pair {
    /// Opens one pair: two sockets, through a relay two upgrades and one key exchange.
    pub(crate) fn open(subject: &Subject, index: usize, shape: Shape) -> Result<Self> {
        Self::open_at(&Target::of(subject), index, &Script::of(shape))
    }

    /// The same, wherever it is and whatever they say.
    pub(crate) fn open_at(target: &Target, index: usize, script: &Script) -> Result<Self> {
        let names = Names::of(index);
        let mut daemon = target.open(index, &names.upgrade("workspace-daemon"))?;
        let mut client = target.open(index, &names.upgrade("client"))?;
        let pattern = script.pattern(index);
        let (forward, back) = if script.is_sealed {
            ensure!(target.between == Between::Relay, "encrypted messages need a relay");
            let keys = Keys::agree(&mut daemon, &mut client, &names.request)?;
            let back = || keys.back(&script.sizes, &pattern);
            let sealed = |flow| Traffic::Sealed(Box::new(flow));
            (
                sealed(keys.forward(&script.sizes, &pattern)?),
                script.echo.then(back).transpose()?.map(sealed),
            )
        } else {
            if target.between == Between::Relay {
                begin_session(&mut daemon, &mut client, &names)?;
            }
            let envelopes = script
                .sizes
                .iter()
                .map(|bytes| envelope(&names.session, *bytes))
                .collect::<Result<Vec<_>>>()?;
            let flow = || Traffic::Stamped(Flow::of(&envelopes, &pattern, target.between));
            (flow(), script.echo.then(flow))
        };
        for wire in [&daemon, &client] {
            wire.socket().set_nonblocking(true)?;
        }
        let end = |wire| End { wire, is_full: false };
        Ok(Self {
            client: end(client),
            daemon: end(daemon),
            forward,
            back,
            write_bytes_max: usize::MAX,
        })
    }

    /// Begins to watch both sockets; `token` names this pair's side.
    pub(crate) fn watch(&self, epoll: &OwnedFd, token: impl Fn(Side) -> u64) -> Result<()> {
        for (side, end) in [(Side::Client, &self.client), (Side::Daemon, &self.daemon)] {
            let data = EventData::new_u64(token(side));
            epoll::add(epoll, &end.wire, data, EventFlags::IN)?;
        }
        Ok(())
    }

    /// Takes in what arrived at one side and lets the frames go on: back to the client, or, where
    /// they have made their whole way, as new ones if `is_feeding`. Returns the numbers of
    /// frames that arrived, and who has to write now.
    pub(crate) fn arrive(
        &mut self,
        side: Side,
        bytes: &[u8],
        now: u64,
        is_feeding: bool,
    ) -> Result<Arrival> {
        let traffic = match side {
            Side::Daemon => Some(&mut self.forward),
            Side::Client => self.back.as_mut(),
        };
        let Some(traffic) = traffic else {
            bail!(
                "the client was sent what it did not ask for: {}",
                String::from_utf8_lossy(bytes)
            );
        };
        let numbers = traffic.arrive(bytes)?;
        let count = numbers.end - numbers.start;
        let is_whole_way = side == Side::Client || self.back.is_none();
        let writer = match &mut self.back {
            Some(back) if !is_whole_way => {
                back.release(count, now)?;
                Some(Side::Daemon)
            }
            _ if is_feeding => Some(Side::Client),
            _ => None,
        };
        let sent_at = if is_whole_way {
            numbers.map(|number| self.forward.sent_at(number)).collect()
        } else {
            Vec::new()
        };
        if writer == Some(Side::Client) {
            self.forward.release(count, now)?;
        }
        Ok(Arrival { count, sent_at, writer })
    }

    /// Lets the first frames go.
    pub(crate) fn prime(&mut self, depth: usize, now: u64) {
        self.release(depth as u64, now).expect("a new session's key carries a few messages");
    }

    /// Lets more frames go, due at `due`.
    pub(crate) fn release(&mut self, count: u64, due: u64) -> Result<()> {
        self.forward.release(count, due)
    }

    /// Frames the client has let go so far.
    pub(crate) fn released(&self) -> u64 {
        self.forward.released()
    }

    /// Whether one more frame may be in flight.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight() < self.forward.slots()
    }

    /// Writes what one side has to send, and keeps epoll watching for room while some is left.
    pub(crate) fn write(&mut self, epoll: &OwnedFd, side: Side, token: u64) -> Result<()> {
        let (end, traffic) = match side {
            Side::Client => (&mut self.client, Some(&mut self.forward)),
            Side::Daemon => (&mut self.daemon, self.back.as_mut()),
        };
        let Some(traffic) = traffic else {
            return Ok(());
        };
        let is_full = !traffic.write(&mut end.wire, self.write_bytes_max)?;
        if is_full != end.is_full {
            end.is_full = is_full;
            let mut events = EventFlags::IN;
            events.set(EventFlags::OUT, is_full);
            epoll::modify(epoll, &end.wire, EventData::new_u64(token), events)?;
        }
        Ok(())
    }

    /// The socket of one side.
    pub(crate) fn socket(&self, side: Side) -> &TcpStream {
        match side {
            Side::Client => self.client.wire.socket(),
            Side::Daemon => self.daemon.wire.socket(),
        }
    }

    /// Reads what has arrived at one side; `None` when there is nothing at the moment.
    ///
    /// Errors: the connection was closed, or failed.
    pub(crate) fn read(&mut self, side: Side, buffer: &mut [u8]) -> Result<Option<usize>> {
        let end = match side {
            Side::Client => &mut self.client,
            Side::Daemon => &mut self.daemon,
        };
        match end.wire.read_some(buffer) {
            Ok(0) => bail!("the connection was closed"),
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Frames sent and not arrived, in both directions.
    pub(crate) fn in_flight(&self) -> u64 {
        self.forward.in_flight() + self.back.as_ref().map_or(0, Traffic::in_flight)
    }
}

/// What followed from bytes that arrived.
pub(crate) struct Arrival {
    /// Frames completed.
    pub(crate) count: u64,
    /// When those frames were first sent that have now made their whole way.
    pub(crate) sent_at: Vec<u64>,
    /// The side with something new to write.
    pub(crate) writer: Option<Side>,
}

/// Opens the two sockets of a pair, daemon first, and makes the messages it will send.
pub(crate) fn open_sockets(
    subject: &Subject,
    index: usize,
    payload_bytes: usize,
) -> Result<(TcpStream, TcpStream, Envelope)> {
    let (target, names) = (Target::of(subject), Names::of(index));
    let envelope = envelope(&names.session, payload_bytes)?;
    let mut daemon = target.open(index, &names.upgrade("workspace-daemon"))?;
    let mut client = target.open(index, &names.upgrade("client"))?;
    if target.between == Between::Relay {
        begin_session(&mut daemon, &mut client, &names)?;
    }
    Ok((daemon.into_plain()?, client.into_plain()?, envelope))
}

/// How the pair of an index calls itself.
pub(crate) struct Names {
    pub(crate) workspace: String,
    client: String,
    pub(crate) session: String,
    pub(crate) request: String,
}

impl Names {
    pub(crate) fn of(index: usize) -> Self {
        Self {
            workspace: format!("load-{index:05}"),
            client: format!("client-{index:05}"),
            session: format!("session-{index:05}"),
            request: format!("request-{index}"),
        }
    }

    /// What one side asks a relay for.
    pub(crate) fn upgrade(&self, role: &'static str) -> Upgrade<'_> {
        let token = platform::token(role, &self.workspace, TARGET, &self.client);
        Upgrade { role, workspace: &self.workspace, target: TARGET, token: token.into() }
    }
}

/// Lets the client own a session.
pub(crate) fn begin_session(daemon: &mut Wire, client: &mut Wire, names: &Names) -> Result<()> {
    let init = key_exchange_init(&names.request);
    send_text(client, &init)?;
    expect_text(daemon, &init)?;
    let response = key_exchange_response(&names.request, &names.session);
    send_text(daemon, &response)?;
    expect_text(client, &response)
}

/// A message of an exact size.
pub(crate) fn envelope(session: &str, bytes: usize) -> Result<Envelope> {
    Envelope::new(session, bytes)
        .map_err(|least| anyhow!("a payload has at least {least} bytes, not {bytes}"))
}

/// The target that every daemon serves.
const TARGET: &str = "target";
