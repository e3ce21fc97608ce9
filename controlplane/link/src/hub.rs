//! Where data planes arrive.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_contract::{Command, Counter, Event, Level, LogEntry, ShardId};
use relay_grpc::plane::v1::plane_link_server::{PlaneLink, PlaneLinkServer};
use relay_grpc::plane::v1::{FromControlPlane, FromDataPlane, Hello, from_data_plane};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Notes, Time, Tokens};
use crate::berth::{Arrived, Berth, BerthError};
use crate::convert::{Frame, kept};
use crate::cord::BEAT;
use crate::door::{Door, DoorSocket};
use crate::planes::{Attached, Block, Detached, News, Orders};
use crate::version::Versions;

/// What a hub is told.
#[derive(Debug)]
pub struct HubSettings {
    /// One life of this control plane. Not 0.
    pub life: u64,
    /// Whom it lets in, beside certificates.
    pub tokens: Tokens,
    /// What it speaks.
    pub versions: Versions,
    /// The clock.
    pub time: Time,
    /// Where it tells its operator.
    pub notes: Notes,
}

/// Takes in data planes, each with one stream at a time, and tells the controller.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: HubSettings,
    news: mpsc::Sender<News>,
    docked: Mutex<Registry>,
}

/// Who is there.
#[derive(Debug, Default)]
struct Registry {
    /// Where new streams of a data plane go, by instance.
    arrivals: HashMap<String, mpsc::Sender<Arrival>>,
    /// Shard ids in use: how many from where.
    blocks: BTreeMap<u16, u16>,
    /// Where the next ones are looked for, so that ids are not used again at once.
    next: u16,
}

/// A data plane with a new stream.
#[derive(Debug)]
struct Arrival {
    hello: Hello,
    received: u64,
    /// The protocol both speak.
    version: u32,
    stream: Stream,
}

#[derive(Debug)]
struct Stream {
    inbound: Streaming<FromDataPlane>,
    outbound: mpsc::Sender<Result<FromControlPlane, Status>>,
}

impl Hub {
    /// A hub that tells its news there.
    pub fn new(settings: HubSettings, news: mpsc::Sender<News>) -> Self {
        Self { shared: Arc::new(Shared { settings, news, docked: Mutex::default() }) }
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// A socket that cannot be watched.
    pub async fn serve(self, socket: DoorSocket) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let refused = move || {
            let entry = LogEntry::new(Level::Warn, "plane_connection_refused");
            shared.settings.notes.note(Some(Counter::PlaneConnectionsRefused), entry.ours());
        };
        let (door, connections) = Door::open(socket, CONNECTIONS_MAX, Arc::new(refused))?;
        let service = PlaneLinkServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_concurrent_streams(STREAMS_MAX)
            .add_service(service)
            .serve_with_incoming(connections);
        tokio::select! {
            served = served => served.map_err(io::Error::other),
            () = door.watch() => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl PlaneLink for Hub {
    type AttachStream = ReceiverStream<Result<FromControlPlane, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromDataPlane>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let settings = &self.shared.settings;
        if !settings.tokens.admit(request.metadata()) {
            let status = Status::unauthenticated("the token is not the control plane's");
            return Err(self.shared.turned_away(status, "unknown"));
        }
        let mut inbound = request.into_inner();
        let first = timeout(GREETING_PATIENCE, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no greeting in time"))??;
        let Some(FromDataPlane { message: Some(message), received, .. }) = first else {
            return Err(Status::invalid_argument("the first message is no greeting"));
        };
        let from_data_plane::Message::Hello(hello) = message else {
            return Err(Status::invalid_argument("the first message is no greeting"));
        };
        let version = settings.versions.agree(hello.protocol_version).map_err(|apart| {
            let status = Status::failed_precondition(apart.to_string());
            self.shared.turned_away(status, &hello.instance_id)
        })?;
        let (outbound, messages) = mpsc::channel(STREAM_MESSAGES);
        let stream = Stream { inbound, outbound };
        let instance_id = hello.instance_id.clone();
        let arrival = Arrival { hello, received, version, stream };
        let docked = self.shared.clone().dock(arrival).await;
        docked.map_err(|status| self.shared.turned_away(status, &instance_id))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.docked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turned_away(&self, status: Status, instance_id: &str) -> Status {
        let shown: String = instance_id.chars().take(INSTANCE_ID_CHARS).collect();
        let entry = LogEntry::new(Level::Error, "data_plane_refused")
            .with("instance", shown)
            .with("reason", status.message().to_owned());
        self.settings.notes.note(Some(Counter::PlanesRefused), entry.ours());
        status
    }

    /// Gives the stream to whoever keeps this data plane's berth, or begins one.
    async fn dock(self: Arc<Self>, arrival: Arrival) -> Result<(), Status> {
        let id = &arrival.hello.instance_id;
        if id.is_empty() || id.chars().count() > INSTANCE_ID_CHARS {
            return Err(Status::invalid_argument("the instance id is empty or too long"));
        }
        let shard_count = u16::try_from(arrival.hello.shard_count).unwrap_or(0);
        if shard_count == 0 {
            return Err(Status::invalid_argument("a data plane has 1 to 65535 shards"));
        }
        let known = self.registry().arrivals.get(id).cloned();
        let arrival = match known {
            Some(arrivals) => match arrivals.send(arrival).await {
                Ok(()) => return Ok(()),
                // It has just been given up.
                Err(mpsc::error::SendError(arrival)) => arrival,
            },
            None => arrival,
        };
        let (sender, arrivals) = mpsc::channel(1);
        let mut registry = self.registry();
        let block = registry.allocate(shard_count).ok_or_else(|| {
            Status::resource_exhausted("the control plane has no shard ids left for it")
        })?;
        registry.arrivals.insert(arrival.hello.instance_id.clone(), sender);
        drop(registry);
        let docked = Docked::new(self, block, arrival.hello.instance_id.clone(), arrivals);
        tokio::spawn(docked.run(arrival));
        Ok(())
    }
}

impl Registry {
    /// Takes the next run of free ids.
    fn allocate(&mut self, count: u16) -> Option<Block> {
        let free = |first: u16| {
            let end = u32::from(first) + u32::from(count);
            let before = self.blocks.range(..=first).next_back();
            let end_of = |(&at, &count): (&u16, &u16)| u32::from(at) + u32::from(count);
            let is_clear = before.is_none_or(|block| end_of(block) <= u32::from(first));
            let after = self.blocks.range(first..).next();
            let room = after.map_or(u16::MAX, |(&at, _)| at);
            is_clear && end <= u32::from(room)
        };
        let ends = self.blocks.iter().map(|(&at, &count)| at.saturating_add(count));
        let first = [self.next, 0].into_iter().chain(ends).find(|&first| free(first))?;
        self.blocks.insert(first, count);
        self.next = first + count;
        Some(Block { first: ShardId(first), count })
    }
}

/// Keeps one data plane's berth.
struct Docked {
    shared: Arc<Shared>,
    block: Block,
    instance_id: String,
    driver: &'static str,
    arrivals: mpsc::Receiver<Arrival>,
    berth: Berth,
    /// Orders of the controller, and where they are given.
    orders: mpsc::Receiver<(ShardId, Command)>,
    orders_sender: Orders,
    stream: Option<Stream>,
    /// Whether the controller knows of it.
    attached: bool,
}

/// How keeping a berth goes on.
enum Fate {
    Stays,
    /// It said that it goes.
    Left,
    /// Nobody listens to news any more.
    Over,
}

/// What there is to do.
enum Step {
    Arrival(Box<Arrival>),
    Message(Box<FromDataPlane>),
    Cut,
    Room,
    Order(ShardId, Command),
    Beat,
}

impl Docked {
    fn new(
        shared: Arc<Shared>,
        block: Block,
        instance_id: String,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Self {
        let (orders_sender, orders) = Orders::channel(ORDERS_MAX);
        Self {
            shared,
            block,
            instance_id,
            driver: "unknown",
            arrivals,
            berth: Berth::new(),
            orders,
            orders_sender,
            stream: None,
            attached: false,
        }
    }

    fn frame(&self) -> Frame {
        let (now, unix_ms) = (self.shared.settings.time.0)();
        Frame { first: self.block.first.0, count: self.block.count, now, unix_ms }
    }

    async fn run(mut self, first: Arrival) {
        // A berth that nobody had is none to go on with.
        self.welcome(first, false).await;
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.turn(&mut beats).await {
                Fate::Stays if !self.berth.is_gone() => {}
                Fate::Stays => {
                    if self.give_up(false).await {
                        return;
                    }
                }
                Fate::Left | Fate::Over => {
                    if self.give_up(true).await {
                        return;
                    }
                }
            }
        }
    }

    async fn turn(&mut self, beats: &mut Interval) -> Fate {
        let step = self.step(beats).await;
        // Of the moment in which it happened, and not of that before the wait.
        let frame = self.frame();
        match step {
            Step::Arrival(arrival) => {
                let knows = arrival.hello.control_life == self.shared.settings.life;
                let resumed = knows && self.berth.resume(arrival.received);
                self.welcome(*arrival, resumed).await;
            }
            Step::Message(message) => return self.on_message(&frame, *message).await,
            Step::Cut => self.stream = None,
            Step::Room => {
                let Some(stream) = &self.stream else { return Fate::Stays };
                // As much as there is room for: waiting for it costs more than sending.
                while let Ok(permit) = stream.outbound.try_reserve() {
                    let Some(message) = self.berth.next_message() else { break };
                    permit.send(Ok(message));
                }
            }
            Step::Order(shard, command) => {
                self.berth.order(&frame, shard, command);
                while self.berth.takes_orders()
                    && let Ok((shard, command)) = self.orders.try_recv()
                {
                    self.berth.order(&frame, shard, command);
                }
            }
            Step::Beat => self.berth.beat(),
        }
        Fate::Stays
    }

    /// Waits for the next thing to do. Dropping the future loses nothing.
    async fn step(&mut self, beats: &mut Interval) -> Step {
        let sends = self.berth.has_message();
        let is_there = self.stream.is_some();
        let stream = async {
            let Some(Stream { inbound, outbound }) = &mut self.stream else {
                return std::future::pending().await;
            };
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => Step::Message(Box::new(message)),
                    Ok(None) | Err(_) => Step::Cut,
                },
                permit = outbound.reserve(), if sends => match permit {
                    Ok(_) => Step::Room,
                    Err(_) => Step::Cut,
                },
            }
        };
        tokio::select! {
            Some(arrival) = self.arrivals.recv() => Step::Arrival(Box::new(arrival)),
            step = stream, if is_there => step,
            Some((shard, command)) = self.orders.recv(), if self.berth.takes_orders() => {
                Step::Order(shard, command)
            }
            _ = beats.tick() => Step::Beat,
        }
    }

    /// Greets a data plane on a new stream, which takes the place of the one before it.
    async fn welcome(&mut self, arrival: Arrival, resumed: bool) {
        if !resumed {
            self.detach(false).await;
            self.berth = Berth::new();
            (self.orders_sender, self.orders) = Orders::channel(ORDERS_MAX);
        }
        if arrival.hello.shard_count != u32::from(self.block.count) {
            let status = Status::invalid_argument("a data plane keeps its number of shards");
            // The old stream was cut by whoever made the new one.
            self.stream = None;
            let _gone = arrival.stream.outbound.send(Err(status)).await;
            return;
        }
        self.driver = kept(&arrival.hello.driver);
        let life = self.shared.settings.life;
        let welcome = self.berth.welcome(arrival.version, life, resumed);
        let sent = arrival.stream.outbound.send(Ok(welcome)).await;
        self.stream = sent.is_ok().then_some(arrival.stream);
    }

    async fn on_message(&mut self, frame: &Frame, message: FromDataPlane) -> Fate {
        let arrived = match self.berth.receive(frame, message) {
            Ok(arrived) => arrived,
            Err(error) => {
                let counter = match error {
                    BerthError::Inventory(_) | BerthError::Inflated(_) => {
                        Counter::InventoriesRejected
                    }
                    BerthError::Exchange(_) | BerthError::Disorder => {
                        Counter::PlaneMessagesRejected
                    }
                };
                self.note(counter, "data_plane_mistaken", error.to_string());
                // It comes anew, and with its inventory: this berth is spoilt.
                self.stream = None;
                self.detach(false).await;
                self.berth = Berth::new();
                return Fate::Stays;
            }
        };
        let news = match arrived {
            None => return Fate::Stays,
            Some(Err(bad)) => {
                self.note(
                    Counter::PlaneMessagesRejected,
                    "plane_message_rejected",
                    bad.to_string(),
                );
                return Fate::Stays;
            }
            Some(Ok(Arrived::Goodbye)) => return Fate::Left,
            Some(Ok(Arrived::Event(event))) => News::Event(event),
            Some(Ok(Arrived::Inventory(inventory))) => return self.attach(inventory).await,
        };
        match self.shared.news.send(news).await {
            Ok(()) => Fate::Stays,
            Err(_) => Fate::Over,
        }
    }

    fn note(&self, counter: Counter, event: &'static str, reason: String) {
        let entry = LogEntry::new(Level::Error, event)
            .with("instance", self.instance_id.clone())
            .with("reason", reason);
        self.shared.settings.notes.note(Some(counter), entry.ours());
    }

    /// Tells the controller what the data plane holds, and learns which numbers that has.
    async fn attach(&mut self, mut inventory: crate::Inventory) -> Fate {
        let (adopted, numbers) = oneshot::channel();
        let waiting = std::mem::take(&mut inventory.waiting);
        let attached = Attached {
            block: self.block,
            instance_id: self.instance_id.clone(),
            driver: self.driver,
            inventory,
            orders: self.orders_sender.clone(),
            adopted,
        };
        if self.shared.news.send(News::Attached(Box::new(attached))).await.is_err() {
            return Fate::Over;
        }
        let Ok(numbers) = numbers.await else { return Fate::Over };
        self.attached = true;
        self.berth.adopt(numbers);
        for (connection, request) in waiting {
            let asked = Event::AdmissionAsked { connection, request };
            if self.shared.news.send(News::Event(asked)).await.is_err() {
                return Fate::Over;
            }
        }
        Fate::Stays
    }

    async fn detach(&mut self, said: bool) {
        if std::mem::take(&mut self.attached) {
            let (block, instance_id) = (self.block, self.instance_id.clone());
            let numbers = self.berth.numbers();
            let detached = Detached { block, instance_id, said, numbers };
            // Nobody listens: then nobody counts it either.
            let _over = self.shared.news.send(News::Detached(detached)).await;
        }
    }

    /// Ends the berth, unless the data plane has just come back. Whether it is ended.
    async fn give_up(&mut self, said: bool) -> bool {
        self.stream = None;
        self.detach(said).await;
        {
            let mut registry = self.shared.registry();
            if self.arrivals.is_empty() {
                self.arrivals.close();
                registry.arrivals.remove(&self.instance_id);
                registry.blocks.remove(&self.block.first.0);
                return true;
            }
        }
        self.berth = Berth::new();
        false
    }
}

/// Connections at a time: a data plane has one, and one that takes its place. Protects descriptors
/// from strangers. Reached: closed at once, with a count.
const CONNECTIONS_MAX: usize = 1024;

/// How long a data plane may take to say who it is. Protects descriptors from strangers.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// Silence of HTTP/2 after which it asks, and after which it gives up. Streams have their own beat.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Streams of one connection: one, and one that takes its place.
const STREAMS_MAX: u32 = 8;

/// Messages given to HTTP/2 that it has not taken.
const STREAM_MESSAGES: usize = 64;

/// Orders for one data plane that wait for its berth. Reached: those of each shard wait in its
/// backlog.
const ORDERS_MAX: usize = 4096;

/// Bytes of one message: a state of half a million connections.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

const INSTANCE_ID_CHARS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_are_given_out_apart_and_not_again_at_once() {
        let mut registry = Registry::default();
        let first = registry.allocate(4).unwrap();
        let second = registry.allocate(2).unwrap();
        assert_eq!((first.first, second.first), (ShardId(0), ShardId(4)));
        registry.blocks.remove(&0);
        assert_eq!(registry.allocate(4).unwrap().first, ShardId(6));
        registry.next = u16::MAX - 1;
        assert_eq!(registry.allocate(4).unwrap().first, ShardId(0));
        assert_eq!(registry.allocate(u16::MAX), None);
    }
}
