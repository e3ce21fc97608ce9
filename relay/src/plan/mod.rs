//! `relay plan`: how much more this relay holds, and what ends first.

mod answer;
mod cost;
mod model;
mod recorded;

use std::io;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cli::PlanArguments;
use crate::readings::{Door, Interval, Readings};
use crate::screen;
use answer::Answer;
use model::Observed;

/// Prints the plan.
///
/// Errors: there is no relay, no token, or the files are none of its.
pub(crate) fn run(arguments: &PlanArguments) -> Result<()> {
    let case = arguments.case.as_deref();
    let (earlier, later) = match &arguments.from[..] {
        [] => watch(arguments)?,
        [file] => recorded::interval(file, case)?,
        [earlier, later, ..] => (recorded::reading(earlier)?, recorded::reading(later)?),
    };
    let interval = match earlier.is_empty() {
        true => Interval::since_start(&earlier, &later),
        false => Interval::between(&earlier, &later)?,
    };
    let observed = Observed::of(&interval, arguments.processors);
    ensure!(!observed.shards.is_empty(), "there are no shards in this");
    let answer = Answer::new(observed, arguments.p99_us / 1e6);
    match arguments.json {
        true => screen::say(io::stdout(), format_args!("{:#}\n", answer.json())),
        false => screen::say(io::stdout(), format_args!("{}", answer.text())),
    }
    Ok(())
}

/// Two readings of a relay that runs.
fn watch(arguments: &PlanArguments) -> Result<(Readings, Readings)> {
    let door = Door::new(&arguments.door.url, arguments.door.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let earlier = door.readings()?;
    let interval = Duration::from_secs_f64(arguments.seconds);
    runtime.block_on(async { tokio::time::sleep(interval).await });
    Ok((earlier, door.readings()?))
}
