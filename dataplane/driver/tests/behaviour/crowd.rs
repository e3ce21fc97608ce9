//! Many connections, few buffers, long queues; and waiting.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use relay_driver::{Choice, Completion, Config, Driver, End, Lease, SendMode};

use crate::harness::{Harness, key};

pub(crate) fn stalled_leases_starve_receives_but_lose_nothing(choice: Choice) {
    let config = Config { buffer_count: 2, buffer_bytes: 4096, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..3).map(|slot| harness.resident(key(slot))).collect();
    for slot in 0..3 {
        harness.driver.receive(key(slot));
    }
    for peer in &mut peers[..2] {
        peer.write_all(b"held").unwrap();
    }
    let mut held = vec![harness.any_received().1, harness.any_received().1];
    peers[2].write_all(b"waiting").unwrap();
    assert!(harness.settle_down().is_empty());
    assert!(harness.driver.stats().receive_starved > 0);
    held.pop();
    assert_eq!(&*harness.received(key(2)), b"waiting");
}

pub(crate) fn more_starved_connections_than_buffers_all_make_progress(choice: Choice) {
    const CONNECTIONS: u32 = 40;
    const WORDS: usize = 20;
    let config = Config { buffer_count: 3, buffer_bytes: 1024, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let peers: Vec<_> = (0..CONNECTIONS).map(|slot| harness.resident(key(slot))).collect();
    for slot in 0..CONNECTIONS {
        harness.driver.receive(key(slot));
    }
    let writers: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            std::thread::spawn(move || {
                for _ in 0..WORDS {
                    peer.write_all(&[1; 5000]).unwrap();
                }
                peer
            })
        })
        .collect();
    let mut counts = [0; CONNECTIONS as usize];
    let mut held: Vec<Lease> = Vec::new();
    while counts.iter().sum::<usize>() < CONNECTIONS as usize * WORDS * 5000 {
        let (from, lease) = harness.any_received();
        counts[from.slot as usize] += lease.len();
        // All buffers are out at times; the oldest then comes back.
        held.push(lease);
        if held.len() == 3 {
            held.remove(0);
        }
    }
    assert!(counts.iter().all(|count| *count == WORDS * 5000));
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Others keep every turn full: who is closed does not wait for them to fall silent.
pub(crate) fn a_close_comes_to_its_end_while_others_flood(choice: Choice) {
    const CONNECTIONS: u32 = 8;
    let config =
        Config { completions_max: 2, buffer_count: 64, buffer_bytes: 256, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|slot| harness.resident(key(slot))).collect();
    for peer in &mut peers {
        peer.set_nonblocking(true).unwrap();
        while peer.write(&[1; 4096]).is_ok() {}
    }
    for slot in 0..CONNECTIONS {
        harness.driver.receive(key(slot));
    }
    for _ in 0..100 {
        harness.any_received();
    }
    harness.driver.close(key(0));
    let mut closed = false;
    for _ in 0..2000 {
        let event = harness.next();
        closed |= matches!(event, Completion::Closed { .. });
        if closed {
            break;
        }
        for peer in &mut peers {
            let _ = peer.write(&[1; 4096]);
        }
    }
    assert!(closed, "thousands of receives came first");
}

/// Everybody sends more than there are buffers for: nobody may live off the others' share.
pub(crate) fn scarce_buffers_are_shared_evenly(choice: Choice) {
    for buffer_count in [2, 3, 4] {
        share_evenly(choice, buffer_count);
    }
}

fn share_evenly(choice: Choice, buffer_count: u16) {
    const CONNECTIONS: u32 = 12;
    const BYTES_EACH: usize = 96 << 10;
    let config = Config { buffer_count, buffer_bytes: 2048, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|slot| harness.resident(key(slot))).collect();
    for peer in &mut peers {
        peer.write_all(&[1; BYTES_EACH]).unwrap();
        peer.set_nonblocking(true).unwrap();
    }
    for slot in 0..CONNECTIONS {
        harness.driver.receive(key(slot));
    }
    let mut counts = [0; CONNECTIONS as usize];
    while counts.iter().sum::<usize>() < CONNECTIONS as usize * BYTES_EACH {
        let (from, lease) = harness.any_received();
        counts[from.slot as usize] += lease.len();
        // Where there is no room yet, enough waits still.
        let _ = peers[from.slot as usize].write(&lease);
    }
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(least * 2 > *most, "{buffer_count} buffers: {counts:?}");
}

/// Who asks for the next receive as soon as it has its buffer does not get ahead of who waits.
pub(crate) fn receives_one_at_a_time_share_scarce_buffers_evenly(choice: Choice) {
    const CONNECTIONS: u32 = 12;
    const ROUNDS: usize = 40;
    let config = Config { buffer_count: 3, buffer_bytes: 2048, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|slot| harness.resident(key(slot))).collect();
    for peer in &mut peers {
        peer.write_all(&[1; 96 << 10]).unwrap();
        peer.set_nonblocking(true).unwrap();
    }
    for slot in 0..CONNECTIONS {
        harness.driver.receive_once(key(slot));
    }
    let mut counts = [0; CONNECTIONS as usize];
    for _ in 0..ROUNDS * CONNECTIONS as usize {
        let (from, lease) = harness.any_received();
        counts[from.slot as usize] += 1;
        let _ = peers[from.slot as usize].write(&lease);
        drop(lease);
        harness.driver.receive_once(from);
    }
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 2, "{counts:?}");
}

pub(crate) fn starved_receives_can_be_closed(choice: Choice) {
    let config = Config { buffer_count: 1, buffer_bytes: 1024, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut first = harness.resident(key(0));
    let mut second = harness.resident(key(1));
    harness.driver.receive(key(0));
    first.write_all(b"held").unwrap();
    let held = harness.received(key(0));
    harness.driver.receive(key(1));
    second.write_all(b"starved").unwrap();
    harness.settle_down();
    harness.driver.close(key(1));
    let completions = harness.until_closed(key(1));
    assert!(matches!(completions[..], [Completion::ReceiveEnded { end: End::Cancelled, .. }]));
    drop(held);
    first.write_all(b"next").unwrap();
    assert_eq!(&*harness.received(key(0)), b"next");
}

pub(crate) fn a_bell_ends_a_waiting_turn(choice: Choice) {
    let mut harness = Harness::open(choice);
    for _ in 0..3 {
        harness.settle_down();
        let bell = harness.driver.bell();
        bell.rest();
        let ringer = std::thread::spawn(move || bell.notify());
        // Without a time limit: only the bell can end it. It may end early, but not for ever.
        let mut completions = Vec::new();
        harness.driver.turn(None, &mut completions).unwrap();
        ringer.join().unwrap();
        harness.driver.bell().rise();
        assert!(completions.is_empty());
    }
}

pub(crate) fn a_turn_ends_when_its_time_is_up(choice: Choice) {
    let mut harness = Harness::open(choice);
    harness.settle_down();
    let before = harness.driver.now();
    let mut completions = Vec::new();
    harness.driver.turn(Some(Duration::from_millis(20)), &mut completions).unwrap();
    let waited = harness.driver.now().since(before);
    assert!(completions.is_empty());
    assert!(waited >= Duration::from_millis(19), "{waited:?}");
}

/// Polls for so long that a test which passes has not slept.
fn polling(choice: Choice) -> Harness {
    let config = Config { busy_poll: Duration::from_secs(3600), ..Config::default() };
    Harness::with(choice, config)
}

pub(crate) fn what_arrives_ends_a_polling_turn(choice: Choice) {
    let mut harness = polling(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    for word in [b"once", b"more"] {
        peer.write_all(word).unwrap();
        let mut completions = Vec::new();
        while completions.is_empty() {
            harness.driver.turn(None, &mut completions).unwrap();
        }
        let [Completion::Received { lease, .. }] = &completions[..] else {
            panic!("{completions:?}");
        };
        assert_eq!(&**lease, word);
    }
}

pub(crate) fn a_bell_ends_a_polling_turn(choice: Choice) {
    let mut harness = polling(choice);
    for _ in 0..3 {
        let bell = harness.driver.bell();
        bell.rest();
        let ringer = std::thread::spawn(move || bell.notify());
        let mut completions = Vec::new();
        harness.driver.turn(None, &mut completions).unwrap();
        ringer.join().unwrap();
        harness.driver.bell().rise();
        assert!(completions.is_empty());
    }
}

pub(crate) fn a_polling_turn_sleeps_in_the_end(choice: Choice) {
    let config = Config { busy_poll: Duration::from_micros(200), ..Config::default() };
    let mut harness = Harness::with(choice, config);
    harness.settle_down();
    let before = harness.driver.now();
    let mut completions = Vec::new();
    harness.driver.turn(Some(Duration::from_millis(20)), &mut completions).unwrap();
    let waited = harness.driver.now().since(before);
    assert!(completions.is_empty());
    assert!(waited >= Duration::from_millis(19), "{waited:?}");
}

pub(crate) fn more_operations_than_the_queue_holds_are_all_done(choice: Choice) {
    let config = Config { operations_max: 4, completions_max: 7, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..100).map(|slot| harness.resident(key(slot))).collect();
    for slot in 0..100 {
        harness.driver.receive(key(slot));
        harness.send(key(slot), slot.to_be_bytes().to_vec(), SendMode::All);
    }
    for _ in 0..100 {
        harness.any_sent();
    }
    for (slot, peer) in peers.iter_mut().enumerate() {
        let mut read = [0; 4];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(u32::from_be_bytes(read) as usize, slot);
        peer.write_all(&read).unwrap();
    }
    for _ in 0..100 {
        let (from, lease) = harness.any_received();
        assert_eq!(*lease, from.slot.to_be_bytes());
    }
}

pub(crate) fn more_completions_than_the_queue_holds_are_all_seen(choice: Choice) {
    const CONNECTIONS: u32 = 300;
    // Room for sixteen completions in the kernel's queue; nobody looks while hundreds are made.
    let config = Config { operations_max: 4, buffer_count: 512, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|slot| harness.resident(key(slot))).collect();
    for slot in 0..CONNECTIONS {
        harness.driver.receive(key(slot));
    }
    assert!(harness.settle_down().is_empty());
    for round in 0..3u8 {
        for peer in &mut peers {
            peer.write_all(&[round; 10]).unwrap();
        }
        let mut seen = vec![0; CONNECTIONS as usize];
        while seen.iter().sum::<usize>() < 10 * CONNECTIONS as usize {
            let (from, lease) = harness.any_received();
            assert!(lease.iter().all(|byte| *byte == round), "in order");
            seen[from.slot as usize] += lease.len();
        }
        assert!(seen.iter().all(|bytes| *bytes == 10), "each once");
    }
}

pub(crate) fn a_turn_hands_out_a_bounded_number_of_completions(choice: Choice) {
    let mut harness = Harness::with(choice, Config { completions_max: 4, ..Config::default() });
    let mut peers: Vec<_> = (0..50).map(|slot| harness.resident(key(slot))).collect();
    for (slot, peer) in peers.iter_mut().enumerate() {
        harness.driver.receive(key(slot as u32));
        peer.write_all(b"x").unwrap();
    }
    let mut seen = 0;
    while seen < 50 {
        let mut completions = Vec::new();
        harness.driver.turn(None, &mut completions).unwrap();
        // One more than asked for, where one try has two results.
        assert!(completions.len() <= 5, "{}", completions.len());
        seen += completions.len();
    }
}

pub(crate) fn thousands_of_connections_come_and_go(choice: Choice) {
    const CONNECTIONS: u32 = 3000;
    let mut harness = Harness::open(choice);
    let address = harness.listen();
    let mut peers = Vec::new();
    for slot in 0..CONNECTIONS {
        peers.push(TcpStream::connect(address).unwrap());
        let Completion::Accepted { socket, .. } = harness.next() else { panic!("accepts") };
        harness.driver.adopt(key(slot), socket);
        harness.driver.settle(key(slot)).unwrap();
        harness.driver.receive(key(slot));
    }
    assert!(harness.settle_down().is_empty());
    assert_eq!(harness.driver.stats().connections, u64::from(CONNECTIONS));
    for peer in &mut peers {
        peer.write_all(b"hello").unwrap();
    }
    for _ in 0..CONNECTIONS {
        let (from, lease) = harness.any_received();
        assert_eq!(&*lease, b"hello");
        harness.send(from, b"bye".to_vec(), SendMode::Try);
    }
    for peer in &mut peers {
        let mut read = [0; 3];
        harness.read_exact(peer, &mut read);
    }
    drop(peers);
    let mut closed = 0;
    while closed < CONNECTIONS {
        match harness.next() {
            Completion::ReceiveEnded { key, .. } => harness.driver.close(key),
            Completion::Closed { .. } => closed += 1,
            Completion::Sent { batch, .. } => harness.driver.recycle(batch),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(harness.driver.stats().connections, 0);
    assert_eq!(harness.driver.stats().buffers_in_use, 0);
}

pub(crate) fn a_dropped_driver_closes_its_sockets(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    let _stalled = harness.resident(key(1));
    harness.driver.receive(key(0));
    harness.send(key(1), vec![0; 64 << 20], SendMode::All);
    harness.settle_down();
    peer.write_all(b"unread").unwrap();
    let lease = harness.received(key(0));
    drop(harness);
    assert_eq!(&*lease, b"unread", "leases outlive their driver");
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
}
