use crate::config::{FlagValue, VARIABLES};

use super::*;

fn parsed(pairs: &[(&str, &str)]) -> Parsed {
    let always = [("HOST", "127.0.0.1"), ("SERVER_URL", "https://api.corp"), ("RELAY_MODE", "dev")];
    let flags: Vec<_> =
        always.iter().chain(pairs).map(|(name, value)| FlagValue::set(name, value)).collect();
    Config::parse(&flags, &Machine).unwrap_or_else(|refused| panic!("{refused}"))
}

#[test]
fn nothing_has_changed_of_what_is_read_twice() {
    assert!(changed(&parsed(&[]), &parsed(&[])).is_empty(), "a random id is no change");
    let key = ("RELAY_INTERNAL_KEY", "a-key-that-is-long-enough-for-all");
    assert!(changed(&parsed(&[key]), &parsed(&[key])).is_empty());
}

#[test]
fn changes_are_named_secrets_included() {
    let before = parsed(&[("RELAY_ADMIN_TOKEN", "one"), ("RELAY_MAX_FRAME_BYTES", "1000")]);
    let after = parsed(&[("RELAY_ADMIN_TOKEN", "two"), ("RELAY_LOG_LEVEL", "warn")]);
    let names = changed(&before, &after);
    assert_eq!(names, ["RELAY_ADMIN_TOKEN", "RELAY_LOG_LEVEL", "RELAY_MAX_FRAME_BYTES"]);
    assert!(names.iter().all(|name| is_live(name)));
}

#[test]
fn the_value_that_is_the_default_is_no_change_from_it() {
    let said = parsed(&[("RELAY_MAX_FRAME_BYTES", "1048576")]);
    assert!(changed(&parsed(&[]), &said).is_empty());
}

#[test]
fn what_follows_from_a_change_counts_as_changed() {
    let key = ("RELAY_INTERNAL_KEY", "a-key-that-is-long-enough-for-all");
    let names = changed(&parsed(&[]), &parsed(&[key]));
    assert!(names.contains(&"RELAY_INTERNAL_KEY"), "{names:?}");
    // With a key there is a backplane, and that takes a restart.
    assert!(names.iter().any(|name| *name == "RELAY_BACKPLANE_MODE" && !is_live(name)));
}

#[test]
fn every_live_name_is_a_variable() {
    for name in LIVE {
        assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name}");
    }
}
