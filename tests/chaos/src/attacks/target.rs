//! Requests whose method, target or Host nobody can read.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::attacks::tls;
use crate::peer::{Answer, End};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "unparsable-target",
        what: "Plain requests whose target makes no URL, as `GET //` and `GET http://[/`.",
        reference: "The process exited: the URL constructor threw in the request handler.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: plain_targets,
    },
    Attack {
        name: "unparsable-host",
        what: "Plain requests whose Host header makes no URL.",
        reference: "The process exited, as for the target.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: plain_hosts,
    },
    Attack {
        name: "unparsable-upgrade",
        what: "Upgrades whose target or Host makes no URL.",
        reference: "Closed unanswered, with an error in the log for each.",
        needs: Needs::Nothing,
        counters: &["relay_upgrade_errors_total"],
        play: upgrades,
    },
    Attack {
        name: "unparsable-request",
        what: "Unknown methods, TLS and HTTP/2 where HTTP/1.1 is due, binary noise, half lines.",
        reference: "400 from its HTTP parser.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: noise,
    },
];

fn plain_targets(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let requests = TARGETS.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    refused(scene, until, requests.map(String::into_bytes).collect())
}

fn plain_hosts(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let requests = HOSTS.iter().map(|host| {
        [b"GET /health HTTP/1.1\r\nHost: ".as_slice(), host, b"\r\n\r\n".as_slice()].concat()
    });
    refused(scene, until, requests.collect())
}

fn noise(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    refused(scene, until, NOISE.iter().map(|bytes| bytes.to_vec()).collect())
}

/// Each request gets 400 and the connection ends.
fn refused(scene: &Scene<'_>, until: Instant, requests: Vec<Vec<u8>>) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for request in &requests {
            let mut peer = scene.say(request)?;
            let answer = peer.answer();
            let shown = request.escape_ascii();
            ensure!(answer == Answer::Status(400), "{shown} got {answer:?}");
            ensure!(peer.end() == End::Fin, "{shown} leaves the connection open");
            effort.count("400");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn upgrades(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let targets = TARGETS.iter().map(|target| (*target, "a"));
    let hosts = [("/ws", "["), ("/ws", "a:99999")];
    let requests: Vec<String> = targets
        .chain(hosts)
        .map(|(target, host)| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{upgrade}"))
        .collect();
    let mut effort = Effort::default();
    loop {
        for request in &requests {
            let answer = scene.say(request.as_bytes())?.answer();
            ensure!(answer == Answer::End(End::Fin), "{request} got {answer:?}");
            effort.count("closed");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Targets that begin like targets and are no URLs.
const TARGETS: [&str; 6] = ["//", "http://[/", "http://", "//[::1", "http://a:99999/", "//a:b/"];

const HOSTS: [&[u8]; 6] = [b"[", b"a b", b"a:99999", b"a:b", b"^", b"[::1"];

const NOISE: [&[u8]; 9] = [
    b"GETS / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET ws HTTP\r\n\r\n",
    b"GET \\ws HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    tls::HELLO,
    b"GET /health HTTP/3.7\r\nHost: a\r\n\r\n",
    b"GET  /health  HTTP/1.1\r\nHost: a\r\n\r\n",
];
