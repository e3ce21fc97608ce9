//! The rival on Node: its files, installed beside this program.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// How Node is started with the rival, which is installed first unless it is there already.
pub(super) fn command(arguments: &[&str]) -> Result<Command> {
    let folder = std::env::current_exe()?.with_file_name("rival-node");
    install(&folder)?;
    // The rival's environment is the relay's, without a path: Node is found here.
    let node = Command::new("node").args(["-p", "process.execPath"]).output();
    let node = node.context("node is missing: install Node 20 or newer, or leave node out")?;
    ensure!(node.status.success(), "node does not run: {}", String::from_utf8_lossy(&node.stderr));
    let mut command = Command::new(String::from_utf8(node.stdout)?.trim());
    command.arg(folder.join("relay.js")).args(arguments);
    Ok(command)
}

/// Writes the rival's files and lets npm fetch exactly what its lock names.
fn install(folder: &Path) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let is_installed = fs::read_to_string(&lock).is_ok_and(|text| text == LOCK)
        && folder.join("node_modules").is_dir();
    fs::create_dir_all(folder)?;
    fs::write(folder.join("relay.js"), include_str!("../../../rivals/node/relay.js"))?;
    if is_installed {
        return Ok(());
    }
    fs::write(folder.join("package.json"), include_str!("../../../rivals/node/package.json"))?;
    fs::write(&lock, LOCK)?;
    println!("node: npm ci");
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()
        .context("npm is missing: install it with Node, or leave node out")?;
    ensure!(status.success(), "npm ci failed; its own words stand above");
    Ok(())
}

const LOCK: &str = include_str!("../../../rivals/node/package-lock.json");
