use crate::config::{FlagValue, Kind, VARIABLES};

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

/// What a reload hands on: to the controller, to the shards' doors, and to whoever loads
/// certificates. Secrets are in it: it is not to be shown.
fn handed_on(config: &Config) -> String {
    let live = live(config);
    let control = live.control.clone().unwrap_or_default();
    let secrets = [&live.internal_key, &live.internal_key_previous, &live.admin.token]
        .into_iter()
        .chain([&live.admin.previous_token])
        .map(|secret| secret.as_ref().map(|secret| secret.expose().to_owned()));
    let link = [&config.control.token, &config.control.previous_token].into_iter().flatten();
    let tokens = control.readers.iter().chain(&control.operators).chain(link);
    let tokens = tokens.map(|token| token.expose());
    format!(
        "{live:?} {:?} {:?} {:?} {:?} {:?}",
        secrets.collect::<Vec<_>>(),
        tokens.collect::<Vec<_>>(),
        config.capacity.trusted_proxies,
        config.capacity.allowed_origins,
        config.listen.tls,
    )
}

/// Values of a variable, one of which at least is another than the one in force.
fn values(variable: &Variable) -> Vec<&'static str> {
    match variable.kind {
        Kind::Flag => vec!["0", "1"],
        Kind::Choice(words) => words.to_vec(),
        Kind::Count => vec!["7777"],
        Kind::Size => vec!["77%", "77MiB"],
        Kind::Secret => vec!["another-secret-that-is-long-enough"],
        Kind::Text | Kind::Path | Kind::Url(_) | Kind::List => vec![variable.example],
    }
}

/// A configuration in which every variable has something to say, with this one beside it.
fn beside(pair: Option<(&str, &str)>) -> Option<Parsed> {
    let base = [
        ("HOST", "127.0.0.1"),
        ("SERVER_URL", "https://platform.corp"),
        ("RELAY_MODE", "dev"),
        ("RELAY_JWKS_URL", "https://platform.corp/keys"),
        ("RELAY_TOKEN_EXPIRY", "grace"),
        ("RELAY_INTERNAL_KEY", "a-key-that-is-long-enough-for-all"),
        ("RELAY_TLS_CLIENT_CA_PATH", "/authorities.pem"),
        ("RELAY_ADMIN_TOKEN", "an-admin-token-that-is-long-enough"),
        ("RELAY_CONTROL_API_OPERATOR_TOKEN", "an-operator-token-that-is-long"),
        ("RELAY_CONTROL_API_READER_TOKEN", "a-reader-token-that-is-long-enough"),
        ("RELAY_CONTROL_TOKEN", "a-token-of-both-planes-that-is-long"),
    ];
    let others = base.iter().filter(|(name, _)| pair.is_none_or(|(set, _)| set != *name));
    let pairs = others.copied().chain(pair);
    let flags: Vec<_> = pairs.map(|(name, value)| FlagValue::set(name, value)).collect();
    Config::parse(&flags, &Machine).ok()
}

/// Whether another value of this variable changes what a reload hands on.
fn is_handed_on(variable: &Variable) -> bool {
    let before = handed_on(&beside(None).expect("it is a configuration").config);
    let mut after = values(variable).into_iter().filter_map(|v| beside(Some((variable.name, v))));
    after.any(|parsed| handed_on(&parsed.config) != before)
}

#[test]
fn what_takes_effect_at_once_is_handed_on_to_somebody() {
    // It says which `[targets]` are accepted, and targets are handed on.
    let judges_alone = ["RELAY_REDIRECT_ALLOWED_HOSTS"];
    let at_once = VARIABLES.iter().filter(|variable| is_live(variable.name));
    let not_handed_on = at_once.filter(|variable| !is_handed_on(variable));
    let not_handed_on: Vec<_> = not_handed_on.map(|variable| variable.name).collect();
    assert_eq!(not_handed_on, judges_alone);
}

#[test]
fn the_document_says_of_every_variable_whether_it_takes_a_restart() {
    let document = include_str!("../../docs/config.md");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect())
        .collect();
    for variable in VARIABLES {
        let name = format!("`{}`", variable.name);
        let row = rows.iter().find(|row| row[0] == name && row.len() >= 6);
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        let change = match is_live(variable.name) {
            true => "at once",
            false => "restart",
        };
        assert!(row.contains(&change), "{name}: {row:?} does not say {change:?}");
        let other = if change == "restart" { "at once" } else { "restart" };
        assert!(!row.contains(&other), "{name}: {row:?}");
    }
}

#[test]
fn a_change_that_takes_a_restart_is_refused_by_its_name() {
    let base = beside(None).expect("it is a configuration");
    let mut seen = 0;
    for variable in VARIABLES.iter().filter(|variable| !is_live(variable.name)) {
        for value in values(variable) {
            let Some(after) = beside(Some((variable.name, value))) else { continue };
            let changed = changed(&base, &after);
            if changed.contains(&variable.name) {
                let refused = refusals(&changed);
                let expected = format!("{} takes effect after a restart only", variable.name);
                assert!(refused.contains(&expected), "{refused:?}");
                seen += 1;
                break;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn a_data_plane_goes_by_what_is_its_own_as_soon_as_it_is_read() {
    let own = OwnSettings::of(&parsed(&[]).config);
    own.replace(&parsed(&[("RELAY_DRAIN_MS", "7000"), ("RELAY_LOG_LEVEL", "warn")]).config);
    assert_eq!(own.drain_ms().load(std::sync::atomic::Ordering::Relaxed), 7000);
    assert_eq!(own.log().level, Level::Warn);
    for name in ["RELAY_DRAIN_MS", "RELAY_LOG_LEVEL", "RELAY_LOG_FORMAT"] {
        assert!(AT_THE_DOOR.contains(&name) && is_live(name), "{name}");
    }
}
