//! `relay-micro`: what one operation of the relay takes, for callgrind to count.
//!
//! It measures nothing itself. `cargo xtask micro` runs it under callgrind, once per case, which
//! counts the instructions inside [`measured`] alone; time is left to `relay-load`. Counts are to
//! be the same on every machine: no clock, no entropy, no kernel, no thread. Start with
//! [`cases::all`].
#![forbid(unsafe_code)]

mod cases;
mod decisions;
mod frames;
mod kernel;
mod messages;
mod records;
mod texts;
mod tokens;
mod turns;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use cases::{Case, Operation};

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-micro: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--list` prints name and repetitions of each case, `--processor` what the libraries' choices of
/// code depend on; a name runs that case.
fn run(argument: Option<&str>) -> Result<()> {
    match argument {
        Some("--list") => {
            for case in cases::all() {
                println!("{} {}", case.name, case.repetitions);
            }
        }
        Some("--processor") => println!("{}", processor()),
        Some(name) => {
            let mut all = cases::all().into_iter();
            repeat(&all.find(|case| case.name == name).context("no such case; see --list")?)?;
        }
        None => bail!("one argument: a case, --list or --processor"),
    }
    Ok(())
}

/// Warms up, then repeats what is counted.
fn repeat(case: &Case) -> Result<()> {
    let mut operation = (case.start)()?;
    for _ in 0..WARM_UP {
        operation.prepare();
        operation.run();
    }
    for _ in 0..case.repetitions {
        operation.prepare();
        measured(operation.as_mut());
    }
    operation.judge(u64::from(WARM_UP + case.repetitions)).context(case.name)
}

/// The one function inside which instructions are counted: callgrind knows it by its name.
#[inline(never)]
fn measured(operation: &mut dyn Operation) {
    operation.run();
}

/// The extensions that the chosen code depends on, of those this processor has.
///
/// Source: under valgrind the answers of CPUID are valgrind's own: those of one fixed processor
/// with AVX2, on every host that has it.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let all = present!(
        "sse4.2",
        "pclmulqdq",
        "aes",
        "sha",
        "avx",
        "avx2",
        "bmi1",
        "bmi2",
        "adx",
        "vaes",
        "avx512f"
    );
    all.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// Other processors have no choice that we know of.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    std::env::consts::ARCH.to_owned()
}

/// Runs before anything is counted: tables, buffers and free lists reach their working size.
const WARM_UP: u32 = 64;
