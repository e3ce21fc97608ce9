//! Names of events and their details, which are known at build time on the side that tells.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The name, kept for as long as the process lives. A program tells some two hundred of them, each
/// written in its source; more than that is another program's mistake, and its names are all
/// [`UNKNOWN`].
///
/// Cost: a look-up; the first time a name is told, its memory, for good.
pub(crate) fn kept(name: &str) -> &'static str {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = names.get(name) {
        return name;
    }
    if name.len() > NAME_BYTES_MAX || names.len() >= NAMES_MAX {
        return UNKNOWN;
    }
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    name
}

static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// What a name is that is not kept.
pub(super) const UNKNOWN: &str = "unknown";

/// Names kept. Protects memory, which is never given back. Reached: the entry is told under
/// [`UNKNOWN`]. Source: some five times those of the program.
const NAMES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_long_ones_are_not() {
        let (one, other) = (String::from("some_event"), String::from("some_event"));
        assert!(std::ptr::eq(kept(&one), kept(&other)));
        assert_eq!(kept(&"x".repeat(NAME_BYTES_MAX + 1)), UNKNOWN);
    }
}
