//! The program as a newcomer and an operator meet it.

use anyhow::Result;
use relay_e2e::{Platform, Relay, get, run};

#[test]
fn version_is_printed_before_anything_is_read() -> Result<()> {
    let output = run(&["--version"], &[("RELAY_MODE", "nonsense")])?;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout)?.starts_with("0.1.0"));
    Ok(())
}

#[test]
fn a_mistake_names_the_variable_and_a_good_value() -> Result<()> {
    let output = run(&["serve"], &[("RELAY_BACKPLANE_MODE", "nats")])?;
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr)?;
    assert!(message.contains("RELAY_BACKPLANE_MODE"), "{message}");
    assert!(message.contains("redis"), "{message}");
    Ok(())
}

#[test]
fn config_check_masks_secrets() -> Result<()> {
    let key = "a-very-secret-internal-key";
    let output = run(&["config", "check"], &[("RELAY_INTERNAL_KEY", key)])?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    assert!(text.contains("RELAY_INTERNAL_KEY"), "{text}");
    assert!(!text.contains(key), "{text}");
    Ok(())
}

#[test]
fn the_demo_delivers_every_message() -> Result<()> {
    let output = run(&["demo", "--once"], &[])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("e2ee"), "what the relay saw is shown: {text}");
    Ok(())
}

#[test]
fn a_relay_says_which_driver_it_runs_on() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve(&[("SERVER_URL", &platform.url())])?;
    let node = get(relay.port(), "/node", Some(Relay::ADMIN_TOKEN))?;
    assert_eq!(node.status, 200);
    let node: serde_json::Value = serde_json::from_str(&node.body)?;
    if let Ok(driver) = std::env::var("RELAY_DRIVER") {
        assert_eq!(node["driver"], driver.as_str());
    }
    Ok(())
}

#[test]
fn health_and_readiness_need_no_token_and_the_rest_does() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve(&[("SERVER_URL", &platform.url())])?;
    for (target, bearer, status) in [
        ("/health", None, 200),
        ("/ready", None, 200),
        ("/state", None, 401),
        ("/metrics", Some("wrong"), 401),
        ("/metrics", Some(Relay::ADMIN_TOKEN), 200),
        ("/nothing", None, 404),
    ] {
        assert_eq!(get(relay.port(), target, bearer)?.status, status, "{target}");
    }
    Ok(())
}

#[test]
fn sigterm_ends_it_with_success() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve(&[("SERVER_URL", &platform.url())])?;
    assert!(relay.stop()?.success());
    Ok(())
}
