//! Data planes that run apart: what they are told when they come, and what is learned of them.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Event, ShardId, Versioned};
use relay_link::convert::{DrainInForce, Drained};
use relay_link::{Attached, Block, Inventory, Orders, Planes, apart};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::controller::Controller;
use crate::dismissal_tests::{StandingClock, settings};
use crate::drain::{DrainError, DrainOrder};

struct Bench {
    controller: Controller,
}

/// The other end of a data plane of two shards.
struct Plane {
    orders: mpsc::Receiver<(ShardId, Command)>,
}

fn bench() -> Bench {
    let (_news, planes) = Planes::channel();
    let clock: Arc<dyn Clock> = Arc::new(StandingClock::default());
    let controller = Controller::new(settings(), apart(planes), clock, std::io::sink());
    Bench { controller: controller.unwrap() }
}

fn block(first: u16) -> Block {
    Block { first: ShardId(first), count: 2 }
}

impl Bench {
    fn attach(&mut self, first: u16, orders_max: usize, inventory: Inventory) -> Plane {
        let (way, orders) = Orders::channel(orders_max);
        self.controller.on_attached(Attached {
            block: block(first),
            instance_id: format!("plane-{first}"),
            driver: "test",
            inventory,
            orders: way,
            adopted: oneshot::channel().0,
        });
        Plane { orders }
    }

    fn plane(&mut self, first: u16, drain: Option<DrainInForce>) -> Plane {
        self.attach(first, 64, Inventory { drain, ..Inventory::default() })
    }

    fn is_ready(&self) -> bool {
        self.controller.readiness().ready
    }
}

impl Plane {
    fn commands(&mut self) -> Vec<(ShardId, Command)> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).collect()
    }

    /// Per shard: the version, and whether it is to drain.
    fn drains(&mut self) -> Vec<(u16, u64, bool)> {
        let drains = self.commands().into_iter().filter_map(|(shard, command)| match command {
            Command::Drain { version, .. } => Some((shard.0, version, true)),
            Command::Resume { version } => Some((shard.0, version, false)),
            _ => None,
        });
        drains.collect()
    }
}

/// The shards of the data plane at `first` are drained, or were told that they are not any more.
fn held(first: u16, version: u64, drained: bool) -> Option<DrainInForce> {
    let drained = drained.then_some(Drained { window_ms: 20, redirect: None });
    Some(DrainInForce { version, drained, shards: block(first).shards().collect() })
}

#[test]
fn who_comes_while_the_relay_is_drained_is_told_and_who_missed_the_end_of_it_too() {
    let mut bench = bench();
    let mut first = bench.plane(0, None);
    assert_eq!(first.drains(), [], "nobody ever ordered anything");
    bench.controller.drain(DrainOrder::default()).unwrap();
    assert_eq!(first.drains(), [(0, 1, true), (1, 1, true)]);
    bench.controller.on_detached(block(0), "plane-0".to_owned(), false);
    let mut second = bench.plane(2, None);
    assert_eq!(second.drains(), [(2, 1, true), (3, 1, true)]);
    bench.controller.resume().unwrap();
    let mut first = bench.plane(4, held(4, 1, true));
    assert_eq!(first.drains(), [(4, 2, false), (5, 2, false)]);
    let mut knows = bench.plane(6, held(6, 2, false));
    assert_eq!(knows.drains(), []);
}

#[test]
fn a_drain_outlives_the_control_plane_that_ordered_it_and_can_be_taken_back() {
    let mut bench = bench();
    let mut elsewhere = bench.plane(0, None);
    let mut drained = bench.plane(2, held(2, 7, true));
    assert!(!bench.is_ready(), "it is drained as it was");
    let window = bench.controller.draining().unwrap().window;
    assert_eq!(window, Duration::from_millis(20));
    assert_eq!(drained.drains(), [], "it keeps to that");
    assert_eq!(elsewhere.drains(), [(0, 7, true), (1, 7, true)], "all are");
    bench.controller.resume().unwrap();
    assert!(bench.is_ready());
    assert_eq!(drained.drains(), [(2, 8, false), (3, 8, false)]);
    // The newest order of all is known by another.
    let mut bench = self::bench();
    let mut old = bench.plane(0, held(0, 7, true));
    let mut new = bench.plane(2, held(2, 8, false));
    assert!(bench.is_ready());
    assert_eq!((old.drains(), new.drains()), (vec![(0, 8, false), (1, 8, false)], vec![]));
}

#[test]
fn what_an_operator_says_of_it_here_is_newer_than_what_a_data_plane_knows() {
    let mut bench = bench();
    assert_eq!(bench.controller.resume(), Err(DrainError::NotDraining));
    for version in [1, 700] {
        let mut plane = bench.plane(0, held(0, version, true));
        assert!(bench.is_ready());
        let next = version + 1;
        assert_eq!(plane.drains(), [(0, next, false), (1, next, false)]);
        bench.controller.on_detached(block(0), "plane-0".to_owned(), false);
    }
}

#[test]
fn an_order_that_found_no_room_is_given_again() {
    let mut bench = bench();
    let mut plane = bench.attach(0, 1, Inventory::default());
    // Lanes and backlogs are full.
    while bench.controller.link.shards.broadcast(|| Command::Stop { deadline_ms: 1 }).len() < 2 {}
    bench.controller.drain(DrainOrder::default()).unwrap();
    assert!(bench.controller.acknowledged.owes());
    let mut drains = Vec::new();
    while drains.len() < 2 {
        drains.extend(plane.drains());
        bench.controller.link.shards.drain();
        bench.controller.tell_owed();
    }
    drains.sort_unstable();
    assert_eq!(drains, [(0, 1, true), (1, 1, true)]);
    assert!(!bench.controller.acknowledged.owes());
    let in_force =
        |shard| Event::InForce { shard: ShardId(shard), value: Versioned::Drain, version: 1 };
    bench.controller.on_event(in_force(0));
    assert!(bench.controller.acknowledged.keeps(ShardId(0), Versioned::Drain, 1));
    assert!(!bench.controller.acknowledged.keeps(ShardId(1), Versioned::Drain, 1));
}
