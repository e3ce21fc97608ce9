//! A relay that has no descriptors left.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::peer::{Answer, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[Attack {
    name: "descriptor-exhaustion",
    what: "More connections than the relay has descriptors for; then they are gone again.",
    reference: "Accept failed over and over, at full speed.",
    needs: Needs::Process,
    counters: &[],
    play: exhaust,
}];

/// A multishot accept of io_uring goes by the limit of the time it was made: on the ring nobody has
/// to wait.
fn exhaust(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        scene.subject().limit_descriptors(Some(SPARE))?;
        let outcome = crowd_out(scene, until);
        scene.subject().limit_descriptors(None)?;
        effort.merge(&outcome?);
        // The door opens again.
        drop(scene.client()?);
        effort.count("back");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn crowd_out(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    let request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held: Vec<Peer> = Vec::new();
    for _ in 0..CROWD {
        let mut peer = scene.connect()?;
        peer.greet();
        held.push(peer);
    }
    for (place, peer) in held.iter_mut().enumerate() {
        // The hello of who waits in the backlog is not answered; who came first does not wait.
        if place > 0 {
            peer.set_patience(Duration::from_millis(5))?;
        }
        peer.send(request);
        match peer.answer() {
            Answer::Status(200) => effort.count("200"),
            Answer::Status(status) => anyhow::bail!("/health answers {status}"),
            Answer::End(_) => effort.count("waiting"),
        }
    }
    ensure!(effort.of("200") > 0, "nobody was served");
    scene.rest(until);
    Ok(effort)
}

/// Descriptors left to the relay beyond those it has.
const SPARE: u64 = 16;
/// Connections that want one.
const CROWD: usize = 200;
