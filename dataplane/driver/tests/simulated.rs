//! What shards may rely on in the simulated kernel: the same contract as the real ones, under one
//! seed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use relay_driver::sim::{Faults, Peer, PeerState, Seed, SimDriver, Socket, World};
use relay_driver::{Completion, Config, Driver, End, Key, SendError, SendMode, TableFull};

type Event = Completion<Socket>;

const KEY: Key = Key { slot: 0, generation: 1 };

/// One driver, one resident connection, and the other end of it.
struct Line {
    world: World,
    driver: SimDriver,
    peer: Peer,
    events: Vec<Event>,
}

impl Line {
    fn with(seed: u64, faults: Faults, config: &Config) -> Self {
        let world = World::new(Seed::new(seed), faults);
        let mut driver = world.driver(config);
        driver.listen(world.listener()).unwrap();
        let peer = world.connect(0, "192.0.2.1:4000".parse().unwrap()).unwrap();
        let mut line = Self { world, driver, peer, events: Vec::new() };
        line.pass();
        let Some(Completion::Accepted { socket, .. }) = line.events.pop() else {
            panic!("accepts first")
        };
        line.driver.adopt(KEY, socket);
        line.driver.settle(KEY).unwrap();
        line
    }

    fn calm() -> Self {
        Self::with(1, Faults::none(), &Config::default())
    }

    /// A turn, then time for everything under way to arrive.
    fn pass(&mut self) {
        self.driver.turn(Some(Duration::ZERO), &mut self.events).unwrap();
        self.world.advance(Duration::from_millis(10));
    }

    fn send(&mut self, bytes: Vec<u8>, mode: SendMode) {
        let mut batch = self.driver.batch();
        batch.push(bytes).unwrap();
        self.driver.send(KEY, batch, mode);
    }

    fn received(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in self.events.drain(..) {
            match event {
                Completion::Received { lease, .. } => bytes.extend_from_slice(&lease),
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    fn outcome(&mut self) -> Option<Result<usize, SendError>> {
        self.events.drain(..).find_map(|event| match event {
            Completion::Sent { outcome, .. } => Some(outcome),
            _ => None,
        })
    }
}

/// Everything that happens to an echo under these faults, as text.
fn echo(seed: u64) -> String {
    let mut faults = Faults::drawn(&mut Seed::new(seed));
    (faults.reset, faults.failed_accept) = (0, 0);
    (faults.failed_receive, faults.failed_send, faults.starved_send) = (0, 0, 0);
    let mut line = Line::with(seed, faults, &Config { buffer_count: 2, ..Config::default() });
    line.driver.receive(KEY);
    let message: Vec<u8> = (0..5000u32).map(|index| (index / 3) as u8).collect();
    let (mut written, mut trace) = (0, String::new());
    let (mut waiting, mut sending, mut back) = (Vec::new(), false, Vec::new());
    for _ in 0..20_000 {
        written += line.peer.write(&message[written..]);
        line.pass();
        for event in std::mem::take(&mut line.events) {
            trace.push_str(&format!("{event:?}\n"));
            match event {
                Completion::Received { lease, .. } => waiting.extend_from_slice(&lease),
                Completion::Sent { .. } => sending = false,
                other => panic!("{other:?}"),
            }
        }
        if !sending && !waiting.is_empty() {
            line.send(std::mem::take(&mut waiting), SendMode::All);
            sending = true;
        }
        back.extend(line.peer.read(700));
        if back.len() == message.len() {
            break;
        }
    }
    assert_eq!(back, message, "seed {seed}");
    trace
}

#[test]
fn no_fault_but_an_end_loses_or_reorders_bytes() {
    for seed in 0..200 {
        echo(seed);
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    assert_eq!(echo(7), echo(7));
    assert!((8..20).any(|seed| echo(seed) != echo(7)));
}

#[test]
fn a_slow_reader_fills_the_socket_and_trying_says_so() {
    let mut line = Line::calm();
    let room = Faults::none().socket_bytes;
    line.send(vec![1; room + 5], SendMode::Try);
    line.pass();
    assert_eq!(line.outcome(), Some(Ok(room)));
    line.send(vec![1; 5], SendMode::Try);
    line.pass();
    assert_eq!(line.outcome(), Some(Ok(0)));
    line.send(vec![1; 5], SendMode::All);
    line.pass();
    assert_eq!(line.outcome(), None);
    assert_eq!(line.peer.read(usize::from(u16::MAX)).len(), room.min(usize::from(u16::MAX)));
    line.pass();
    assert_eq!(line.outcome(), Some(Ok(5)));
}

#[test]
fn what_was_sent_before_closing_arrives() {
    let mut line = Line::calm();
    line.send(b"farewell".to_vec(), SendMode::Try);
    line.driver.close(KEY);
    line.pass();
    assert!(matches!(
        line.events[..],
        [Completion::Sent { outcome: Ok(8), .. }, Completion::Closed { key: KEY }]
    ));
    assert_eq!(line.peer.read(100), b"farewell");
    assert_eq!(line.peer.state(), PeerState::Eof);
}

#[test]
fn closing_gives_back_everything_before_closed() {
    let mut line = Line::calm();
    line.driver.receive(KEY);
    line.send(vec![1; 1 << 20], SendMode::All);
    line.pass();
    line.driver.close(KEY);
    line.pass();
    assert!(matches!(
        line.events[..],
        [
            Completion::ReceiveEnded { end: End::Cancelled, .. },
            Completion::Sent { outcome: Ok(_), .. },
            Completion::Closed { .. }
        ]
    ));
}

#[test]
fn leased_buffers_starve_receives_until_they_return() {
    let config = Config { buffer_count: 1, buffer_bytes: 4, ..Config::default() };
    let mut line = Line::with(1, Faults::none(), &config);
    line.driver.receive(KEY);
    line.peer.write(b"onetwo");
    line.pass();
    line.pass();
    let held = line.events.pop();
    assert!(matches!(held, Some(Completion::Received { .. })));
    line.pass();
    assert!(line.events.is_empty());
    assert!(line.driver.stats().receive_starved > 0);
    drop(held);
    line.pass();
    assert_eq!(line.received(), b"wo");
}

#[test]
fn a_cut_connection_ends_with_reset() {
    let mut line = Line::calm();
    line.driver.receive(KEY);
    line.peer.reset();
    line.send(b"anybody?".to_vec(), SendMode::All);
    line.pass();
    assert!(matches!(
        line.events[..],
        [
            Completion::ReceiveEnded { end: End::Reset, .. },
            Completion::Sent { outcome: Err(SendError::Reset), .. }
        ]
    ));
}

#[test]
fn a_full_table_refuses_guests_but_not_residents_again() {
    let mut line = Line::with(1, Faults::none(), &Config { residents_max: 1, ..Config::default() });
    assert_eq!(line.driver.settle(KEY), Ok(()));
    line.world.connect(0, "192.0.2.2:4000".parse().unwrap()).unwrap();
    line.pass();
    let Some(Completion::Accepted { socket, .. }) = line.events.pop() else { panic!("accepts") };
    let second = Key { slot: 1, generation: 1 };
    line.driver.adopt(second, socket);
    assert_eq!(line.driver.settle(second), Err(TableFull));
    assert!(line.driver.release(second).is_some());
}
