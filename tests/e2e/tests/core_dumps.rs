//! What a crash of the whole program would leave behind.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use relay_e2e::Relay;
use rustix::process::{geteuid, getgid};

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

/// The group of those who may look into its memory. Source: proc(5): the files of a process are
/// root's where it is not dumpable, and then nobody else may attach to it either (ptrace(2)).
fn group_of_onlookers(relay: &Relay) -> Result<u32> {
    Ok(std::fs::metadata(format!("/proc/{}/environ", relay.id()))?.gid())
}

#[test]
fn nobody_looks_into_a_relay_unless_it_is_asked_to() -> Result<()> {
    let group = if geteuid().is_root() { NOGROUP } else { getgid().as_raw() };
    let relay = Relay::serve_in_group(group, &[])?;
    assert_eq!(group_of_onlookers(&relay)?, 0);
    let relay = Relay::serve_in_group(group, &[("RELAY_CORE_DUMPS", "1")])?;
    assert_eq!(group_of_onlookers(&relay)?, group);
    Ok(())
}

/// A group that is not root's, by its number on Debian.
const NOGROUP: u32 = 65_534;
