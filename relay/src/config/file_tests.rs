//! What a configuration file says, and what is said of a bad one.

use super::super::field::template;
use super::super::tests::{World, shown, world};
use super::super::{Config, FlagValue, Parsed, Refused};
use super::*;

const PATH: &str = "/etc/relay/relay.toml";

fn with_file(pairs: &str, text: &str) -> World {
    let mut world = world(&format!("RELAY_CONFIG={PATH} {pairs}"));
    world.files.insert(PATH.into(), text.to_owned());
    world
}

fn parse(pairs: &str, text: &str) -> Result<Parsed, Refused> {
    Config::parse(&[], &with_file(pairs, text))
}

fn usable(text: &str) -> Parsed {
    parse("", text).unwrap_or_else(|refused| panic!("{refused}"))
}

fn problems(text: &str) -> Vec<String> {
    let refused = parse("", text).err().map_or(Vec::new(), |refused| refused.0);
    refused.iter().map(ToString::to_string).collect()
}

#[test]
fn fields_stand_for_their_variables() {
    let parsed = usable(
        r#"
        [listen]
        host = "127.0.0.1"
        port = 9000
        [tls]
        tls = false
        [admin]
        enable_admin_http = true
        token = "a-token"
        [log]
        level = "warn"
        [limits]
        max_frame_bytes = 65_536
        runtime_rate_per_minute = 0x100
        [proxies]
        trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
        [engine]
        memory_budget = "512MiB"
        "#,
    );
    let config = &parsed.config;
    assert_eq!(config.listen.port, 9000);
    assert!(config.admin.enabled && config.admin.token.is_some());
    assert_eq!(config.limits.frame_bytes_max, 65_536);
    assert_eq!(config.limits.runtime_per_minute, 256);
    assert_eq!(config.memory.budget_bytes, 512 << 20);
    let (value, source) = shown(&parsed, "RELAY_TRUSTED_PROXIES");
    assert_eq!((&*value, &*source), ("10.0.0.0/8,192.0.2.1", "/etc/relay/relay.toml:16"));
    assert_eq!(shown(&parsed, "RELAY_ADMIN_TOKEN").0, "[set]");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let text = "[listen]\nport = 1001\n[limits]\nmax_frame_bytes = 2001\nmax_pending_bytes = 3001";
    let world = with_file("PORT=1002 RELAY_MAX_FRAME_BYTES=2002", text);
    let flags = [FlagValue::set("RELAY_LISTEN_PORT", "1003")];
    let parsed = Config::parse(&flags, &world).expect("usable");
    assert_eq!(parsed.config.listen.port, 1003);
    assert_eq!(parsed.config.limits.frame_bytes_max, 2002);
    assert_eq!(parsed.config.limits.egress_bytes_max, 3001);
    let parsed = parse("PORT=1002", text).expect("usable");
    assert_eq!(parsed.config.listen.port, 1002, "under its other name too");
}

#[test]
fn the_file_may_be_named_by_a_flag() {
    let mut world = world("RELAY_CONFIG=/nowhere");
    world.files.insert(PATH.into(), "[listen]\nport = 1001".to_owned());
    let flag = FlagValue {
        flag: "--config".to_owned(),
        name: "RELAY_CONFIG".to_owned(),
        value: PATH.to_owned(),
    };
    assert_eq!(Config::parse(&[flag], &world).expect("usable").config.listen.port, 1001);
}

#[test]
fn a_mistake_names_file_line_and_field_with_an_example() {
    for (text, expected) in [
        (
            "[limits]\n\nmax_frame_bytes = \"large\"",
            "relay.toml:3: limits.max_frame_bytes: expected a whole number above zero; \
             example: max_frame_bytes = 1048576",
        ),
        (
            "[limits]\nmax_frame_bytes = 0",
            "relay.toml:2: limits.max_frame_bytes: expected a whole number above zero; \
             example: max_frame_bytes = 1048576",
        ),
        (
            "[admin]\nenable_admin_http = 1",
            "relay.toml:2: admin.enable_admin_http: expected true or false; \
             example: enable_admin_http = true",
        ),
        (
            "[engine]\ndriver = \"kqueue\"",
            "relay.toml:2: engine.driver: expected one of auto, uring, epoll, monoio; \
             example: driver = \"epoll\"",
        ),
        (
            "[proxies]\ntrusted_proxies = [\"10.0.0.0/8\", 7]",
            "relay.toml:2: proxies.trusted_proxies: expected texts without commas in brackets; \
             example: trusted_proxies = [\"10.0.0.0/8\", \"192.168.1.7\"]",
        ),
        (
            "[platform]\ninternal_key = 7",
            "relay.toml:2: platform.internal_key: expected a text in quotes; \
             example: internal_key_file = \"/run/secrets/internal_key\"",
        ),
        ("limits = 7", "relay.toml:1: limits: limits is a table, [limits]; example: [limits]"),
    ] {
        assert_eq!(problems(text), [format!("/etc/relay/{expected}")], "{text}");
    }
}

#[test]
fn what_only_the_reader_of_the_value_can_refuse_is_placed_too() {
    let seen = problems("[platform]\nserver_url = \"api.corp\"");
    let expected = "/etc/relay/relay.toml:2: platform.server_url: not an absolute URL \
                    (http://, https://); example: server_url = \"https://api.corp\"";
    assert_eq!(seen, [expected]);
}

#[test]
fn rules_that_values_break_together_name_the_place_of_the_value() {
    let seen = problems("[admission]\nadmission = \"validate\"\n[admin]\ntoken_previous = \"x\"");
    assert!(seen[0].contains("RELAY_ADMIN_TOKEN_PREVIOUS"), "{seen:?}");
    let seen = problems("[tls]\ntls = \"1\"");
    assert!(seen[0].starts_with("/etc/relay/relay.toml:2: tls.tls: "), "{seen:?}");
}

#[test]
fn unknown_fields_are_refused_with_the_nearest_name() {
    for (text, expected) in [
        ("[limits]\nmax_frames_bytes = 7", "did you mean limits.max_frame_bytes?"),
        ("[limits]\nserver_url = \"x\"", "did you mean platform.server_url?"),
        ("[limits]\nRELAY_MAX_FRAME_BYTES = 7", "did you mean limits.max_frame_bytes?"),
        ("[limit]\nmax_frame_bytes = 7", "did you mean [limits]?"),
        ("[colours]\nred = 7", "no such field; docs/config.md lists them"),
        ("[tenants.\"a\"]\nruntime_rate_per_minutes = 7", "did you mean tenants"),
    ] {
        let seen = problems(text);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].contains(expected), "{seen:?}");
    }
}

#[test]
fn every_mistake_is_found_at_once_and_text_that_is_no_toml_alone() {
    let seen = problems("[limits]\na_b_c_d = 1\nmax_frame_bytes = true\n[listen]\nport = \"x\"");
    assert_eq!(seen.len(), 3, "{seen:?}");
    let seen = problems("[limits]\nmax_frame_bytes = \n[listen\n");
    assert!(seen[0].starts_with("/etc/relay/relay.toml:2: not TOML: "), "{seen:?}");
    assert!(!seen.iter().any(|problem| problem.contains("no such field")), "{seen:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let refused = Config::parse(&[], &world("RELAY_CONFIG=/nowhere")).expect_err("no such file");
    assert!(refused.to_string().contains("RELAY_CONFIG: cannot read /nowhere"), "{refused}");
}

#[test]
fn secrets_may_stand_in_the_file_or_in_files_it_names_and_are_never_shown() {
    let mut world = with_file("", "[admin]\ntoken_file = \"/secret\"");
    world.files.insert("/secret".into(), "hush-hush\n".to_owned());
    let parsed = Config::parse(&[], &world).expect("usable");
    assert_eq!(parsed.config.admin.token.expect("read").expose(), "hush-hush");
    let both = problems("[admin]\ntoken = \"hush\"\ntoken_file = \"/secret\"");
    assert!(both[0].contains("admin.token_file: both token and token_file are set"), "{both:?}");
    for text in [
        "[admin]\ntoken = [\"hush\"]",
        "[admin]\ntokn = \"hush\"",
        "[platform]\nserver_url = \"https://u:hush@corp:x\"",
        "[admin]\ntoken = \"hush\nhush\"",
    ] {
        let seen = problems(text);
        assert!(!seen.is_empty() && !seen.concat().contains("hush"), "{seen:?}");
    }
    let mut open = with_file("", "[admin]\ntoken = \"hush\"");
    open.open_files = true;
    let warnings = Config::parse(&[], &open).expect("usable").warnings;
    let warned = warnings.iter().any(|warning| warning.contains("admin.token included"));
    assert!(warned && !warnings.concat().contains("hush"), "{warnings:?}");
}

#[test]
fn a_secret_of_the_environment_wins_over_the_file_s() {
    let mut world = with_file("RELAY_ADMIN_TOKEN_FILE=/secret", "[admin]\ntoken = \"lower\"");
    world.files.insert("/secret".into(), "higher".to_owned());
    let parsed = Config::parse(&[], &world).expect("usable");
    assert_eq!(parsed.config.admin.token.expect("read").expose(), "higher");
    let mut world = with_file("RELAY_ADMIN_TOKEN=higher", "[admin]\ntoken_file = \"/secret\"");
    world.files.insert("/secret".into(), "lower".to_owned());
    let parsed = Config::parse(&[], &world).expect("usable");
    assert_eq!(parsed.config.admin.token.expect("read").expose(), "higher");
}

#[test]
fn workspaces_may_have_limits_of_their_own() {
    let routes = usable(
        "[tenants.\"ws1\"]\nruntime_rate_per_minute = 600\nmax_pending_bytes = 9000\n\
         [tenants.ws2]\ndaemon_runtime_rate_per_minute = 5\n",
    )
    .config
    .routes;
    let own = routes.tenants[&"ws1".into()];
    assert_eq!((own.runtime_per_minute, own.egress_bytes_max), (Some(600), Some(9000)));
    assert_eq!(routes.tenants[&"ws2".into()].daemon_per_minute, Some(5));
    for (text, expected) in [
        ("[tenants.ws1]\nruntime_rate_per_minute = -1", "tenants.\"ws1\".runtime_rate_per_minute"),
        ("[tenants]\nws1 = 7", "expected a table for the workspace"),
        ("[tenants.\"\"]\n", "1 to 128 characters"),
    ] {
        let seen = problems(text);
        assert!(seen.len() == 1 && seen[0].contains(expected), "{seen:?}");
    }
}

#[test]
fn targets_at_other_relays_count_where_clients_may_be_redirected() {
    let text = "[targets.ws1]\nrt1 = \"wss://relay-eu.corp/ws\"";
    let alone = usable(text);
    assert!(alone.config.routes.targets.is_empty());
    assert!(alone.warnings.iter().any(|warning| warning.contains("[targets]")));
    let pairs = "RELAY_BACKPLANE_MODE=server RELAY_CLIENT_REDIRECT_ENABLED=1 \
        SERVER_URL=https://api.corp RELAY_PUBLIC_WS_BASE_URL=wss://a.corp/ws RELAY_MODE=dev \
        RELAY_INTERNAL_KEY=ZmFrZS1oaWdoLWVudHJvcHktMDEyMzQ1Njc4OQ";
    let routes = parse(pairs, text).expect("usable").config.routes;
    let url = routes.elsewhere(&"ws1".into(), &"rt1".into());
    assert_eq!(url, Some("wss://relay-eu.corp/ws"));
    for (more, url) in [
        ("", "https://relay-eu.corp/ws"),
        ("", "wss://user@relay-eu.corp/ws"),
        ("", "wss://relay-eu.corp/ws?a=b"),
        ("RELAY_REDIRECT_ALLOWED_HOSTS=other.corp", "wss://relay-eu.corp/ws"),
    ] {
        let text = format!("[targets.ws1]\nrt1 = \"{url}\"");
        let refused = parse(&format!("{pairs} {more}"), &text).expect_err(url).to_string();
        assert!(refused.contains("relay.toml:2: targets.\"ws1\".\"rt1\": "), "{refused}");
    }
}

#[test]
fn the_example_for_operators_is_usable() {
    let mut world = with_file("", include_str!("../../../deploy/relay.toml"));
    let key = "ZmFrZS1oaWdoLWVudHJvcHktMDEyMzQ1Njc4OQ".to_owned();
    world.files.insert("/run/secrets/internal-key".into(), key);
    let parsed = Config::parse(&[], &world).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(parsed.config.routes.tenants.len(), 1);
    assert!(parsed.config.platform.key.is_some());
}

#[test]
fn the_template_shows_every_field_with_a_value_that_is_accepted() {
    let template = template();
    let is_field = |line: &&str| line.starts_with("#") && line.contains(" = ");
    assert_eq!(template.lines().filter(is_field).count(), Field::all().len());
    let uncommented: Vec<_> = template
        .lines()
        .map(|line| line.strip_prefix('#').filter(|line| line.contains(" = ")).unwrap_or(line))
        .collect();
    let mut world = with_file("", &uncommented.join("\n"));
    let secret = "a-secret-that-is-long-enough";
    for field in Field::all() {
        world.files.insert(format!("/run/secrets/{}", field.key).into(), secret.to_owned());
    }
    let file = ConfigFile::read(PATH, &world);
    assert!(file.problems.is_empty(), "{:?}", file.problems);
    let given = file.values.len() + file.secret_files.len();
    assert_eq!(given, Field::all().len());
}
