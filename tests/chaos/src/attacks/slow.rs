//! Peers that say everything, a byte at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::attacks::tls::HELLO;
use crate::frame;
use crate::message;
use crate::peer::{Answer, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "slow-head",
        what: "Request heads that drip, a byte at a time, from many sockets.",
        reference: "Held for ever: no deadline for a whole head.",
        needs: Needs::Nothing,
        counters: &[],
        play: heads,
    },
    Attack {
        name: "slow-body",
        what: "Request bodies that drip, with a length and in chunks.",
        reference: "Held for ever.",
        needs: Needs::Nothing,
        counters: &[],
        play: bodies,
    },
    Attack {
        name: "slow-tls-hello",
        what: "A TLS ClientHello that drips.",
        reference: "Held for two minutes where TLS is on; 400 where it is not.",
        needs: Needs::Nothing,
        counters: &[],
        play: hellos,
    },
    Attack {
        name: "slow-frames",
        what: "Frames that drip, their header and their payload.",
        reference: "Served, like any other.",
        needs: Needs::Tokens,
        counters: &["relay_frames_client_rejected_total"],
        play: frames,
    },
];

fn heads(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let start = b"GET /health HTTP/1.1\r\nHost: relay\r\nX-Slow: ";
    drip(scene, until, || scene.say(start), |peer| peer.send(b"x"))
}

fn bodies(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let sized = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let chunked =
        b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n";
    let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
    let mut effort = drip(scene, half, || scene.say(sized), |peer| peer.send(b"x"))?;
    effort.merge(&drip(scene, until, || scene.say(chunked), |peer| peer.send(b"x"))?);
    Ok(effort)
}

fn hellos(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let begin = || {
        let mut peer = scene.connect()?;
        peer.send_bare(HELLO);
        Ok(peer)
    };
    drip(scene, until, begin, |peer| peer.send_bare(b"B"))
}

/// Holds many sockets and feeds each in turn. Sockets that the relay closes are counted and not
/// replaced: a deadline is what should end them. Given longer than that, it is a fault when one is
/// still there.
fn drip(
    scene: &Scene<'_>,
    until: Instant,
    begin: impl Fn() -> Result<Peer>,
    feed: impl Fn(&mut Peer) -> bool,
) -> Result<Effort> {
    let mut effort = Effort::default();
    let mut peers: Vec<Peer> = (0..SLOW_PEERS).map(|_| begin()).collect::<Result<_>>()?;
    let began = Instant::now();
    loop {
        let before = peers.len();
        peers.retain_mut(&feed);
        effort.add("cut", (before - peers.len()) as u64);
        effort.add("bytes", peers.len() as u64);
        scene.rest(until.min(Instant::now() + PAUSE));
        if peers.is_empty() || Instant::now() >= until {
            effort.add("held", peers.len() as u64);
            let is_over = scene.subject().is_own() && began.elapsed() > DEADLINE + LATE;
            ensure!(!is_over || peers.is_empty(), "{} beyond their deadline", peers.len());
            return Ok(effort);
        }
    }
}

fn frames(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let invalid = frame::text(r#"{"type":"none"}"#);
    let good = frame::text(&message::encrypted("s", 1, "AAAA"));
    let mut effort = Effort::default();
    loop {
        let mut peers: Vec<Peer> = (0..8).map(|_| scene.client()).collect::<Result<_>>()?;
        for bytes in [&invalid, &good] {
            for byte in bytes {
                for peer in &mut peers {
                    peer.send(&[*byte]);
                }
            }
            for peer in &mut peers {
                let answer = peer.text();
                ensure!(answer.is_ok(), "a dripped message got {answer:?}");
                effort.count("answered");
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Whether the relay answers a head that came byte by byte but in time.
pub fn answers_a_slow_head(scene: &Scene<'_>) -> Result<bool> {
    let mut peer = scene.connect()?;
    for byte in b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" {
        peer.send(&[*byte]);
    }
    Ok(peer.answer() == Answer::Status(200))
}

/// The default of `RELAY_HEAD_TIMEOUT_MS` and of `RELAY_TLS_HANDSHAKE_TIMEOUT_MS`.
const DEADLINE: Duration = Duration::from_secs(10);
/// How late a deadline may be on a machine that is busy.
const LATE: Duration = Duration::from_secs(3);
/// Sockets that drip at a time.
const SLOW_PEERS: usize = 200;
/// Between two bytes of one socket.
const PAUSE: Duration = Duration::from_millis(20);
