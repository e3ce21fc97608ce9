//! How far a load is: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is being done at the moment, and how much of it is.
pub(crate) struct Progress {
    title: String,
    is_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new(title: &str) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        if !is_terminal {
            println!("{title}");
        }
        Self { title: title.to_owned(), is_terminal, shown: None }
    }

    /// Shows how much is done, from 0 to 1, unless it was shown a moment ago.
    pub(crate) fn show(&mut self, done: f64, text: &str) {
        let pause = if self.is_terminal { REDRAW } else { PLAIN };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        // Elsewhere than on a terminal the title stands there already.
        let is_first = self.shown.replace(Instant::now()).is_none();
        if self.is_terminal {
            print!("\r\x1b[K{} {}  {text}", self.title, bar(done));
            drop(std::io::stdout().flush());
        } else if !is_first {
            println!("  {:>3.0} %  {text}", done.clamp(0.0, 1.0) * 100.0);
        }
    }

    /// Leaves one line of what came of it.
    pub(crate) fn finish(self, text: &str) {
        if self.is_terminal {
            print!("\r\x1b[K{}\n", self.title);
        }
        println!("  {text}");
    }
}

fn bar(done: f64) -> String {
    let full = (done.clamp(0.0, 1.0) * WIDTH as f64).round() as usize;
    format!("[{}{}]", "█".repeat(full), "·".repeat(WIDTH - full))
}

const WIDTH: usize = 24;
const REDRAW: Duration = Duration::from_millis(100);
const PLAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_stays_within_its_ends() {
        let full = |done| bar(done).matches('█').count();
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 7.0].map(full), [0, 0, 12, 24, 24]);
        assert!([0.0, 0.3, 1.0].iter().all(|done| bar(*done).chars().count() == WIDTH + 2));
    }
}
