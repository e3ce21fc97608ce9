//! One entry as people and programs read it.

use std::fmt::Write;

use relay_contract::{LogEntry, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;

use crate::date::Date;
use crate::settings::LogFormat;

/// An entry with its place in the log.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) date: Date,
    pub(crate) entry: LogEntry,
}

impl Record {
    /// One line of stdout. The connection stands beside the details: the reference has none.
    pub(crate) fn line(&self, format: LogFormat) -> String {
        let mut line = match format {
            LogFormat::Json => {
                serde_json::to_string(&Line(self)).expect("text and numbers are always JSON")
            }
            LogFormat::Text => self.text(),
        };
        line.push('\n');
        line
    }

    /// `<date> <level> <event> key=value …`. Values that are not plain words are quoted and
    /// escaped, so that no value can look like another one or like a line.
    fn text(&self) -> String {
        let Self { date, entry, .. } = self;
        let mut line = format!("{date} {:5} {}", entry.level.name(), entry.event);
        let mut write = |key: &str, value: &dyn std::fmt::Display| {
            write!(line, " {key}={value}").expect("a string takes everything");
        };
        for (key, value) in &entry.details {
            match value {
                Value::Text(text) => write(key, &quoted(text)),
                Value::Name(name) => write(key, &quoted(name)),
                Value::Number(number) => write(key, number),
                Value::Flag(flag) => write(key, flag),
                Value::Null => write(key, &"-"),
                Value::Redacted => write(key, &REDACTED),
            }
        }
        if let Some(connection) = entry.connection {
            write("connection", &connection);
        }
        line
    }

    fn members<M: SerializeMap>(&self, map: &mut M, details: bool) -> Result<(), M::Error> {
        map.serialize_entry("ts", &self.date)?;
        map.serialize_entry("level", self.entry.level.name())?;
        map.serialize_entry("event", self.entry.event)?;
        if details {
            map.serialize_entry("details", &Details(&self.entry.details))?;
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

struct Line<'a>(&'a Record);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.members(&mut map, true)?;
        if let Some(connection) = self.0.entry.connection {
            map.serialize_entry("connection", &connection.to_string())?;
        }
        map.end()
    }
}

/// A record in `/logs`.
pub(crate) struct Shown<'a> {
    pub(crate) record: &'a Record,
    pub(crate) details: bool,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.record.members(&mut map, self.details)?;
        map.end()
    }
}

struct Details<'a>(&'a [(&'static str, Value)]);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| {
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Name(name) => json!(name),
                Value::Number(number) => json!(number),
                Value::Flag(flag) => json!(flag),
                Value::Null => json!(null),
                Value::Redacted => json!(REDACTED),
            };
            (key, value)
        }))
    }
}

const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use relay_contract::{ConnectionId, Level};

    use super::*;

    fn text(entry: LogEntry) -> String {
        Record { sequence: 0, date: Date { unix_ms: 0 }, entry }.line(LogFormat::Text)
    }

    #[test]
    fn a_line_of_text_reads_from_left_to_right() {
        let entry = LogEntry::new(Level::Warn, "admission_denied")
            .with("reason", "no such token".to_owned())
            .with("status", 401)
            .with("workspaceId", "ws1".to_owned())
            .with("target", None::<String>)
            .with("relayToken", "hush".to_owned())
            .about(ConnectionId::default());
        assert_eq!(
            text(entry),
            "1970-01-01T00:00:00.000Z warn  admission_denied reason=\"no such token\" status=401 \
             workspaceId=ws1 target=- relayToken=[redacted] connection=0-0-0\n"
        );
    }

    #[test]
    fn no_value_can_look_like_another_line_or_value() {
        for value in ["a\nb", "a b=c", "\u{1b}[31m", "\u{202e}x", "", "a\"b"] {
            let line = text(LogEntry::new(Level::Info, "x").with("k", value.to_owned()));
            assert!(line.ends_with("\"\n") && line.lines().count() == 1, "{line:?}");
            let is_control = |c: char| c.is_control() && c != '\n';
            assert!(!line.contains(is_control) && !line.contains('\u{202e}'), "{line:?}");
        }
    }
}
