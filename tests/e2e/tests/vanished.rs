//! A peer that is gone without a word: its machine lost power, or the network its way.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, connect_from, get_over, upgraded_from};
use relay_platform::TokenClaims;

#[test]
fn who_vanishes_is_let_go_by_keepalive() -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return run_in_a_network_of_its_own("who_vanishes_is_let_go_by_keepalive");
    }
    set_loopback("up")?;
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    // The one way that does not lead through the network.
    let door = folder.path().join("admin.sock");
    let relay = Relay::serve(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_ADMIN_LISTEN", &format!("unix:{}", door.display())),
        ("RELAY_TCP_KEEPALIVE_SECS", "1"),
        ("RELAY_TCP_USER_TIMEOUT_MS", "1000"),
        // Neither of these finds it out before.
        ("RELAY_HEAD_TIMEOUT_MS", "600000"),
        ("RELAY_PING_INTERVAL_MS", "600000"),
    ])?;
    let counted = |name: &str| -> Result<i64> {
        let token = Some(Relay::ADMIN_TOKEN);
        let body = get_over(UnixStream::connect(&door)?, "/metrics", token)?.body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    };
    let mut stranger = connect_from(Ipv4Addr::LOCALHOST, relay.port())?;
    let token = platform.token(TokenClaims::client("ws1", "rt1", "cl1"))?;
    let (status, admitted) = upgraded_from(Ipv4Addr::LOCALHOST, relay.port(), token.expose())?;
    assert_eq!(status, 101);
    until(|| Ok(counted("relay_ws_connections_opened_total")? == 1))?;
    set_loopback("down")?;
    until(|| Ok(counted("relay_ws_connections_closed_total")? == 1))?;
    // The stranger is in no counter, and its keepalive may come later.
    until(|| Ok(established(relay.port())? == 0))?;
    set_loopback("up")?;
    stranger.write_all(b"G")?;
    let end = stranger.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "nobody knows the stranger any more");
    drop(admitted);
    Ok(())
}

/// Runs one test of this file once more, where it alone has to do with the network. Needs root, or
/// a kernel that lets anybody make namespaces.
fn run_in_a_network_of_its_own(test: &str) -> Result<()> {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--"]).arg(std::env::current_exe()?).args([test, "--exact"]);
    let output = unshare.env(INSIDE, "1").output().context("unshare is part of util-linux")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("1 passed"), "{said}");
    Ok(())
}

/// Plugs the cable in, or pulls it.
fn set_loopback(state: &str) -> Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", state]).status();
    ensure!(status.context("ip is part of iproute2")?.success(), "loopback cannot be set {state}");
    Ok(())
}

/// Connections that the kernel holds at this port of this network. Source: proc(5),
/// `/proc/net/tcp`.
fn established(port: u16) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let local_end = format!(":{port:04X}");
    let is_one = |row: &&str| {
        let mut fields = row.split_whitespace().skip(1);
        let is_here = fields.next().is_some_and(|local| local.ends_with(&local_end));
        is_here && fields.nth(1) == Some("01")
    };
    Ok(table.lines().skip(1).filter(is_one).count())
}

/// Looks again until it is so.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "it is not so after {PATIENCE:?}");
        thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// Set where the test is in its own network already.
const INSIDE: &str = "IN_A_NETWORK_OF_ITS_OWN";

/// Several times what keepalive is told to take.
const PATIENCE: Duration = Duration::from_secs(60);
