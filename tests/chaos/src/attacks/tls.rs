//! Peers that abuse TLS itself. What every peer can do inside of it is in the other files.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;
use crate::peer::{Answer, End, Goodbye, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "tls-noise",
        what: "Plain HTTP, noise and absurd records where a hello is due.",
        reference: "Closed by its TLS library.",
        needs: Needs::Tls,
        counters: &["relay_tls_handshake_failures_total"],
        play: noise,
    },
    Attack {
        name: "tls-handshake-flood",
        what: "Handshakes without a pause, each a whole one, and nothing after them.",
        reference: "A signature for each, on the thread that serves everybody.",
        needs: Needs::Tls,
        counters: &[],
        play: handshakes,
    },
    Attack {
        name: "tls-cut",
        what: "FIN and RST in a hello, before Finished and behind it; close_notify.",
        reference: "Survived.",
        needs: Needs::Tls,
        counters: &[],
        play: cuts,
    },
    Attack {
        name: "tls-tiny-records",
        what: "Heads and frames in records of one byte each.",
        reference: "Served, like any other.",
        needs: Needs::TlsAndTokens,
        counters: &[],
        play: tiny_records,
    },
    Attack {
        name: "tls-forged-record",
        what: "Records that no key has sealed, in sessions of strangers and of admitted peers.",
        reference: "Closed by its TLS library.",
        needs: Needs::TlsAndTokens,
        counters: &["relay_tls_records_refused_total"],
        play: forged_records,
    },
    Attack {
        name: "tls-key-update-flood",
        what: "New keys, one after the other, from strangers and from admitted peers.",
        reference: "Each was derived, and answered where that was asked for.",
        needs: Needs::TlsAndTokens,
        counters: &["relay_tls_records_refused_total"],
        play: key_updates,
    },
];

fn noise(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for bytes in NO_HELLO {
            let mut peer = scene.connect()?;
            peer.send_bare(bytes);
            let end = peer.end();
            ensure!(end != End::Silence, "{} is waited on", bytes.escape_ascii());
            effort.count("ended");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn handshakes(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    scene.crowd(2, |_| {
        let mut effort = Effort::default();
        loop {
            drop(scene.enter()?);
            effort.count("handshakes");
            if Instant::now() >= until {
                return Ok(effort);
            }
        }
    })
}

fn cuts(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for eighths in 0..=8 {
            let mut peer = scene.connect()?;
            let hello = peer.take_hello()?;
            peer.send_bare(&hello[..hello.len() * eighths / 8]);
            vanish(peer, eighths % 2 == 0);
            effort.count("in a hello");
        }
        for is_reset in [true, false] {
            let mut peer = scene.connect()?;
            ensure!(peer.greet() && peer.hears_something(), "a hello got no answer");
            vanish(peer, is_reset);
            effort.count("before Finished");
            vanish(scene.enter()?, is_reset);
            effort.count("behind Finished");
        }
        let mut peer = scene.enter()?;
        ensure!(peer.say_goodbye(), "a close_notify is sent");
        ensure!(peer.end() != End::Silence, "a close_notify is waited on");
        effort.count("close_notify");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// With a reset or with FIN.
fn vanish(peer: Peer, is_reset: bool) {
    if is_reset {
        peer.reset();
    }
}

fn tiny_records(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let pass = scene.mint()?.client(&scene.workspace(), "attacker")?;
        let mut peer = scene.enter()?;
        by_the_byte(&mut peer, pass.upgrade().as_bytes());
        let answer = peer.answer();
        ensure!(answer == Answer::Status(101), "a head in records of one byte got {answer:?}");
        by_the_byte(&mut peer, &frame::text(&message::encrypted("s", 1, "AAAA")));
        let answer = peer.text();
        ensure!(answer.is_ok(), "a message in records of one byte got {answer:?}");
        effort.count("answered");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Each byte becomes a record of its own.
fn by_the_byte(peer: &mut Peer, bytes: &[u8]) {
    for byte in bytes {
        peer.send(&[*byte]);
    }
}

fn forged_records(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for (who, mut peer) in [("stranger", scene.enter()?), ("client", scene.client()?)] {
            peer.send_bare(FORGED);
            let end = peer.end();
            ensure!(end != End::Silence, "a {who}'s forged record changed nothing");
            effort.count(who);
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn key_updates(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let idlers = [("of strangers", scene.enter()?), ("of idlers", scene.client()?)];
        for (whose, mut peer) in idlers {
            for _ in 0..UPDATES {
                if peer.update_keys() {
                    effort.count(whose);
                }
            }
            let end = peer.end();
            ensure!(end != End::Silence, "{UPDATES} new keys {whose} changed nothing");
        }
        let mut client = scene.client()?;
        for _ in 0..UPDATES {
            let is_taken = client.update_keys() && client.send(&frame::masked(frame::PING, b""));
            ensure!(is_taken, "a client that sends something may have new keys");
            effort.count("of clients");
        }
        client.send(&frame::close(1000, "bye"));
        let goodbye = client.goodbye();
        let expected = Goodbye::Close(1000, "bye".to_owned());
        ensure!(goodbye == expected, "a client with its hundredth key got {goodbye:?}");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// New keys in a row: more than anybody has a use for who sends nothing.
const UPDATES: u32 = 100;

/// The first bytes of a ClientHello of 512.
pub const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// A record of application data.
const FORGED: &[u8] = b"\x17\x03\x03\x00\x20nothing that any key has sealed!";

/// Nothing of it begins a handshake: HTTP, noise, application data, an alert, a handshake message
/// that is no hello, a record longer than there are any, and a hello of SSL 2.
const NO_HELLO: [&[u8]; 7] = [
    b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    &[0xa5; 3000],
    b"\x17\x03\x03\x00\x01x",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    b"\x16\x03\x01\xff\xff\x01\x00\x01\xfc\x03\x03",
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
];
