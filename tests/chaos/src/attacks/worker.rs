//! Workers that reach for what is not theirs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;
use crate::pass::EXECUTOR;
use crate::peer::{Goodbye, Peer};
use crate::platform::Mood;

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "worker-traversal",
        what: "Calls whose paths leave the executor's subtree, in every spelling.",
        reference: "Tested the prefix, then normalised: any path of the platform was reached.",
        needs: Needs::Platform,
        counters: &["relay_worker_transport_rejected_total"],
        play: traversal,
    },
    Attack {
        name: "worker-flood",
        what: "Calls by the hundred while the platform does not answer.",
        reference: "As many at once as the worker liked, without deadline or body limit.",
        needs: Needs::Platform,
        counters: &["relay_worker_calls_limited_total"],
        play: flood,
    },
    Attack {
        name: "worker-hoard",
        what: "Calls that bring a megabyte each, from several workers, to a platform that is slow.",
        reference: "Held all of them, and all answers.",
        needs: Needs::Platform,
        counters: &["relay_worker_calls_limited_total"],
        play: hoard,
    },
];

/// Paths below the executor's root that lead out of it for somebody who reads them.
pub const ESCAPES: [&str; 14] = [
    "/..",
    "/../..",
    "/../../../../../api/admin",
    "/%2e%2e",
    "/%2E%2e/x",
    "/.%2e/x",
    "/%2e./x",
    "/a/%2e%2e/%2e%2e/x",
    "/..%2f..%2fx",
    "/%2e%2e%5cx",
    "/..\\x",
    "\\..\\x",
    "/.\t./x",
    "0/x",
];

fn traversal(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let platform = scene.platform()?;
    let mut effort = Effort::default();
    loop {
        let strays = platform.strays();
        let (mut worker, root) = worker(scene)?;
        for escape in ESCAPES {
            worker.send(&frame::text(&message::call("w", &format!("{root}{escape}"))));
            let answer = worker.text();
            let denied = answer.as_ref().is_ok_and(|text| text.contains("\"status\":403"));
            ensure!(denied, "a call of {escape:?} got {answer:?}");
            effort.count("403");
        }
        ensure!(platform.strays() == strays, "a call left the executor's paths");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn flood(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let platform = scene.platform()?;
    let mut effort = Effort::default();
    loop {
        let (mut worker, root) = worker(scene)?;
        platform.set(Mood::Slow);
        let calls: Vec<u8> =
            (0..CALLS).flat_map(|id| frame::text(&message::call(&id.to_string(), &root))).collect();
        worker.send(&calls);
        let answers: Vec<_> = (0..CALLS)
            .map(|index| {
                if index == CALLS - IN_FLIGHT_MAX {
                    platform.set(Mood::Honest);
                }
                worker.text()
            })
            .collect();
        platform.set(Mood::Honest);
        for answer in answers {
            count(&mut effort, answer)?;
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn hoard(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let platform = scene.platform()?;
    let body = "x".repeat(HOARD_BYTES);
    let mut effort = Effort::default();
    loop {
        let mut workers: Vec<_> = (0..HOARDERS).map(|_| worker(scene)).collect::<Result<_>>()?;
        platform.set(Mood::Slow);
        let asked = Instant::now();
        for id in 0..HOARD_CALLS {
            for (worker, root) in &mut workers {
                worker.send(&frame::text(&message::post(&id.to_string(), root, &body)));
            }
        }
        platform.set(Mood::Honest);
        for (worker, _) in &mut workers {
            for _ in 0..HOARD_CALLS {
                match worker.text() {
                    // A busy machine took longer for all calls than one of them may take.
                    Ok(text) if text.contains("\"status\":502") && asked.elapsed() > CALL_MAX => {
                        effort.count("502");
                    }
                    answer => count(&mut effort, answer)?,
                }
            }
        }
        ensure!(effort.of("200") > 0, "no call was answered");
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// A worker in a workspace of its own, and the path below which it may call.
fn worker(scene: &Scene<'_>) -> Result<(Peer, String)> {
    let workspace = scene.workspace();
    let worker = scene.open(&scene.mint()?.worker(&workspace)?)?;
    let root = format!("/api/runtime/workspaces/{workspace}/managed-executors/{EXECUTOR}");
    Ok((worker, root))
}

/// Counts the answer to a call: the platform's, or that there are too many.
fn count(effort: &mut Effort, answer: Result<String, Goodbye>) -> Result<()> {
    match answer {
        Ok(text) if text.contains("\"status\":503") => effort.count("503"),
        Ok(text) if text.contains("\"status\":200") => effort.count("200"),
        other => bail!("a worker's call got {other:?}"),
    }
    Ok(())
}

/// Workers that hoard, calls of each and bytes of a call: together more than a relay may take.
const HOARDERS: usize = 4;
const HOARD_CALLS: usize = 50;
const HOARD_BYTES: usize = 1_000_000;
/// How long the platform may take for a call.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Calls of one flood.
const CALLS: usize = 200;
/// Calls one worker may have in flight.
const IN_FLIGHT_MAX: usize = 64;
