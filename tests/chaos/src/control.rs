//! The control pair: a daemon and a client that keep talking while everything else goes wrong.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use relay_arrival::Arrived;

use crate::door::Door;
use crate::frame;
use crate::line::Line;
use crate::message;
use crate::pass::{Mint, Pass};
use crate::peer::{Answer, Peer};
use crate::processors;

/// Two connections, admitted like any other, and a message of 256 bytes on its way there and back
/// at a fixed rate. The rate does not wait for answers, so a stall shows in every message it held
/// up. Each way counts from when the message was written to when the kernel noted its arrival. Who
/// of the kit runs when is in that only where a thread is interrupted before it writes, or reads
/// two messages together, which have one note: so these threads go first.
pub struct Control {
    shared: Arc<Shared>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

/// What the pair saw in a stretch of time.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Nanoseconds of each way, there and back.
    pub latency_ns: Histogram<u64>,
    /// Messages whose echo did not come in time, or not although a later one's did.
    pub lost: u64,
    /// Why the pair is no longer connected.
    pub ended: Option<String>,
}

/// How frames are written: masked for a relay, else as they are read.
type Encode = fn(u8, &[u8]) -> Vec<u8>;

struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

struct Seen {
    stretch: Stretch,
    /// Messages sent.
    sent: u64,
    /// Messages echoed or lost.
    settled: u64,
    /// The last message that nobody waits for any more: echoes up to here come too late.
    given_up: u64,
    /// When each message under way was written, by its number: to the daemon, and back.
    there_ns: HashMap<u64, u64>,
    back_ns: HashMap<u64, u64>,
    stopping: bool,
}

impl Control {
    /// Opens both connections, lets the client own a session, and begins to talk.
    pub fn start(door: &Door, mint: &Mint, rate: u32) -> Result<Self> {
        let mut daemon = open(door, &mint.daemon(WORKSPACE)?)?;
        let mut client = open(door, &mint.client(WORKSPACE, "control")?)?;
        client.send(&frame::text(&message::key_exchange("r1")));
        expect(&mut daemon, "relay_key_exchange_init")?;
        daemon.send(&frame::text(&message::key_exchanged("r1", SESSION)));
        expect(&mut client, "relay_key_exchange_response")?;
        let [daemon, client] = [daemon, client].map(|peer| peer.into_line().0);
        Self::talk_between(daemon, client, rate, frame::masked)
    }

    /// A pair that is connected with itself: what an attack costs in the kernel and on the kit's
    /// own processors, the relay aside.
    pub fn start_bare(rate: u32) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (daemon, _) = listener.accept()?;
        for socket in [&client, &daemon] {
            socket.set_nodelay(true)?;
        }
        Self::talk_between(Line::plain(daemon), Line::plain(client), rate, frame::unmasked)
    }

    fn talk_between(daemon: Line, client: Line, rate: u32, encode: Encode) -> Result<Self> {
        let shared = Arc::new(Shared { seen: Mutex::new(Seen::new()?), changed: Condvar::new() });
        for line in [&daemon, &client] {
            line.socket().set_read_timeout(None)?;
            relay_arrival::note_arrivals(line.socket())?;
        }
        let sockets = vec![daemon.socket().try_clone()?, client.socket().try_clone()?];
        let writer = Arc::new(Mutex::new(client.try_clone()?));
        let period = Duration::from_secs(1) / rate;
        let mut control = Self { shared, sockets, threads: Vec::new() };
        control.thread("echo", move |shared| echo(daemon, shared, encode))?;
        let echoed = Arc::clone(&writer);
        control.thread("listen", move |shared| listen(client, &echoed, shared))?;
        control.thread("talk", move |shared| talk(&writer, shared, period, encode))?;
        Ok(control)
    }

    /// Waits until every message sent so far is back, then begins a new stretch and returns the
    /// last one.
    pub fn take(&self) -> Stretch {
        let shared = &self.shared;
        let seen = shared.seen();
        let sent = seen.sent;
        let is_open = |seen: &mut Seen| seen.settled < sent && seen.stretch.ended.is_none();
        let waited = shared.changed.wait_timeout_while(seen, PATIENCE, is_open);
        let (mut seen, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut fresh = seen.stretch.clone();
        fresh.latency_ns.reset();
        fresh.lost = 0;
        let mut stretch = std::mem::replace(&mut seen.stretch, fresh);
        if timeout.timed_out() {
            stretch.lost += sent - seen.settled;
            (seen.settled, seen.given_up) = (sent, sent);
            seen.there_ns.retain(|&number, _| number > sent);
            seen.back_ns.retain(|&number, _| number > sent);
        }
        stretch
    }

    /// Lets the pair talk for this long, or until it is no longer connected.
    pub fn pass(&self, time: Duration) {
        let waited = self
            .shared
            .changed
            .wait_timeout_while(self.shared.seen(), time, |seen| seen.stretch.ended.is_none());
        drop(waited);
    }

    fn thread(
        &mut self,
        name: &str,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let named = name.to_owned();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // What is measured is the relay, not who of the kit runs when.
            if !processors::go_first() {
                SAID.call_once(|| println!("not allowed to go before other work: more noise"));
            }
            if let Err(error) = work(&shared) {
                shared.end(&format!("{named}: {error:#}"));
            }
        });
        self.threads.push(thread.context("a thread of the control pair")?);
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.seen().stopping = true;
        self.shared.changed.notify_all();
        for socket in &self.sockets {
            // It may have ended by itself.
            drop(socket.shutdown(std::net::Shutdown::Both));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Stretch {
    fn new() -> Result<Self> {
        // A message that takes longer than a minute is lost anyway.
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Self { latency_ns, lost: 0, ended: None })
    }

    /// The latency that so many of a hundred ways stayed below, in nanoseconds.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.latency_ns.value_at_quantile(percent / 100.0)
    }

    fn note(&mut self, written_ns: Option<u64>, arrived_ns: u64) {
        if let Some(written_ns) = written_ns {
            self.latency_ns.saturating_record(arrived_ns.saturating_sub(written_ns));
        }
    }
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self {
            stretch: Stretch::new()?,
            sent: 0,
            settled: 0,
            given_up: 0,
            there_ns: HashMap::new(),
            back_ns: HashMap::new(),
            stopping: false,
        })
    }
}

impl Shared {
    /// A panic while it was held has already failed the run.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: &str) {
        let mut seen = self.seen();
        if !seen.stopping {
            seen.stretch.ended.get_or_insert_with(|| why.to_owned());
        }
        self.changed.notify_all();
    }
}

/// Sends a message whenever one is due.
fn talk(line: &Mutex<Line>, shared: &Shared, period: Duration, encode: Encode) -> Result<()> {
    let origin = Instant::now();
    for number in 1_u64.. {
        let due = origin + period * u32::try_from(number)?;
        let frame = encode(frame::TEXT, sized(number).as_bytes());
        {
            let left = due.saturating_duration_since(Instant::now());
            let waited = shared.changed.wait_timeout_while(shared.seen(), left, |seen| {
                !seen.stopping && seen.stretch.ended.is_none()
            });
            let mut seen = waited.unwrap_or_else(PoisonError::into_inner).0;
            if seen.stopping || seen.stretch.ended.is_some() {
                return Ok(());
            }
            seen.sent = number;
            seen.there_ns.insert(number, relay_arrival::now_ns());
        }
        write(line, &frame)?;
    }
    Ok(())
}

/// Fails when a relay changed a message on its way: each is forwarded as it was written.
fn ensure_unchanged(number: u64, payload: &[u8]) -> Result<()> {
    let is_same = payload == sized(number).as_bytes();
    ensure!(is_same, "message {number} came changed: {}", String::from_utf8_lossy(payload));
    Ok(())
}

/// A message of 256 bytes with this number.
fn sized(number: u64) -> String {
    let bare = message::encrypted(SESSION, number, "").len();
    message::encrypted(SESSION, number, &"A".repeat(MESSAGE_BYTES.saturating_sub(bare)))
}

/// The client's ear: notes when each echo arrives.
fn listen(line: Line, writer: &Mutex<Line>, shared: &Shared) -> Result<()> {
    let mut ear = Ear::new(line);
    loop {
        let (frame, arrived_ns) = ear.next()?;
        match frame.first {
            frame::PING => write(writer, &frame::masked(frame::PONG, &frame.payload))?,
            frame::TEXT => {
                let number = number_of(&frame.payload)?;
                ensure_unchanged(number, &frame.payload)?;
                let mut seen = shared.seen();
                if number <= seen.given_up {
                    seen.back_ns.remove(&number);
                    continue;
                }
                ensure!(number > seen.settled, "message {number} came twice, or out of order");
                for lost in seen.settled + 1..number {
                    seen.there_ns.remove(&lost);
                    seen.back_ns.remove(&lost);
                    seen.stretch.lost += 1;
                }
                seen.settled = number;
                let written_ns = seen.back_ns.remove(&number);
                seen.stretch.note(written_ns, arrived_ns);
                shared.changed.notify_all();
            }
            first => bail!("the client received a frame of {first:#04x}: {}", shown(&frame)),
        }
    }
}

/// The daemon: notes when each message arrives and sends it back.
fn echo(mut line: Line, shared: &Shared, encode: Encode) -> Result<()> {
    let mut ear = Ear::new(line.try_clone()?);
    loop {
        let (frame, arrived_ns) = ear.next()?;
        match frame.first {
            frame::PING => line.write_all(&frame::masked(frame::PONG, &frame.payload))?,
            frame::TEXT => {
                let number = number_of(&frame.payload)?;
                ensure_unchanged(number, &frame.payload)?;
                let answer = encode(frame::TEXT, &frame.payload);
                let mut seen = shared.seen();
                let written_ns = seen.there_ns.remove(&number);
                seen.stretch.note(written_ns, arrived_ns);
                seen.back_ns.insert(number, relay_arrival::now_ns());
                drop(seen);
                line.write_all(&answer)?;
            }
            first => bail!("the daemon received a frame of {first:#04x}: {}", shown(&frame)),
        }
    }
}

/// A line's frames, each with when the last byte that was read with it arrived.
struct Ear {
    line: Line,
    received: Vec<u8>,
    arrived_ns: u64,
}

impl Ear {
    fn new(line: Line) -> Self {
        Self { line, received: Vec::new(), arrived_ns: 0 }
    }

    fn next(&mut self) -> Result<(frame::Frame, u64)> {
        let mut chunk = [0; 4096];
        loop {
            if let Some((frame, used)) = frame::decode(&self.received) {
                self.received.drain(..used);
                return Ok((frame, self.arrived_ns));
            }
            let read = relay_arrival::read(self.line.socket(), &mut chunk)?;
            let Some(Arrived { len, at_ns }) = read else {
                continue;
            };
            self.line.open(&chunk[..len], &mut self.received)?;
            self.arrived_ns = at_ns;
        }
    }
}

fn write(line: &Mutex<Line>, bytes: &[u8]) -> Result<()> {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    line.write_all(bytes).context("the connection was reset")
}

fn number_of(payload: &[u8]) -> Result<u64> {
    let message: serde_json::Value = serde_json::from_slice(payload)?;
    message["seq"].as_u64().with_context(|| format!("not an echo: {message}"))
}

fn shown(frame: &frame::Frame) -> String {
    String::from_utf8_lossy(&frame.payload).into_owned()
}

fn open(door: &Door, pass: &Pass) -> Result<Peer> {
    let mut peer = Peer::connect(door, None)?;
    peer.send(pass.upgrade().as_bytes());
    let answer = peer.answer();
    ensure!(answer == Answer::Status(101), "a {} got {answer:?}", pass.role.name());
    Ok(peer)
}

fn expect(peer: &mut Peer, kind: &str) -> Result<()> {
    let text = peer.text();
    let fits = text.as_ref().is_ok_and(|text| text.contains(kind));
    ensure!(fits, "expected {kind}, got {text:?}");
    Ok(())
}

/// Whether the run has said that it measures with more noise.
static SAID: Once = Once::new();

/// Nobody else's workspace.
const WORKSPACE: &str = "control";
const SESSION: &str = "control-session";

/// Bytes of one message.
const MESSAGE_BYTES: usize = 256;

/// How late the last echo of a stretch may be before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
