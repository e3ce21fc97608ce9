//! Data planes that run apart: what they are told when they come, and what is learned of them.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, CloseReason, Command, ConnectionId, Counter, Credential, Event, Role, ShardId,
    UpgradeRequest, Versioned,
};
use relay_link::convert::{DrainInForce, Drained, Holding, InForce};
use relay_link::{Attached, Block, Detached, Inventory, Orders, Planes, apart};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::control::Asked;
use crate::controller::Controller;
use crate::dismissal_tests::{StandingClock, settings};
use crate::drain::{DrainError, DrainOrder};

struct Bench {
    controller: Controller,
}

/// An open connection of `ws1`, by the data plane's number of it.
fn holding(first: u16, number: u64) -> Holding {
    let slot = u32::try_from(number).unwrap();
    Holding {
        admission: AdmissionId(number),
        home: ShardId(first),
        request: UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None },
        claimed_target: None,
        address: [192, 0, 2, 1].into(),
        connection: Some(ConnectionId { shard: ShardId(first), slot, generation: 0 }),
        credential: Credential::default(),
        client_id: None,
    }
}

/// The other end of a data plane of two shards.
struct Plane {
    orders: mpsc::Receiver<(ShardId, Command)>,
    /// Its connections, by its own number and by the ledger's.
    numbers: Vec<(AdmissionId, AdmissionId)>,
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
        let (adopted, numbers) = oneshot::channel();
        self.controller.on_attached(Attached {
            block: block(first),
            instance_id: format!("plane-{first}"),
            driver: "test",
            inventory,
            orders: way,
            adopted,
        });
        Plane { orders, numbers: numbers.blocking_recv().unwrap() }
    }

    fn plane(&mut self, first: u16, drain: Option<DrainInForce>) -> Plane {
        self.attach(first, 64, Inventory { drain, ..Inventory::default() })
    }

    fn detach(&mut self, first: u16, numbers: Vec<(AdmissionId, AdmissionId)>) {
        let instance_id = format!("plane-{first}");
        let detached = Detached { block: block(first), instance_id, said: false, numbers };
        self.controller.on_detached(detached);
    }

    fn is_ready(&self) -> bool {
        self.controller.readiness().ready
    }
}

impl Plane {
    fn commands(&mut self) -> Vec<(ShardId, Command)> {
        std::iter::from_fn(|| self.orders.try_recv().ok()).collect()
    }

    /// Who is told to go, by slot, and why.
    fn closed(&mut self) -> Vec<(u32, CloseReason)> {
        let closed = self.commands().into_iter().filter_map(|(_, command)| match command {
            Command::Close { connection, reason } => Some((connection.slot, reason)),
            _ => None,
        });
        closed.collect()
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
    bench.detach(0, Vec::new());
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
        bench.detach(0, Vec::new());
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

#[test]
fn who_was_told_to_go_goes_also_if_the_order_was_lost_with_the_link() {
    let mut bench = bench();
    let holdings = |first| [1, 2].map(|number| holding(first, number)).into();
    let inventory = |first| Inventory { holdings: holdings(first), ..Inventory::default() };
    let mut plane = bench.attach(0, 64, inventory(0));
    let one = plane.numbers[0].1;
    assert_eq!(bench.controller.dismiss_all(&[one], CloseReason::TokenRevoked), 1);
    assert_eq!(plane.closed(), [(1, CloseReason::TokenRevoked)]);
    let numbers = std::mem::take(&mut plane.numbers);
    bench.detach(0, numbers);
    // It is another berth, with other shard ids and other numbers in the ledger.
    let (way, orders) = Orders::channel(64);
    let (adopted, numbers) = oneshot::channel();
    bench.controller.on_attached(Attached {
        block: block(4),
        instance_id: "plane-0".to_owned(),
        driver: "test",
        inventory: inventory(4),
        orders: way,
        adopted,
    });
    let mut plane = Plane { orders, numbers: numbers.blocking_recv().unwrap() };
    assert_eq!(plane.closed(), [(1, CloseReason::TokenRevoked)]);
}

#[test]
fn orders_for_a_data_plane_that_is_gone_are_not_for_whoever_has_its_ids_next() {
    let mut bench = bench();
    let holdings = vec![holding(0, 1)];
    let plane = bench.attach(0, 1, Inventory { holdings, ..Inventory::default() });
    while bench.controller.link.shards.broadcast(|| Command::Stop { deadline_ms: 1 }).len() < 2 {}
    bench.controller.dismiss_all(&[plane.numbers[0].1], CloseReason::TokenRevoked);
    assert!(!bench.controller.undelivered.is_empty());
    bench.detach(0, Vec::new());
    assert!(bench.controller.undelivered.is_empty());
    let mut stranger = bench.plane(0, None);
    bench.controller.tell_undelivered();
    assert_eq!(stranger.closed(), []);
    assert!(!bench.controller.needs_beat());
}

#[test]
fn a_large_revocation_is_told_as_fast_as_its_shard_takes_it_and_counted_once() {
    const CROWD: u64 = 50_000;
    let mut bench = bench();
    let holdings = (1..=CROWD).map(|number| holding(0, number)).collect();
    let mut plane = bench.attach(0, 1024, Inventory { holdings, ..Inventory::default() });
    plane.commands();
    let all: Vec<_> = plane.numbers.iter().map(|(_, admission)| *admission).collect();
    bench.controller.dismiss_all(&all, CloseReason::TokenRevoked);
    let undelivered = bench.controller.counters.of(Counter::CommandsUndelivered);
    let (mut told, mut turns) = (0, 0);
    while told < all.len() {
        told += plane.closed().len();
        bench.controller.link.shards.drain();
        bench.controller.tell_undelivered();
        turns += 1;
        assert!(turns < 100, "at two milliseconds each that is far from a second: {told}");
    }
    assert_eq!(bench.controller.counters.of(Counter::CommandsUndelivered), undelivered);
}

#[test]
fn a_workspace_whose_data_plane_came_anew_can_be_moved_again() {
    let mut bench = bench();
    let _plane = bench.plane(0, None);
    let to = |bench: &mut Bench| {
        let moved = bench.controller.move_workspace("ws1".into(), ShardId(0));
        moved.or_else(|_| bench.controller.move_workspace("ws1".into(), ShardId(1)))
    };
    to(&mut bench).unwrap();
    assert!(to(&mut bench).is_err(), "it is on its way");
    bench.detach(0, Vec::new());
    let _plane = bench.plane(0, None);
    to(&mut bench).unwrap();
}

#[test]
fn settings_reach_shards_that_hold_a_later_version() {
    let mut bench = bench();
    let mut first = bench.plane(0, None);
    first.commands();
    let shards = block(2).shards();
    let held = |shard| InForce { shard, value: Versioned::Limits, version: 900 };
    let in_force = shards.map(held).collect();
    let mut ahead = bench.attach(2, 64, Inventory { in_force, ..Inventory::default() });
    for plane in [&mut first, &mut ahead] {
        let versions = plane.commands().into_iter().filter_map(|(_, command)| match command {
            Command::SetLimits(limits) => Some(limits.version),
            Command::SetRoutes(routes) => Some(routes.version),
            _ => None,
        });
        let newest: Vec<_> = versions.filter(|version| *version > 900).collect();
        assert!(newest.len() >= 4, "limits and routes of two shards: {newest:?}");
    }
    let in_force = vec![InForce { shard: ShardId(4), value: Versioned::Routes, version: u64::MAX }];
    let _plane = bench.attach(4, 64, Inventory { in_force, ..Inventory::default() });
    assert_eq!(bench.controller.settings.limits.version, 901, "that is no version");
}

#[test]
fn each_data_plane_is_shown_with_what_moves_its_bytes() {
    let mut bench = bench();
    let _plane = bench.plane(0, None);
    let (reply, mut answer) = oneshot::channel();
    bench.controller.on_control_asked(Asked::Info(reply));
    let info = answer.try_recv().unwrap().unwrap();
    assert_eq!(info.data_planes[0].driver, "test");
}
