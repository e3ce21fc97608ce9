//! A client and a daemon, and the frames between them.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::envelope::{Envelope, key_exchange_init, key_exchange_response};
use crate::flow::{Between, Flow};
use crate::platform;
use crate::subject::Subject;
use crate::upgrade::{Upgrade, expect_text, send_text};

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

/// One workspace with one target: its two sockets, and a flow per direction.
pub(crate) struct Pair {
    client: End,
    daemon: End,
    /// Client to daemon.
    forward: Flow,
    /// Daemon to client, when frames are sent back.
    back: Option<Flow>,
    /// Bytes of one write, at most.
    pub(crate) write_bytes_max: usize,
}

/// One socket.
struct End {
    socket: TcpStream,
    /// Whether it took less than it was given, and epoll watches for room.
    is_full: bool,
}

impl Pair {
    /// Opens one pair: two sockets, through a relay two upgrades and one key exchange.
    pub(crate) fn open(subject: &Subject, index: usize, shape: Shape) -> Result<Self> {
        let (daemon, client, envelope) = open_sockets(subject, index, shape.payload_bytes)?;
        for socket in [&daemon, &client] {
            socket.set_nonblocking(true)?;
        }
        let flow = || Flow::new(&envelope, shape.depth, subject.between);
        let end = |socket| End { socket, is_full: false };
        Ok(Self {
            client: end(client),
            daemon: end(daemon),
            forward: flow(),
            back: shape.echo.then(flow),
            write_bytes_max: usize::MAX,
        })
    }

    /// Begins to watch both sockets; `token` names this pair's side.
    pub(crate) fn watch(&self, epoll: &OwnedFd, token: impl Fn(Side) -> u64) -> Result<()> {
        for side in [Side::Client, Side::Daemon] {
            let data = EventData::new_u64(token(side));
            epoll::add(epoll, &self.end(side).socket, data, EventFlags::IN)?;
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
        let flow = match side {
            Side::Daemon => Some(&mut self.forward),
            Side::Client => self.back.as_mut(),
        };
        let Some(flow) = flow else {
            bail!(
                "the client was sent what it did not ask for: {}",
                String::from_utf8_lossy(bytes)
            );
        };
        let numbers = flow.arrive(bytes)?;
        let count = numbers.end - numbers.start;
        let is_whole_way = side == Side::Client || self.back.is_none();
        let writer = match &mut self.back {
            Some(back) if !is_whole_way => {
                back.release(count, now);
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
            self.forward.release(count, now);
        }
        Ok(Arrival { count, sent_at, writer })
    }

    /// Lets the first frames go.
    pub(crate) fn prime(&mut self, depth: usize, now: u64) {
        self.forward.release(depth as u64, now);
    }

    /// Writes what one side has to send, and keeps epoll watching for room while some is left.
    pub(crate) fn write(&mut self, epoll: &OwnedFd, side: Side, token: u64) -> Result<()> {
        let (end, flow) = match side {
            Side::Client => (&mut self.client, Some(&mut self.forward)),
            Side::Daemon => (&mut self.daemon, self.back.as_mut()),
        };
        let Some(flow) = flow else {
            return Ok(());
        };
        let is_full = !flow.write(&end.socket, self.write_bytes_max)?;
        if is_full != end.is_full {
            end.is_full = is_full;
            let mut events = EventFlags::IN;
            events.set(EventFlags::OUT, is_full);
            epoll::modify(epoll, &end.socket, EventData::new_u64(token), events)?;
        }
        Ok(())
    }

    /// The socket of one side.
    pub(crate) fn socket(&self, side: Side) -> &TcpStream {
        &self.end(side).socket
    }

    /// Reads what has arrived at one side; `None` when there is nothing at the moment.
    ///
    /// Errors: the connection was closed, or failed.
    pub(crate) fn read(&self, side: Side, buffer: &mut [u8]) -> Result<Option<usize>> {
        match rustix::io::read(self.socket(side), buffer) {
            Ok(0) => bail!("the connection was closed"),
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Frames sent and not arrived, in both directions.
    pub(crate) fn in_flight(&self) -> u64 {
        self.forward.in_flight() + self.back.as_ref().map_or(0, Flow::in_flight)
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Daemon => &self.daemon,
        }
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
    let session = format!("session-{index:05}");
    let envelope = match Envelope::new(&session, payload_bytes) {
        Ok(envelope) => envelope,
        Err(least) => bail!("a payload has at least {least} bytes"),
    };
    let mut daemon = connect(subject)?;
    let mut client = connect(subject)?;
    if subject.between == Between::Relay {
        begin_session(&mut daemon, &mut client, index, &session)?;
    }
    Ok((daemon, client, envelope))
}

/// Upgrades both sockets and lets the client own a session.
fn begin_session(
    daemon: &mut TcpStream,
    client: &mut TcpStream,
    index: usize,
    session: &str,
) -> Result<()> {
    let workspace = format!("load-{index:05}");
    let target = "target";
    let upgrade = |role: &str, socket: &mut TcpStream| {
        let token = platform::token(role, &workspace, target, &format!("client-{index:05}"));
        let upgrade = Upgrade { role, workspace: &workspace, target, token: &token };
        upgrade.perform(socket)
    };
    upgrade("workspace-daemon", daemon)?;
    upgrade("client", client)?;
    let request = format!("request-{index}");
    let init = key_exchange_init(&request);
    send_text(client, &init)?;
    expect_text(daemon, &init)?;
    let response = key_exchange_response(&request, session);
    send_text(daemon, &response)?;
    expect_text(client, &response)
}

fn connect(subject: &Subject) -> Result<TcpStream> {
    let socket = TcpStream::connect(subject.address).context("connecting")?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// How long an answer may take while pairs are opened.
const PATIENCE: Duration = Duration::from_secs(10);
