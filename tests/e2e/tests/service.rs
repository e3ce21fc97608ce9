//! The program in the hands of whoever started it: a service manager, or a container.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, get};
use rustix::process::{Signal, geteuid};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn heard(&self) -> Result<String> {
        self.0.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = [0; 256];
        let len = self.0.recv(&mut bytes).context("nothing was said")?;
        Ok(String::from_utf8(bytes[..len].to_vec())?)
    }

    /// Skips signs of life.
    fn news(&self) -> Result<String> {
        loop {
            let said = self.heard()?;
            if said != "WATCHDOG=1" {
                return Ok(said);
            }
        }
    }
}

#[test]
fn a_service_manager_hears_what_the_relay_is_about() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path)?);
    // Two processes are two services, each with a manager's socket of its own.
    let relay = Relay::serve_as_one(&[
        ("SERVER_URL", &platform.url()),
        ("NOTIFY_SOCKET", path.to_str().context("a text")?),
        ("WATCHDOG_USEC", "200000"),
    ])?;
    ensure!(manager.news()?.starts_with("READY=1"));
    assert_eq!(manager.heard()?, "WATCHDOG=1");
    relay.signal(Signal::HUP)?;
    ensure!(manager.news()?.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    ensure!(manager.news()?.starts_with("READY=1"));
    assert_eq!(get(relay.port(), "/health", None)?.status, 200);
    relay.signal(Signal::TERM)?;
    ensure!(manager.news()?.starts_with("STOPPING=1"));
    assert!(relay.ended()?.success());
    Ok(())
}

/// Waits until what is asked for is so.
fn until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !reached()? {
        ensure!(Instant::now() < end, "not reached: {what}");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn the_first_process_of_a_container_ends_on_sigterm_and_buries_orphans() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve_as_first_process(&[("SERVER_URL", &platform.url())])?;
    // Somebody runs a shell in the container that leaves a child behind, which waits for a line.
    let mut shell = Command::new("nsenter");
    shell.args(["--target", &relay.relay_id()?.to_string(), "--pid"]);
    if !geteuid().is_root() {
        shell.args(["--user", "--preserve-credentials"]);
    }
    shell.args(["sh", "-c", "{ read line; } <&3 & exit 0"]);
    let mut wrapper = Command::new("sh");
    wrapper.args(["-c", "exec \"$@\" 3<&0", "sh"]).arg(shell.get_program()).args(shell.get_args());
    let mut left = wrapper.stdin(Stdio::piped()).spawn()?;
    let mut line = left.stdin.take().context("it is piped")?;
    assert!(left.wait()?.success());
    until("an orphan", || Ok(relay.children()?.len() == 1))?;
    line.write_all(b"go\n")?;
    until("no orphan", || Ok(relay.children()?.is_empty()))?;
    relay.signal(Signal::TERM)?;
    assert!(relay.ended()?.success());
    Ok(())
}
