use super::*;
use crate::config::tests::{KEY, config, parse, problems};
use crate::config::{Refused, of_handed};

#[test]
fn a_proxy_header_is_asked_of_somebody_or_a_warning_says_so() {
    let parsed = parse("RELAY_PROXY_PROTOCOL=required").expect("usable");
    assert!(parsed.config.capacity.proxy_protocol);
    assert!(parsed.warnings.iter().any(|warning| warning.contains("RELAY_TRUSTED_PROXIES")));
    let named = parse("RELAY_PROXY_PROTOCOL=required RELAY_TRUSTED_PROXIES=10.0.0.1");
    assert!(named.expect("usable").warnings.is_empty());
    assert!(!config("").capacity.proxy_protocol);
    assert!(problems("RELAY_PROXY_PROTOCOL=1")[0].starts_with("RELAY_PROXY_PROTOCOL: "));
}

#[test]
fn a_unix_socket_stands_instead_of_the_port_unless_that_is_named() {
    let alone = config("RELAY_LISTEN_UNIX=/run/relay.sock").listen;
    let socket = UnixSocket { path: "/run/relay.sock".into(), mode: 0o660 };
    assert_eq!((alone.unix, alone.over_tcp), (Some(socket), false));
    for named in ["HOST=127.0.0.1", "PORT=7000", "RELAY_LISTEN_PORT=7000"] {
        let beside = config(&format!("RELAY_LISTEN_UNIX=/run/relay.sock {named}")).listen;
        assert!(beside.over_tcp && beside.unix.is_some(), "{named}");
    }
    assert!(config("").listen.over_tcp);
}

#[test]
fn behind_a_socket_the_mode_follows_from_the_urls() {
    let urls = format!(
        "SERVER_URL=https://api.internal.corp RELAY_TLS_TERMINATION=platform {KEY} \
        RELAY_PUBLIC_WS_BASE_URL=wss://relay.corp/ws \
        RELAY_SERVER_AUTH_MODE=private_network_shared_secret"
    );
    assert_eq!(config(&urls).listen.mode, Mode::Dev, "HOST is loopback");
    for socket in ["RELAY_LISTEN_UNIX=/run/relay.sock", "LISTEN_FDS=1"] {
        assert_eq!(config(&format!("{urls} {socket}")).listen.mode, Mode::Prod, "{socket}");
        assert_eq!(config(socket).listen.mode, Mode::Dev, "{socket}");
    }
}

#[test]
fn a_socket_handed_over_is_judged_by_what_it_is_bound_to() {
    let judged = |pairs: &str, bound: &str| {
        let bound = [bound.parse().expect("an address")];
        of_handed(&config(&format!("LISTEN_FDS=1 {pairs}")), &bound)
    };
    let platform = "SERVER_URL=http://127.0.0.1:3000";
    for bound in ["0.0.0.0:7781", "[::]:7781", "10.1.2.3:7781", "[::ffff:10.1.2.3]:7781"] {
        let Err(Refused(problems)) = judged(platform, bound) else {
            panic!("{bound} is refused");
        };
        assert_eq!(problems[0].variable, "SERVER_URL");
        assert!(problems[0].what.contains(bound), "{}", problems[0]);
    }
    for bound in ["127.0.0.1:7781", "127.0.0.2:7781", "[::1]:7781", "[::ffff:127.0.0.1]:7781"] {
        assert_eq!(judged(platform, bound), Ok(None), "{bound}");
    }
    assert_eq!(of_handed(&config(platform), &[]), Ok(None), "Unix sockets alone, or none");
    let far = "SERVER_URL=https://api.corp RELAY_PUBLIC_WS_BASE_URL=wss://relay.corp/ws";
    let warning = judged(&format!("{far} RELAY_MODE=dev"), "0.0.0.0:7781").expect("usable");
    assert!(warning.is_some_and(|text| text.contains("RELAY_MODE=dev on the socket on 0.0.0.0")));
    assert_eq!(judged(&format!("{far} RELAY_MODE=staging"), "0.0.0.0:7781"), Ok(None));
    assert_eq!(judged(&format!("{far} RELAY_MODE=dev"), "127.0.0.1:7781"), Ok(None));
}

#[test]
fn permissions_are_octal_digits() {
    for (text, mode) in [("600", 0o600), ("0666", 0o666), ("777", 0o777)] {
        let pairs = format!("RELAY_LISTEN_UNIX=/s RELAY_LISTEN_UNIX_MODE={text}");
        assert_eq!(config(&pairs).listen.unix.expect("named").mode, mode);
    }
    for text in ["rw", "888", "66", "00660", "1777", "-660", "+66", "0x1"] {
        let found = problems(&format!("RELAY_LISTEN_UNIX_MODE={text}"));
        assert!(found[0].starts_with("RELAY_LISTEN_UNIX_MODE: "), "{text}: {found:?}");
    }
}

#[test]
fn an_ipv6_host_may_stand_in_brackets() {
    for (host, bound) in [("[::]", "::"), ("::", "::"), ("[::1]", "::1"), ("relay", "relay")] {
        let pairs = format!(
            "HOST={host} SERVER_URL=https://api.corp RELAY_PUBLIC_WS_BASE_URL=wss://relay.corp/ws \
             RELAY_MODE=staging"
        );
        assert_eq!(config(&pairs).listen.host, bound, "{host}");
    }
    assert_eq!(config("HOST=[::1]").listen.mode, Mode::Dev);
}

#[test]
fn origins_are_parsed_or_named() {
    let parsed = config("RELAY_ALLOWED_ORIGINS=https://app.corp,https://*.eu.corp").capacity;
    assert_ne!(parsed.allowed_origins, config("").capacity.allowed_origins);
    let found = problems("RELAY_ALLOWED_ORIGINS=https://app.corp,app.corp/x");
    assert!(found[0].starts_with("RELAY_ALLOWED_ORIGINS: \"app.corp/x\""), "{found:?}");
}
