//! Frames that break RFC 6455, by every role, in every standing.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use relay_contract::Role;

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::pass::Pass;
use crate::peer::{Answer, End, Goodbye, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "violations",
        what: "Every protocol violation by every role on an open connection.",
        reference: "A worker's ended the process; the others got their close.",
        needs: Needs::Tokens,
        counters: VIOLATIONS,
        play: admitted,
    },
    Attack {
        name: "violations-pending",
        what: "The same, sent together with the upgrade, before anybody has said 101.",
        reference: "Kept and processed; a worker's ended the process.",
        needs: Needs::Tokens,
        counters: VIOLATIONS,
        play: pending,
    },
    Attack {
        name: "violations-rejected",
        what: "The same after a close with 4008, by connections that were never registered.",
        reference: "The process exited: nobody listened for errors of a rejected socket.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_rejected_total"],
        play: rejected,
    },
    Attack {
        name: "oversize-messages",
        what: "Messages above the limit, whole, in fragments, and promised only, by every role.",
        reference: "1009; a worker's ended the process.",
        needs: Needs::Tokens,
        counters: &["relay_messages_too_large_total"],
        play: oversize,
    },
    Attack {
        name: "invalid-utf8",
        what: "Text that is not UTF-8, cut at every byte into fragments and into packets.",
        reference: "Closed with 1007, as it must.",
        needs: Needs::Tokens,
        counters: &["relay_protocol_violations_total"],
        play: invalid_utf8,
    },
];

/// A breach of the protocol and the close code it earns.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub name: &'static str,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What the relay closes with.
    pub code: u16,
}

/// Every violation.
pub fn violations() -> Vec<Violation> {
    let of = |name, bytes, code| Violation { name, bytes, code };
    let begin = || frame::masked(frame::TEXT_BEGIN, b"{");
    vec![
        of("unmasked", frame::unmasked(frame::TEXT, b"{}"), 1002),
        of("reserved bit", frame::masked(0xc1, b"{}"), 1002),
        of("reserved opcode", frame::masked(0x83, b"{}"), 1002),
        of("reserved control opcode", frame::masked(0x8b, b""), 1002),
        of("continuation of nothing", frame::masked(frame::CONTINUATION_END, b"{}"), 1002),
        of("text in a message", [begin(), frame::text("{}")].concat(), 1002),
        of("fragmented ping", frame::masked(0x09, b""), 1002),
        of("long ping", frame::masked(frame::PING, &[b'x'; 126]), 1002),
        of("half a close code", frame::masked(frame::CLOSE, b"\x03"), 1002),
        of("forbidden close code", frame::close(1005, ""), 1002),
        of("close reason not UTF-8", frame::masked(frame::CLOSE, b"\x03\xe8\xff"), 1007),
        of("text not UTF-8", frame::masked(frame::TEXT, b"\xc0\x80"), 1007),
        of("too large", frame::header(frame::TEXT, FRAME_BYTES_MAX + 1, true), 1009),
        of("absurdly large", frame::header(frame::TEXT, u64::MAX / 2, true), 1009),
    ]
}

/// Every role.
pub const ROLES: [Role; 3] = [Role::Daemon, Role::Client, Role::Worker];

fn admitted(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    by_everybody(scene, until, |pass, violation| {
        let mut peer = scene.open(pass)?;
        peer.send(&violation.bytes);
        closed_with(&mut peer, violation)
    })
}

fn pending(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    by_everybody(scene, until, |pass, violation| {
        let mut peer = scene.say(&[pass.upgrade().as_bytes(), &violation.bytes].concat())?;
        let answer = peer.answer();
        ensure!(answer == Answer::Status(101), "an upgrade with frames behind got {answer:?}");
        closed_with(&mut peer, violation)
    })
}

fn closed_with(peer: &mut Peer, violation: &Violation) -> Result<()> {
    match peer.goodbye() {
        Goodbye::Close(code, _) if code == violation.code => Ok(()),
        other => bail!("{} earned {other:?} instead of {}", violation.name, violation.code),
    }
}

fn rejected(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    by_everybody(scene, until, |pass, violation| {
        // The claims name one workspace, the query another.
        let stranger = Pass { workspace: scene.workspace(), ..pass.clone() };
        let mut peer = scene.open(&stranger)?;
        let goodbye = peer.goodbye();
        let reason = "workspace claim mismatch".to_owned();
        ensure!(goodbye == Goodbye::Close(4008, reason), "a rejected peer got {goodbye:?}");
        peer.send(&violation.bytes);
        let end = peer.end();
        ensure!(end != End::Silence, "{} after a 4008 left the socket open", violation.name);
        Ok(())
    })
}

fn by_everybody(
    scene: &Scene<'_>,
    until: Instant,
    violate: impl Fn(&Pass, &Violation) -> Result<()>,
) -> Result<Effort> {
    let violations = violations();
    let mut effort = Effort::default();
    loop {
        for role in ROLES {
            for violation in &violations {
                let pass = scene.mint()?.of_role(role, &scene.workspace())?;
                violate(&pass, violation)
                    .map_err(|error| error.context(format!("a {}", role.name())))?;
                effort.count(violation.code.to_string());
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn oversize(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let whole = frame::masked(frame::TEXT, &vec![b' '; FRAME_BYTES_MAX as usize + 1]);
    let piece = vec![b' '; FRAME_BYTES_MAX as usize / 2];
    let fragments = [
        frame::masked(frame::TEXT_BEGIN, &piece),
        frame::masked(frame::CONTINUATION, &piece),
        frame::masked(frame::CONTINUATION_END, b" "),
    ];
    let promised = frame::header(frame::BINARY, FRAME_BYTES_MAX + 1, true);
    let mut effort = Effort::default();
    loop {
        for role in ROLES {
            for bytes in [&whole, &fragments.concat(), &promised] {
                let pass = scene.mint()?.of_role(role, &scene.workspace())?;
                let mut peer = scene.open(&pass)?;
                peer.send(bytes);
                match peer.goodbye() {
                    Goodbye::Close(1009, _) => effort.count("1009"),
                    other => bail!("a {} with an oversize message got {other:?}", role.name()),
                }
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn invalid_utf8(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for bad in NOT_UTF8 {
            let text = [b"{\"type\":\"".as_slice(), bad, b"\"}"].concat();
            for split in 0..=text.len() {
                let (head, tail) = text.split_at(split);
                let mut peer = scene.client()?;
                if split % 2 == 0 {
                    peer.send(&frame::masked(frame::TEXT_BEGIN, head));
                    peer.send(&frame::masked(frame::CONTINUATION_END, tail));
                } else {
                    let whole = frame::masked(frame::TEXT, &text);
                    let (head, tail) = whole.split_at(whole.len() - text.len() + split);
                    peer.send(head);
                    peer.send(tail);
                }
                match peer.goodbye() {
                    Goodbye::Close(1007, _) => effort.count("1007"),
                    other => bail!("{} cut at {split} got {other:?}", bad.escape_ascii()),
                }
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

const VIOLATIONS: &[&str] = &["relay_protocol_violations_total", "relay_messages_too_large_total"];

/// The default of `RELAY_MAX_FRAME_BYTES`.
const FRAME_BYTES_MAX: u64 = 1 << 20;

/// Overlong, surrogate, beyond the last character, cut, and no beginning at all.
const NOT_UTF8: [&[u8]; 6] =
    [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xff", b"\xf0\x9f\x98"];
