//! A platform that answers badly, late or not at all.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::peer::{Answer, Peer};
use crate::platform::Mood;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    class(
        "platform-oversize",
        "The validate answer is larger than the relay takes.",
        "The process exited: nobody listened for errors of the answer.",
        |scene, until| misbehave(scene, until, Mood::Oversize),
    ),
    class(
        "platform-cut",
        "The validate answer ends in its middle.",
        "The upgrade hung for ever.",
        |scene, until| misbehave(scene, until, Mood::Cut),
    ),
    class(
        "platform-dripping",
        "The validate answer comes a byte at a time, without end.",
        "The upgrade hung for ever: each byte began its time-out anew.",
        |scene, until| misbehave(scene, until, Mood::Dripping),
    ),
    class(
        "platform-redirecting",
        "The validate answer names another place.",
        "401.",
        |scene, until| misbehave(scene, until, Mood::Redirecting),
    ),
    class("platform-malformed", "The validate answer is no JSON.", "401.", |scene, until| {
        misbehave(scene, until, Mood::Malformed)
    }),
    class("platform-garbage", "The validate answer is no HTTP.", "401.", |scene, until| {
        misbehave(scene, until, Mood::Garbage)
    }),
    class(
        "platform-down",
        "The platform closes every connection, and then is back.",
        "401.",
        |scene, until| misbehave(scene, until, Mood::Down),
    ),
    class(
        "platform-slow",
        "The platform answers nothing in time, and then is back.",
        "401.",
        |scene, until| misbehave(scene, until, Mood::Slow),
    ),
];

const fn class(
    name: &'static str,
    what: &'static str,
    reference: &'static str,
    play: fn(&Scene<'_>, Instant) -> Result<Effort>,
) -> Attack {
    let counters = &["relay_admission_denied_total"];
    Attack { name, what, reference, needs: Needs::Platform, counters, play }
}

/// Every upgrade gets 401 within the admission time-out, and the next one after the platform is
/// well again gets in.
fn misbehave(scene: &Scene<'_>, until: Instant, mood: Mood) -> Result<Effort> {
    let platform = scene.platform()?;
    let mut effort = Effort::default();
    loop {
        platform.set(mood);
        let answers = ask_at_once(scene);
        platform.set(Mood::Honest);
        for answer in answers? {
            let shown = format!("{mood:?}");
            ensure!(answer == Answer::Status(401), "{shown}: an upgrade got {answer:?}");
            effort.count("401");
        }
        drop(scene.client()?);
        effort.count("back");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn ask_at_once(scene: &Scene<'_>) -> Result<Vec<Answer>> {
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..AT_ONCE {
        let pass = scene.mint()?.client(&scene.workspace(), "attacker")?;
        peers.push(scene.say(pass.upgrade().as_bytes())?);
    }
    Ok(peers.iter_mut().map(Peer::answer).collect())
}

/// Upgrades that wait for the same bad answer.
const AT_ONCE: usize = 16;
