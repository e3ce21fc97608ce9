//! Peers that vanish: a reset, a FIN or half a FIN at every stage of a connection's life.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::peer::{End, Peer};
use crate::platform::Mood;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "reset-anywhere",
        what: "RST while connecting, in a head, after it, after 101, in a frame, in a close.",
        reference: "Survived all but the one below.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_closed_total"],
        play: resets,
    },
    Attack {
        name: "fin-anywhere",
        what: "FIN at the same stages.",
        reference: "Survived.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_closed_total"],
        play: fins,
    },
    Attack {
        name: "half-close-anywhere",
        what: "FIN in one direction at the same stages, then reading on.",
        reference: "Sockets lingered until a time-out.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_closed_total"],
        play: half_closes,
    },
    Attack {
        name: "reset-while-pending",
        what: "RST of upgrades whose validation has not come back.",
        reference: "The process exited: nobody listened for errors of the socket.",
        needs: Needs::Platform,
        counters: &[],
        play: while_pending,
    },
];

/// A moment in a connection's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Connected, and not a byte.
    Connected,
    /// In the middle of the head.
    Head,
    /// In the middle of a plain request's body.
    Body,
    /// The upgrade is asked for, the answer not read.
    Asked,
    /// The WebSocket is open.
    Open,
    /// In the middle of a frame's header.
    FrameHeader,
    /// In the middle of a frame's payload.
    Payload,
    /// Between two fragments of a message.
    Fragment,
    /// A close frame was sent, its answer not read.
    Close,
}

impl Stage {
    /// Every stage, in the order of life.
    pub const ALL: [Self; 9] = [
        Self::Connected,
        Self::Head,
        Self::Body,
        Self::Asked,
        Self::Open,
        Self::FrameHeader,
        Self::Payload,
        Self::Fragment,
        Self::Close,
    ];

    /// A peer at this stage.
    pub fn reach(self, scene: &Scene<'_>) -> Result<Peer> {
        let pass = scene.mint()?.client(&scene.workspace(), "attacker")?;
        let head = pass.upgrade();
        let then = match self {
            Self::Connected => return scene.connect(),
            Self::Head => return scene.say(&head.as_bytes()[..head.len() / 2]),
            Self::Body => {
                return scene
                    .say(b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1");
            }
            Self::Asked => return scene.say(head.as_bytes()),
            Self::Open => Vec::new(),
            Self::FrameHeader => frame::header(frame::TEXT, 70_000, true)[..9].to_vec(),
            Self::Payload => [frame::header(frame::TEXT, 1000, true), vec![b'x'; 500]].concat(),
            Self::Fragment => frame::masked(frame::TEXT_BEGIN, b"{"),
            Self::Close => frame::close(1000, "bye"),
        };
        let mut peer = scene.open(&pass)?;
        peer.send(&then);
        Ok(peer)
    }
}

fn resets(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    everywhere(scene, until, |peer, _| {
        peer.reset();
        Ok(())
    })
}

fn fins(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    everywhere(scene, until, |peer, _| {
        drop(peer);
        Ok(())
    })
}

fn half_closes(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    everywhere(scene, until, |mut peer, stage| {
        peer.half_close();
        let end = peer.end();
        ensure!(end == End::Fin, "half closed at {stage:?}: {end:?}");
        Ok(())
    })
}

fn everywhere(
    scene: &Scene<'_>,
    until: Instant,
    vanish: impl Fn(Peer, Stage) -> Result<()>,
) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for stage in Stage::ALL {
            vanish(stage.reach(scene)?, stage)?;
            effort.count(format!("{stage:?}"));
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn while_pending(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let platform = scene.platform()?;
    let mut effort = Effort::default();
    loop {
        platform.set(Mood::Slow);
        let before = platform.validations();
        let asked: Result<Vec<Peer>> = (0..AT_ONCE).map(|_| Stage::Asked.reach(scene)).collect();
        let came = platform.await_validations(before + AT_ONCE, PATIENCE);
        let asked = asked?;
        ensure!(came, "{} of {AT_ONCE} were asked for", platform.validations() - before);
        for peer in asked {
            peer.reset();
            effort.count("reset");
        }
        platform.set(Mood::Honest);
        // The door still opens.
        drop(scene.client()?);
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Upgrades pending at a time.
const AT_ONCE: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(30);
