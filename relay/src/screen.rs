//! Output for people: colour and progress on a terminal, plain lines elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// Writes text for whoever still reads. A reader that went away must not end the program.
pub(crate) fn say(mut out: impl Write, text: fmt::Arguments<'_>) {
    let _unread = out.write_fmt(text).and_then(|()| out.flush());
}

/// Where it goes.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    is_terminal: bool,
    has_colour: bool,
    shown: Option<Instant>,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// A heading.
    Strong,
    /// An aside.
    Faint,
    /// Readable by people.
    Plaintext,
    /// Readable by nobody.
    Ciphertext,
    /// As it should be.
    Good,
}

impl Screen {
    /// Standard output, in colour when it is a terminal and nobody objects. Source: no-color.org.
    pub(crate) fn stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let objection = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            out: Box::new(io::stdout()),
            is_terminal,
            has_colour: is_terminal && !objection,
            shown: None,
        }
    }

    /// Plain lines to any writer.
    #[cfg(test)]
    pub(crate) fn plain(out: impl Write + 'static) -> Self {
        Self { out: Box::new(out), is_terminal: false, has_colour: false, shown: None }
    }

    /// The text in its tone.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.has_colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Plaintext | Tone::Good => "32",
            Tone::Ciphertext => "35",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// One line.
    pub(crate) fn line(&mut self, text: &str) {
        self.clear();
        // A reader that went away changes nothing about the messages.
        let _unread = writeln!(self.out, "{text}");
    }

    /// How far something is; now and then, on a terminal only.
    pub(crate) fn progress(&mut self, done: u64, all: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_INTERVAL);
        if self.is_terminal && due {
            self.shown = Some(Instant::now());
            let _unread = write!(self.out, "\r  {done} of {all}");
            let _unread = self.out.flush();
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _unread = write!(self.out, "\r\x1b[K");
        }
    }
}
