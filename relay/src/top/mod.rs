//! `relay top`: what a running relay does, as it does it.

mod hottest;
mod refusals;
mod snapshot;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::TopArguments;
use crate::readings::{Door, Interval, Readings};
use crate::screen;
use hottest::Hottest;
use snapshot::Snapshot;

/// Goes home and forgets what is below: the next picture takes the place of the last.
const HOME: &str = "\x1b[H\x1b[2J";

/// Shows one interval after the other until it is ended, or one alone.
///
/// Errors: there is no relay at first, or no token.
pub(crate) fn run(arguments: &TopArguments) -> Result<()> {
    let door = Door::new(&arguments.door.url, arguments.door.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let interval = Duration::from_secs_f64(arguments.interval);
    let home = if io::stdout().is_terminal() { HOME } else { "" };
    let mut earlier = door.readings()?;
    let mut silent_since = None;
    loop {
        runtime.block_on(async { tokio::time::sleep(interval).await });
        let looked = look(&door);
        if arguments.once {
            let (later, hottest) = looked?;
            show(home, &view::text(&snapshot(&earlier, &later, hottest)));
            return Ok(());
        }
        match looked {
            Ok((later, hottest)) => {
                silent_since = None;
                show(home, &view::text(&snapshot(&earlier, &later, hottest)));
                earlier = later;
            }
            // A relay that is started anew is back in a moment.
            Err(error) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                let seconds = (since.elapsed() + interval).as_secs();
                show(home, &format!("no answer for {seconds} s: {error:#}\n"));
            }
        }
    }
}

fn look(door: &Door) -> Result<(Readings, Hottest)> {
    Ok((door.readings()?, Hottest::parse(&door.ask("/node?hot=1")?)?))
}

fn show(home: &str, text: &str) {
    screen::say(io::stdout(), format_args!("{home}{text}"));
}

/// What happened between two readings. Of a relay that was started anew in between it is what
/// happened since.
fn snapshot(earlier: &Readings, later: &Readings, hottest: Hottest) -> Snapshot {
    let nothing = Readings::default();
    let interval = Interval::between(earlier, later)
        .unwrap_or_else(|_anew| Interval::since_start(&nothing, later));
    Snapshot::of(&interval, hottest)
}
