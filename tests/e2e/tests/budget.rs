//! A whole relay whose memory runs short.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use relay_e2e::{Platform, Relay, get};
use relay_platform::TokenClaims;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// How long the relay may take to notice.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(platform: &Platform, relay: &Relay, role: &str, workspace: &str) -> Result<Socket> {
    let query = format!("role={role}&workspaceId={workspace}&runtimeTargetId=rt1");
    let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
    let claims = match role {
        "client" => TokenClaims::client(workspace, "rt1", "cl1"),
        _ => TokenClaims::daemon(workspace, "rt1"),
    };
    let bearer = format!("Bearer {}", platform.token(claims)?.expose()).parse()?;
    request.headers_mut().insert("authorization", bearer);
    Ok(connect(request)?.0)
}

fn frame(seq: usize, ciphertext_bytes: usize) -> String {
    serde_json::json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
        "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "x".repeat(ciphertext_bytes),
    })
    .to_string()
}

fn counted(relay: &Relay, counter: &str) -> Result<u64> {
    let metrics = get(relay.port(), "/metrics", Some(Relay::ADMIN_TOKEN))?.body;
    let Some(value) = metrics.lines().find_map(|line| line.strip_prefix(counter)) else {
        bail!("{counter} is not in the metrics");
    };
    Ok(value.trim().parse()?)
}

#[test]
fn a_slow_reader_that_fills_the_memory_goes_and_the_others_live_on() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_SHARDS", "1"),
        ("RELAY_MEMORY_BUDGET", "88MiB"),
        // The limit of one connection alone would let it take the whole.
        ("RELAY_MAX_PENDING_BYTES", "1000000000"),
        ("RELAY_RUNTIME_RATE_PER_MINUTE", "1000000"),
        ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1000000"),
    ])?;
    let mut steady_daemon = open(&platform, &relay, "workspace-daemon", "steady")?;
    let mut steady_client = open(&platform, &relay, "client", "steady")?;
    let _never_reads = open(&platform, &relay, "workspace-daemon", "greedy")?;
    let mut sender = open(&platform, &relay, "client", "greedy")?;
    let deadline = Instant::now() + PATIENCE;
    let mut seq = 1;
    while counted(&relay, "relay_budget_slow_readers_closed_total ")? == 0 {
        ensure!(Instant::now() < deadline, "{seq} frames and nobody had to go");
        for _ in 0..8 {
            sender.send(Message::text(frame(seq, 256 << 10)))?;
            seq += 1;
        }
        let steady = frame(seq, 200);
        steady_client.send(Message::text(&steady))?;
        ensure!(steady_daemon.read()? == Message::text(&steady), "the others live on");
    }
    open(&platform, &relay, "client", "late")?;
    Ok(())
}
