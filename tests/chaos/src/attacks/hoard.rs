//! Peers that together want more memory than there is, each of them within its own limits.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::peer::{Answer, End, Goodbye, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[Attack {
    name: "hoard-unfinished",
    what: "More than a hundred messages of nearly the largest size that nobody ends.",
    reference: "A mebibyte for each, and nothing that looked at the sum.",
    needs: Needs::Budget,
    counters: &["relay_budget_unfinished_closed_total"],
    play: unfinished,
}];

/// Connects first and begins the messages then, so that nobody is turned away at the door; then
/// somebody else knocks.
fn unfinished(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let most = vec![b' '; MESSAGE_BYTES - 1024];
    let begun = frame::masked(frame::TEXT_BEGIN, &most);
    let mut effort = Effort::default();
    let mut hoarders: Vec<Peer> = Vec::new();
    for _ in 0..HOARDERS {
        hoarders.push(scene.client()?);
    }
    for peer in &mut hoarders {
        peer.set_patience(Duration::from_secs(1))?;
        peer.send(&begun);
        effort.add("bytes", begun.len() as u64);
    }
    match scene.say(scene.mint()?.client("late", "late")?.upgrade().as_bytes())?.answer() {
        Answer::Status(101) => effort.count("late: 101"),
        Answer::Status(503) => effort.count("late: 503"),
        other => anyhow::bail!("near the budget an upgrade got {other:?}"),
    }
    scene.rest(until);
    // What was sent has to be read before somebody must go.
    let deadline = Instant::now() + PATIENCE;
    while effort.of(TOLD) == 0 && Instant::now() < deadline {
        for peer in std::mem::take(&mut hoarders) {
            hoarders.extend(still_there(peer, &mut effort)?);
        }
    }
    effort.add("kept", hoarders.len() as u64);
    ensure!(effort.of("kept") > 0, "everybody was sent away: {effort:?}");
    Ok(effort)
}

/// The peer, unless the relay has ended it.
fn still_there(mut peer: Peer, effort: &mut Effort) -> Result<Option<Peer>> {
    peer.set_patience(Duration::from_millis(1))?;
    match peer.goodbye() {
        Goodbye::Close(4008, reason) if reason == "memory budget exceeded" => {
            effort.count(TOLD);
            Ok(None)
        }
        Goodbye::End(End::Silence) => Ok(Some(peer)),
        other => anyhow::bail!("a message that does not end got {other:?}"),
    }
}

const TOLD: &str = "4008 memory budget exceeded";
const PATIENCE: Duration = Duration::from_secs(15);
/// The default of `RELAY_MAX_FRAME_BYTES`.
const MESSAGE_BYTES: usize = 1 << 20;
/// More mebibytes than a campaign's budget leaves for peers.
const HOARDERS: usize = 160;
