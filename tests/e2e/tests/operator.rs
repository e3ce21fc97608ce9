//! What an operator sees of a relay that forwards frames: histograms, `relay top`, `relay plan`.

use std::net::TcpStream;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, get, run};
use relay_platform::TokenClaims;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

/// Fewer than a client may send in its first minute.
const FRAMES: u32 = 200;

struct Stage {
    platform: Platform,
    relay: Relay,
}

impl Stage {
    fn set() -> Result<Self> {
        let platform = Platform::start()?;
        let relay = Relay::serve(&[("SERVER_URL", &platform.url()), ("RELAY_SHARDS", "1")])?;
        Ok(Self { platform, relay })
    }

    fn open(
        &self,
        role: &str,
        claims: TokenClaims,
    ) -> Result<WebSocket<MaybeTlsStream<TcpStream>>> {
        let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
        let mut request = format!("{}?{query}", self.relay.url()).into_client_request()?;
        let token = self.platform.token(claims)?;
        let bearer = format!("Bearer {}", token.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    }

    /// Lets a client talk to its daemon until all frames have arrived and the relay knows. Both
    /// stay for as long as what is returned.
    fn talk(&self) -> Result<[WebSocket<MaybeTlsStream<TcpStream>>; 2]> {
        let mut daemon = self.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
        let mut client = self.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
        for seq in 1..=FRAMES {
            let frame = serde_json::json!({
                "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
                "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "AAAA",
            });
            client.send(Message::text(frame.to_string()))?;
            while !daemon.read()?.is_text() {}
        }
        Ok([daemon, client])
    }

    fn ask(&self, target: &str) -> Result<String> {
        let answer = get(self.relay.port(), target, Some(Relay::ADMIN_TOKEN))?;
        ensure!(answer.status == 200, "{target}: {}", answer.status);
        Ok(answer.body)
    }

    /// Runs the program against the relay, with the right token.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let url = format!("http://127.0.0.1:{}", self.relay.port());
        let mut all = arguments.to_vec();
        all.extend(["--url", &url]);
        run(&all, &[("RELAY_ADMIN_TOKEN", Relay::ADMIN_TOKEN)])
    }
}

fn value(metrics: &str, name: &str) -> Result<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("{name} is exported"))?;
    Ok(line.trim().parse()?)
}

#[test]
fn every_frame_is_in_the_histogram_of_hop_latency() -> Result<()> {
    let stage = Stage::set()?;
    let _ends = stage.talk()?;
    let metrics = stage.ask("/metrics")?;
    let frames = value(&metrics, "relay_shard_frames_total{shard=\"0\"}")?;
    assert_eq!(frames, u64::from(FRAMES));
    // What is sent to the client itself, such as its greeting, is measured too.
    assert!(value(&metrics, "relay_hop_latency_seconds_count{shard=\"0\"}")? >= frames);
    let admitted = "relay_admission_duration_seconds_count{shard=\"0\",outcome=\"admitted\"}";
    assert_eq!(value(&metrics, admitted)?, 2);
    assert!(value(&metrics, "process_resident_memory_bytes")? > 1 << 20);
    let log = stage.ask("/histograms")?;
    assert!(log.contains("Tag=relay_hop_latency_seconds/shard=0,"), "{log}");
    Ok(())
}

#[test]
fn top_shows_each_shard_once() -> Result<()> {
    let stage = Stage::set()?;
    let _ends = stage.talk()?;
    let output = stage.run(&["top", "--once", "--interval", "0.2"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("SHARD") && text.contains("FRAMES/S"), "{text}");
    assert!(!text.contains('\x1b'), "a pipe is no terminal: {text:?}");
    Ok(())
}

#[test]
fn a_plan_goes_by_a_relay_or_by_what_it_said() -> Result<()> {
    let stage = Stage::set()?;
    let idle = stage.run(&["plan", "--seconds", "0.2"])?;
    let text = String::from_utf8(idle.stdout)?;
    assert!(idle.status.success() && text.contains("nothing was forwarded"), "{text}");
    let _ends = stage.talk()?;
    let saved = tempfile::NamedTempFile::new()?;
    std::fs::write(saved.path(), stage.ask("/metrics")?)?;
    let path = saved.path().to_str().context("a path in UTF-8")?;
    let output = run(&["plan", "--json", "--from", path], &[])?;
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(plan["shards"][0]["frames"], f64::from(FRAMES));
    assert!(plan["saturatesAtFramesPerSecond"].as_f64().is_some_and(|rate| rate > 100.0), "{plan}");
    Ok(())
}

#[test]
fn a_wrong_token_is_named_and_not_shown() -> Result<()> {
    let stage = Stage::set()?;
    let url = format!("http://127.0.0.1:{}", stage.relay.port());
    let output = run(&["top", "--once", "--url", &url], &[("RELAY_ADMIN_TOKEN", "guess-work")])?;
    let message = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("refuses the token") && !message.contains("guess"), "{message}");
    Ok(())
}
