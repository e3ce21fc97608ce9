//! Many connections of one process, opened, kept alive and ended by one thread.
//!
//! A socket of the crowd does little: it connects, asks to become a WebSocket, answers pings, and
//! is reset. What counts is how many there are and how fast they come.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::processor;

/// Connections to one relay.
pub(crate) struct Crowd {
    to: SocketAddr,
    /// Each connection comes from the next of these, so that no address runs out of ports.
    sources: Vec<Ipv4Addr>,
    tls: Option<Arc<ClientConfig>>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    members: Vec<Option<Member>>,
    vacant: Vec<usize>,
    buffer: Box<[u8]>,
    begun: usize,
    pub(crate) outcome: Outcome,
}

/// What became of those that were opened.
pub(crate) struct Outcome {
    /// Answered with 101.
    pub(crate) opened: usize,
    /// Answered with anything else, ended, or never connected.
    pub(crate) refused: usize,
    /// How many of them were told what, by the status of the answer; zero without one.
    statuses: BTreeMap<u16, usize>,
    /// What the first of them was told.
    pub(crate) first_refusal: Option<String>,
    /// Ended by the relay after they were open.
    pub(crate) lost: usize,
    /// Pings answered.
    pub(crate) pings: u64,
    /// Nanoseconds from the first packet to any other answer.
    pub(crate) refusal_latency: Histogram<u64>,
    /// Nanoseconds from the first packet to 101.
    pub(crate) latency: Histogram<u64>,
}

struct Member {
    socket: OwnedFd,
    stage: Stage,
    began_ns: u64,
    /// Bytes for the socket that it has not taken.
    outgoing: Vec<u8>,
    /// Bytes of the relay that are not whole yet.
    incoming: Vec<u8>,
    tls: Option<Box<ClientConnection>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Asking,
    Open,
}

/// What becomes of a connection once it is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Then {
    /// It stays.
    Stay,
    /// It is reset.
    Leave,
}

/// What a member did.
enum Step {
    Nothing,
    Opened,
    Refused(String),
    Lost,
}

impl Crowd {
    /// An empty crowd whose connections come from these addresses, over TLS or without.
    pub(crate) fn new(
        to: SocketAddr,
        sources: Vec<Ipv4Addr>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self> {
        Ok(Self {
            to,
            sources,
            tls,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            members: Vec::new(),
            vacant: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            begun: 0,
            outcome: Outcome::new()?,
        })
    }

    /// Forgets what was counted so far.
    pub(crate) fn recount(&mut self) -> Result<()> {
        self.outcome = Outcome::new()?;
        Ok(())
    }

    /// Opens one connection per request, at most `at_once` of them at a time, until there are no
    /// more requests and each was answered.
    pub(crate) fn open(
        &mut self,
        mut requests: impl Iterator<Item = Vec<u8>>,
        at_once: usize,
        then: Then,
    ) -> Result<()> {
        let mut asking = 0;
        let mut is_over = false;
        let mut heard_ns = processor::now_ns();
        loop {
            while asking < at_once && !is_over {
                match requests.next() {
                    Some(request) => {
                        self.begin(request)?;
                        asking += 1;
                    }
                    None => is_over = true,
                }
            }
            if asking == 0 {
                return Ok(());
            }
            let answered = self.turn(PATIENCE, then)?;
            let now_ns = processor::now_ns();
            if answered > 0 {
                heard_ns = now_ns;
            }
            if now_ns - heard_ns > STALL_NS {
                bail!("{asking} upgrades have had no answer for 5 s");
            }
            asking -= answered;
        }
    }

    /// Answers pings; `asked` is called whenever `asker` is readable, and says whether to go on.
    pub(crate) fn serve_until(
        &mut self,
        asker: impl AsFd,
        mut asked: impl FnMut(&Outcome) -> Result<bool>,
    ) -> Result<()> {
        let data = epoll::EventData::new_u64(ASKED);
        epoll::add(&self.epoll, asker, data, epoll::EventFlags::IN)?;
        loop {
            self.wait(None)?;
            let mut events = std::mem::take(&mut self.events);
            for event in events.drain(..) {
                match event.data.u64() == ASKED {
                    true if asked(&self.outcome)? => {}
                    true => return Ok(()),
                    false => drop(self.on_event(event, Then::Stay)?),
                }
            }
            self.events = events;
        }
    }

    /// Ends every connection with a reset, as a network that fails does.
    pub(crate) fn reset(&mut self) {
        self.vacant.clear();
        self.members.clear();
    }

    /// Waits for sockets and serves each that is ready; how many upgrades were answered.
    fn turn(&mut self, patience: Timespec, then: Then) -> Result<usize> {
        self.wait(Some(&patience))?;
        let mut events = std::mem::take(&mut self.events);
        let mut answered = 0;
        for event in events.drain(..) {
            answered += self.on_event(event, then)?;
        }
        self.events = events;
        Ok(answered)
    }

    fn wait(&mut self, patience: Option<&Timespec>) -> Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), patience) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn begin(&mut self, request: Vec<u8>) -> Result<()> {
        let source = self.sources[self.begun % self.sources.len()];
        self.begun += 1;
        let began_ns = processor::now_ns();
        let socket = connect(source, self.to).with_context(|| format!("a socket of {source}"))?;
        let mut member = Member {
            socket,
            stage: Stage::Asking,
            began_ns,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            tls: None,
        };
        match &self.tls {
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let mut session = ClientConnection::new(Arc::clone(config), name)?;
                session.writer().write_all(&request)?;
                member.tls = Some(Box::new(session));
                member.seal()?;
            }
            None => member.outgoing = request,
        }
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        // On loopback a connection is usually there when connect(2) returns. A failure shows in
        // the first event.
        let _ = member.write();
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&self.epoll, &member.socket, data, member.interest())?;
        self.members[at] = Some(member);
        Ok(())
    }

    /// Serves one socket; one if its upgrade was answered.
    fn on_event(&mut self, event: epoll::Event, then: Then) -> Result<usize> {
        // Events are packed: fields are copied, not borrowed.
        let (data, flags) = (event.data, event.flags);
        let at = data.u64() as usize;
        let Some(member) = self.members.get_mut(at).and_then(Option::as_mut) else {
            return Ok(0);
        };
        let mut step = Step::Nothing;
        let wanted = member.interest();
        if flags.contains(epoll::EventFlags::OUT)
            && let Err(error) = member.write()
        {
            step = member.ended(&error.to_string());
        }
        let readable = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if matches!(step, Step::Nothing) && flags.intersects(readable) {
            step = member.read(&mut self.buffer, &mut self.outcome.pings);
        }
        if matches!(step, Step::Nothing) && member.interest() != wanted {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, &member.socket, data, member.interest())?;
        }
        Ok(self.settle(at, step, then))
    }

    fn settle(&mut self, at: usize, step: Step, then: Then) -> usize {
        let stays =
            matches!(step, Step::Nothing) || matches!((&step, then), (Step::Opened, Then::Stay));
        let answered = match step {
            Step::Nothing => 0,
            Step::Opened => {
                let passed_ns = self.passed_ns(at);
                self.outcome.latency.saturating_record(passed_ns);
                self.outcome.opened += 1;
                1
            }
            Step::Refused(told) => {
                let passed_ns = self.passed_ns(at);
                self.outcome.refusal_latency.saturating_record(passed_ns);
                *self.outcome.statuses.entry(status(&told)).or_default() += 1;
                self.outcome.refused += 1;
                self.outcome.first_refusal.get_or_insert(told);
                1
            }
            Step::Lost => {
                self.outcome.lost += 1;
                0
            }
        };
        if !stays {
            self.members[at] = None;
            self.vacant.push(at);
        }
        answered
    }

    /// Since a member's first packet.
    fn passed_ns(&self, at: usize) -> u64 {
        let began_ns = self.members[at].as_ref().map_or(0, |member| member.began_ns);
        processor::now_ns().saturating_sub(began_ns)
    }
}

/// The status in the first line of an answer; zero where it is none.
fn status(told: &str) -> u16 {
    let code = told.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.unwrap_or_default()
}

fn latencies() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("a histogram of three digits")
}

impl Outcome {
    /// How many were refused with this status.
    pub(crate) fn refused_with(&self, status: u16) -> usize {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    fn new() -> Result<Self> {
        Ok(Self {
            opened: 0,
            refused: 0,
            statuses: BTreeMap::new(),
            first_refusal: None,
            lost: 0,
            pings: 0,
            refusal_latency: latencies()?,
            latency: latencies()?,
        })
    }
}

impl Member {
    fn interest(&self) -> epoll::EventFlags {
        match self.outgoing.is_empty() {
            true => epoll::EventFlags::IN,
            false => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match rustix::net::send(&self.socket, &self.outgoing, rustix::net::SendFlags::NOSIGNAL)
            {
                Ok(len) => drop(self.outgoing.drain(..len)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // Half a million of them: what is not needed is given back.
        self.outgoing = Vec::new();
        Ok(())
    }

    /// Moves what TLS has to say to the outgoing bytes.
    fn seal(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            while session.wants_write() {
                session.write_tls(&mut self.outgoing)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], pings: &mut u64) -> Step {
        match rustix::net::recv(&self.socket, &mut *buffer, rustix::net::RecvFlags::empty()) {
            Ok((0, _)) => self.ended("closed without an answer"),
            Ok((len, _)) => match self.take(&buffer[..len]) {
                Ok(()) => self.judge(pings),
                Err(error) => self.ended(&error.to_string()),
            },
            Err(Errno::AGAIN) => Step::Nothing,
            Err(error) => self.ended(&error.to_string()),
        }
    }

    /// Takes bytes of the socket in, through TLS where there is TLS.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.tls else {
            self.incoming.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            session.read_tls(&mut bytes)?;
            session.process_new_packets().map_err(io::Error::other)?;
        }
        match session.reader().read_to_end(&mut self.incoming) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.seal()?;
        self.write()
    }

    /// Looks at what came: the answer to the upgrade, then pings.
    fn judge(&mut self, pings: &mut u64) -> Step {
        let mut step = Step::Nothing;
        if self.stage == Stage::Asking {
            let Some(end) = self.incoming.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Step::Nothing;
            };
            if !self.incoming.starts_with(b"HTTP/1.1 101 ") {
                let line = self.incoming.split(|&byte| byte == b'\r').next().unwrap_or_default();
                return Step::Refused(String::from_utf8_lossy(line).into_owned());
            }
            self.incoming.drain(..end + 4);
            self.stage = Stage::Open;
            step = Step::Opened;
        }
        match self.answer_pings() {
            Ok(count) => *pings += count,
            Err(_) => return Step::Lost,
        }
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        step
    }

    /// Answers each whole ping; the relay sends nothing else to those who do nothing.
    fn answer_pings(&mut self) -> io::Result<u64> {
        let mut count = 0;
        while let [first, len, ..] = self.incoming[..] {
            let frame_bytes = 2 + usize::from(len);
            if self.incoming.len() < frame_bytes {
                break;
            }
            if first != PING || len != 0 {
                return Err(io::Error::other("not an empty ping"));
            }
            self.incoming.drain(..frame_bytes);
            match &mut self.tls {
                Some(session) => session.writer().write_all(&PONG)?,
                None => self.outgoing.extend_from_slice(&PONG),
            }
            count += 1;
        }
        if count > 0 {
            self.seal()?;
            self.write()?;
        }
        Ok(count)
    }

    fn ended(&self, why: &str) -> Step {
        match self.stage {
            Stage::Asking => Step::Refused(why.to_owned()),
            Stage::Open => Step::Lost,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Without lingering the end is a reset, which leaves no port behind that waits.
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}

/// Begins to connect from a given address.
fn connect(source: Ipv4Addr, to: SocketAddr) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    late_port(&socket)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Leaves the choice of the port to connect(2), which knows where to: ports of one address are then
/// told apart by the whole four of addresses and ports, and finding one is quick. Source: ip(7),
/// `IP_BIND_ADDRESS_NO_PORT`.
#[expect(unsafe_code, reason = "no safe wrapper is among the dependencies")]
fn late_port(socket: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    // SAFETY: setsockopt(2) reads one integer during the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An upgrade request of a client.
pub(crate) fn upgrade_request(workspace: &str, target: &str, token: &str) -> Vec<u8> {
    format!(
        "GET /ws?role=client&workspaceId={workspace}&runtimeTargetId={target} HTTP/1.1\r\n\
         Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

/// Names the descriptor of who asks, in [`Crowd::serve_until`].
const ASKED: u64 = u64::MAX;
/// The first byte of a ping: final, opcode 9. Source: RFC 6455 §5.2.
const PING: u8 = 0x89;
/// An empty pong under the mask zero.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
/// Bytes of one read, at most.
const READ_BYTES: usize = 64 << 10;
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 1024;
/// The longest latency the histogram tells apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Silence that means upgrades are lost.
const STALL_NS: u64 = 5_000_000_000;
/// How long a turn waits, so that ends are noticed.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
