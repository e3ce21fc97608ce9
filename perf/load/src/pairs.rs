//! `relay-load pairs`: one process, one shape, one window.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::{Load, Pairs};
use crate::figures::{Window, write_json};
use crate::generator::Generator;
use crate::guard::{Guard, Watched};
use crate::pair::Shape;
use crate::platform;
use crate::processor::{self, Resident};
use crate::subject::{PENDING_BYTES_MAX, Subject};
use crate::trial::Header;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    subject: String,
    shape: Shape,
    seconds: f64,
    window: Window,
    resident: Resident,
    watched: Watched,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Pairs) -> Result<()> {
    let load = &arguments.load;
    let (name, subject) = if arguments.passthrough {
        let subject = Subject::passthrough(load.shape.pairs, load.trial.processors())?;
        ("pass-through".to_owned(), subject)
    } else {
        (load.trial.relay_name(), start_relay(load)?)
    };
    let shape = load.shape();
    println!("{name}: opening {} pairs", shape.pairs);
    let mut generator = Generator::open(&subject, shape)?;
    println!("{name}: {} s of load after {} s of warm-up", load.seconds, load.warm_up);
    let guard = Guard::start(&[subject.process()], load.trial.processors())?;
    let window = generator
        .measure(Duration::from_secs_f64(load.warm_up), Duration::from_secs_f64(load.seconds))?;
    let watched = guard.finish()?;
    let resident = processor::resident(subject.process())?;
    println!("{}", window.line());
    println!(
        "resident {:.1} MiB, of it anonymous {:.1} MiB",
        mebibytes(resident.total_bytes),
        mebibytes(resident.anonymous_bytes)
    );
    let report = Report {
        header: load.trial.header()?,
        subject: name,
        shape,
        seconds: load.seconds,
        window,
        resident,
        watched,
    };
    write_json(load.trial.json.as_deref(), &report)?;
    load.trial.judge(&report.watched.bottlenecks)
}

/// Starts the relay under test with a platform that admits everybody.
pub(crate) fn start_relay(load: &Load) -> Result<Subject> {
    let platform = platform::start()?;
    let driver = load.trial.driver.as_deref();
    Subject::relay(
        &load.trial.relay()?,
        driver,
        platform,
        load.trial.processors(),
        PENDING_BYTES_MAX,
    )
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
