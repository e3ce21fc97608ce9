//! JSON that is hard on whoever reads it.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "deep-nesting",
        what: "Arrays and objects nested up to a million deep, closed and left open.",
        reference: "Parsed to any depth, two or three times per message.",
        needs: Needs::Tokens,
        counters: &["relay_frames_client_rejected_total"],
        play: nesting,
    },
    Attack {
        name: "odd-json",
        what: "Giant numbers and strings, repeated and escaped keys, lone surrogates, NUL, BOM.",
        reference: "Read as JSON.parse reads them.",
        needs: Needs::Tokens,
        counters: &["relay_frames_client_rejected_total", "relay_client_messages_dropped_total"],
        play: oddities,
    },
];

fn nesting(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let deep = MESSAGE_BYTES / 2;
    let inside = |nested: &str| {
        message::encrypted("s", 1, "AAAA").replacen('{', &format!("{{\"x\":{nested},"), 1)
    };
    let depth = deep - 1000;
    let texts = [
        ("[".repeat(MESSAGE_BYTES), INVALID),
        ("{\"a\":".repeat(MESSAGE_BYTES / 5), INVALID),
        ([&*"[".repeat(deep), &*"]".repeat(deep)].concat(), INVALID),
        (inside(&["[".repeat(depth), "]".repeat(depth)].concat()), UNAVAILABLE),
        (inside(&["[".repeat(depth), "]".repeat(depth - 1)].concat()), INVALID),
    ];
    each(scene, until, &texts)
}

fn oddities(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let good = message::encrypted("s", 1, "AAAA");
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let texts = [
        (with("\"seq\":1", &format!("\"seq\":1{}", "0".repeat(300))), UNAVAILABLE),
        (with("\"seq\":1", &format!("\"seq\":1{}", "0".repeat(100_000))), INVALID),
        (with("\"seq\":1", "\"seq\":1e400"), INVALID),
        (with("\"seq\":1", "\"seq\":01"), INVALID),
        (with("\"seq\":1", "\"seq\":1.0"), UNAVAILABLE),
        (with("{", &format!("{{\"x\":{},", "9".repeat(500_000))), UNAVAILABLE),
        (with("{", &format!("{{\"{}\":0,", "k".repeat(500_000))), UNAVAILABLE),
        (with("{", &format!("{{{}", "\"type\":0,".repeat(50_000))), UNAVAILABLE),
        (with("}", &",\"type\":0".repeat(50_000)) + "}", INVALID),
        (with("\"type\"", "\"\\u0074\\u0079pe\""), UNAVAILABLE),
        (with("AAAA", "\\ud800"), UNAVAILABLE),
        (with("AAAA", "\\ud800\\udc00\\udfff"), UNAVAILABLE),
        (with("AAAA", "\u{0}"), INVALID),
        (with("AAAA", "\\u0000"), UNAVAILABLE),
        (with("AAAA", "\\x41"), INVALID),
        (format!("\u{feff}{good}"), INVALID),
        (format!("{}{good}", " \t\r\n".repeat(200_000)), UNAVAILABLE),
        (format!("{good}{good}"), INVALID),
        ("null".into(), INVALID),
        ("NaN".into(), INVALID),
        (String::new(), INVALID),
    ];
    each(scene, until, &texts)
}

/// Each text gets a status of this code, on a connection that stays.
fn each(scene: &Scene<'_>, until: Instant, texts: &[(String, &str)]) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let mut peer = scene.client()?;
        for (text, expected) in texts {
            peer.send(&frame::text(text));
            let answer = peer.text();
            let fits = answer.as_ref().is_ok_and(|answer| answer.contains(*expected));
            let shown: String = text.chars().take(60).collect();
            ensure!(fits, "{shown}… ({} bytes) got {answer:?}", text.len());
            effort.count(*expected);
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// What the relay says of a message it cannot use.
const INVALID: &str = "INVALID_FRAME";
/// What it says of a good message for a daemon that is not there.
const UNAVAILABLE: &str = "DAEMON_UNAVAILABLE";
/// The default of `RELAY_MAX_FRAME_BYTES`.
const MESSAGE_BYTES: usize = 1 << 20;
