//! A workspace moves to another shard while everybody in it talks.

use std::net::TcpStream;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use relay_e2e::{Platform, Relay, get, run};
use relay_platform::TokenClaims;
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

/// Frames each client sends, as fast as they are taken.
const FRAMES: u64 = 20_000;
/// How often the workspace moves meanwhile.
const MOVES: u32 = 6;
const CLIENTS: [&str; 3] = ["cl1", "cl2", "cl3"];

fn open(platform: &Platform, relay: &Relay, role: &str, claims: TokenClaims) -> Result<Peer> {
    let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
    let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
    let token = platform.token(claims)?;
    let bearer = format!("Bearer {}", token.expose()).parse()?;
    request.headers_mut().insert("authorization", bearer);
    Ok(connect(request)?.0)
}

/// Sends numbered frames of several sizes, so that some are cut by a receive.
fn speak(mut client: Peer, session: &str) -> Result<Peer> {
    for seq in 1..=FRAMES {
        let ciphertext = "A".repeat(usize::try_from(seq % 700)? * 4);
        let frame = serde_json::json!({
            "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": session, "epoch": 1,
            "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": format!("AAAA{ciphertext}"),
        });
        client.send(Message::text(frame.to_string()))?;
    }
    Ok(client)
}

/// Reads until every client's frames have arrived, each once and in its order.
fn hear(mut daemon: Peer) -> Result<Peer> {
    let mut heard = [0; CLIENTS.len()];
    while heard != [FRAMES; CLIENTS.len()] {
        let message = daemon.read()?;
        if !message.is_text() {
            continue;
        }
        let frame: Value = serde_json::from_str(message.to_text()?)?;
        let from = CLIENTS.iter().position(|name| frame["sessionId"] == *name);
        let last = &mut heard[from.with_context(|| frame.to_string())?];
        ensure!(frame["seq"] == *last + 1, "{} came after {last}", frame["seq"]);
        *last += 1;
    }
    Ok(daemon)
}

#[test]
fn a_hot_workspace_moves_with_everybody_in_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let address = format!("unix:{}", dir.path().join("control.sock").display());
    let platform = Platform::start()?;
    let relay = Relay::serve(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_SHARDS", "2"),
        ("RELAY_CONTROL_API_LISTEN", &address),
        ("RELAY_RUNTIME_RATE_PER_MINUTE", "10000000"),
        ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "10000000"),
        // The daemon reads as fast as it can, and a debug build is slow.
        ("RELAY_MAX_PENDING_BYTES", "268435456"),
    ])?;
    let claims = TokenClaims::daemon("ws1", "rt1");
    let daemon = open(&platform, &relay, "workspace-daemon", claims)?;
    let clients = CLIENTS
        .map(|name| open(&platform, &relay, "client", TokenClaims::client("ws1", "rt1", name)));
    let listener = thread::spawn(|| hear(daemon));
    let mut speakers = Vec::new();
    for (client, name) in clients.into_iter().zip(CLIENTS) {
        let client = client?;
        speakers.push(thread::spawn(move || speak(client, name)));
    }
    for number in 0..MOVES {
        let shard = (number % 2).to_string();
        let output = run(&["ctl", "--address", &address, "move", "ws1", &shard], &[])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "move {number}: {said}");
        let talking = speakers.iter().any(|speaker| !speaker.is_finished());
        ensure!(talking || number > 0, "everything was said before the first move was over");
    }
    let mut peers = vec![listener.join().map_err(|_| anyhow!("the daemon panicked"))??];
    for speaker in speakers {
        peers.push(speaker.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    // Everybody is still there, and answered.
    for peer in &mut peers {
        peer.send(Message::Ping("still".into()))?;
        while !peer.read()?.is_pong() {}
    }
    let node = get(relay.port(), "/node", Some(Relay::ADMIN_TOKEN))?;
    let node: Value = serde_json::from_str(&node.body)?;
    ensure!(node["admittedConnections"] == 4, "{node}");
    let metrics = get(relay.port(), "/metrics", Some(Relay::ADMIN_TOKEN))?.body;
    let moved = metrics.lines().find(|line| line.starts_with("relay_workspaces_moved_total "));
    ensure!(moved.is_some_and(|line| !line.ends_with(" 0")), "{moved:?}");
    Ok(())
}
