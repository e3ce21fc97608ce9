//! Who could reach the control API.

use crate::config::tests::{config, parse, problems};

#[test]
fn a_control_api_that_strangers_can_reach_is_refused() {
    let problems = problems("RELAY_CONTROL_API_LISTEN=10.0.0.1:7790");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("RELAY_CONTROL_API_TLS_CERT_PATH"), "{problems:?}");
    assert!(problems[1].contains("RELAY_CONTROL_API_OPERATOR_TOKEN_FILE="), "{problems:?}");
}

#[test]
fn tls_alone_does_not_say_who_may_come() {
    let tls = "RELAY_CONTROL_API_LISTEN=10.0.0.1:7790 RELAY_CONTROL_API_TLS_CERT_PATH=/c \
               RELAY_CONTROL_API_TLS_KEY_PATH=/k";
    assert_eq!(problems(tls).len(), 1);
    config(&format!("{tls} RELAY_CONTROL_API_READER_TOKEN=secret"));
    config(&format!("{tls} RELAY_CONTROL_API_TLS_CLIENT_CA_PATH=/a"));
}

#[test]
fn half_of_a_key_pair_is_refused() {
    let loopback = "RELAY_CONTROL_API_LISTEN=127.0.0.1:7790";
    for (half, missing) in [
        ("RELAY_CONTROL_API_TLS_CERT_PATH=/c", "RELAY_CONTROL_API_TLS_KEY_PATH"),
        ("RELAY_CONTROL_API_TLS_KEY_PATH=/k", "RELAY_CONTROL_API_TLS_CERT_PATH"),
        ("RELAY_CONTROL_API_TLS_CLIENT_CA_PATH=/a", "RELAY_CONTROL_API_TLS_CERT_PATH"),
    ] {
        let problems = problems(&format!("{loopback} {half}"));
        assert!(problems[0].starts_with(missing), "{problems:?}");
    }
}

#[test]
fn neighbours_who_are_operators_are_warned_about() {
    let loopback = "RELAY_CONTROL_API_LISTEN=127.0.0.1:7790";
    let about_it = |pairs: &str| {
        let warnings = parse(pairs).expect("usable").warnings;
        warnings.iter().any(|warning| warning.contains("every user of this machine"))
    };
    assert!(about_it(loopback));
    assert!(!about_it(&format!("{loopback} RELAY_CONTROL_API_OPERATOR_TOKEN=secret")));
    assert!(!about_it("RELAY_CONTROL_API_LISTEN=unix:/run/relay/control.sock"));
}

#[test]
fn a_reader_s_token_is_nobody_else_s() {
    let loopback = "RELAY_CONTROL_API_LISTEN=127.0.0.1:7790 RELAY_CONTROL_API_OPERATOR_TOKEN=one";
    let same = format!("{loopback} RELAY_CONTROL_API_READER_TOKEN=one");
    assert!(problems(&same)[0].starts_with("RELAY_CONTROL_API_READER_TOKEN"));
    config(&format!("{loopback} RELAY_CONTROL_API_READER_TOKEN=two"));
    let before = "RELAY_CONTROL_API_READER_TOKEN=two RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS=two";
    let before = format!("{loopback} {before}");
    assert_eq!(problems(&before).len(), 1, "what an operator had opens as much");
}

#[test]
fn what_could_be_guessed_is_warned_about_where_others_can_try() {
    let guessable = |pairs: &str| {
        let warnings = parse(pairs).expect("usable").warnings;
        warnings.iter().any(|warning| warning.contains("whoever guesses it"))
    };
    let tls = "RELAY_CONTROL_API_LISTEN=10.0.0.1:7790 RELAY_CONTROL_API_TLS_CERT_PATH=/c \
               RELAY_CONTROL_API_TLS_KEY_PATH=/k";
    assert!(guessable(&format!("{tls} RELAY_CONTROL_API_OPERATOR_TOKEN=x")));
    let strong = "RELAY_CONTROL_API_OPERATOR_TOKEN=a-token-of-more-than-24-characters";
    assert!(!guessable(&format!("{tls} {strong}")));
    let loopback = "RELAY_CONTROL_API_LISTEN=127.0.0.1:7790";
    assert!(!guessable(&format!("{loopback} RELAY_CONTROL_API_OPERATOR_TOKEN=x")));
}
