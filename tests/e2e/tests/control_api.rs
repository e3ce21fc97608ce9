//! The control API of the real program: `relay ctl`, and a client in another language.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, PythonClient, Relay, run, upgrade_from};
use relay_platform::TokenClaims;
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

struct Stage {
    platform: Platform,
    relay: Relay,
    dir: tempfile::TempDir,
    address: String,
}

impl Stage {
    fn set() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = format!("unix:{}", dir.path().join("control.sock").display());
        let audit = dir.path().join("audit.log");
        let platform = Platform::start()?;
        let relay = Relay::serve(&[
            ("SERVER_URL", &platform.url()),
            ("RELAY_SHARDS", "2"),
            ("RELAY_CONTROL_API_LISTEN", &address),
            ("RELAY_AUDIT_LOG", audit.to_str().context("a path in UTF-8")?),
        ])?;
        Ok(Self { platform, relay, dir, address })
    }

    fn open(&self, role: &str, workspace: &str, claims: TokenClaims) -> Result<Peer> {
        let query = format!("role={role}&workspaceId={workspace}&runtimeTargetId=rt1");
        let mut request = format!("{}?{query}", self.relay.url()).into_client_request()?;
        let token = self.platform.token(claims)?;
        let bearer = format!("Bearer {}", token.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    }

    /// A daemon and its client in each of these workspaces.
    fn pairs(&self, workspaces: &[&str]) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for workspace in workspaces {
            let daemon = TokenClaims::daemon(workspace, "rt1");
            peers.push(self.open("workspace-daemon", workspace, daemon)?);
            let client = TokenClaims::client(workspace, "rt1", "cl1");
            peers.push(self.open("client", workspace, client)?);
        }
        Ok(peers)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<Output> {
        let mut all = vec!["ctl", "--address", &self.address];
        all.extend(arguments);
        run(&all, &[])
    }

    /// What it prints when it does what it is told.
    fn done(&self, arguments: &[&str]) -> Result<String> {
        text(self.ctl(arguments)?).with_context(|| format!("relay ctl {arguments:?}"))
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.done(&[arguments, &["--json"]].concat())?)?)
    }

    fn audited(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.log"))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// What the process does that is asked, in the shape under test.
fn role() -> &'static str {
    match std::env::var("RELAY_SHAPE").as_deref() {
        Ok("two") => "PROCESS_ROLE_CONTROL_PLANE",
        _ => "PROCESS_ROLE_ALL",
    }
}

fn text(output: Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn an_operator_sees_who_is_there() -> Result<()> {
    let stage = Stage::set()?;
    let _peers = stage.pairs(&["ws1", "ws2"])?;
    let info = stage.json(&["info"])?;
    assert_eq!(info["role"], role());
    let planes = info["dataPlanes"].as_array().context("data planes")?;
    assert_eq!(planes.len(), 1);
    assert_eq!(planes[0]["shardIds"].as_array().map(Vec::len), Some(2));
    let state = stage.json(&["state"])?;
    assert_eq!(state["state"]["admittedConnections"], 4);
    assert_eq!(state["shards"].as_array().map(Vec::len), Some(2));
    let scopes = stage.done(&["scopes"])?;
    let lines: Vec<Vec<&str>> =
        scopes.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["WORKSPACE", "TARGET", "DAEMONS", "CLIENTS", "WORKERS", "SHARDS"]);
    assert_eq!(lines[1][..5], ["ws1", "rt1", "1", "1", "0"]);
    assert_eq!(lines.len(), 3);
    let histograms = stage.done(&["histograms", "--name", "relay_admission_duration_seconds"])?;
    assert!(histograms.contains("{outcome=\"admitted\"}"), "{histograms}");
    let titles = histograms.lines().next().unwrap_or_default();
    assert!(["P50", "P99", "P99.9"].iter().all(|title| titles.contains(title)), "{titles}");
    let log = stage.done(&["histograms", "--hdr"])?;
    assert_eq!(log.matches("#[Histogram log format version 1.3]").count(), 1);
    for shard in planes[0]["shardIds"].as_array().context("shards")? {
        assert!(log.contains(&format!("/shard={shard},")), "{log}");
    }
    Ok(())
}

#[test]
fn exit_codes_say_what_went_wrong_and_messages_what_to_do() -> Result<()> {
    let stage = Stage::set()?;
    assert_eq!(stage.done(&["ready"])?, "yes\n");
    let nobody = run(&["ctl", "--address", "unix:/nonexistent/control.sock", "info"], &[])?;
    assert_eq!(nobody.status.code(), Some(3));
    let said = String::from_utf8(nobody.stderr)?;
    assert!(said.contains("RELAY_CONTROL_API_LISTEN"), "{said}");
    assert_eq!(stage.ctl(&["histograms", "--name", "nothing"])?.status.code(), Some(1));
    assert_eq!(stage.ctl(&["nonsense"])?.status.code(), Some(2));
    stage.done(&["drain"])?;
    let unready = stage.ctl(&["ready"])?;
    assert_eq!(unready.status.code(), Some(5));
    stage.done(&["resume"])?;
    assert_eq!(stage.done(&["ready"])?, "yes\n");
    Ok(())
}

#[test]
fn a_drain_empties_the_relay_and_is_written_down() -> Result<()> {
    let stage = Stage::set()?;
    let peers = stage.pairs(&["ws1", "ws2", "ws3"])?;
    // Whoever is told to go answers.
    let leaving = std::thread::spawn(move || {
        for mut peer in peers {
            while peer.read().is_ok() {}
        }
    });
    stage.done(&["drain", "--window-ms", "100", "--wait", "20"])?;
    assert_eq!(stage.json(&["state"])?["state"]["admittedConnections"], 0);
    leaving.join().expect("whoever reads does not panic");
    assert!(stage.pairs(&["ws1"]).is_err(), "nobody is admitted meanwhile");
    stage.done(&["resume"])?;
    // Shards hear of it a moment later.
    let end = Instant::now() + Duration::from_secs(5);
    while stage.pairs(&["ws1"]).is_err() {
        ensure!(Instant::now() < end, "nobody is admitted again");
    }
    let lines = stage.audited()?;
    let calls: Vec<_> = lines.iter().filter_map(|line| line["call"].as_str()).collect();
    assert_eq!(calls, ["Drain", "Resume"]);
    assert!(lines.iter().all(|line| line["outcome"] == "done"), "{lines:?}");
    assert_eq!(lines[0]["arguments"]["windowMs"], 100);
    Ok(())
}

/// Reads until the relay says farewell: with which code, and why.
fn farewell(peer: &mut Peer) -> Result<(u16, String)> {
    loop {
        if let Message::Close(Some(frame)) = peer.read()? {
            return Ok((frame.code.into(), frame.reason.to_string()));
        }
    }
}

#[test]
fn a_closed_connection_may_come_back_and_a_revoked_one_may_not() -> Result<()> {
    let stage = Stage::set()?;
    let mut peers = stage.pairs(&["ws2", "ws1"])?;
    let listed = stage.done(&["connections", "--workspace", "ws2"])?;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(stage.ctl(&["close"])?.status.code(), Some(1), "nothing is given");
    let counted = stage.done(&["close", "--client", "cl1", "--dry-run"])?;
    assert_eq!(counted, "2 connections would be closed\n");
    stage.done(&["close", "--workspace", "ws2", "--client", "cl1"])?;
    assert_eq!(farewell(&mut peers[1])?, (4008, "closed by operator".to_owned()));
    stage.open("client", "ws2", TokenClaims::client("ws2", "rt1", "cl1"))?;

    let began = Instant::now();
    stage.done(&["revoke", "--workspace", "ws1", "--seconds", "60"])?;
    for peer in &mut peers[2..] {
        assert_eq!(farewell(peer)?, (4008, "token revoked".to_owned()));
    }
    // Far less than the minute for which it is revoked, and `relay ctl` is in it.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let revoked = stage.json(&["revocations"])?;
    assert_eq!(revoked["workspaceId"], "ws1");
    let token = stage.platform.token(TokenClaims::client("ws1", "rt1", "cl1"))?;
    let status = upgrade_from(Ipv4Addr::LOCALHOST, stage.relay.port(), token.expose())?;
    assert_eq!(status, 401);
    Ok(())
}

#[test]
fn limits_change_at_noon_and_the_configuration_comes_back_with_a_reload() -> Result<()> {
    let stage = Stage::set()?;
    let mut peers = stage.pairs(&["ws1"])?;
    let before = stage.json(&["limits"])?["limits"]["pairingPerMinute"].clone();
    stage.done(&["set-limits", "pairing_per_minute=7", "connections_max=2"])?;
    assert_eq!(stage.json(&["limits"])?["limits"]["pairingPerMinute"], 7);
    assert!(stage.pairs(&["ws2"]).is_err(), "two are there");
    assert_eq!(stage.ctl(&["set-limits", "nonsense=7"])?.status.code(), Some(2));
    let stale = stage.ctl(&["set-limits", "pairing_per_minute=8", "--expected-version", "1"])?;
    assert_eq!(stale.status.code(), Some(1));
    let reloaded = stage.done(&["reload"])?;
    assert!(reloaded.starts_with("done; version "), "{reloaded}");
    assert_eq!(stage.json(&["limits"])?["limits"]["pairingPerMinute"], before);
    let _others = stage.pairs(&["ws2"])?;
    for peer in &mut peers {
        peer.send(Message::Ping(Vec::new().into()))?;
        while !peer.read()?.is_pong() {}
    }
    Ok(())
}

#[test]
fn a_workspace_moves_with_everybody_who_is_connected() -> Result<()> {
    let stage = Stage::set()?;
    let mut peers = stage.pairs(&["ws1"])?;
    let scope = stage.json(&["scopes"])?;
    let planes = stage.json(&["info"])?["dataPlanes"][0]["shardIds"].clone();
    let home = scope["shardIds"][0].as_u64().context("a home")?;
    let shards = planes.as_array().context("shards")?;
    let other = shards.iter().filter_map(Value::as_u64).find(|shard| *shard != home);
    let other = other.context("another shard")?;
    let moved = stage.done(&["move", "ws1", &other.to_string()])?;
    assert_eq!(moved, format!("done; from shard {home} to shard {other}\n"));
    assert_eq!(stage.json(&["scopes"])?["shardIds"], serde_json::json!([other]));
    let again = stage.done(&["move", "ws1", &other.to_string()])?;
    assert!(again.starts_with("nothing to do"), "{again}");
    assert_eq!(stage.ctl(&["move", "ws1", "99"])?.status.code(), Some(1));
    for peer in &mut peers {
        peer.send(Message::Ping(Vec::new().into()))?;
        while !peer.read()?.is_pong() {}
    }
    Ok(())
}

#[test]
fn a_client_in_python_lists_watches_and_drains() -> Result<()> {
    let stage = Stage::set()?;
    let peers = stage.pairs(&["ws1", "ws2"])?;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let client = PythonClient::install(target, &["--address", &stage.address])?;
    assert_eq!(client.run(&["info"])?[0]["role"], role());
    let scopes = client.run(&["scopes"])?;
    let names: Vec<_> = scopes.iter().filter_map(|scope| scope["workspaceId"].as_str()).collect();
    assert_eq!(names, ["ws1", "ws2"]);
    let watched = client.run(&["watch", "--messages", "1"])?;
    assert_eq!(watched, [serde_json::json!({"scopes": 2, "daemons": 2, "clients": 2})]);
    let daemons = client.run(&["connections", "--workspace", "ws1", "--target", "rt1"])?;
    assert_eq!(daemons.len(), 2, "{daemons:?}");
    let close = ["close", "--workspace", "ws1", "--client", "cl1"];
    let counted = client.run(&[&close[..], &["--dry-run"]].concat())?;
    assert_eq!(counted[0]["connections"], "1");
    assert_eq!(client.run(&close)?[0]["connections"], "1");
    let mut peers = peers.into_iter();
    let _daemon = peers.next();
    let mut closed = peers.next().context("the client of ws1")?;
    assert_eq!(farewell(&mut closed)?, (4008, "closed by operator".to_owned()));
    drop(peers);
    let drained = client.run(&["drain", "--window-ms", "50"])?;
    assert!(drained[0]["drain"]["sinceUnixMs"].is_string(), "{drained:?}");
    assert_eq!(client.run(&["resume"])?[0]["wasDraining"], true);
    let refused = client.run(&["drain", "--redirect", "http://x"]).map(|_| ()).unwrap_err();
    assert!(format!("{refused:#}").contains("INVALID_ARGUMENT"), "{refused:#}");
    Ok(())
}
