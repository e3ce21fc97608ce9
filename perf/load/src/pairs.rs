//! `relay-load pairs`: one process, one shape, one window.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::{Load, Pairs};
use crate::figures::{Window, write_json};
use crate::generator::Generator;
use crate::pair::Shape;
use crate::platform;
use crate::processor::{self, Machine, Resident};
use crate::subject::{PENDING_BYTES_MAX, Subject};

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    subject: String,
    shape: Shape,
    seconds: f64,
    window: Window,
    resident: Resident,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Pairs) -> Result<()> {
    let load = &arguments.load;
    let (name, subject) = if arguments.passthrough {
        let subject = Subject::passthrough(load.shape.pairs, load.processors())?;
        ("pass-through".to_owned(), subject)
    } else {
        (load.relay_name(), start_relay(load)?)
    };
    let shape = load.shape();
    println!("{name}: opening {} pairs", shape.pairs);
    let mut generator = Generator::open(&subject, shape)?;
    println!("{name}: {} s of load after {} s of warm-up", load.seconds, load.warm_up);
    let window = generator
        .measure(Duration::from_secs_f64(load.warm_up), Duration::from_secs_f64(load.seconds))?;
    let resident = processor::resident(subject.process())?;
    println!("{}", window.line());
    println!(
        "resident {:.1} MiB, of it anonymous {:.1} MiB",
        mebibytes(resident.total_bytes),
        mebibytes(resident.anonymous_bytes)
    );
    let report = Report {
        machine: processor::machine(),
        subject: name,
        shape,
        seconds: load.seconds,
        window,
        resident,
    };
    write_json(load.json.as_deref(), &report)
}

/// Starts the relay under test with a platform that admits everybody.
pub(crate) fn start_relay(load: &Load) -> Result<Subject> {
    let platform = platform::start()?;
    let driver = load.driver.as_deref();
    Subject::relay(&load.relay()?, driver, platform, load.processors(), PENDING_BYTES_MAX)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
