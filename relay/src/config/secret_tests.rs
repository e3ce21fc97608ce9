//! Secrets: where they come from, what is said about weak ones, and that none is shown.

use super::tests::{KEY, PROD, config, parse, problems, shown, world};
use super::*;

#[test]
fn secrets_come_from_files_too_and_are_never_shown() {
    let mut world = world("RELAY_ADMIN_TOKEN_FILE=/run/token RELAY_ENABLE_ADMIN_HTTP=1");
    world.files.insert("/run/token".into(), " s3cret\n".to_owned());
    let parsed = Config::parse(&[], &world).expect("usable");
    let token = parsed.config.admin.token.as_ref().expect("read");
    assert_eq!(token.expose(), "s3cret");
    let all = format!("{parsed:?}");
    assert!(!all.contains("s3cret"));
    assert!(shown(&parsed, "RELAY_ADMIN_TOKEN").1.contains("/run/token"));
    world.files.clear();
    let refused = Config::parse(&[], &world).expect_err("unreadable");
    assert!(refused.to_string().contains("RELAY_ADMIN_TOKEN_FILE"));
}

#[test]
fn a_secret_file_that_is_empty_is_a_mistake_and_one_that_is_open_a_warning() {
    let mut world = world("RELAY_ADMIN_TOKEN_FILE=/run/token");
    world.files.insert("/run/token".into(), " \n".to_owned());
    let refused = Config::parse(&[], &world).expect_err("empty");
    assert!(refused.to_string().contains("/run/token is empty"), "{refused}");
    world.files.insert("/run/token".into(), "s3cret".to_owned());
    assert!(Config::parse(&[], &world).expect("usable").warnings.is_empty());
    world.open_files = true;
    let warnings = Config::parse(&[], &world).expect("usable").warnings;
    assert!(warnings[0].contains("chmod 600 /run/token"), "{warnings:?}");
}

#[test]
fn a_private_key_that_is_open_is_a_warning() {
    let mut world = world("RELAY_TLS=1 RELAY_TLS_CERT_PATH=/c RELAY_TLS_KEY_PATH=/k");
    for path in ["/c", "/k"] {
        world.files.insert(path.into(), String::new());
    }
    assert!(Config::parse(&[], &world).expect("usable").warnings.is_empty());
    world.open_files = true;
    let warnings = Config::parse(&[], &world).expect("usable").warnings;
    assert!(warnings[0].contains("private key /k"), "{warnings:?}");
    assert!(!warnings.iter().any(|line| line.contains("/c;")), "certificates are public");
}

#[test]
fn the_secret_before_stands_beside_the_current_one_only() {
    for name in ["RELAY_INTERNAL_KEY", "RELAY_ADMIN_TOKEN", "RELAY_BUS_HMAC_KEY"] {
        let found = problems(&format!("{name}_PREVIOUS=old SERVER_URL=https://a.corp"));
        assert!(found[0].starts_with(name) && found[0].contains("_PREVIOUS"), "{found:?}");
        let pairs = format!("{name}=k {name}_PREVIOUS=k SERVER_URL=https://a.corp");
        let warnings = parse(&pairs).expect("usable").warnings;
        assert!(warnings.iter().any(|line| line.contains("nothing is rotated")), "{warnings:?}");
    }
    let mut world = world("RELAY_INTERNAL_KEY=new SERVER_URL=https://a.corp");
    world.variables.insert("RELAY_INTERNAL_KEY_PREVIOUS_FILE".into(), "/run/old".into());
    world.files.insert("/run/old".into(), "old\n".to_owned());
    let platform = Config::parse(&[], &world).expect("usable").config.platform;
    assert_eq!(platform.previous_key.expect("read").expose(), "old");
}

#[test]
fn a_weak_admin_token_is_warned_about_in_prod() {
    let warned = |token: &str| {
        let pairs = format!("{PROD} {KEY} RELAY_ENABLE_ADMIN_HTTP=1 RELAY_ADMIN_TOKEN={token}");
        let warnings = parse(&pairs).expect("usable").warnings;
        warnings.iter().any(|line| line.starts_with("RELAY_ADMIN_TOKEN: shorter"))
    };
    assert!(warned("admin"));
    assert!(!warned("ZmFrZS1oaWdoLWVudHJvcHktMDEyMzQ1Njc4OQ"));
}

#[test]
fn a_password_in_a_url_is_never_shown() {
    let pairs = format!(
        "{KEY} SERVER_URL=https://a.corp RELAY_BUS_HMAC_KEY=k \
         RELAY_BACKPLANE_URL=redis://user:hunter2@redis.corp"
    );
    let parsed = parse(&pairs).expect("usable");
    assert_eq!(shown(&parsed, "RELAY_BACKPLANE_URL").0, "[set]");
    assert!(!format!("{:?}", parsed.effective).contains("hunter2"));
}

#[test]
fn the_platform_is_shown_without_user_password_and_query() {
    let parsed = parse("SERVER_URL=https://user:hunter2@a.corp/?key=hunter3").expect("usable");
    assert_eq!(parsed.config.platform.server_url, "https://a.corp/");
    assert!(parsed.warnings.iter().any(|line| line.starts_with("SERVER_URL: user and password")));
    let shown = format!("{:?} {:?}", parsed.effective, parsed.warnings);
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(config("SERVER_URL=https://a.corp").platform.server_url, "https://a.corp");
}

#[test]
fn a_secret_on_the_command_line_beats_a_file() {
    let flags = [FlagValue::set("RELAY_ADMIN_TOKEN", "given")];
    let world = world("RELAY_ADMIN_TOKEN_FILE=/run/token");
    let parsed = Config::parse(&flags, &world).expect("usable");
    assert!(parsed.warnings[0].contains("RELAY_ADMIN_TOKEN_FILE=/path"), "{:?}", parsed.warnings);
    assert_eq!(parsed.config.admin.token.expect("given").expose(), "given");
}

#[test]
fn our_key_goes_to_no_host_the_operator_did_not_name() {
    assert!(problems(KEY)[0].contains("not sent to a default host"));
    let named =
        format!("{KEY} RELAY_VALIDATE_URL=https://v.corp/check?x=1 SERVER_URL=https://a.corp");
    let config = config(&named);
    assert_eq!(config.platform.validate.as_str(), "https://v.corp/check?x=1");
    assert_eq!(config.platform.server_url, "https://a.corp");
}
