//! `relay doctor`, as an operator meets it.

use anyhow::{Context, Result};
use relay_e2e::{Platform, Relay, run};
use serde_json::Value;

const SECRET: &str = "0f9e8d7c6b5a49382716051423324150";

/// What a check says in `--json`.
fn finding<'a>(report: &'a Value, check: &str) -> Result<&'a Value> {
    let findings = report["findings"].as_array().context("a list")?;
    let mut found = findings.iter().filter(|finding| finding["check"] == check);
    found.next().with_context(|| format!("{check} is not in {report}"))
}

#[test]
fn a_relay_that_serves_well_is_found_well_and_undisturbed() -> Result<()> {
    let platform = Platform::start()?;
    let validate = format!("{}/api/runtime/internal/relay/validate", platform.url());
    let jwks = format!("{}/.well-known/jwks.json", platform.url());
    let variables = [("RELAY_VALIDATE_URL", validate.as_str()), ("RELAY_JWKS_URL", &jwks)];
    let relay = Relay::serve(&variables)?;
    let port = relay.port().to_string();
    let variables = [&variables[..], &[("HOST", "127.0.0.1"), ("PORT", &port)]].concat();
    let output = run(&["doctor"], &variables)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    for (check, words) in [("port", "held by a relay"), ("platform", "refuses a bad token")] {
        let line = text.lines().find(|line| line[6..].starts_with(check)).context("a line")?;
        assert!(line.starts_with("ok ") && line.contains(words), "{line}");
    }
    let line = text.lines().find(|line| line.contains("key set")).context("a line")?;
    assert!(line.starts_with("ok ") && line.ends_with("1 can be used"), "{line}");
    assert!(relay.stop()?.success());
    Ok(())
}

#[test]
fn what_fails_is_told_to_programs_too_and_no_secret_with_it() -> Result<()> {
    let gone = Platform::start()?.url();
    let variables = [
        ("HOST", "127.0.0.1"),
        ("RELAY_VALIDATE_URL", gone.as_str()),
        ("RELAY_INTERNAL_KEY", SECRET),
        ("RELAY_ADMIN_TOKEN", "hush"),
        ("RELAY_ENABLE_ADMIN_HTTP", "1"),
    ];
    let output = run(&["doctor", "--json", "--set", "RELAY_LISTEN_PORT=7793"], &variables)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    assert!(!text.contains(SECRET) && !text.contains("hush"), "{text}");
    let report: Value = serde_json::from_str(&text)?;
    assert_eq!(report["ok"], false);
    let platform = finding(&report, "platform")?;
    assert_eq!(platform["verdict"], "fail", "{platform}");
    assert!(platform["change"].as_str().is_some_and(|text| text.contains("RELAY_VALIDATE_URL")));
    assert_eq!(finding(&report, "admin token")?["verdict"], "warn");
    assert_eq!(finding(&report, "internal key")?["verdict"], "ok");
    Ok(())
}

#[test]
fn every_mistake_in_the_configuration_is_a_line_of_its_own() -> Result<()> {
    let variables = [("RELAY_MODE", "prod"), ("HOST", "0.0.0.0"), ("RELAY_TLS", "0")];
    let output = run(&["doctor"], &variables)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    let mistakes = text.lines().filter(|line| line.starts_with("fail  configuration  "));
    assert!(mistakes.count() >= 3, "{text}");
    assert!(text.contains("kernel"), "the machine is examined all the same: {text}");
    Ok(())
}
