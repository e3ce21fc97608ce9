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

/// An identifier that a peer chose must not steer a terminal, nor show as another one.
pub(crate) fn printable(text: &str) -> String {
    let is_masked = |letter: char| letter.is_control() || is_invisible(letter);
    text.chars().map(|letter| if is_masked(letter) { '?' } else { letter }).collect()
}

/// Whether a character turns, joins or hides others and shows nothing itself. Source: Unicode's
/// general categories Cf, Zl and Zp, its variation selectors and its joiner of graphemes.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_show_as_others() {
        let invisible = [
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ];
        for letter in invisible {
            assert_eq!(printable(&format!("a{letter}b")), "a?b", "{:x}", u32::from(letter));
        }
        assert_eq!(printable("Zürich-東京_1"), "Zürich-東京_1");
    }
}
