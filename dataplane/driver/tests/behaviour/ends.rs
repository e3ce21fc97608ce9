//! Closing, slots and generations, guests and residents.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use relay_driver::{Choice, Completion, Config, Driver, End, Key, SendMode, TableFull};

use crate::harness::{Harness, key};

pub(crate) fn closing_gives_back_everything_before_closed(choice: Choice) {
    for settled in [false, true] {
        let mut harness = Harness::open(choice);
        let _peer = harness.guest(key(0));
        if settled {
            harness.driver.settle(key(0)).unwrap();
        }
        harness.driver.receive(key(0));
        // Guests and residents alike: a socket that takes nothing more, then a send that insists.
        harness.fill(key(0));
        harness.send(key(0), vec![0; 1 << 20], SendMode::All);
        assert!(harness.settle_down().is_empty());
        harness.driver.close(key(0));
        let completions = harness.until_closed(key(0));
        let ended = completions.iter().any(|completion| {
            matches!(completion, Completion::ReceiveEnded { end: End::Cancelled, .. })
        });
        // The socket may have room for a little again, and then that much was sent.
        let sent = completions.iter().any(|completion| match completion {
            Completion::Sent { outcome, .. } => outcome.map_or(true, |sent| sent < 1 << 20),
            _ => false,
        });
        assert!(ended && sent, "{completions:?}");
        assert_eq!(completions.len(), 2);
    }
}

pub(crate) fn what_was_sent_before_closing_arrives(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    harness.settle_down();
    harness.send(key(0), b"farewell".to_vec(), SendMode::Try);
    harness.driver.close(key(0));
    harness.until_closed(key(0));
    let mut read = Vec::new();
    peer.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"farewell");
}

pub(crate) fn nothing_is_received_after_closing(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    harness.settle_down();
    peer.write_all(b"too late").unwrap();
    harness.driver.close(key(0));
    let completions = harness.until_closed(key(0));
    assert!(completions.iter().all(|completion| matches!(
        completion,
        Completion::ReceiveEnded { end: End::Cancelled, .. }
    )));
    assert_eq!(harness.driver.stats().buffers_in_use, 0);
}

pub(crate) fn a_closed_slot_serves_a_new_generation(choice: Choice) {
    let mut harness = Harness::open(choice);
    for generation in 0..50 {
        let key = Key { slot: 0, generation };
        let mut peer = harness.resident(key);
        harness.driver.receive(key);
        peer.write_all(&generation.to_be_bytes()).unwrap();
        assert_eq!(*harness.received(key), generation.to_be_bytes());
        harness.driver.close(key);
        harness.until_closed(key);
    }
    assert_eq!(harness.driver.stats().connections, 0);
    assert_eq!(harness.driver.stats().residents, 0);
}

pub(crate) fn operations_on_unknown_keys_are_ignored(choice: Choice) {
    let mut harness = Harness::open(choice);
    let _peer = harness.resident(key(3));
    for stale in [key(7), Key { slot: 3, generation: 9 }] {
        harness.driver.receive_once(stale);
        harness.driver.receive(stale);
        harness.send(stale, b"lost".to_vec(), SendMode::All);
        harness.driver.shutdown(stale);
        harness.driver.close(stale);
        assert!(harness.driver.release(stale).is_none());
        assert_eq!(harness.driver.settle(stale), Ok(()));
    }
    assert!(harness.settle_down().is_empty());
}

pub(crate) fn a_full_table_leaves_the_guest_a_guest(choice: Choice) {
    let mut harness = Harness::with(choice, Config { residents_max: 2, ..Config::default() });
    let _peers = [harness.resident(key(0)), harness.resident(key(1))];
    let mut guest = harness.guest(key(2));
    assert_eq!(harness.driver.settle(key(2)), Err(TableFull));
    harness.send(key(2), b"503".to_vec(), SendMode::All);
    assert_eq!(harness.sent(key(2)).1, Ok(3));
    let mut answer = [0; 3];
    guest.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"503");
}

pub(crate) fn a_table_place_is_free_again_after_closing(choice: Choice) {
    let mut harness = Harness::with(choice, Config { residents_max: 1, ..Config::default() });
    for generation in 0..3 {
        let key = Key { slot: generation, generation };
        let _peer = harness.resident(key);
        harness.driver.close(key);
        harness.until_closed(key);
    }
}

pub(crate) fn a_guest_moves_to_another_driver(choice: Choice) {
    let mut first = Harness::open(choice);
    let mut second = Harness::open(choice);
    let mut peer = first.guest(key(0));
    first.driver.receive_once(key(0));
    peer.write_all(b"head").unwrap();
    assert_eq!(&*first.received(key(0)), b"head");
    let socket: OwnedFd = first.driver.release(key(0)).expect("an idle guest");
    second.driver.adopt(key(5), socket);
    second.driver.settle(key(5)).unwrap();
    second.driver.receive(key(5));
    peer.write_all(b"body").unwrap();
    assert_eq!(&*second.received(key(5)), b"body");
    assert!(first.settle_down().is_empty());
    assert_eq!(first.driver.stats().connections, 0);
}

pub(crate) fn a_busy_guest_or_a_resident_is_not_released(choice: Choice) {
    let mut harness = Harness::open(choice);
    let _busy = harness.guest(key(0));
    harness.driver.receive_once(key(0));
    assert!(harness.driver.release(key(0)).is_none());
    let _resident = harness.resident(key(1));
    assert!(harness.driver.release(key(1)).is_none());
}
