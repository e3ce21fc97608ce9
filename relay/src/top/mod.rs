//! `relay top`: what a running relay does, as it does it.

mod hottest;
mod snapshot;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;

use crate::cli::TopArguments;
use crate::readings::Door;
use crate::screen;
use hottest::Hottest;
use snapshot::Snapshot;

/// Goes home and forgets what is below: the next picture takes the place of the last.
const HOME: &str = "\x1b[H\x1b[2J";

/// Shows one interval after the other until it is ended, or one alone.
///
/// Errors: there is no relay, or no token.
pub(crate) fn run(arguments: &TopArguments) -> Result<()> {
    let door = Door::new(&arguments.door.url, arguments.door.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let interval = Duration::from_secs_f64(arguments.interval);
    let home = if io::stdout().is_terminal() { HOME } else { "" };
    let mut earlier = door.readings()?;
    loop {
        runtime.block_on(async { tokio::time::sleep(interval).await });
        let later = door.readings()?;
        let hottest = Hottest::parse(&door.ask("/node?hot=1")?)?;
        let snapshot = Snapshot::between(&earlier, &later, hottest);
        screen::say(io::stdout(), format_args!("{home}{}", view::text(&snapshot)));
        if arguments.once {
            return Ok(());
        }
        earlier = later;
    }
}
