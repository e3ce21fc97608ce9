//! A socket leaves one driver for another, in the middle of its stream.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use relay_driver::{Choice, Completion, Config, Driver, End, Key, SendError, SendMode};

use crate::harness::{Event, Harness, cut, key};

fn exported(harness: &mut Harness, wanted: Key) -> io::Result<OwnedFd> {
    let is_it = |event: &Event| matches!(event, Event::Exported { key, .. } if *key == wanted);
    match harness.find(is_it) {
        Completion::Exported { socket, .. } => socket,
        other => panic!("{other:?}"),
    }
}

/// Exports a connection; nothing where the kernel cannot.
fn export(harness: &mut Harness, key: Key) -> Option<OwnedFd> {
    harness.driver.export(key);
    match exported(harness, key) {
        Ok(socket) => Some(socket),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("skipped: needs Linux 6.8");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn speaks(harness: &mut Harness, key: Key, peer: &mut TcpStream) {
    harness.driver.receive(key);
    peer.write_all(b"in").unwrap();
    assert_eq!(&*harness.received(key), b"in");
    harness.send(key, b"out".to_vec(), SendMode::All);
    let mut out = [0; 3];
    harness.read_exact(peer, &mut out);
    assert_eq!(&out, b"out");
    assert_eq!(harness.sent(key).1, Ok(3));
}

pub(crate) fn an_exported_resident_goes_on_in_another_driver(choice: Choice) {
    let (mut here, mut there) = (Harness::open(choice), Harness::open(choice));
    let mut peer = here.resident(key(1));
    speaks(&mut here, key(1), &mut peer);
    here.driver.pause(key(1));
    assert_eq!(here.ended(key(1)), End::Paused);
    // What comes meanwhile waits in the kernel.
    peer.write_all(b"meanwhile").unwrap();
    let Some(socket) = export(&mut here, key(1)) else { return };
    assert!(here.settle_down().is_empty());
    assert_eq!((here.driver.stats().residents, here.driver.stats().connections), (0, 0));
    there.driver.adopt(key(5), socket);
    there.driver.settle(key(5)).unwrap();
    there.driver.receive_once(key(5));
    assert_eq!(&*there.received(key(5)), b"meanwhile");
    speaks(&mut there, key(5), &mut peer);
    // The slot is free, and so is its place in the table.
    let mut next = here.resident(key(1));
    speaks(&mut here, key(1), &mut next);
}

pub(crate) fn an_exported_guest_goes_on_in_another_driver(choice: Choice) {
    let (mut here, mut there) = (Harness::open(choice), Harness::open(choice));
    let mut peer = here.guest(key(1));
    let socket = export(&mut here, key(1)).expect("a guest is a descriptor already");
    there.driver.adopt(key(1), socket);
    speaks(&mut there, key(1), &mut peer);
}

pub(crate) fn a_place_is_used_again_after_an_export(choice: Choice) {
    let config = Config { residents_max: 1, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    for round in 0..20 {
        let mut peer = harness.resident(key(round));
        let Some(socket) = export(&mut harness, key(round)) else { return };
        harness.settle_down();
        drop(socket);
        let mut end = [0; 1];
        assert_eq!(io::Read::read(&mut peer, &mut end).unwrap(), 0, "nobody else holds it");
    }
}

pub(crate) fn a_busy_connection_is_not_exported(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(1));
    harness.driver.receive(key(1));
    harness.driver.export(key(1));
    assert!(exported(&mut harness, key(1)).is_err());
    harness.fill(key(1));
    harness.send(key(1), vec![7; 100], SendMode::All);
    harness.driver.pause(key(1));
    assert_eq!(harness.ended(key(1)), End::Paused);
    harness.driver.export(key(1));
    assert!(exported(&mut harness, key(1)).is_err());
    // It is as it was.
    harness.driver.receive(key(1));
    peer.write_all(b"still here").unwrap();
    assert_eq!(&*harness.received(key(1)), b"still here");
}

pub(crate) fn a_lone_receive_can_be_paused(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(1));
    harness.driver.receive_once(key(1));
    harness.settle_down();
    harness.driver.pause(key(1));
    assert_eq!(harness.ended(key(1)), End::Paused);
    peer.write_all(b"later").unwrap();
    assert!(harness.settle_down().is_empty());
    harness.driver.receive_once(key(1));
    assert_eq!(&*harness.received(key(1)), b"later");
}

pub(crate) fn a_cancelled_send_says_what_the_socket_took(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(1));
    let bytes: Vec<u8> = (0..32_u32 << 20).map(|at| (at % 251) as u8).collect();
    harness.send(key(1), bytes.clone(), SendMode::All);
    harness.settle_down();
    harness.driver.cancel_send(key(1));
    let (batch, outcome) = harness.sent(key(1));
    harness.driver.recycle(batch);
    let taken = outcome.unwrap();
    assert!(taken > 0 && taken < bytes.len(), "{taken}");
    // Exactly those bytes arrive, and the stream goes on behind them.
    harness.send(key(1), b"next".to_vec(), SendMode::All);
    let mut arrived = vec![0; taken + 4];
    harness.read_exact(&mut peer, &mut arrived);
    assert!(arrived[..taken] == bytes[..taken]);
    assert_eq!(&arrived[taken..], b"next");
}

pub(crate) fn a_cancelled_send_may_have_taken_nothing(choice: Choice) {
    let mut harness = Harness::open(choice);
    let peer = harness.resident(key(1));
    harness.fill(key(1));
    harness.send(key(1), vec![7; 100], SendMode::All);
    harness.settle_down();
    harness.driver.cancel_send(key(1));
    let (batch, outcome) = harness.sent(key(1));
    harness.driver.recycle(batch);
    assert_eq!(outcome, Err(SendError::Cancelled));
    harness.driver.cancel_send(key(1));
    assert!(harness.settle_down().is_empty(), "nothing is in flight");
    cut(peer);
}

pub(crate) fn a_connection_closed_while_it_is_exported_is_closed_once(choice: Choice) {
    let mut harness = Harness::open(choice);
    let _peer = harness.resident(key(1));
    harness.driver.export(key(1));
    harness.driver.close(key(1));
    let seen = harness.settle_down();
    // The one or the other: an export that was done already left nothing to close.
    assert!(
        matches!(&seen[..], [Event::Closed { .. }] | [Event::Exported { socket: Ok(_), .. }]),
        "{seen:?}"
    );
    assert_eq!(harness.driver.stats().connections, 0);
}
