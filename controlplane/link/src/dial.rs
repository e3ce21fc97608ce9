//! A data plane's way to its control plane.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relay_contract::{Command, Counter, Counters, Event, Level, LogEntry, ShardId};
use relay_grpc::plane::v1::plane_link_client::PlaneLinkClient;
use relay_grpc::plane::v1::{FromControlPlane, FromDataPlane};
use tokio::sync::mpsc;
use tokio::time::{
    Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout_at,
};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use crate::Link;
use crate::access::{Access, Credentials, Notes, Time};
use crate::convert::{Frame, names_refused};
use crate::cord::{BEAT, Cord, Identity};
use crate::hub::MESSAGE_BYTES_MAX;

/// Where a control plane is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// `http://host:port` or `https://host:port`.
    Url(String),
    /// A socket of this host.
    Unix(String),
}

/// Connects shards to a control plane that runs apart, for as long as they run.
#[derive(Debug)]
pub struct Dial {
    /// Where it is.
    pub address: Address,
    /// How both know each other.
    pub credentials: Credentials,
    /// What this data plane is.
    pub identity: Identity,
    /// The clock.
    pub time: Time,
    /// Where it tells its operator.
    pub notes: Notes,
    /// Time peers have to leave at the end, in milliseconds. It may change.
    pub drain_ms: Arc<AtomicU64>,
    /// What the program itself counts; it shows among what the first shard counts.
    pub counters: Arc<Mutex<Counters>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialled {
    /// Every shard has stopped.
    Stopped,
    /// The deadline passed with shards still running.
    DeadlinePassed,
}

/// The address or the certificates cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialError(String);

/// The two directions of a stream.
struct Stream {
    inbound: Streaming<FromControlPlane>,
    outbound: mpsc::Sender<FromDataPlane>,
}

/// What is being waited for on the way to a stream.
type Waiting<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

enum Way {
    /// On the way to a connection; it comes with the token to show there.
    Connecting(Waiting<(Channel, Option<Shown>)>),
    /// The greeting is sent.
    Greeting(Waiting<Stream>),
    There(Box<Stream>),
}

/// What happened on the way.
enum Step {
    Connected(Channel, Option<Shown>),
    Greeted(Stream),
    Message(Box<FromControlPlane>),
    Room,
    Failed(String),
}

/// A token, as the head of a request carries it.
type Shown = MetadataValue<Ascii>;

struct Line {
    dial: Dial,
    link: Link,
    cord: Cord,
    way: Way,
    /// Attempts since there was a control plane.
    attempts: u32,
    /// What was told the operator last, so that it is not told at every attempt.
    told: Option<String>,
    jitter: RandomState,
    /// Shards that run.
    running: Vec<ShardId>,
}

impl Dial {
    /// Serves the shards at the other ends of `link` until `shutdown` completes, then lets the
    /// peers leave, stops the shards and waits for them, at most the drain time and a second.
    /// `hurry` leaves the peers a moment.
    ///
    /// # Errors
    /// [`DialError`]. A control plane that is not there is no error: it may come.
    pub async fn run(
        self,
        link: Link,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<Dialled, DialError> {
        // What cannot be used now is told at once; later it is tried again and again.
        let access = (self.credentials.0)().map_err(DialError)?;
        endpoint(&self.address, &access)?;
        let mut line = Line {
            cord: Cord::new(self.identity.clone()),
            way: Way::Connecting(self.connect(Duration::ZERO)),
            running: link.shards.ids().collect(),
            dial: self,
            link,
            attempts: 0,
            told: None,
            jitter: RandomState::new(),
        };
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = line.turn(&mut beats) => {}
            }
            if line.running.is_empty() {
                return Ok(Dialled::Stopped);
            }
        }
        Ok(line.leave(&mut beats, hurry).await)
    }

    /// Connects after a pause, with what there is to show by then.
    fn connect(&self, pause: Duration) -> Waiting<(Channel, Option<Shown>)> {
        let (address, credentials) = (self.address.clone(), self.credentials.clone());
        Box::pin(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let access = (credentials.0)()?;
            let endpoint = endpoint(&address, &access).map_err(|error| error.to_string())?;
            let channel = endpoint.connect().await.map_err(|error| causes(&error))?;
            Ok((channel, access.shown()))
        })
    }
}

fn endpoint(address: &Address, access: &Access) -> Result<Endpoint, DialError> {
    let url = match address {
        Address::Url(url) => url.clone(),
        Address::Unix(path) => format!("unix:{path}"),
    };
    let wrong = |error: tonic::transport::Error| DialError(causes(&error));
    let endpoint = Endpoint::from_shared(url).map_err(wrong)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_PATIENCE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    match &access.tls {
        Some(tls) => endpoint.tls_config(tls.client()).map_err(wrong),
        None => Ok(endpoint),
    }
}

/// An error with what caused it: the first alone says that the transport failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Line {
    fn frame(&self) -> Frame {
        let (now, unix_ms) = (self.dial.time.0)();
        Frame { first: 0, count: self.dial.identity.shard_count, now, unix_ms }
    }

    fn note(&self, level: Level, event: &'static str, reason: Option<String>) {
        let mut entry = LogEntry::new(level, event);
        if let Some(reason) = reason {
            entry = entry.with("reason", reason);
        }
        self.dial.notes.note(None, entry.ours());
    }

    /// Waits for something to do and does it.
    async fn turn(&mut self, beats: &mut Interval) {
        self.deliver();
        let sends = self.cord.has_message();
        // Without shards nobody tells anything any more.
        let takes_events = self.cord.takes_events() && !self.running.is_empty();
        let Self { link, way, .. } = self;
        tokio::select! {
            event = link.events.next(), if takes_events => match event {
                Some(event) => {
                    let frame = self.frame();
                    self.take(&frame, event);
                    for _ in 1..EVENTS_PER_TURN {
                        if !self.cord.takes_events() {
                            break;
                        }
                        let Some(event) = self.link.events.try_next() else { break };
                        self.take(&frame, event);
                    }
                }
                None => self.running.clear(),
            },
            step = way.step(sends) => {
                let frame = self.frame();
                self.on_step(&frame, step);
            }
            _ = beats.tick() => {
                let frame = self.frame();
                self.cord.beat(&frame);
                if self.cord.is_silent() {
                    self.lose("it was not heard for too long".to_owned());
                }
            }
        }
    }

    fn take(&mut self, frame: &Frame, mut event: Event) {
        if let Event::Stopped { shard } = event {
            self.running.retain(|&running| running != shard);
        }
        if let Event::Reported { report, .. } = &mut event
            && report.shard == ShardId(0)
        {
            let counters = &self.dial.counters;
            report.counters.merge(&counters.lock().unwrap_or_else(PoisonError::into_inner));
            report.counters.add(Counter::PlaneNamesRefused, names_refused());
        }
        self.cord.take(frame, event);
    }

    /// Gives the shards what was ordered.
    fn deliver(&mut self) {
        while let Some((shard, command)) = self.cord.next_command() {
            let admitted = match &command {
                Command::Admit { grant, .. } => Some(grant.admission),
                _ => None,
            };
            if self.link.shards.send(shard, command).is_err() {
                let frame = self.frame();
                self.cord.on_undelivered(&frame, admitted);
            }
        }
        // What is left goes with the next turn; beats see to it that there is one.
        self.link.shards.drain();
    }

    fn on_step(&mut self, frame: &Frame, step: Step) {
        match step {
            Step::Connected(channel, shown) => self.greet(channel, shown),
            Step::Greeted(stream) => self.way = Way::There(Box::new(stream)),
            Step::Message(message) => {
                let was_joined = self.cord.is_joined();
                if let Err(error) = self.cord.receive(frame, *message) {
                    return self.lose(error.to_string());
                }
                if !was_joined && self.cord.is_joined() {
                    self.attempts = 0;
                    self.told = None;
                    self.note(Level::Info, "control_plane_joined", None);
                }
            }
            Step::Room => {
                let Way::There(stream) = &self.way else { return };
                // As much as there is room for: waiting for it costs more than sending.
                while let Ok(permit) = stream.outbound.try_reserve() {
                    let Some(message) = self.cord.next_message(frame) else { break };
                    permit.send(message);
                }
            }
            Step::Failed(reason) => self.lose(reason),
        }
    }

    fn greet(&mut self, channel: Channel, shown: Option<Shown>) {
        let hello = self.cord.connect();
        let (outbound, messages) = mpsc::channel(STREAM_MESSAGES);
        let sent = outbound.try_send(hello);
        debug_assert!(sent.is_ok(), "an empty channel has room");
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = shown {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = PlaneLinkClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        self.way = Way::Greeting(Box::pin(async move {
            match client.attach(request).await {
                Ok(response) => Ok(Stream { inbound: response.into_inner(), outbound }),
                Err(status) => Err(reason_of(&status)),
            }
        }));
    }

    /// There is no control plane; looks for it again.
    fn lose(&mut self, reason: String) {
        let event = match self.cord.is_joined() {
            true => "control_plane_lost",
            false => "control_plane_unreachable",
        };
        self.cord.disconnect();
        if self.told.as_ref() != Some(&reason) {
            self.note(Level::Warn, event, Some(reason.clone()));
            self.told = Some(reason);
        }
        let pause = self.pause();
        self.attempts = self.attempts.saturating_add(1);
        self.way = Way::Connecting(self.dial.connect(pause));
    }

    /// Until the next attempt: none before the first, then longer and longer, and each data plane
    /// another time.
    fn pause(&self) -> Duration {
        let Some(doublings) = self.attempts.checked_sub(1) else {
            return Duration::ZERO;
        };
        let longest = PAUSE_FIRST.saturating_mul(1 << doublings.min(10)).min(PAUSE_MAX);
        let random = self.jitter.hash_one((self.attempts, self.frame().now.0));
        longest.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)
    }

    /// Has everybody told to reconnect, as a control plane in the same process would, and stops
    /// the shards with what is left of the time.
    async fn leave(mut self, beats: &mut Interval, hurry: impl Future<Output = ()>) -> Dialled {
        let began = Instant::now();
        tokio::pin!(hurry);
        let mut hurried = false;
        let drain = Duration::from_millis(self.dial.drain_ms.load(Ordering::Relaxed));
        self.cord.prepare_to_leave();
        let connections = u32::try_from(self.cord.connections()).unwrap_or(u32::MAX);
        if connections > 0 {
            let window = (drain * 4 / 5).min(PACE.saturating_mul(connections));
            let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            self.link.shards.broadcast(|| Command::Drain { version: 0, window_ms, redirect: None });
            let entry = LogEntry::new(Level::Info, "relay_draining")
                .with("connections", i64::from(connections))
                .with("windowMs", i64::try_from(window_ms).unwrap_or(i64::MAX))
                .with("redirected", false);
            self.dial.notes.note(None, entry.ours());
            let told = began + window;
            while self.cord.connections() > 0 && !hurried {
                tokio::select! {
                    () = sleep_until(told) => break,
                    () = &mut hurry => hurried = true,
                    () = self.turn(beats) => {}
                }
            }
        }
        let left = drain.saturating_sub(began.elapsed());
        if hurried {
            return self.stop(beats, left.min(HURRIED), std::future::pending()).await;
        }
        self.stop(beats, left, hurry).await
    }

    /// Tells every shard to stop and waits for them; the control plane hears what they say.
    async fn stop(
        mut self,
        beats: &mut Interval,
        patience: Duration,
        hurry: impl Future<Output = ()>,
    ) -> Dialled {
        tokio::pin!(hurry);
        let mut hurried = false;
        let mut deadline = self.order_to_stop(patience);
        while !self.running.is_empty() {
            tokio::select! {
                () = sleep_until(deadline) => return Dialled::DeadlinePassed,
                () = &mut hurry, if !hurried => {
                    hurried = true;
                    deadline = deadline.min(self.order_to_stop(HURRIED));
                }
                () = self.turn(beats) => {}
            }
        }
        self.cord.leave();
        let deadline = Instant::now() + GOODBYE_PATIENCE;
        while !self.cord.is_quiet() {
            if timeout_at(deadline, self.turn(beats)).await.is_err() {
                break;
            }
        }
        Dialled::Stopped
    }

    /// Tells every shard to be gone by then; when they have to be. One that cannot be told is not
    /// waited for.
    fn order_to_stop(&mut self, patience: Duration) -> Instant {
        let deadline_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        for shard in self.running.clone() {
            if self.link.shards.send_last(shard, Command::Stop { deadline_ms }).is_err() {
                self.running.retain(|&running| running != shard);
            }
        }
        Instant::now() + patience + STOP_GRACE
    }
}

impl Way {
    /// Waits for the next step. Dropping the future loses nothing.
    async fn step(&mut self, sends: bool) -> Step {
        match self {
            Self::Connecting(channel) => match channel.await {
                Ok((channel, shown)) => Step::Connected(channel, shown),
                Err(reason) => Step::Failed(reason),
            },
            Self::Greeting(stream) => match stream.await {
                Ok(stream) => Step::Greeted(stream),
                Err(reason) => Step::Failed(reason),
            },
            Self::There(stream) => tokio::select! {
                message = stream.inbound.message() => match message {
                    Ok(Some(message)) => Step::Message(Box::new(message)),
                    Ok(None) => Step::Failed("it closed the stream".to_owned()),
                    Err(status) => Step::Failed(reason_of(&status)),
                },
                permit = stream.outbound.reserve(), if sends => match permit {
                    Ok(_) => Step::Room,
                    Err(_) => Step::Failed("the stream is cut".to_owned()),
                },
            },
        }
    }
}

/// What a control plane answered instead, in words for the operator.
fn reason_of(status: &tonic::Status) -> String {
    match status.code() {
        Code::Unauthenticated => {
            format!("it turned this data plane away: {} (RELAY_CONTROL_TOKEN)", status.message())
        }
        Code::FailedPrecondition => {
            format!("it turned this data plane away: {}", status.message())
        }
        _ => causes(status),
    }
}

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Silence of HTTP/2 after which it asks, and after which it gives up. Streams have their own beat.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The first pause between two attempts, and the longest: a control plane that comes back is found
/// within a second.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(1000);

/// Messages given to HTTP/2 that it has not taken.
const STREAM_MESSAGES: usize = 64;

/// Events taken in before anything else has its turn.
const EVENTS_PER_TURN: usize = 64;

/// From one peer that is told to the next, at most. Source: relay specification, section 0b.
const PACE: Duration = Duration::from_millis(1);

/// What is left to those who are there once somebody is in a hurry.
const HURRIED: Duration = Duration::from_millis(200);

/// What a shard may take beyond its deadline to end its thread.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What the control plane may take to hear the last words.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);
