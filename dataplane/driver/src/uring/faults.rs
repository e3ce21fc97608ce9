//! What becomes of the driver when the kernel is out of something: completions are tampered with on
//! their way, calls refused before they are made.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::ring::Done;
use super::token::Kind;
use super::{BURST_BYTES, Uring};
use crate::{Completion, Config, Driver, End, Key, SendError, SendMode};

const KEY: Key = Key { slot: 0, generation: 1 };

impl Uring {
    /// The completion as the kernel would have it in need.
    pub(super) fn tampered(&mut self, done: Done) -> Done {
        match self.faults.iter().position(|(kind, _)| *kind == done.token.kind) {
            Some(index) => {
                let mut done = done;
                done.result = -self.faults.remove(index).1;
                done
            }
            None => done,
        }
    }
}

/// A driver with one resident, and its peer. Nothing where there is no ring.
fn line() -> Option<(Uring, TcpStream)> {
    line_of(&Config::default())
}

fn line_of(config: &Config) -> Option<(Uring, TcpStream)> {
    if let Err(unsupported) = Uring::probe() {
        eprintln!("skipped: {unsupported}");
        return None;
    }
    let mut driver = Uring::open(config).expect("it was probed");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (socket, _) = listener.accept().expect("it connected");
    driver.adopt(KEY, socket.into());
    driver.settle(KEY).expect("there is room");
    Some((driver, peer))
}

fn send(driver: &mut Uring, bytes: &[u8], mode: SendMode) {
    let mut batch = driver.batch();
    batch.push(bytes.to_vec()).expect("it is empty");
    driver.send(KEY, batch, mode);
}

/// Turns until something is reported.
fn next(driver: &mut Uring) -> Vec<Completion<std::os::fd::OwnedFd>> {
    let mut completions = Vec::new();
    for _ in 0..1000 {
        driver.turn(Some(Duration::from_millis(10)), &mut completions).expect("it goes on");
        if !completions.is_empty() {
            return completions;
        }
    }
    panic!("nothing came");
}

fn received(driver: &mut Uring) -> Vec<u8> {
    match &next(driver)[..] {
        [Completion::Received { lease, .. }] => lease.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_receive_without_memory_is_tried_again() {
    for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN] {
        let Some((mut driver, mut peer)) = line() else { return };
        driver.receive_once(KEY);
        driver.faults.push((Kind::Receive, errno));
        peer.write_all(b"lost by the test").expect("it has room");
        let starved = driver.stats().receive_starved;
        while driver.stats().receive_starved == starved {
            driver.turn(Some(Duration::from_millis(10)), &mut Vec::new()).expect("it goes on");
        }
        peer.write_all(b"next").expect("it has room");
        assert_eq!(received(&mut driver), b"next", "errno {errno}");
        assert_eq!(driver.buffers.pool().in_use(), 0, "the buffer of the lost one came home");
    }
}

#[test]
fn a_turn_brings_a_bounded_part_of_a_long_stream() {
    let Some((mut driver, mut peer)) = line() else { return };
    peer.set_nonblocking(true).expect("it is a socket");
    let mut written = 0;
    while let Ok(count) = peer.write(&[7; 16 << 10]) {
        written += count;
    }
    assert!(written > 4 * BURST_BYTES as usize, "{written} bytes show nothing");
    driver.receive(KEY);
    let turn_max = BURST_BYTES as usize + driver.buffers.pool().buffer_bytes();
    let mut read = 0;
    while read < written {
        let mut completions = Vec::new();
        driver.turn(Some(Duration::from_secs(5)), &mut completions).expect("it goes on");
        let bytes = completions.iter().map(|completion| match completion {
            Completion::Received { lease, .. } => lease.len(),
            other => panic!("{other:?}"),
        });
        let bytes: usize = bytes.sum();
        assert!(driver.burst_bytes == 0 || bytes < turn_max, "{bytes} in one turn");
        read += bytes;
    }
    assert_eq!(read, written, "and all of it comes");
}

#[test]
fn a_receive_that_fails_ends_its_connection_alone() {
    let Some((mut driver, mut peer)) = line() else { return };
    driver.receive_once(KEY);
    driver.faults.push((Kind::Receive, libc::EIO));
    peer.write_all(b"x").expect("it has room");
    let ended = next(&mut driver);
    let expected = End::Failed(libc::EIO);
    assert!(matches!(ended[..], [Completion::ReceiveEnded { end, .. }] if end == expected));
    driver.close(KEY);
    assert!(matches!(next(&mut driver)[..], [Completion::Closed { .. }]));
}

#[test]
fn a_send_without_memory_took_nothing_and_may_be_tried_again() {
    for errno in [libc::ENOMEM, libc::ENOBUFS] {
        for mode in [SendMode::Try, SendMode::All] {
            let Some((mut driver, mut peer)) = line() else { return };
            driver.faults.push((Kind::Send, errno));
            send(&mut driver, b"lost", mode);
            let sent = next(&mut driver);
            assert!(matches!(sent[..], [Completion::Sent { outcome: Ok(0), .. }]), "{sent:?}");
            send(&mut driver, b"next", mode);
            assert!(matches!(next(&mut driver)[..], [Completion::Sent { outcome: Ok(4), .. }]));
            // The test tampered with the news of the first send, not with the send.
            let mut read = [0; 8];
            peer.read_exact(&mut read).expect("it was sent");
            assert_eq!(&read, b"lostnext");
        }
    }
}

#[test]
fn a_send_that_fails_says_so_and_the_driver_goes_on() {
    let Some((mut driver, mut peer)) = line() else { return };
    driver.faults.push((Kind::Send, libc::EIO));
    send(&mut driver, b"x", SendMode::All);
    let sent = next(&mut driver);
    let expected = Err(SendError::Failed(libc::EIO));
    assert!(matches!(sent[..], [Completion::Sent { outcome, .. }] if outcome == expected));
    driver.receive_once(KEY);
    peer.write_all(b"still here").expect("it has room");
    assert_eq!(received(&mut driver), b"still here");
}

#[test]
fn a_call_refused_for_want_of_anything_is_made_again() {
    for errno in [libc::ENOMEM, libc::EAGAIN, libc::EBUSY, libc::EINTR] {
        let Some((mut driver, mut peer)) = line() else { return };
        driver.receive(KEY);
        send(&mut driver, b"out", SendMode::All);
        driver.ring.refusals = vec![errno; 5];
        peer.write_all(b"in").expect("it has room");
        let (mut sent, mut received) = (false, false);
        while !(sent && received) {
            for completion in next(&mut driver) {
                sent |= matches!(completion, Completion::Sent { outcome: Ok(3), .. });
                received |= matches!(completion, Completion::Received { .. });
            }
        }
        assert!(driver.ring.refusals.is_empty());
        let mut read = [0; 3];
        peer.read_exact(&mut read).expect("it was sent once");
        assert_eq!(&read, b"out");
    }
}

#[test]
fn a_refused_call_does_not_wait_for_the_end_of_a_spin() {
    let busy_poll = Duration::from_secs(10);
    for errno in [libc::ENOMEM, libc::EAGAIN, libc::EBUSY] {
        let Some((mut driver, _peer)) = line_of(&Config { busy_poll, ..Config::default() }) else {
            return;
        };
        send(&mut driver, b"out", SendMode::All);
        driver.ring.refusals = vec![errno; 5];
        let began = Instant::now();
        let mut completions = Vec::new();
        driver.turn(Some(busy_poll), &mut completions).expect("it goes on");
        assert!(matches!(completions[..], [Completion::Sent { outcome: Ok(3), .. }]));
        assert!(began.elapsed() < busy_poll, "errno {errno}");
    }
}

#[test]
fn a_receive_that_starves_waits_in_one_place_however_often_it_is_paused() {
    let config = Config { buffer_count: 1, buffer_bytes: 4096, ..Config::default() };
    let Some((mut driver, mut peer)) = line_of(&config) else { return };
    driver.receive(KEY);
    peer.write_all(b"held").expect("it has room");
    let held = next(&mut driver);
    let mut completions = Vec::new();
    for round in 0..50 {
        peer.write_all(b"more").expect("it has room");
        let starved = driver.stats().receive_starved;
        while round == 0 && driver.stats().receive_starved == starved {
            driver.turn(Some(Duration::from_millis(10)), &mut completions).expect("it goes on");
        }
        driver.pause(KEY);
        driver.turn(Some(Duration::ZERO), &mut completions).expect("it goes on");
        driver.receive(KEY);
        driver.turn(Some(Duration::ZERO), &mut completions).expect("it goes on");
        assert!(driver.starved.len() <= 1, "{} places", driver.starved.len());
    }
    drop(held);
    assert!(received(&mut driver).starts_with(b"more"));
}

#[test]
fn a_ring_that_does_not_end_its_operations_keeps_the_memory_they_may_use() {
    let Some((mut driver, _peer)) = line() else { return };
    driver.receive(KEY);
    driver.turn(Some(Duration::ZERO), &mut Vec::new()).expect("it goes on");
    let pool = driver.buffers.pool().clone();
    driver.ring.refusals = vec![libc::EBADF; 8];
    drop(driver);
    assert!(pool.is_shared(), "the buffers stay");
}

#[test]
fn a_ring_that_is_gone_is_reported_and_does_not_hang() {
    let Some((mut driver, _peer)) = line() else { return };
    driver.ring.refusals.push(libc::EBADF);
    let error = driver.turn(Some(Duration::ZERO), &mut Vec::new()).expect_err("the ring is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}
