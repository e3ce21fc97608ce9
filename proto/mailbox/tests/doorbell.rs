//! The interleavings of "push, look at the flag, ring" with "set the flag, look again, sleep".
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p relay-mailbox --test doorbell --release`
//!
//! The lane is modelled by one atomic without ordering of its own, so that the proof rests on the
//! bell's fences alone; the doorbell by a counter under a mutex, as an eventfd is one. A wake-up
//! that gets lost leaves the sleeper waiting for ever, which loom reports as a deadlock.
#![cfg(loom)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use relay_mailbox::{Bell, Ring};

#[derive(Default)]
struct Doorbell {
    rung: Mutex<usize>,
    changed: Condvar,
}

impl Doorbell {
    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = 0;
    }
}

/// The ringing end of the doorbell.
struct Ringer(Arc<Doorbell>);

impl Ring for Ringer {
    fn ring(&self) {
        *self.0.rung.lock().unwrap() += 1;
        self.0.changed.notify_one();
    }
}

/// Receives what `senders` threads send, and sleeps whenever something is still missing.
fn no_wake_up_is_lost(model: loom::model::Builder, senders: usize, values_each: usize) {
    model.check(move || {
        let doorbell = Arc::new(Doorbell::default());
        let bell = Bell::new(Ringer(Arc::clone(&doorbell)));
        let lane = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let (bell, lane) = (std::sync::Arc::clone(&bell), Arc::clone(&lane));
                thread::spawn(move || {
                    for _ in 0..values_each {
                        lane.fetch_add(1, Ordering::Relaxed);
                        bell.notify();
                    }
                })
            })
            .collect();

        let expected = senders * values_each;
        while lane.load(Ordering::Relaxed) < expected {
            bell.rest();
            if lane.load(Ordering::Relaxed) < expected {
                doorbell.sleep();
            }
            bell.rise();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn one_sender_never_loses_a_wake_up() {
    no_wake_up_is_lost(loom::model::Builder::new(), 1, 2);
}

/// All interleavings of three threads take hours; those with up to two preemptions take seconds.
#[test]
fn two_senders_never_lose_a_wake_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    no_wake_up_is_lost(model, 2, 1);
}
