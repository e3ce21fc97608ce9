//! What an operator may want to know of a key set.

use std::time::Duration;

use relay_admission::{KeyFacts, SkippedKey};

/// One issuer's key set at this moment.
#[derive(Clone, Debug)]
pub struct KeySetStatus {
    /// Whose tokens it checks; everybody's, if unnamed.
    pub issuer: Option<String>,
    /// Where it is fetched, without user, password and query.
    pub url: String,
    /// The keys in force, in the document's order. They are kept, and shown, also when the set is
    /// too old to be used.
    pub keys: Vec<KeyStatus>,
    /// Keys of the same document that are not used.
    pub skipped: Vec<SkippedKey>,
    /// Time since the fetch that brought them; none before the first good one.
    pub age: Option<Duration>,
    /// Whether it is too old to be used.
    pub is_expired: bool,
    /// Time until the next fetch on schedule.
    pub next_fetch_in: Duration,
    /// Whether one is in flight.
    pub is_fetching: bool,
    /// Fetches so far.
    pub fetches: u64,
    /// Of them, those that brought no set.
    pub failures: u64,
    /// Key ids remembered as unknown.
    pub unknown_keys: usize,
    /// What was wrong with the last fetch, if it failed.
    pub last_error: Option<String>,
}

/// One key in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyStatus {
    /// What tokens call it, if it has a name; at most [`KeyStatus::ID_CHARS_MAX`] characters.
    pub id: Option<String>,
    /// The one algorithm it checks.
    pub algorithm: &'static str,
}

impl KeyStatus {
    /// Characters of a shown id. The key server chooses them.
    pub const ID_CHARS_MAX: usize = 128;

    pub(super) fn of(facts: KeyFacts<'_>) -> Self {
        let id = facts.id.map(|id| id.chars().take(Self::ID_CHARS_MAX).collect());
        Self { id, algorithm: facts.algorithm }
    }
}
