//! One connection: accepting, receiving, sending.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use relay_driver::{Choice, Chunk, Completion, Config, Driver, End, Remote, SendError, SendMode};

use rustix::net::sockopt;

use crate::harness::{Event, Harness, cut, key};

pub(crate) fn an_accepted_socket_names_its_peer_and_does_not_delay(choice: Choice) {
    let mut harness = Harness::open(choice);
    let address = harness.listen();
    let client = TcpStream::connect(address).unwrap();
    let Completion::Accepted { socket, remote } = harness.next() else { panic!("accepts first") };
    assert_eq!(remote, Remote::Internet(client.local_addr().unwrap()));
    assert!(TcpStream::from(socket).nodelay().unwrap());
}

pub(crate) fn an_accepted_socket_inherits_keepalive_and_user_timeout(choice: Choice) {
    let mut harness = Harness::open(choice);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    sockopt::set_socket_keepalive(&listener, true).unwrap();
    sockopt::set_tcp_keepidle(&listener, Duration::from_secs(44)).unwrap();
    sockopt::set_tcp_user_timeout(&listener, 33_000).unwrap();
    harness.driver.listen(listener.into()).unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    let Completion::Accepted { socket, .. } = harness.next() else { panic!("accepts first") };
    assert!(sockopt::socket_keepalive(&socket).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(44));
    assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 33_000);
}

pub(crate) fn accepting_ends_when_it_is_stopped(choice: Choice) {
    let mut harness = Harness::open(choice);
    let address = harness.listen();
    let _first = TcpStream::connect(address).unwrap();
    assert!(matches!(harness.next(), Completion::Accepted { .. }));
    harness.driver.stop_listening();
    harness.settle_down();
    assert!(TcpStream::connect(address).is_err());
    harness.listen();
}

pub(crate) fn several_listeners_are_accepted_from(choice: Choice) {
    let mut harness = Harness::open(choice);
    let addresses = [harness.listen(), harness.listen(), harness.listen()];
    for _ in 0..2 {
        for address in addresses {
            let client = TcpStream::connect(address).unwrap();
            let Completion::Accepted { remote, .. } = harness.next() else { panic!("accepts") };
            assert_eq!(remote, Remote::Internet(client.local_addr().unwrap()));
        }
    }
    harness.driver.stop_listening();
    harness.settle_down();
    for address in addresses {
        assert!(TcpStream::connect(address).is_err());
    }
}

pub(crate) fn a_unix_socket_is_accepted_from_and_served(choice: Choice) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.sock");
    let mut harness = Harness::open(choice);
    let address = harness.listen();
    harness.driver.listen(UnixListener::bind(&path).unwrap().into()).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let Completion::Accepted { socket, remote } = harness.next() else { panic!("accepts") };
    assert_eq!(remote, Remote::Local);
    harness.driver.adopt(key(0), socket);
    harness.driver.settle(key(0)).unwrap();
    harness.driver.receive(key(0));
    client.write_all(b"ask").unwrap();
    assert_eq!(&*harness.received(key(0)), b"ask");
    harness.send(key(0), b"answer".to_vec(), SendMode::All);
    let mut answer = [0; 6];
    harness.any_sent();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    let _over_tcp = TcpStream::connect(address).unwrap();
    let accepted = harness.find(|event| matches!(event, Event::Accepted { .. }));
    let Completion::Accepted { remote, .. } = accepted else { panic!("{accepted:?}") };
    assert!(matches!(remote, Remote::Internet(_)), "{remote:?}");
}

pub(crate) fn a_guest_receives_once_per_request(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.guest(key(0));
    harness.driver.receive_once(key(0));
    peer.write_all(b"one").unwrap();
    assert_eq!(&*harness.received(key(0)), b"one");
    peer.write_all(b"two").unwrap();
    assert!(harness.settle_down().is_empty());
    harness.driver.receive_once(key(0));
    assert_eq!(&*harness.received(key(0)), b"two");
}

pub(crate) fn a_resident_receives_until_the_stream_ends(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    for word in ["one", "two", "three"] {
        peer.write_all(word.as_bytes()).unwrap();
        assert_eq!(&*harness.received(key(0)), word.as_bytes());
    }
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(harness.ended(key(0)), End::Eof);
}

pub(crate) fn a_paused_receive_says_so_and_leaves_the_rest_in_the_kernel(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    peer.write_all(b"one").unwrap();
    assert_eq!(&*harness.received(key(0)), b"one");
    harness.driver.pause(key(0));
    assert_eq!(harness.ended(key(0)), End::Paused);
    peer.write_all(b"two").unwrap();
    assert!(harness.settle_down().is_empty());
    // Once, and again and again: both go on where it stopped.
    harness.driver.receive_once(key(0));
    assert_eq!(&*harness.received(key(0)), b"two");
    harness.driver.receive(key(0));
    for word in ["three", "four"] {
        peer.write_all(word.as_bytes()).unwrap();
        assert_eq!(&*harness.received(key(0)), word.as_bytes());
    }
}

pub(crate) fn what_is_received_before_a_pause_still_comes(choice: Choice) {
    const BYTES: usize = 300_000;
    let config = Config { buffer_count: 64, buffer_bytes: 1024, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut peer = harness.resident(key(0));
    let pattern: Vec<u8> = (0..BYTES).map(|index| (index / 3) as u8).collect();
    peer.write_all(&pattern).unwrap();
    let mut received = Vec::new();
    while received.len() < BYTES {
        harness.driver.receive(key(0));
        received.extend_from_slice(&harness.received(key(0)));
        harness.driver.pause(key(0));
        loop {
            let next = harness.find(|_| true);
            match next {
                Completion::Received { lease, .. } => received.extend_from_slice(&lease),
                Completion::ReceiveEnded { end, .. } => {
                    assert_eq!(end, End::Paused);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(received == pattern, "nothing is lost or out of order");
}

pub(crate) fn a_pause_ends_a_receive_that_starves(choice: Choice) {
    let config = Config { buffer_count: 1, buffer_bytes: 1024, ..Config::default() };
    let mut harness = Harness::with(choice, config);
    let mut first = harness.resident(key(0));
    let mut second = harness.resident(key(1));
    harness.driver.receive(key(0));
    first.write_all(b"held").unwrap();
    let held = harness.received(key(0));
    harness.driver.receive(key(1));
    second.write_all(b"starved").unwrap();
    assert!(harness.settle_down().is_empty());
    harness.driver.pause(key(1));
    assert_eq!(harness.ended(key(1)), End::Paused);
    drop(held);
    assert!(harness.settle_down().is_empty());
    harness.driver.receive(key(1));
    assert_eq!(&*harness.received(key(1)), b"starved");
}

pub(crate) fn an_end_is_told_although_the_receive_was_paused(choice: Choice) {
    let mut harness = Harness::open(choice);
    let peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    harness.settle_down();
    drop(peer);
    harness.driver.pause(key(0));
    // Which of the two is first is the kernel's business; the stream's end is not lost.
    if harness.ended(key(0)) == End::Paused {
        harness.driver.receive(key(0));
        assert_eq!(harness.ended(key(0)), End::Eof);
    }
}

pub(crate) fn a_receive_survives_settling(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.guest(key(0));
    harness.driver.receive_once(key(0));
    harness.settle_down();
    harness.driver.settle(key(0)).unwrap();
    harness.settle_down();
    peer.write_all(b"early").unwrap();
    assert_eq!(&*harness.received(key(0)), b"early");
    harness.driver.receive(key(0));
    peer.write_all(b"late").unwrap();
    assert_eq!(&*harness.received(key(0)), b"late");
}

pub(crate) fn a_cut_connection_ends_with_reset(choice: Choice) {
    let mut harness = Harness::open(choice);
    let peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    harness.settle_down();
    cut(peer);
    assert_eq!(harness.ended(key(0)), End::Reset);
}

pub(crate) fn a_batch_of_many_chunks_arrives_in_order(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    peer.write_all(b"[leased]").unwrap();
    let leased = harness.received(key(0)).freeze();
    let mut batch = harness.driver.batch();
    let mut expected = Vec::new();
    while batch.room() >= 4 {
        let chunks = [
            Chunk::inline(b"header ").unwrap(),
            leased.slice(1..7).into(),
            b" owned".to_vec().into(),
            (&b" static\n"[..]).into(),
        ];
        for chunk in chunks {
            expected.extend_from_slice(chunk.as_bytes());
            batch.push(chunk).unwrap();
        }
    }
    drop(leased);
    harness.driver.send(key(0), batch, SendMode::All);
    let (batch, outcome) = harness.sent(key(0));
    assert_eq!(outcome, Ok(expected.len()));
    harness.driver.recycle(batch);
    let mut read = vec![0; expected.len()];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(read, expected);
    harness.settle_down();
    assert_eq!(harness.driver.stats().buffers_in_use, 0);
}

pub(crate) fn trying_a_full_socket_takes_a_part_or_nothing_and_returns_at_once(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    let mut taken = 0;
    let outcome = loop {
        harness.send(key(0), vec![7; 1 << 20], SendMode::Try);
        let (_, outcome) = harness.sent(key(0));
        taken += outcome.unwrap();
        if outcome == Ok(0) {
            break outcome;
        }
    };
    assert_eq!(outcome, Ok(0));
    let mut read = vec![0; taken];
    peer.read_exact(&mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == 7));
    // The socket has room again, and trying finds out.
    let mut outcome = Ok(0);
    while outcome == Ok(0) {
        harness.send(key(0), b"more".to_vec(), SendMode::Try);
        outcome = harness.sent(key(0)).1;
    }
    assert_eq!(outcome, Ok(4));
}

pub(crate) fn insisting_on_a_full_socket_waits_for_the_reader(choice: Choice) {
    const BYTES: usize = 32 << 20;
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    let pattern: Vec<u8> = (0..BYTES).map(|index| (index / 7) as u8).collect();
    let mut batch = harness.driver.batch();
    for piece in pattern.chunks(BYTES / 4) {
        batch.push(piece.to_vec()).unwrap();
    }
    harness.driver.send(key(0), batch, SendMode::All);
    assert!(harness.settle_down().is_empty(), "the socket cannot hold that much");
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; BYTES];
        peer.read_exact(&mut read).unwrap();
        read
    });
    assert_eq!(harness.sent(key(0)).1, Ok(BYTES));
    assert!(reader.join().unwrap() == pattern, "the bytes arrive in order");
}

pub(crate) fn a_second_send_in_flight_is_refused(choice: Choice) {
    let mut harness = Harness::open(choice);
    let _peer = harness.resident(key(0));
    harness.send(key(0), vec![0; 64 << 20], SendMode::All);
    harness.send(key(0), b"second".to_vec(), SendMode::Try);
    let (batch, outcome) = harness.sent(key(0));
    assert_eq!(outcome, Err(SendError::Busy));
    assert_eq!(batch.len(), 6);
}

pub(crate) fn sending_to_a_cut_connection_fails(choice: Choice) {
    let mut harness = Harness::open(choice);
    let peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    harness.settle_down();
    cut(peer);
    harness.ended(key(0));
    harness.send(key(0), b"anybody?".to_vec(), SendMode::All);
    assert_eq!(harness.sent(key(0)).1, Err(SendError::Reset));
}

pub(crate) fn fin_follows_the_send_in_flight(choice: Choice) {
    const BYTES: usize = 16 << 20;
    for settled in [false, true] {
        let mut harness = Harness::open(choice);
        let mut peer = harness.guest(key(0));
        if settled {
            harness.driver.settle(key(0)).unwrap();
        }
        harness.send(key(0), vec![1; BYTES], SendMode::All);
        harness.driver.shutdown(key(0));
        assert!(harness.settle_down().is_empty());
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).unwrap();
            read.len()
        });
        assert_eq!(harness.sent(key(0)).1, Ok(BYTES));
        harness.turn_until(|| reader.is_finished());
        assert_eq!(reader.join().unwrap(), BYTES);
    }
}

pub(crate) fn a_peer_that_finished_can_still_be_answered(choice: Choice) {
    let mut harness = Harness::open(choice);
    let mut peer = harness.resident(key(0));
    harness.driver.receive(key(0));
    peer.write_all(b"question").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(&*harness.received(key(0)), b"question");
    assert_eq!(harness.ended(key(0)), End::Eof);
    harness.send(key(0), b"answer".to_vec(), SendMode::All);
    assert_eq!(harness.sent(key(0)).1, Ok(6));
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}
