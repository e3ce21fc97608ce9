//! Two relays: a client whose daemon lives at the other is told so, and finds it there.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_e2e::{Platform, Relay, run};
use relay_platform::TokenClaims;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

/// A relay that shares a platform with another, and the file that says who lives there.
struct Node {
    relay: Relay,
    file: PathBuf,
    control: String,
}

impl Node {
    fn start(platform: &Platform, dir: &TempDir, name: &str) -> Result<Self> {
        let file = dir.path().join(format!("{name}.toml"));
        fs::write(&file, "")?;
        let control = format!("unix:{}", dir.path().join(format!("{name}.sock")).display());
        let path = file.display().to_string();
        let relay = Relay::serve(&[
            ("SERVER_URL", &platform.url()),
            ("RELAY_CONFIG", &path),
            ("RELAY_ID", name),
            ("RELAY_SHARDS", "1"),
            ("RELAY_BACKPLANE_MODE", "server"),
            ("RELAY_INTERNAL_KEY", "a-key-that-is-long-enough-for-all"),
            ("RELAY_CLIENT_REDIRECT_ENABLED", "1"),
            // A client asks again until its relay has read the table.
            ("RELAY_RUNTIME_RATE_PER_MINUTE", "1000000"),
            ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1000000"),
            ("RELAY_CONTROL_API_LISTEN", &control),
        ])?;
        Ok(Self { relay, file, control })
    }

    /// Reads from now on that the daemon of ws1 and rt1 lives there, or nowhere else.
    fn target_lives_at(&mut self, url: Option<&str>) -> Result<()> {
        let text = url.map_or_else(String::new, |url| format!("[targets.ws1]\nrt1 = \"{url}\"\n"));
        fs::write(&self.file, text)?;
        self.relay.hang_up()?;
        for _ in 0..self.relay.process_count() {
            self.relay.wait_for("\"config_reloaded")?;
        }
        Ok(())
    }

    fn ctl(&self, call: &[&str]) -> Result<()> {
        let output = run(&[&["ctl", "--address", &self.control][..], call].concat(), &[])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "relay ctl {call:?}: {said}");
        Ok(())
    }
}

/// Somebody connects where a relay, or a redirect, says.
fn open(platform: &Platform, url: &str, role: &str) -> Result<Peer> {
    let claims = match role {
        "client" => TokenClaims::client("ws1", "rt1", "cl1"),
        _ => TokenClaims::daemon("ws1", "rt1"),
    };
    let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
    let mut request = format!("{url}?{query}").into_client_request()?;
    let bearer = format!("Bearer {}", platform.token(claims)?.expose()).parse()?;
    request.headers_mut().insert("authorization", bearer);
    Ok(connect(request)?.0)
}

/// The next text, or the farewell as an error.
fn heard(peer: &mut Peer) -> Result<Value> {
    loop {
        match peer.read()? {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Close(frame) => bail!("closed: {frame:?}"),
            _ => {}
        }
    }
}

/// The code and reason of the farewell, which has to be what comes next.
fn farewell(peer: &mut Peer) -> Result<(u16, String)> {
    loop {
        match peer.read()? {
            Message::Close(frame) => {
                let frame = frame.context("a farewell has a code")?;
                return Ok((frame.code.into(), frame.reason.to_string()));
            }
            Message::Text(text) => bail!("{text} instead of a farewell"),
            _ => {}
        }
    }
}

fn say(peer: &mut Peer, seq: u32) -> Result<()> {
    let frame = json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
        "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "AAAA",
    });
    Ok(peer.send(Message::text(frame.to_string()))?)
}

/// A client's frame arrives at the daemon.
fn talk(client: &mut Peer, daemon: &mut Peer) -> Result<()> {
    say(client, 1)?;
    let frame = heard(daemon)?;
    ensure!(frame["type"] == "e2ee", "{frame}");
    Ok(())
}

fn redirect(url: &str, names_target: bool) -> Value {
    let mut status = json!({
        "type": "relay_status", "code": "RELAY_REDIRECT",
        "message": "Workspace is assigned to a different relay instance",
        "workspaceId": "ws1", "relayWsBaseUrl": url,
    });
    if names_target {
        status["runtimeTargetId"] = "rt1".into();
    }
    status
}

/// Two relays of one platform.
fn two() -> Result<(Platform, TempDir, Node, Node)> {
    let (platform, dir) = (Platform::start()?, tempfile::tempdir()?);
    let here = Node::start(&platform, &dir, "here")?;
    let there = Node::start(&platform, &dir, "there")?;
    Ok((platform, dir, here, there))
}

#[test]
fn a_client_is_told_where_its_daemon_lives_and_finds_it_there() -> Result<()> {
    let (platform, _dir, mut here, there) = two()?;
    let elsewhere = there.relay.url();
    here.target_lives_at(Some(&elsewhere))?;
    let mut daemon = open(&platform, &elsewhere, "workspace-daemon")?;

    let mut client = open(&platform, &here.relay.url(), "client")?;
    assert_eq!(heard(&mut client)?, redirect(&elsewhere, false), "when it connects");
    for seq in 1..3 {
        say(&mut client, seq)?;
        assert_eq!(heard(&mut client)?, redirect(&elsewhere, true), "whenever it sends");
    }
    let mut client = open(&platform, &elsewhere, "client")?;
    talk(&mut client, &mut daemon)?;

    // A daemon that is here after all is who clients talk to, whatever the table says.
    let mut moved = open(&platform, &here.relay.url(), "workspace-daemon")?;
    let mut client = open(&platform, &here.relay.url(), "client")?;
    talk(&mut client, &mut moved)
}

#[test]
fn whoever_lives_here_again_is_sent_nowhere() -> Result<()> {
    let (platform, _dir, mut here, there) = two()?;
    let elsewhere = there.relay.url();
    here.target_lives_at(Some(&elsewhere))?;
    let mut client = open(&platform, &here.relay.url(), "client")?;
    assert_eq!(heard(&mut client)?, redirect(&elsewhere, false));

    here.target_lives_at(None)?;
    // Shards hear of it a moment later.
    let end = Instant::now() + Duration::from_secs(5);
    for seq in 1.. {
        say(&mut client, seq)?;
        let status = heard(&mut client)?;
        if status["code"] == "DAEMON_UNAVAILABLE" {
            break;
        }
        assert_eq!(status, redirect(&elsewhere, true));
        ensure!(Instant::now() < end, "clients are still sent away");
    }
    let mut daemon = open(&platform, &here.relay.url(), "workspace-daemon")?;
    talk(&mut client, &mut daemon)
}

#[test]
fn a_drain_sends_clients_to_another_relay_where_they_find_their_daemon() -> Result<()> {
    let (platform, _dir, here, there) = two()?;
    let elsewhere = there.relay.url();
    let mut daemon = open(&platform, &here.relay.url(), "workspace-daemon")?;
    let mut client = open(&platform, &here.relay.url(), "client")?;
    talk(&mut client, &mut daemon)?;

    here.ctl(&["drain", "--window-ms", "50", "--redirect", &elsewhere])?;
    let shutting_down = (1001, "relay shutting down".to_owned());
    // A daemon knows its relays by itself, and the reference's would not understand the word.
    assert_eq!(farewell(&mut daemon)?, shutting_down);
    assert_eq!(heard(&mut client)?, redirect(&elsewhere, false));
    assert_eq!(farewell(&mut client)?, shutting_down);
    ensure!(open(&platform, &here.relay.url(), "client").is_err(), "nobody is admitted");

    let mut daemon = open(&platform, &elsewhere, "workspace-daemon")?;
    let mut client = open(&platform, &elsewhere, "client")?;
    talk(&mut client, &mut daemon)?;

    here.ctl(&["resume"])?;
    // Shards hear of it a moment later.
    let end = Instant::now() + Duration::from_secs(5);
    while open(&platform, &here.relay.url(), "client").is_err() {
        ensure!(Instant::now() < end, "nobody is admitted again");
    }
    Ok(())
}
