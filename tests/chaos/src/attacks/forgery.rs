//! Who one claims to be.

use std::time::Instant;

use anyhow::{Result, ensure};
use relay_contract::Secret;
use relay_platform::SigningKey;

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::pass::{Mint, Pass};
use crate::peer::Answer;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "forged-forwarded",
        what: "Upgrades of one address, each with another X-Forwarded-For, to escape its limit.",
        reference: "Believed the left-most entry of a trusted proxy, whatever it said.",
        needs: Needs::Nothing,
        counters: &["relay_upgrade_rate_limited_total"],
        play: forwarded,
    },
    Attack {
        name: "forged-proxy-header",
        what: "PROXY headers, version 1 and 2, whole and cut, from somebody who is no proxy.",
        reference: "400 from its HTTP parser.",
        needs: Needs::Nothing,
        counters: &["relay_head_rejected_total"],
        play: proxy_header,
    },
    Attack {
        name: "token-flood",
        what: "Upgrades with forged, expired, overlong, tiny and missing tokens.",
        reference: "A validate call for each that has a token.",
        needs: Needs::Tokens,
        counters: &["relay_admission_denied_total", "relay_upgrade_missing_auth_total"],
        play: tokens,
    },
    Attack {
        name: "random-scopes",
        what: "Upgrades for workspaces and targets that do not exist, with tokens nobody signed.",
        reference: "An entry in memory for each, for two minutes, before it was refused.",
        needs: Needs::Nothing,
        counters: &["relay_admission_denied_total"],
        play: scopes,
    },
];

fn forwarded(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let source = scene.source();
        for number in 0..ATTEMPTS {
            let mut peer = scene.connect_from(source)?;
            let forged = match number % 3 {
                0 => format!("X-Forwarded-For: 192.0.2.{number}, 198.51.100.{number}\r\n"),
                1 => format!("X-Forwarded-For: {}\r\n", "'; --".repeat(number)),
                _ => format!(
                    "X-Forwarded-For: ::ffff:10.0.0.{number}\r\nForwarded: for={number}\r\n"
                ),
            };
            peer.send(stranger("w", "t", FORGED).upgrade_with(&forged).as_bytes());
            match peer.answer() {
                Answer::Status(status @ (401 | 429)) => effort.count(status.to_string()),
                other => anyhow::bail!("an upgrade with {forged:?} got {other:?}"),
            }
        }
        ensure!(effort.of("429") > 0, "{ATTEMPTS} upgrades of one address met no limit");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn proxy_header(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        for header in PROXY_HEADERS {
            let rest = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
            let answer = scene.say(&[header, rest].concat())?.answer();
            ensure!(answer == Answer::Status(400), "{} got {answer:?}", header.escape_ascii());
            effort.count("400");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn tokens(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mint = scene.mint()?;
    let other = Mint::new(SigningKey::generate()?);
    let good = mint.client("w", "attacker")?;
    let mut bent = good.token.expose().to_owned();
    bent.replace_range(bent.len() - 8.., "AAAAAAAA");
    let texts = [bent, "x".repeat(4096), "x".repeat(4097), "short".into(), "ü".repeat(2000)];
    let mut passes = vec![other.client("w", "attacker")?, mint.expired("w")?];
    passes.extend(texts.map(|text| Pass { token: Secret::new(text), ..good.clone() }));
    let mut effort = Effort::default();
    loop {
        for pass in &passes {
            let answer = scene.say(pass.upgrade().as_bytes())?.answer();
            let len = pass.token.expose().len();
            ensure!(answer == Answer::Status(401), "a bad token of {len} bytes got {answer:?}");
            effort.count("401");
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn scopes(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let workspaces = |scene: &Scene<'_>| {
        let exposition = scene.subject().exposition()?;
        anyhow::Ok(exposition.map(|exposition| exposition.of("relay_workspaces_total")))
    };
    let before = workspaces(scene)?;
    let mut effort = Effort::default();
    loop {
        for number in 0..64 {
            let (workspace, target) = (scene.workspace(), format!("random-{number}"));
            let pass = stranger(&workspace, &target, FORGED);
            let answer = scene.say(pass.upgrade().as_bytes())?.answer();
            ensure!(answer == Answer::Status(401), "a forged token got {answer:?}");
            effort.count("401");
        }
        if Instant::now() >= until {
            break;
        }
    }
    // Empty scopes of earlier attacks may go meanwhile.
    ensure!(workspaces(scene)? <= before, "strangers made scopes: {:?}", workspaces(scene)?);
    Ok(effort)
}

/// Somebody with a token that nobody signed.
pub fn stranger(workspace: &str, target: &str, token: &str) -> Pass {
    Pass {
        role: relay_contract::Role::Client,
        workspace: workspace.to_owned(),
        target: Some(target.to_owned()),
        token: Secret::from(token),
    }
}

/// A token of a valid form and of no value.
pub const FORGED: &str = "forged-token-0123456789";

/// More than one address may try in a minute.
const ATTEMPTS: usize = 140;

const PROXY_HEADERS: [&[u8]; 5] = [
    b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 7781\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY TCP4 192.0.2.1\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x0f\xa0\x1e\x65",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
];
