//! A refusal, for the log.

/// Why an upgrade was not admitted. The peer sees 401 whatever the reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// A code, or the platform's own words; at most [`Denial::REASON_CHARS_MAX`] characters.
    pub reason: String,
    /// The HTTP status that goes with it: the platform's, or the one it would have been.
    pub status: u16,
}

impl Denial {
    /// Characters of a reason. Protects the log from a platform that answers with a novel.
    pub const REASON_CHARS_MAX: usize = 256;

    /// A denial whose reason is cut to its limit.
    pub fn new(reason: &str, status: u16) -> Self {
        Self { reason: reason.chars().take(Self::REASON_CHARS_MAX).collect(), status }
    }
}
