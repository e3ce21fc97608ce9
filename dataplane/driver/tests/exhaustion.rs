//! Running out of descriptors. A process of its own, because the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use relay_driver::{AnyDriver, Choice, Completion, Config, Driver, Key, Remote, Uring, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn accepting_pauses_without_descriptors_and_goes_on_with_them() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum }).unwrap();
    accepts_again(Choice::Epoll);
    match Uring::probe() {
        Ok(()) => accepts_again(Choice::Uring),
        Err(unsupported) => eprintln!("skipped: {unsupported}"),
    }
}

fn accepts_again(choice: Choice) {
    let mut driver = open(choice, &Config::default()).unwrap().driver;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut friend = TcpStream::connect(address).unwrap();
    let friend_key = Key { slot: 0, generation: 1 };
    driver.adopt(friend_key, listener.accept().unwrap().0.into());
    driver.settle(friend_key).unwrap();
    driver.receive(friend_key);
    driver.listen(listener.try_clone().unwrap().into()).unwrap();
    let peer = TcpStream::connect(address).unwrap();
    let hoard: Vec<_> = std::iter::from_fn(|| listener.try_clone().ok()).collect();

    let since = Instant::now();
    let mut completions = Vec::new();
    while completions.is_empty() {
        driver.turn(None, &mut completions).unwrap();
    }
    assert!(matches!(completions[..], [Completion::AcceptFailed(_)]), "{completions:?}");
    completions.clear();
    for _ in 0..100 {
        driver.turn(Some(Duration::ZERO), &mut completions).unwrap();
    }
    // Once, but for a machine that stood still for longer than a pause.
    let failed = driver.stats().accept_failed;
    let pauses = since.elapsed().as_millis() / PAUSE_MS;
    assert!(u128::from(failed) <= 1 + pauses, "it pauses: {failed} in {pauses}");
    friend.write_all(b"frames flow").unwrap();
    await_one(&mut driver, &mut completions, Some(Duration::ZERO));
    let [Completion::Received { lease, .. }] = &completions[..] else { panic!("{completions:?}") };
    assert_eq!(&**lease, b"frames flow");
    completions.clear();

    drop(hoard);
    await_one(&mut driver, &mut completions, None);
    let [Completion::Accepted { remote, .. }] = completions[..] else { panic!("{completions:?}") };
    assert_eq!(remote, Remote::Internet(peer.local_addr().unwrap()));
}

/// Turns until there is something else than one more accept that failed.
fn await_one(
    driver: &mut AnyDriver,
    completions: &mut Vec<Completion<OwnedFd>>,
    patience: Option<Duration>,
) {
    loop {
        completions.retain(|completion| !matches!(completion, Completion::AcceptFailed(_)));
        if !completions.is_empty() {
            return;
        }
        driver.turn(patience, completions).unwrap();
    }
}

/// How long accepting pauses, milliseconds.
const PAUSE_MS: u128 = 100;
