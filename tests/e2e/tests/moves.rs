//! A workspace moves to another shard while everybody in it talks.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use relay_e2e::{Platform, Relay, get, run};
use relay_platform::TokenClaims;
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

/// Frames each client is ahead of the daemon, at most: what the relay then holds for a daemon that
/// reads slowly stays under [`PENDING`], however long the moves take.
const AHEAD: usize = 1_000;
const PENDING: &str = "16777216";
/// How often the workspace moves meanwhile.
const MOVES: u32 = 6;
const CLIENTS: [&str; 3] = ["cl1", "cl2", "cl3"];
/// The tag of a client's last frame, and of all before it.
const LAST: &str = "bGFzdA";
const MORE: &str = "bW9yZQ";
/// Who hears nothing for so long was forgotten.
const SILENCE: Duration = Duration::from_mins(1);

fn open(platform: &Platform, relay: &Relay, role: &str, claims: TokenClaims) -> Result<Peer> {
    let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
    let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
    let token = platform.token(claims)?;
    let bearer = format!("Bearer {}", token.expose()).parse()?;
    request.headers_mut().insert("authorization", bearer);
    let peer = connect(request)?.0;
    if let MaybeTlsStream::Plain(stream) = peer.get_ref() {
        stream.set_read_timeout(Some(SILENCE))?;
    }
    Ok(peer)
}

/// Sends numbered frames of several sizes, so that some are cut by a receive, until all moves are
/// over: as fast as they are taken, [`AHEAD`] of what `heard` says has arrived.
fn speak(mut client: Peer, name: &str, heard: &Receiver<()>, moved: &AtomicBool) -> Result<Peer> {
    for seq in 1.. {
        if seq > AHEAD {
            heard.recv().with_context(|| format!("{name}: the daemon hears no more"))?;
        }
        let last = moved.load(Ordering::Relaxed);
        let ciphertext = "A".repeat(seq % 700 * 4);
        let frame = serde_json::json!({
            "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": name, "epoch": 1,
            "seq": seq, "iv": "aXY", "tag": if last { LAST } else { MORE },
            "ciphertext": format!("AAAA{ciphertext}"),
        });
        client.send(Message::text(frame.to_string()))?;
        if last {
            break;
        }
    }
    Ok(client)
}

/// Reads until every client's last frame has arrived, each frame once and in its order; gives how
/// many have.
fn hear(mut daemon: Peer, speakers: &[Sender<()>; CLIENTS.len()]) -> Result<(Peer, u64)> {
    let mut heard = [0; CLIENTS.len()];
    let mut silent = 0;
    while silent < CLIENTS.len() {
        let message = daemon.read()?;
        if !message.is_text() {
            continue;
        }
        let frame: Value = serde_json::from_str(message.to_text()?)?;
        let from = CLIENTS.iter().position(|name| frame["sessionId"] == *name);
        let from = from.with_context(|| frame.to_string())?;
        heard[from] += 1;
        ensure!(frame["seq"] == heard[from], "{} came as number {}", frame["seq"], heard[from]);
        silent += usize::from(frame["tag"] == LAST);
        // Who has said its last waits for no word.
        let _ = speakers[from].send(());
    }
    Ok((daemon, heard.iter().sum()))
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
        ("RELAY_RUNTIME_RATE_PER_MINUTE", "1000000000"),
        ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1000000000"),
        ("RELAY_MAX_PENDING_BYTES", PENDING),
    ])?;
    let claims = TokenClaims::daemon("ws1", "rt1");
    let daemon = open(&platform, &relay, "workspace-daemon", claims)?;
    let clients = CLIENTS
        .map(|name| open(&platform, &relay, "client", TokenClaims::client("ws1", "rt1", name)));
    let moved = Arc::new(AtomicBool::new(false));
    let mut speakers = Vec::new();
    let words = clients.into_iter().zip(CLIENTS).map(|(client, name)| {
        let (word, heard) = channel();
        let (client, moved) = (client?, Arc::clone(&moved));
        speakers.push(thread::spawn(move || speak(client, name, &heard, &moved)));
        Ok(word)
    });
    let words: Vec<_> = words.collect::<Result<_>>()?;
    let words = words.try_into().map_err(|_| anyhow!("a client without a speaker"))?;
    let listener = thread::spawn(move || hear(daemon, &words));
    for number in 0..MOVES {
        let shard = (number % 2).to_string();
        let output = run(&["ctl", "--address", &address, "move", "ws1", &shard], &[])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "move {number}: {said}");
    }
    moved.store(true, Ordering::Relaxed);
    let (daemon, heard) = listener.join().map_err(|_| anyhow!("the daemon panicked"))??;
    println!("{heard} frames were heard while the workspace moved {MOVES} times");
    let mut peers = vec![daemon];
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
