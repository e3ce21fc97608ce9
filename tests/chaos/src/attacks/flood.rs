//! Frames that cost their sender next to nothing, as many as the socket takes.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::line::{Line, is_patience};
use crate::message;
use crate::pass::Pass;
use crate::peer::{Goodbye, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "ping-flood",
        what: "Pings of 125 bytes, as many as the socket takes.",
        reference: "A pong for each, queued without bound.",
        needs: Needs::Tokens,
        counters: SMALL,
        play: |scene, until| flood(scene, until, &frame::masked(frame::PING, &[b'p'; 125])),
    },
    Attack {
        name: "pong-flood",
        what: "Pongs nobody asked for.",
        reference: "Each kept the connection alive.",
        needs: Needs::Tokens,
        counters: SMALL,
        play: |scene, until| flood(scene, until, &frame::masked(frame::PONG, b"")),
    },
    Attack {
        name: "empty-message-flood",
        what: "Text messages of no bytes.",
        reference: "An answer, a count and a log entry for each.",
        needs: Needs::Tokens,
        counters: UNROUTED,
        play: |scene, until| flood(scene, until, &frame::text("")),
    },
    Attack {
        name: "tiny-message-flood",
        what: "Text messages of one byte.",
        reference: "As for empty ones.",
        needs: Needs::Tokens,
        counters: UNROUTED,
        play: |scene, until| flood(scene, until, &frame::text("0")),
    },
    Attack {
        name: "invalid-message-flood",
        what: "Well-formed messages of no known type, whose answers are larger than they are.",
        reference: "An answer for each: amplification.",
        needs: Needs::Tokens,
        counters: UNROUTED,
        play: |scene, until| flood(scene, until, &frame::text("{}")),
    },
    Attack {
        name: "binary-flood",
        what: "Binary messages of noise.",
        reference: "Decoded with U+FFFD and forwarded or answered as text.",
        needs: Needs::Tokens,
        counters: UNROUTED,
        play: |scene, until| flood(scene, until, &frame::masked(frame::BINARY, &[0xff; 64])),
    },
    Attack {
        name: "tiny-fragment-flood",
        what: "One message in fragments of no bytes, without end.",
        reference: "Any number of fragments, each in memory.",
        needs: Needs::Tokens,
        counters: SMALL,
        play: fragments,
    },
    Attack {
        name: "close-flood",
        what: "Close frames by the hundred, and frames after them.",
        reference: "The first one counted.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_closed_total"],
        play: closes,
    },
    Attack {
        name: "subscribe-flood",
        what: "Subscriptions and their ends, for channels one may and may not hear.",
        reference: "Unlimited, with an answer for each.",
        needs: Needs::Tokens,
        counters: UNROUTED,
        play: subscriptions,
    },
    Attack {
        name: "message-flood",
        what: "Valid encrypted messages, beyond the rate that a client may have.",
        reference: "4008 runtime rate limit exceeded.",
        needs: Needs::Tokens,
        counters: &["relay_frames_client_runtime_rate_limited_total"],
        play: messages,
    },
    Attack {
        name: "unread-flood",
        what: "Pings and invalid messages of a peer that reads none of the answers.",
        reference: "Every answer was queued, without bound.",
        needs: Needs::Tokens,
        counters: &["relay_frames_client_rejected_total"],
        play: unread,
    },
];

const SMALL: &[&str] = &["relay_small_frames_rate_limited_total"];
const UNROUTED: &[&str] = &["relay_frames_client_unrouted_rate_limited_total"];

/// Floods from one client that reads what it is answered, again and again where it is closed.
fn flood(scene: &Scene<'_>, until: Instant, frame: &[u8]) -> Result<Effort> {
    pour_again(scene, until, frame, |scene| scene.mint()?.client(&scene.workspace(), "attacker"))
}

fn pour_again(
    scene: &Scene<'_>,
    until: Instant,
    frame: &[u8],
    pass: impl Fn(&Scene<'_>) -> Result<Pass>,
) -> Result<Effort> {
    let batch = frame.repeat((BATCH_BYTES / frame.len()).max(1));
    let mut effort = Effort::default();
    loop {
        let peer = scene.open(&pass(scene)?)?;
        effort.merge(&pour(peer, &batch, until)?);
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Writes the batch until the connection ends or time is up, reading all the while.
fn pour(peer: Peer, batch: &[u8], until: Instant) -> Result<Effort> {
    peer.set_patience(Duration::from_millis(50))?;
    let (mut line, received) = peer.into_line();
    let ear = line.try_clone()?;
    thread::scope(|scope| {
        let listener = scope.spawn(move || listen(&ear, received, until));
        let mut effort = Effort::default();
        let mut rest = batch;
        while Instant::now() < until && !listener.is_finished() {
            match line.write(rest) {
                Ok(len) => {
                    effort.add("bytes", len as u64);
                    rest = if len == rest.len() { batch } else { &rest[len..] };
                }
                Err(error) if is_patience(&error) => {}
                Err(_) => break,
            }
        }
        effort.merge(&listener.join().expect("a listener returns"));
        Ok(effort)
    })
}

/// Counts what comes back until the relay ends it or time is up.
fn listen(line: &Line, mut received: Vec<u8>, until: Instant) -> Effort {
    let mut effort = Effort::default();
    loop {
        while let Some((frame, used)) = frame::decode(&received) {
            received.drain(..used);
            match frame.first {
                frame::TEXT => effort.count("answers"),
                frame::PONG => effort.count("pongs"),
                frame::CLOSE => effort.count(shown(&frame.payload)),
                _ => {}
            }
        }
        match line.receive(&mut received) {
            Ok(0) => return effort,
            Ok(_) => {}
            Err(error) if is_patience(&error) => {}
            Err(_) => return effort,
        }
        if Instant::now() >= until {
            return effort;
        }
    }
}

fn shown(close: &[u8]) -> String {
    let Some((code, reason)) = close.split_first_chunk() else {
        return "close".to_owned();
    };
    format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)).trim().to_owned()
}

fn fragments(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let begin = frame::masked(frame::TEXT_BEGIN, b"");
    let rest = frame::masked(frame::CONTINUATION, b"").repeat(FRAGMENTS);
    let mut effort = Effort::default();
    loop {
        let mut peer = scene.client()?;
        peer.send(&begin);
        peer.send(&rest);
        let goodbye = peer.goodbye();
        let is_refused = matches!(goodbye, Goodbye::Close(1008 | 4008, _));
        ensure!(is_refused, "{FRAGMENTS} empty fragments got {goodbye:?}");
        effort.count(format!("{goodbye:?}"));
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn closes(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let close = frame::close(1000, "bye");
    let after = frame::text("{}");
    let bytes = [close.repeat(100), after.repeat(100)].concat();
    let mut effort = Effort::default();
    loop {
        let mut peer = scene.client()?;
        peer.send(&bytes);
        let goodbye = peer.goodbye();
        let expected = Goodbye::Close(1000, "bye".to_owned());
        ensure!(goodbye == expected, "a hundred closes got {goodbye:?}");
        effort.count("1000");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn subscriptions(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let (own, other) = ("agent-session:own", "agent-session:other");
    let frames = [message::subscribe(own), message::unsubscribe(own), message::subscribe(other)];
    let batch: Vec<u8> = frames.iter().flat_map(|text| frame::text(text)).collect();
    pour_again(scene, until, &batch, |scene| scene.mint()?.viewer(&scene.workspace(), &[own]))
}

fn messages(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    // Few enough to read every answer: who does not is the slow reader of another class.
    let batch = frame::text(&message::encrypted("s", 1, "AAAA")).repeat(IN_FLIGHT);
    let mut effort = Effort::default();
    loop {
        let mut peer = scene.client()?;
        let deadline = Instant::now() + PATIENCE;
        let goodbye = loop {
            ensure!(Instant::now() < deadline, "a flood of good messages has no end");
            peer.send(&batch);
            if let Some(goodbye) = (0..IN_FLIGHT).find_map(|_| peer.text().err()) {
                break goodbye;
            }
            effort.add("answers", IN_FLIGHT as u64);
        };
        let expected = Goodbye::Close(4008, "runtime rate limit exceeded".to_owned());
        ensure!(goodbye == expected, "a flood of good messages got {goodbye:?}");
        effort.count("4008 runtime rate limit exceeded");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn unread(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let pair = [frame::masked(frame::PING, &[b'p'; 125]), frame::text("{}")].concat();
    let batch = pair.repeat(BATCH_BYTES / pair.len());
    let mut effort = Effort::default();
    let mut peers: Vec<Peer> = (0..4).map(|_| scene.client()).collect::<Result<_>>()?;
    loop {
        for peer in &mut peers {
            peer.set_patience(Duration::from_millis(20))?;
            if peer.send(&batch) {
                effort.add("bytes", batch.len() as u64);
            } else {
                effort.count("ended");
                *peer = scene.client()?;
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// How long a flood may take to reach a rate that a client may not have.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages sent before their answers are read.
const IN_FLIGHT: usize = 64;
/// More than one message may have.
const FRAGMENTS: usize = 200_000;
/// Bytes written at a time.
const BATCH_BYTES: usize = 64 << 10;
