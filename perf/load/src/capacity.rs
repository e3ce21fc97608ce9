//! `relay-load capacity`: is what `relay plan` says at a part of the load what the relay then does?
//!
//! Pairs send at a fixed rate while the plan is made; then as many pairs, each with one frame in
//! flight, send as fast as they are served. The plan's rate with full processors is held against
//! what was measured.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::Capacity;
use crate::figures::{Spread, write_json};
use crate::generator::Generator;
use crate::metronome::Metronome;
use crate::pair::Shape;
use crate::platform;
use crate::processor::{self, Machine};
use crate::subject::{ADMIN_TOKEN, PENDING_BYTES_MAX, Subject};

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    relay: String,
    pairs: usize,
    rounds: Vec<Round>,
    /// Predicted over measured.
    ratio: Spread,
}

/// One plan and what came of it.
#[derive(Debug, Serialize)]
struct Round {
    /// Share of its processor that the relay used while the plan was made.
    share: f64,
    predicted_frames_per_s: f64,
    /// What it served for each second of its processor: the load may leave it a little of that.
    measured_frames_per_s: f64,
    /// Share of its processor that the relay used then.
    full_share: f64,
    /// As `relay plan --json` prints it.
    plan: Value,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Capacity) -> Result<()> {
    let platform = platform::start()?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let driver = arguments.driver.as_deref();
        let subject = Subject::relay(
            &arguments.relay()?,
            driver,
            platform,
            arguments.processors(),
            PENDING_BYTES_MAX,
        )?;
        let round = round(arguments, &subject)?;
        println!(
            "{number}/{}: at {:.0} % it predicts {:.0} frames/s; measured {:.0} ({:.0} % busy) \
             ({:+.1} %)",
            arguments.rounds,
            round.share * 100.0,
            round.predicted_frames_per_s,
            round.measured_frames_per_s,
            round.full_share * 100.0,
            (round.predicted_frames_per_s / round.measured_frames_per_s - 1.0) * 100.0
        );
        rounds.push(round);
    }
    let ratios =
        rounds.iter().map(|round| round.predicted_frames_per_s / round.measured_frames_per_s);
    let report = Report {
        machine: processor::machine(),
        relay: format!("relay ({})", arguments.driver.as_deref().unwrap_or("default driver")),
        pairs: arguments.pairs,
        ratio: Spread::of(ratios),
        rounds,
    };
    let Spread { median, least, most } = report.ratio;
    println!("predicted over measured: {median:.3} ({least:.3} to {most:.3})");
    write_json(arguments.json.as_deref(), &report)?;
    let error = (median - 1.0).abs();
    ensure!(error <= arguments.tolerance, "the plan is off by {:.0} %", error * 100.0);
    Ok(())
}

fn round(arguments: &Capacity, subject: &Subject) -> Result<Round> {
    let seconds = arguments.seconds;
    let mut metronome = Metronome::open(subject, arguments.pairs, arguments.rate)?;
    metronome.measure(Duration::ZERO, WARM_UP)?;
    // The plan watches for the middle part of the window.
    let planner = Command::new(arguments.relay()?)
        .args(["plan", "--json", "--url", &format!("http://{}", subject.address)])
        .args(["--seconds", &seconds.to_string()])
        .env("RELAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("relay plan")?;
    let used_ns = processor::used_ns(subject.process())?;
    let start = processor::now_ns();
    metronome.measure(Duration::ZERO, Duration::from_secs_f64(seconds + MARGIN_S))?;
    let elapsed_ns = processor::now_ns() - start;
    let used_ns = processor::used_ns(subject.process())? - used_ns;
    let planned = planner.wait_with_output().context("relay plan")?;
    ensure!(planned.status.success(), "relay plan failed");
    let plan: Value = serde_json::from_slice(&planned.stdout).context("relay plan --json")?;
    let predicted = plan["saturatesAtFramesPerSecond"].as_f64();
    let predicted = predicted.context("the plan found too little traffic")?;
    drop(metronome);
    let shape =
        Shape { pairs: arguments.pairs, payload_bytes: PAYLOAD_BYTES, depth: 1, echo: false };
    let mut generator = Generator::open(subject, shape)?;
    let full = generator.measure(WARM_UP, Duration::from_secs_f64(seconds))?;
    let full_share = full.cpu_share;
    ensure!(full_share > FULL_SHARE_MIN, "the load filled {full_share:.2} of a processor alone");
    Ok(Round {
        share: used_ns as f64 / elapsed_ns.max(1) as f64,
        predicted_frames_per_s: predicted,
        measured_frames_per_s: full.frames_per_s / full.cpu_share,
        full_share: full.cpu_share,
        plan,
    })
}

/// Share of its processor from which on a relay counts as full.
const FULL_SHARE_MIN: f64 = 0.75;
/// Load before each window.
const WARM_UP: Duration = Duration::from_millis(500);
/// The load outlasts the plan by this, seconds.
const MARGIN_S: f64 = 0.5;
/// Bytes of a message: the metronome's.
const PAYLOAD_BYTES: usize = 256;
