//! Names of events and their details, which are known at build time on the side that tells.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The name, kept for as long as the process lives. A program tells some two hundred of them, each
/// written in its source; more than that is another program's mistake, and its names are all
/// [`UNKNOWN`].
///
/// Cost: a look-up; the first time a name is told, its memory, for good.
pub(crate) fn kept(name: &str) -> &'static str {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).keep(name)
}

/// Names that were not kept in this process: too long, or too many.
pub fn names_refused() -> u64 {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).refused
}

#[derive(Debug)]
struct Names {
    kept: BTreeSet<&'static str>,
    refused: u64,
}

impl Names {
    const fn new() -> Self {
        Self { kept: BTreeSet::new(), refused: 0 }
    }

    fn keep(&mut self, name: &str) -> &'static str {
        if let Some(name) = self.kept.get(name) {
            return name;
        }
        if name.len() > NAME_BYTES_MAX || self.kept.len() >= NAMES_MAX {
            self.refused += 1;
            return UNKNOWN;
        }
        let name: &'static str = Box::leak(name.into());
        self.kept.insert(name);
        name
    }
}

static NAMES: Mutex<Names> = Mutex::new(Names::new());

/// What a name is that is not kept.
pub(super) const UNKNOWN: &str = "unknown";

/// Names kept. Protects memory, which is never given back. Reached: the entry is told under
/// [`UNKNOWN`], with a count. Source: some five times those of the program.
const NAMES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_long_ones_are_not() {
        let (one, other) = (String::from("some_event"), String::from("some_event"));
        assert!(std::ptr::eq(kept(&one), kept(&other)));
        let before = names_refused();
        assert_eq!(kept(&"x".repeat(NAME_BYTES_MAX + 1)), UNKNOWN);
        assert!(names_refused() > before);
    }

    #[test]
    fn names_without_end_take_bounded_memory_and_are_counted() {
        let mut names = Names::new();
        for n in 0..NAMES_MAX + 10 {
            names.keep(&format!("name-{n}"));
        }
        assert_eq!((names.kept.len(), names.refused), (NAMES_MAX, 10));
        assert_eq!(names.keep("name-0"), "name-0");
        assert_eq!(names.keep("another"), UNKNOWN);
        assert_eq!(names.refused, 11);
    }
}
