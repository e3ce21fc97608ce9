//! Log entries as data. Shards and the controller make them; the controller alone formats them.

use crate::ConnectionId;

/// How much an entry matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// For whoever looks for the reason of something. The reference has no such entries.
    Debug,
    /// Normal life.
    Info,
    /// Something was refused or lost.
    Warn,
    /// Something of ours went wrong.
    Error,
}

impl Level {
    /// The name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One value of an entry's details.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Box<str>),
    /// Text known at build time.
    Name(&'static str),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// JSON null.
    Null,
    /// What stood under a sensitive key.
    Redacted,
}

impl From<&'static str> for Value {
    fn from(name: &'static str) -> Self {
        Self::Name(name)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One event for the operator. Details keep their order.
///
/// Redaction is by construction: a value put under a sensitive key is never stored, and secrets
/// live in [`crate::Secret`], which is no [`Value`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// How much it matters.
    pub level: Level,
    /// The event's name; relay specification, section 12.
    pub event: &'static str,
    /// The connection it is about. On stdout only.
    pub connection: Option<ConnectionId>,
    /// Ours alone: not part of the reference's log, so absent from `/logs` unless all are asked
    /// for.
    pub ours: bool,
    /// Facts, in order.
    pub details: Vec<(&'static str, Value)>,
}

impl LogEntry {
    /// An entry without details yet.
    pub fn new(level: Level, event: &'static str) -> Self {
        Self { level, event, connection: None, ours: false, details: Vec::new() }
    }

    /// Names the connection it is about.
    #[must_use]
    pub fn about(mut self, connection: ConnectionId) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Marks an event that the reference does not have.
    #[must_use]
    pub fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    /// Adds a fact. Under a sensitive key the value is dropped here and `[redacted]` stands in its
    /// place.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        let value = if is_sensitive(key) { Value::Redacted } else { value.into() };
        self.details.push((key, value));
        self
    }
}

/// Whether values under this key are kept out of logs. The reference's list, matched anywhere in
/// the key.
fn is_sensitive(key: &str) -> bool {
    let key = key.as_bytes();
    (0..key.len())
        .any(|start| SENSITIVE.iter().any(|word| starts_with_word(&key[start..], word.as_bytes())))
}

/// Whether a key begins with a word, in any case and with any separators in it. Every entry's every
/// key is asked, so nothing is allocated.
fn starts_with_word(key: &[u8], word: &[u8]) -> bool {
    if !key[0].eq_ignore_ascii_case(&word[0]) {
        return false;
    }
    let mut letters = key.iter().filter(|byte| !matches!(byte, b'_' | b'-'));
    word.iter().all(|letter| letters.next().is_some_and(|byte| byte.eq_ignore_ascii_case(letter)))
}

const SENSITIVE: [&str; 13] = [
    "authorization",
    "credential",
    "token",
    "secret",
    "password",
    "apikey",
    "privatekey",
    "signature",
    "payload",
    "body",
    "content",
    "frame",
    "message",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_under_a_sensitive_key_is_never_stored() {
        for key in
            ["relayToken", "api_key", "api-key", "Private_Key", "maxFrameBytes", "errorMessage"]
        {
            // Keys are static in production; the leak is bounded by the list above.
            let key: &'static str = Box::leak(key.to_owned().into_boxed_str());
            let entry = LogEntry::new(Level::Info, "x").with(key, "seen".to_owned());
            assert_eq!(entry.details[0].1, Value::Redacted, "{key}");
        }
    }

    #[test]
    fn a_harmless_key_keeps_its_value() {
        let entry = LogEntry::new(Level::Info, "x").with("workspaceId", "ws1".to_owned());
        assert_eq!(entry.details[0].1, Value::Text("ws1".into()));
    }
}
