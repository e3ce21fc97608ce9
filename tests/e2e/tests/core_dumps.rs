//! What a crash of the whole program would leave behind.

use anyhow::{Context, Result};
use relay_e2e::Relay;

/// The soft and hard limit of a core file, as the kernel shows them.
fn core_limits(relay: &Relay) -> Result<(String, String)> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", relay.id()))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let mut words = line.context("the kernel shows the limit")?.split_whitespace();
    let mut word = || Some(words.next()?.to_owned());
    word().zip(word()).context("two limits")
}

#[test]
fn a_relay_leaves_no_core_unless_it_is_asked_to() -> Result<()> {
    let relay = Relay::serve(&[])?;
    assert_eq!(core_limits(&relay)?, ("0".to_owned(), "0".to_owned()));
    let relay = Relay::serve(&[("RELAY_CORE_DUMPS", "1")])?;
    let (soft, hard) = core_limits(&relay)?;
    assert_eq!(soft, hard, "as much as there may be");
    Ok(())
}
