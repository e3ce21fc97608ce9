//! Request heads that a proxy in front might read differently, and heads that do not end.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::peer::Answer;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "header-smuggling",
        what: "Two lengths, length beside chunks, bare LF, NUL, folded lines, two Hosts or none.",
        reference: "Accepted in part, behind whatever proxy read it otherwise.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: smuggling,
    },
    Attack {
        name: "oversize-head",
        what: "Heads of more than 16 KiB and of a thousand lines, targets without end.",
        reference: "431 from its HTTP parser, which has the same bound.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: oversize,
    },
];

fn smuggling(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for lines in AMBIGUOUS {
            for head in ["POST /health HTTP/1.1\r\n", UPGRADE] {
                let request = [head.as_bytes(), lines, b"\r\nGET /health HTTP/1.1\r\n\r\n"];
                let answer = scene.say(&request.concat())?.answer();
                let shown = lines.escape_ascii();
                ensure!(answer == Answer::Status(400), "{head}{shown} got {answer:?}");
                effort.count("400");
            }
        }
        for line in UPGRADE_BODIES {
            let request = [UPGRADE, "Host: a\r\n", line, "\r\n5\r\nhello\r\n0\r\n\r\n"].concat();
            let answer = scene.say(request.as_bytes())?.answer();
            ensure!(answer == Answer::Status(400), "an upgrade with {line:?} got {answer:?}");
            effort.count("400");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn oversize(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let start = "GET /health HTTP/1.1\r\nHost: a\r\n";
    let long = format!("{start}x: {}\r\n\r\n", "y".repeat(17 << 10));
    let many = format!("{start}{}\r\n", "a: \r\n".repeat(3000));
    let endless = format!("GET /{}", "x".repeat(20 << 10));
    let name = format!("{start}{}", "n".repeat(20 << 10));
    let mut effort = Effort::default();
    loop {
        for request in [&long, &many, &endless, &name] {
            let answer = scene.say(request.as_bytes())?.answer();
            ensure!(answer == Answer::Status(431), "{}… got {answer:?}", &request[..40]);
            effort.count("431");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

const UPGRADE: &str = "GET /ws?role=client&workspaceId=w HTTP/1.1\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n";

/// Header lines that give an upgrade a body.
const UPGRADE_BODIES: [&str; 2] = ["Transfer-Encoding: chunked\r\n", "Content-Length: 15\r\n"];

/// Header lines that make any head ambiguous.
const AMBIGUOUS: [&[u8]; 14] = [
    b"Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
    b"Host: a\r\nContent-Length: 5, 6\r\n",
    b"Host: a\r\nContent-Length: +5\r\n",
    b"Host: a\r\nContent-Length: 99999999999999999999\r\n",
    b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Host: a\r\nTransfer-Encoding: chunked, identity\r\n",
    b"Host: a\r\nTransfer-Encoding: xchunked\r\n",
    b"Host: a\r\nx: y\nz: w\r\n",
    b"Host: a\r\nx: \x00\r\n",
    b"Host: a\r\nx: y\r\n z\r\n",
    b"Host: a\r\nContent-Length : 5\r\n",
    b"Host: a\r\nHost: b\r\n",
    b"Host: a\r\n: y\r\n",
    b"Host: a\r\nx\r\n",
];
