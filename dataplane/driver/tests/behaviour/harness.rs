//! One driver, the peers at its other end, and the completions nobody asked for yet.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use relay_driver::{
    AnyDriver, Batch, Choice, Completion, Config, Driver, End, Key, Lease, SendError, SendMode,
    open,
};

pub(crate) type Event = Completion<OwnedFd>;

pub(crate) struct Harness {
    pub(crate) driver: AnyDriver,
    waiting: VecDeque<Event>,
}

/// A key of the first generation.
pub(crate) fn key(slot: u32) -> Key {
    Key { slot, generation: 1 }
}

/// Closes a connection so that the other end sees a reset.
pub(crate) fn cut(peer: TcpStream) {
    let now = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&peer, now).unwrap();
}

impl Harness {
    pub(crate) fn open(choice: Choice) -> Self {
        Self::with(choice, Config::default())
    }

    pub(crate) fn with(choice: Choice, config: Config) -> Self {
        let driver = open(choice, &config).unwrap().driver;
        Self { driver, waiting: VecDeque::new() }
    }

    pub(crate) fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.driver.listen(listener.into()).unwrap();
        address
    }

    /// A guest; returns the other end.
    pub(crate) fn guest(&mut self, key: Key) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        self.driver.adopt(key, socket.into());
        peer
    }

    /// A resident; returns the other end.
    pub(crate) fn resident(&mut self, key: Key) -> TcpStream {
        let peer = self.guest(key);
        self.driver.settle(key).unwrap();
        peer
    }

    pub(crate) fn send(&mut self, key: Key, bytes: Vec<u8>, mode: SendMode) {
        let mut batch = self.driver.batch();
        batch.push(bytes).unwrap();
        self.driver.send(key, batch, mode);
    }

    /// Sends until the socket takes nothing more.
    pub(crate) fn fill(&mut self, key: Key) {
        loop {
            self.send(key, vec![0; 1 << 20], SendMode::Try);
            let (batch, outcome) = self.sent(key);
            self.driver.recycle(batch);
            if outcome == Ok(0) {
                return;
            }
        }
    }

    /// The next completion that `wanted` wants; others keep waiting in order.
    pub(crate) fn find(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut looked_at = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            while looked_at < self.waiting.len() {
                if wanted(&self.waiting[looked_at]) {
                    return self.waiting.remove(looked_at).unwrap();
                }
                looked_at += 1;
            }
            assert!(Instant::now() < deadline, "never came; waiting: {:?}", self.waiting);
            self.turn(Duration::from_millis(100));
        }
    }

    pub(crate) fn next(&mut self) -> Event {
        self.find(|_| true)
    }

    pub(crate) fn received(&mut self, from: Key) -> Lease {
        let is_it = |event: &Event| matches!(event, Event::Received { key, .. } if *key == from);
        match self.find(is_it) {
            Completion::Received { lease, .. } => lease,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn any_received(&mut self) -> (Key, Lease) {
        match self.find(|event| matches!(event, Event::Received { .. })) {
            Completion::Received { key, lease } => (key, lease),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ended(&mut self, from: Key) -> End {
        let is_it =
            |event: &Event| matches!(event, Event::ReceiveEnded { key, .. } if *key == from);
        match self.find(is_it) {
            Completion::ReceiveEnded { end, .. } => end,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sent(&mut self, to: Key) -> (Box<Batch>, Result<usize, SendError>) {
        let is_it = |event: &Event| matches!(event, Event::Sent { key, .. } if *key == to);
        match self.find(is_it) {
            Completion::Sent { batch, outcome, .. } => (batch, outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn any_sent(&mut self) {
        let sent = self.find(|event| matches!(event, Event::Sent { .. }));
        let Completion::Sent { batch, .. } = sent else { panic!("{sent:?}") };
        self.driver.recycle(batch);
    }

    /// Everything of `closed` up to its `Closed`, which is the last.
    pub(crate) fn until_closed(&mut self, closed: Key) -> Vec<Event> {
        let mut before = Vec::new();
        loop {
            let event = self.find(|event| key_of(event) == Some(closed));
            if matches!(event, Completion::Closed { .. }) {
                self.turn(Duration::ZERO);
                assert!(!self.waiting.iter().any(|event| key_of(event) == Some(closed)));
                return before;
            }
            before.push(event);
        }
    }

    /// Takes turns until nothing comes for a while; what waits then.
    pub(crate) fn settle_down(&mut self) -> Vec<Event> {
        for _ in 0..20 {
            self.turn(Duration::from_millis(2));
        }
        self.waiting.drain(..).collect()
    }

    pub(crate) fn turn_until(&mut self, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "never done");
            self.turn(Duration::from_millis(5));
        }
    }

    /// Reads at the peer's end while the driver goes on.
    pub(crate) fn read_exact(&mut self, peer: &mut TcpStream, into: &mut [u8]) {
        peer.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut filled = 0;
        while filled < into.len() {
            assert!(Instant::now() < deadline, "never arrived");
            match peer.read(&mut into[filled..]) {
                Ok(0) => panic!("ended early"),
                Ok(read) => filled += read,
                Err(_) => self.turn(Duration::from_millis(5)),
            }
        }
        peer.set_nonblocking(false).unwrap();
    }

    fn turn(&mut self, timeout: Duration) {
        let mut completions = Vec::new();
        self.driver.turn(Some(timeout), &mut completions).unwrap();
        self.waiting.extend(completions);
    }
}

fn key_of(event: &Event) -> Option<Key> {
    match event {
        Completion::Received { key, .. }
        | Completion::ReceiveEnded { key, .. }
        | Completion::Sent { key, .. }
        | Completion::Exported { key, .. }
        | Completion::Closed { key } => Some(*key),
        Completion::Accepted { .. } | Completion::AcceptFailed(_) => None,
    }
}

/// How long a test waits for what must come before it fails.
const PATIENCE: Duration = Duration::from_secs(30);
