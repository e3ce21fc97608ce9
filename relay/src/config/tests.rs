//! The rules of the configuration, as tables.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::*;

/// A world of a few variables and files.
#[derive(Default)]
pub(super) struct World {
    pub(super) variables: HashMap<String, String>,
    pub(super) files: HashMap<PathBuf, String>,
    in_container: bool,
    pub(super) open_files: bool,
}

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.files.get(path).cloned();
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn read_long(&self, path: &Path) -> io::Result<String> {
        self.read(path)
    }
    fn is_open_to_all(&self, _path: &Path) -> bool {
        self.open_files
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
    fn in_container(&self) -> bool {
        self.in_container
    }
    fn home(&self) -> Option<PathBuf> {
        Some("/home/relay".into())
    }
    fn core_count(&self) -> usize {
        3
    }
    fn nonce(&self) -> String {
        "0123456789ab".to_owned()
    }
}

/// `NAME=VALUE` pairs, one per word; `_` stands for a blank inside a value.
pub(super) fn world(pairs: &str) -> World {
    let pairs = pairs.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), value.replace('~', " "))
    });
    World { variables: pairs.collect(), ..World::default() }
}

pub(super) fn parse(pairs: &str) -> Result<Parsed, Refused> {
    Config::parse(&[], &world(pairs))
}

pub(super) fn config(pairs: &str) -> Config {
    parse(pairs).expect("a usable configuration").config
}

pub(super) fn problems(pairs: &str) -> Vec<String> {
    let refused = parse(pairs).err().map_or(Vec::new(), |refused| refused.0);
    refused.iter().map(ToString::to_string).collect()
}

pub(super) fn shown(parsed: &Parsed, name: &str) -> (String, String) {
    let found = parsed.effective.iter().find(|known| known.name == name);
    let found = found.expect("every variable is listed");
    (found.shown.clone(), found.source.to_string())
}

pub(super) const KEY: &str = "RELAY_INTERNAL_KEY=ZmFrZS1oaWdoLWVudHJvcHktMDEyMzQ1Njc4OQ";
pub(super) const PROD: &str = "HOST=127.0.0.1 SERVER_URL=https://api.internal.corp RELAY_TLS=0 \
    RELAY_MODE=prod RELAY_BACKPLANE_MODE=single RELAY_PUBLIC_WS_BASE_URL=wss://relay.corp/ws \
    RELAY_TLS_TERMINATION=platform RELAY_SERVER_AUTH_MODE=private_network_shared_secret";

#[test]
fn an_empty_environment_gives_the_reference_defaults() {
    let config = config("");
    assert_eq!(config.listen.host, "127.0.0.1");
    assert_eq!(config.listen.port, 7781);
    assert_eq!(config.listen.mode, Mode::Dev);
    assert!(!config.listen.tls.enabled);
    assert_eq!(config.listen.public_ws_url, "wss://relay.getviewport.com/ws");
    assert_eq!(config.relay_id.as_str(), "127.0.0.1:7781:0123456789ab");
    assert_eq!(config.platform.server_url, "https://api.getviewport.com");
    assert_eq!(
        config.platform.validate.as_str(),
        "https://api.getviewport.com/api/runtime/internal/relay/validate"
    );
    assert_eq!(config.backplane.mode, BackplaneMode::Single);
    assert!(!config.backplane.presence && !config.backplane.redirect && !config.backplane.bus);
    assert_eq!(config.admission.mode, AdmissionMode::Validate);
    let memory_bytes_max = config.limits.memory_bytes_max;
    let default = relay_contract::Limits::default();
    assert_eq!(config.limits, relay_contract::Limits { memory_bytes_max, ..default });
    assert_eq!(config.capacity.connections_max, 2000);
    assert_eq!(config.engine.shard_count, 3);
}

#[test]
fn words_are_matched_exactly() {
    for good in ["0", "1", "false", "true", "no", "yes", "off", "on"] {
        let pairs = format!("RELAY_ENABLE_ADMIN_HTTP={good}");
        assert!(parse(&pairs).is_ok(), "{good}");
    }
    for (name, bad) in [
        ("RELAY_ENABLE_ADMIN_HTTP", "True"),
        ("RELAY_ENABLE_ADMIN_HTTP", ""),
        ("RELAY_BUS_ENABLED", "enabled"),
        ("RELAY_BUS_ENABLED", "~1"),
        ("RELAY_MODE", ""),
        ("RELAY_MODE", "PROD"),
        ("RELAY_BACKPLANE_MODE", "nats"),
        ("RELAY_TLS", "yes"),
        ("RELAY_TLS", ""),
        ("RELAY_TLS_TERMINATION", "Self"),
        ("RELAY_SERVER_TLS_VERIFY", "true"),
        ("RELAY_SERVER_AUTH_MODE", "none"),
        ("RELAY_ADMISSION", "local"),
        ("RELAY_DRIVER", "kqueue"),
        ("RELAY_BUSY_POLL_US", "1000001"),
    ] {
        let found = problems(&format!("{name}={bad}"));
        assert_eq!(found.len(), 1, "{name}={bad}: {found:?}");
        assert!(found[0].starts_with(&format!("{name}: ")), "{found:?}");
        assert!(found[0].contains("; example: "), "{found:?}");
    }
    assert!(parse("RELAY_TLS=AUTO").is_ok(), "RELAY_TLS is lower-cased");
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = problems("RELAY_MODE=x RELAY_TRUSTED_PROXIES=10.0.0.0/8,10.0.0.0/33 SERVER_URL=x");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|line| line.contains("\"10.0.0.0/33\"")));
}

#[test]
fn an_unusable_number_falls_back_with_a_warning() {
    let parsed = parse("MAX_LOGS=0 RELAY_MAX_FRAME_BYTES=0x100").expect("usable");
    assert_eq!(parsed.config.log.entries_max, 400);
    assert_eq!(parsed.config.limits.frame_bytes_max, 256);
    assert_eq!(parsed.warnings.len(), 1);
    assert!(parsed.warnings[0].starts_with("MAX_LOGS: \"0\""));
}

#[test]
fn a_port_beyond_the_last_is_refused() {
    assert!(problems("PORT=65536")[0].contains("65536 is not a port"));
}

#[test]
fn an_alias_means_the_same_and_a_conflict_names_both() {
    assert_eq!(config("PORT=7000").listen.port, 7000);
    assert_eq!(config("RELAY_LISTEN_PORT=7000").listen.port, 7000);
    assert_eq!(config("RELAY_LISTEN_PORT=7000 PORT=7000").listen.port, 7000);
    assert_eq!(config("RELAY_LISTEN_PORT=7000 PORT=").listen.port, 7000);
    assert_eq!(config("RELAY_LISTEN_PORT= PORT=7000").listen.port, 7000);
    let found = problems("RELAY_LISTEN_PORT=7998 PORT=7999");
    assert!(found[0].contains("RELAY_LISTEN_PORT and PORT"), "{found:?}");
    for (mode, other) in [("redis", "RELAY_REDIS_URL=redis://b"), ("server", "SERVER_URL=http://b")]
    {
        let scheme = if mode == "redis" { "redis" } else { "http" };
        let found = problems(&format!(
            "{KEY} RELAY_BACKPLANE_MODE={mode} RELAY_BACKPLANE_URL={scheme}://a {other}"
        ));
        let alias = other.split_once('=').expect("a pair").0;
        assert!(found[0].contains("RELAY_BACKPLANE_URL"), "{found:?}");
        assert!(found[0].contains(alias), "{found:?}");
    }
}

#[test]
fn a_flag_beats_the_environment_and_says_so() {
    let flags = [FlagValue {
        flag: "--listen-port".to_owned(),
        name: "RELAY_LISTEN_PORT".to_owned(),
        value: "7002".to_owned(),
    }];
    let parsed = Config::parse(&flags, &world("PORT=7001 RELAY_LISTEN_PORT=7000"));
    let parsed = parsed.expect("usable");
    assert_eq!(parsed.config.listen.port, 7002);
    let expected = ("7002".to_owned(), "flag --listen-port".to_owned());
    assert_eq!(shown(&parsed, "RELAY_LISTEN_PORT"), expected);
}

#[test]
fn a_flag_for_no_variable_is_refused() {
    let flags = [FlagValue::set("RELAY_SHARD", "1")];
    let refused = Config::parse(&flags, &World::default()).expect_err("no such variable");
    assert!(refused.to_string().contains("RELAY_SHARD"));
}

#[test]
fn the_mode_follows_from_address_and_urls() {
    let table = [
        ("", Mode::Dev),
        ("HOST=0.0.0.0", Mode::Dev),
        ("HOST=localhost SERVER_URL=https://a.corp", Mode::Dev),
        ("HOST=::1 SERVER_URL=https://a.corp", Mode::Dev),
        ("SERVER_URL=https://a.corp RELAY_PUBLIC_WS_BASE_URL=wss://r.corp/ws", Mode::Dev),
    ];
    for (pairs, expected) in table {
        assert_eq!(config(pairs).listen.mode, expected, "{pairs}");
    }
    let found = problems("HOST=10.0.0.1 SERVER_URL=https://a.corp");
    assert!(found.iter().any(|line| line.contains("RELAY_MODE=prod")), "{found:?}");
    for local in ["http://127.0.0.1:1", "http://localhost", "http://a.test", "http://[::1]"] {
        let found = problems(&format!("HOST=10.0.0.1 SERVER_URL={local}"));
        assert_eq!(found.len(), 1, "{local}: {found:?}");
        assert!(found[0].contains(
            "SERVER_URL and RELAY_PUBLIC_WS_BASE_URL must be set explicitly outside local loopback \
             development"
        ));
    }
}

#[test]
fn the_backplane_follows_from_key_and_switches() {
    let server = "SERVER_URL=https://a.corp";
    let table = [
        (server.to_owned(), BackplaneMode::Single, false),
        (format!("{server} {KEY}"), BackplaneMode::Server, true),
        (format!("{server} {KEY} RELAY_BACKPLANE_MODE=single"), BackplaneMode::Single, false),
        (format!("{server} {KEY} RELAY_CLIENT_REDIRECT_ENABLED=0"), BackplaneMode::Server, false),
        (
            format!("{server} {KEY} RELAY_BACKPLANE_URL=redis://r RELAY_BUS_HMAC_KEY=k"),
            BackplaneMode::Redis,
            true,
        ),
    ];
    for (pairs, mode, redirect) in table {
        let config = config(&pairs);
        assert_eq!(config.backplane.mode, mode, "{pairs}");
        assert_eq!(config.backplane.redirect, redirect, "{pairs}");
        assert!(!config.backplane.bus, "{pairs}");
    }
    let found = problems("RELAY_BUS_ENABLED=1");
    assert!(found[0].contains("RELAY_INTERNAL_KEY is required when RELAY_BACKPLANE_MODE=server"));
    assert!(found[1].contains("RELAY_BUS_HMAC_KEY is required"));
}

#[test]
fn redis_needs_key_then_url_then_signing_key() {
    let http = "RELAY_BACKPLANE_MODE=redis RELAY_BACKPLANE_URL=https://a.corp";
    assert!(problems(http)[0].contains("no Redis URL"), "{:?}", problems(http));
    let found = problems("RELAY_BACKPLANE_MODE=redis");
    assert!(found[0].contains("RELAY_INTERNAL_KEY is required when RELAY_BACKPLANE_MODE=redis"));
    assert!(found[1].contains("RELAY_REDIS_URL is required when RELAY_BACKPLANE_MODE=redis"));
    assert!(found[2].contains("RELAY_BUS_HMAC_KEY is required when RELAY_BACKPLANE_MODE=redis"));
}

#[test]
fn prod_insists_on_safe_settings_in_the_reference_order() {
    let found = problems("RELAY_MODE=prod SERVER_URL=https://a.corp");
    let expected = [
        "RELAY_TLS must be enabled when RELAY_MODE=prod",
        "RELAY_INTERNAL_KEY must be configured with a high-entropy secret when RELAY_MODE=prod",
        "RELAY_SERVER_MTLS must be enabled when RELAY_MODE=prod",
        "RELAY_SERVER_TLS_VERIFY must be 1 when RELAY_MODE=prod to prevent TLS downgrade",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
    for weak in
        ["aaaaaaaaaaaaaaaaaaaaaaa", "my-EXAMPLE-key-0123456789abcdef", "change-me-change-me-1234"]
    {
        let found = problems(&format!("{PROD} RELAY_INTERNAL_KEY={weak}"));
        assert!(found[0].contains("high-entropy"), "{weak}: {found:?}");
        assert!(!found[0].contains(weak), "the key itself is not shown");
    }
    assert_eq!(config(&format!("{PROD} {KEY}")).listen.mode, Mode::Prod);
    let local = PROD.replace("https://api.internal.corp", "https://localhost");
    assert!(problems(&format!("{local} {KEY}"))[0].contains("must not be local"));
}

#[test]
fn staging_neither_shows_more_nor_insists() {
    let config = config("RELAY_MODE=staging SERVER_URL=https://a.corp");
    assert_eq!(config.listen.mode, Mode::Staging);
    assert!(!config.admin.verbose && !config.admin.client_ids);
}

#[test]
fn the_documented_container_start_is_safe_as_it_stands() {
    let mut world = world(&format!(
        "RELAY_LISTEN_PORT=7781 {KEY} RELAY_JWKS_URL=https://api.corp/.well-known/jwks.json \
         RELAY_VALIDATE_URL=https://api.corp/api/runtime/internal/relay/validate"
    ));
    world.in_container = true;
    let parsed = Config::parse(&[], &world).expect("usable");
    let config = &parsed.config;
    assert_eq!(config.listen.host, "0.0.0.0");
    assert_eq!(config.listen.mode, Mode::Prod);
    assert!(config.listen.tls.ends_in_front);
    assert_eq!(config.platform.server_url, "https://api.corp");
    assert_eq!(config.platform.auth, ServerAuth::SharedSecret);
    assert_eq!(config.admission.mode, AdmissionMode::Both);
    assert!(!config.backplane.redirect, "nobody is sent to an address the operator did not name");
    assert_eq!(shown(&parsed, "RELAY_INTERNAL_KEY").0, "[set]");
    assert_eq!(shown(&parsed, "HOST").1, "inferred: running in a container");
    world.variables.insert("HOST".to_owned(), "127.0.0.1".to_owned());
    let config = Config::parse(&[], &world).expect("usable").config;
    assert_eq!(config.listen.host, "127.0.0.1");
}

#[test]
fn the_documented_start_refuses_a_weak_key() {
    let mut world = world(
        "RELAY_INTERNAL_KEY=short RELAY_VALIDATE_URL=https://api.corp/validate \
         RELAY_JWKS_URL=https://api.corp/jwks.json",
    );
    world.in_container = true;
    let refused = Config::parse(&[], &world).expect_err("weak");
    assert!(refused.to_string().contains("high-entropy"));
}

#[test]
fn a_client_certificate_needs_both_files() {
    let paths = "RELAY_SERVER_CLIENT_CERT_PATH=/none/c RELAY_SERVER_CLIENT_KEY_PATH=/none/k";
    assert!(problems(paths)[0].contains(
        "RELAY_SERVER_MTLS enabled but client cert/key not found (cert=/none/c, key=/none/k)"
    ));
    assert!(problems("RELAY_SERVER_MTLS=1")[0].contains("are not both set"));
    let mut world = world(paths);
    for path in ["/none/c", "/none/k"] {
        world.files.insert(path.into(), String::new());
    }
    let parsed = Config::parse(&[], &world).expect("usable");
    assert!(parsed.config.platform.client_certificate.is_some());
    assert_eq!(shown(&parsed, "RELAY_SERVER_MTLS").0, "1");
}

#[test]
fn tls_switches_itself_on_when_its_files_exist() {
    let mut world = World::default();
    for end in ["crt", "key"] {
        let path = format!("/home/relay/.viewport/relay-certs/relay.getviewport.com.{end}");
        world.files.insert(path.into(), String::new());
    }
    let config = Config::parse(&[], &world).expect("usable").config;
    assert!(config.listen.tls.enabled);
    assert!(problems("RELAY_TLS=1")[0].contains("RELAY_TLS enabled but cert/key not found"));
}

#[test]
fn the_public_url_is_made_from_host_and_port() {
    assert_eq!(config("PORT=1").listen.public_ws_url, "ws://relay.getviewport.com:1/ws");
    let pairs = "RELAY_TLS_HOST=r.corp";
    assert_eq!(config(pairs).listen.public_ws_url, "ws://r.corp:7781/ws");
}

#[test]
fn operators_may_have_a_door_of_their_own() {
    let door = |text: &str| parse(&format!("RELAY_ADMIN_LISTEN={text} RELAY_ADMIN_TOKEN=t"));
    for text in ["127.0.0.1:9090", "[::1]:9090", "localhost:9090", "unix:/run/relay/admin.sock"] {
        let parsed = door(text).expect("usable");
        let admin = &parsed.config.admin;
        assert!(admin.enabled, "{text}: a door has something behind it");
        assert_eq!(admin.listen.as_ref().map(ToString::to_string).as_deref(), Some(text));
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
    }
    for text in ["9090", ":9090", "host:", "host:0", "host:70000", "unix:admin.sock", "unix:"] {
        let refused = &problems(&format!("RELAY_ADMIN_LISTEN={text}"))[0];
        assert!(refused.starts_with("RELAY_ADMIN_LISTEN"), "{refused}");
        assert!(refused.contains("unix:/run/relay/admin.sock"), "an example: {refused}");
    }
    let warnings = door("10.0.0.1:9090").expect("usable").warnings;
    assert!(warnings[0].contains("unencrypted"), "{warnings:?}");
}

#[test]
fn the_log_has_a_level_and_a_format() {
    let log = config("RELAY_LOG_LEVEL=error RELAY_LOG_FORMAT=text").log;
    assert_eq!((log.level, log.format), (Level::Error, LogFormat::Text));
    let log = config("").log;
    assert_eq!((log.level, log.format), (Level::Info, LogFormat::Json));
    assert!(problems("RELAY_LOG_LEVEL=INFO")[0].starts_with("RELAY_LOG_LEVEL"));
}

#[test]
fn missing_authorities_are_found_before_the_port_is_bound() {
    let found = problems("RELAY_SERVER_CA_CERT_PATH=/none/ca");
    assert!(found[0].contains("/none/ca not found"), "{found:?}");
}

#[test]
fn dev_within_reach_of_others_is_warned_about() {
    let warned = |pairs: &str| {
        let warnings = parse(pairs).expect("usable").warnings;
        warnings.iter().any(|line| line.starts_with("RELAY_MODE=dev on HOST="))
    };
    assert!(warned("HOST=0.0.0.0"));
    assert!(!warned("HOST=127.0.0.1"));
}

#[test]
fn deadlines_of_strangers_and_leavers_are_settings() {
    let config = config(
        "RELAY_HEAD_TIMEOUT_MS=1234 RELAY_KEEP_ALIVE_TIMEOUT_MS=2345 \
         RELAY_CLOSE_TIMEOUT_MS=3456 RELAY_TCP_KEEPALIVE_SECS=7 RELAY_TCP_USER_TIMEOUT_MS=8000",
    );
    assert_eq!(config.limits.head_timeout.as_millis(), 1234);
    assert_eq!(config.limits.keep_alive_timeout.as_millis(), 2345);
    assert_eq!(config.limits.close_timeout.as_millis(), 3456);
    assert_eq!((config.tcp.keepalive.as_secs(), config.tcp.unacknowledged.as_secs()), (7, 8));
}

#[test]
fn a_backlog_that_the_kernel_caps_is_warned_about() {
    let warnings = |cap: &str| {
        let mut world = world("");
        world.files.insert("/proc/sys/net/core/somaxconn".into(), cap.to_owned());
        Config::parse(&[], &world).expect("usable").warnings
    };
    assert_eq!(warnings("4096\n"), [""; 0]);
    assert!(warnings("128\n")[0].starts_with("net.core.somaxconn=128"));
}

#[test]
fn every_variable_of_the_table_is_read_once() {
    let given = VARIABLES.iter().map(|variable| FlagValue {
        flag: "--set".to_owned(),
        name: variable.name.to_owned(),
        value: match variable.kind {
            Kind::Count => "7".to_owned(),
            Kind::Flag => "0".to_owned(),
            Kind::Path => "/file".to_owned(),
            _ => variable.example.to_owned(),
        },
    });
    let mut flags: Vec<FlagValue> = given.collect();
    // Redis is the mode that looks at every variable of the backplane.
    flags.retain(|given| given.name != "RELAY_REDIS_URL" && given.name != "RELAY_MODE");
    let mut world = World::default();
    world.files.insert("/file".into(), String::new());
    let parsed = Config::parse(&flags, &world);
    let parsed = parsed.unwrap_or_else(|refused| panic!("{refused}"));
    for given in flags {
        let (_, source) = shown(&parsed, &given.name);
        assert_eq!(source, "flag --set", "{} is never read", given.name);
    }
    let names: HashSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(names.len(), VARIABLES.len(), "no name stands twice");
}

#[test]
fn client_certificates_are_required_where_authorities_are_named() {
    let auth = |pairs| parse(pairs).expect(pairs).config.listen.tls.client_auth;
    assert_eq!(auth(""), ClientAuth::None);
    assert_eq!(auth("RELAY_TLS_CLIENT_CA_PATH=/ca"), ClientAuth::Required);
    let both = "RELAY_TLS_CLIENT_CA_PATH=/ca RELAY_TLS_CLIENT_AUTH=optional";
    assert_eq!(auth(both), ClientAuth::Optional);
}

#[test]
fn the_document_lists_exactly_these_variables() {
    let document = include_str!("../../../docs/config.md");
    let table = table_of_variables();
    assert!(
        document.contains(&table),
        "docs/config.md is out of date; replace its table with the output of \
         `relay config variables`"
    );
}
