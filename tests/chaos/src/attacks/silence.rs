//! Peers that do not read, and peers that do not say goodbye.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;
use crate::pass::Pass;
use crate::peer::{Goodbye, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "never-read",
        what: "Clients that own sessions, are sent megabytes, and read nothing.",
        reference: "4 MiB for each, and the close queued behind them; 30 s until it was cut.",
        needs: Needs::Tokens,
        counters: &["relay_ws_slow_client_terminated_total"],
        play: never_read,
    },
    Attack {
        name: "never-answer-a-close",
        what: "Rejected peers that get 4008 and never answer it.",
        reference: "Uncounted by every limit, without heartbeat, for 30 s.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_rejected_total"],
        play: never_answer,
    },
];

fn never_read(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let workspace = scene.workspace();
        let mut daemon = scene.open(&scene.mint()?.daemon(&workspace)?)?;
        let mut slow = Vec::new();
        for index in 0..SLOW_READERS {
            slow.push(own_session(scene, &mut daemon, &workspace, index)?);
        }
        for index in 0..SLOW_READERS {
            let session = format!("s{index}");
            let text = message::encrypted(&session, 1, &"A".repeat(CIPHERTEXT_BYTES));
            let message = frame::text(&text);
            for _ in 0..MESSAGES_EACH {
                ensure!(daemon.send(&message), "the daemon was held up by a slow reader");
            }
            effort.add("bytes", (message.len() * MESSAGES_EACH) as u64);
        }
        for client in &mut slow {
            match client.goodbye() {
                Goodbye::Close(4008, reason) if reason == "buffer overflow" => {
                    effort.count("4008 buffer overflow");
                }
                other => bail!("a slow reader got {other:?}"),
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// A client of this workspace that owns the session `s<index>` and will not read from now on.
fn own_session(
    scene: &Scene<'_>,
    daemon: &mut Peer,
    workspace: &str,
    index: usize,
) -> Result<Peer> {
    let mut client = scene.open(&scene.mint()?.client(workspace, &format!("c{index}"))?)?;
    let (request, session) = (format!("r{index}"), format!("s{index}"));
    client.send(&frame::text(&message::key_exchange(&request)));
    let asked = daemon.text();
    ensure!(asked.is_ok(), "the daemon got {asked:?}");
    daemon.send(&frame::text(&message::key_exchanged(&request, &session)));
    let answered = client.text();
    ensure!(answered.is_ok(), "the client got {answered:?}");
    Ok(client)
}

fn never_answer(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    let mut held = Vec::new();
    loop {
        let pass = scene.mint()?.client(&scene.workspace(), "attacker")?;
        let mut peer = scene.open(&Pass { workspace: scene.workspace(), ..pass })?;
        match peer.goodbye() {
            Goodbye::Close(4008, _) => effort.count("4008"),
            other => bail!("a rejected peer got {other:?}"),
        }
        if held.len() < UNANSWERED_MAX {
            held.push(peer);
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

const SLOW_READERS: usize = 4;
const CIPHERTEXT_BYTES: usize = 256 << 10;
/// 16 MiB for each: what waits in the relay at most, and more than its socket takes.
const MESSAGES_EACH: usize = 64;
/// Closes left unanswered at a time: half of all connections the relay may have.
const UNANSWERED_MAX: usize = 1000;
