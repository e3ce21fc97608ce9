//! Workers that reach for what is not theirs.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;
use crate::pass::EXECUTOR;
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
        let (workspace, strays) = (scene.workspace(), platform.strays());
        let mut worker = scene.open(&scene.mint()?.worker(&workspace)?)?;
        let root = format!("/api/runtime/workspaces/{workspace}/managed-executors/{EXECUTOR}");
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
        let workspace = scene.workspace();
        let mut worker = scene.open(&scene.mint()?.worker(&workspace)?)?;
        let root = format!("/api/runtime/workspaces/{workspace}/managed-executors/{EXECUTOR}");
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
            match answer {
                Ok(text) if text.contains("\"status\":503") => effort.count("503"),
                Ok(text) if text.contains("\"status\":200") => effort.count("200"),
                other => anyhow::bail!("a worker's call got {other:?}"),
            }
        }
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Calls of one flood.
const CALLS: usize = 200;
/// Calls one worker may have in flight.
const IN_FLIGHT_MAX: usize = 64;
