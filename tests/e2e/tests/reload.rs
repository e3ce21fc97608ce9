//! The configuration changes while the relay runs, and nobody who is connected notices.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, get, refused_upgrade, upgrade_from, write_certificate};
use relay_platform::{JWKS_PATH, TokenClaims};
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

/// A relay that reads a file, and a daemon at it.
struct Stage {
    platform: Platform,
    relay: Relay,
    file: PathBuf,
    daemon: Peer,
    _dir: TempDir,
}

impl Stage {
    fn set(text: &str) -> Result<Self> {
        let platform = Platform::start()?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("relay.toml");
        fs::write(&file, text)?;
        let path = file.display().to_string();
        let url = platform.url();
        let relay = Relay::serve(&[("SERVER_URL", &url), ("RELAY_CONFIG", &path)])?;
        let daemon =
            open(&platform, &relay, "workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
        Ok(Self { platform, relay, file, daemon, _dir: dir })
    }

    fn client(&self, name: &str) -> Result<Peer> {
        let claims = TokenClaims::client("ws1", "rt1", name);
        open(&self.platform, &self.relay, "client", claims)
    }

    /// Writes the file anew and has it read. What the log says of it has to be this event, and to
    /// contain this text.
    fn reload(&mut self, text: &str, event: &str, expected: &str) -> Result<()> {
        fs::write(&self.file, text)?;
        reload(&mut self.relay, event, expected)
    }

    /// A frame of a client arrives at the daemon.
    fn frame_arrives(&mut self, client: &mut Peer) -> Result<bool> {
        // A client that was closed cannot send, or hears that it was closed.
        if client.send(Message::text(FRAME)).is_err() {
            return Ok(false);
        }
        client.send(Message::Ping("mark".into()))?;
        loop {
            match client.read()? {
                Message::Pong(_) => break,
                Message::Close(_) => return Ok(false),
                _ => {}
            }
        }
        loop {
            if self.daemon.read()?.is_text() {
                return Ok(true);
            }
        }
    }

    /// How many frames a fresh client gets through.
    fn frames_of(&mut self, name: &str) -> Result<u32> {
        let mut client = self.client(name)?;
        let mut frames = 0;
        while self.frame_arrives(&mut client)? {
            frames += 1;
            ensure!(frames < 1000, "there is no limit");
        }
        Ok(frames)
    }

    /// The version of the settings that every shard has in force.
    fn version(&self) -> Result<u64> {
        let answer = get(self.relay.port(), "/node", Some(Relay::ADMIN_TOKEN))?;
        let node: serde_json::Value = serde_json::from_str(&answer.body)?;
        node["settingsVersion"].as_u64().context("shards have said which")
    }
}

/// Has the configuration read again. Each process says what came of it: one of them this event,
/// with this text.
fn reload(relay: &mut Relay, event: &str, expected: &str) -> Result<()> {
    relay.hang_up()?;
    let lines = (0..relay.process_count()).map(|_| relay.wait_for("\"config_re"));
    let lines = lines.collect::<Result<Vec<_>>>()?;
    let is_said = lines.iter().any(|line| line.contains(event) && line.contains(expected));
    ensure!(is_said, "{event} with {expected:?}: {lines:?}");
    Ok(())
}

fn open(platform: &Platform, relay: &Relay, role: &str, claims: TokenClaims) -> Result<Peer> {
    let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
    let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
    let token = platform.token(claims)?;
    let bearer = format!("Bearer {}", token.expose()).parse()?;
    request.headers_mut().insert("authorization", bearer);
    Ok(connect(request)?.0)
}

const FRAME: &str = concat!(
    r#"{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","epoch":1,"seq":1,"#,
    r#""iv":"aXY","tag":"dGFn","ciphertext":"AAAA"}"#
);

fn limits(rate: u32) -> String {
    format!("[limits]\nruntime_rate_per_minute = {rate}\n")
}

#[test]
fn a_limit_changes_at_noon_and_nobody_is_disconnected() -> Result<()> {
    let mut stage = Stage::set(&limits(40))?;
    let mut resident = stage.client("resident")?;
    ensure!(stage.frame_arrives(&mut resident)?);

    let before = stage.version()?;
    stage.reload(&limits(5), "config_reloaded", r#""RELAY_RUNTIME_RATE_PER_MINUTE""#)?;
    assert_eq!(stage.frames_of("one")?, 5, "the new limit holds");

    let own = format!("{}[tenants.ws1]\nruntime_rate_per_minute = 7\n", limits(5));
    stage.reload(&own, "config_reloaded", r#""tenants""#)?;
    assert_eq!(stage.frames_of("two")?, 7, "the workspace's own limit holds");

    stage.reload(&limits(60), "config_reloaded", "RELAY_RUNTIME_RATE_PER_MINUTE, tenants")?;
    ensure!(stage.frame_arrives(&mut resident)?, "it was there all the time");
    assert_eq!(stage.version()?, before + 3, "every shard says so");
    Ok(())
}

#[test]
fn a_bad_file_changes_nothing() -> Result<()> {
    let mut stage = Stage::set(&limits(6))?;
    let mut resident = stage.client("resident")?;
    let before = stage.version()?;
    for (text, expected) in [
        ("[limits]\nruntime_rate_per_minute = \"lots\"\n", "relay.toml:2: limits.runtime_rate"),
        ("[limits]\nruntime_rate_per_minut = 9\n", "did you mean limits.runtime_rate_per_minute?"),
        ("[limits\n", "not TOML"),
        (
            "[limits]\nruntime_rate_per_minute = 9\n[engine]\nshards = 63\n",
            "RELAY_SHARDS takes effect after a restart only",
        ),
    ] {
        stage.reload(text, "config_refused", expected)?;
    }
    assert_eq!(stage.frames_of("one")?, 6);
    ensure!(stage.frame_arrives(&mut resident)?);
    assert_eq!(stage.version()?, before);
    Ok(())
}

#[test]
fn who_judges_tokens_changes_at_noon_and_nobody_is_disconnected() -> Result<()> {
    let mut stage = Stage::set("")?;
    let mut resident = stage.client("resident")?;
    let keys = format!("{}{JWKS_PATH}", stage.platform.url());
    let by_keys =
        |more: &str| format!("[admission]\nadmission = \"jwks\"\njwks_url = \"{keys}\"\n{more}");
    stage.reload(&by_keys(""), "config_reloaded", "RELAY_ADMISSION, RELAY_JWKS_URL")?;
    let mut newcomer = stage.client("newcomer")?;
    ensure!(stage.frame_arrives(&mut newcomer)?, "its token was checked here");
    let node = get(stage.relay.port(), "/node", Some(Relay::ADMIN_TOKEN))?;
    ensure!(node.body.contains(r#""admission":"jwks""#), "{}", node.body);

    let strict = by_keys("jwt_issuer = \"somebody-else\"\njwks_withdrawn = \"close\"\n");
    stage.reload(&strict, "config_reloaded", "RELAY_JWT_ISSUER, RELAY_JWKS_WITHDRAWN")?;
    let stranger = stage.platform.token(TokenClaims::client("ws1", "rt1", "stranger"))?;
    let status = upgrade_from(Ipv4Addr::LOCALHOST, stage.relay.port(), stranger.expose())?;
    assert_eq!(status, 401, "its issuer is not ours any more");
    ensure!(stage.frame_arrives(&mut newcomer)?, "the key is where it was");

    stage.reload("", "config_reloaded", "RELAY_ADMISSION")?;
    stage.client("last")?;
    ensure!(stage.frame_arrives(&mut resident)?, "it was there all the time");
    Ok(())
}

#[test]
fn whose_pages_may_connect_changes_with_a_reload() -> Result<()> {
    let mut stage = Stage::set("")?;
    let port = stage.relay.port();
    let status = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        refused_upgrade(stream, "Origin: https://elsewhere.example\r\n")
    };
    assert_eq!(status()?, 401, "every page may, and its token is no good");
    let text = "[proxies]\nallowed_origins = [\"https://app.corp\"]\n";
    stage.reload(text, "config_reloaded", "RELAY_ALLOWED_ORIGINS")?;
    assert_eq!(status()?, 403);
    Ok(())
}

/// What a peer hears that sends a fresh token.
fn renew(peer: &mut Peer, token: &str) -> Result<serde_json::Value> {
    let frame = serde_json::json!({ "type": "relay.renew_token/v1", "token": token });
    peer.send(Message::text(frame.to_string()))?;
    loop {
        if let Message::Text(text) = peer.read()? {
            return Ok(serde_json::from_str(&text)?);
        }
    }
}

#[test]
fn a_peer_may_renew_its_token_over_the_open_connection() -> Result<()> {
    let mut stage = Stage::set("")?;
    let mut client = stage.client("cl1")?;
    let token = stage.platform.token(TokenClaims::client("ws1", "rt1", "cl1"))?;
    let answer = renew(&mut client, token.expose())?;
    assert_eq!(answer["type"], "relay.token_renewed/v1", "{answer}");

    let other = stage.platform.token(TokenClaims::client("ws1", "rt1", "cl2"))?;
    let answer = renew(&mut client, other.expose())?;
    assert_eq!(answer["type"], "relay.token_refused/v1");
    assert_eq!(answer["reason"], "claims differ");
    assert_eq!(renew(&mut client, "not-a-good-token")?["reason"], "token denied");

    let fresh = stage.platform.token(TokenClaims::daemon("ws1", "rt1"))?;
    let answer = renew(&mut stage.daemon, fresh.expose())?;
    assert_eq!(answer["type"], "relay.token_renewed/v1", "{answer}");
    ensure!(stage.frame_arrives(&mut client)?, "both are still there");
    Ok(())
}

#[test]
fn a_certificate_that_cannot_be_used_refuses_the_whole() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let platform = Platform::start()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    write_certificate(dir.path())?;
    let config = |level: &str, key: &str| {
        format!(
            "[log]\nlevel = \"{level}\"\n[tls]\ntls = true\ncert_path = \"{}\"\nkey_path = \"{}\"",
            path("tls.crt"),
            path(key)
        )
    };
    fs::write(path("relay.toml"), config("info", "tls.key"))?;
    let (file, url) = (path("relay.toml"), platform.url());
    let mut relay = Relay::serve(&[("SERVER_URL", &url), ("RELAY_CONFIG", &file)])?;

    fs::write(path("bad.key"), "no key")?;
    fs::write(&file, config("debug", "bad.key"))?;
    reload(&mut relay, "config_refused", "bad.key")?;

    fs::write(path("other.key"), fs::read(path("tls.key"))?)?;
    fs::write(&file, config("debug", "other.key"))?;
    // The level of the refused one was not taken, or it would be no change now. The control plane
    // of two processes has no use for the key.
    let changed = match relay.process_count() {
        1 => "RELAY_TLS_KEY_PATH, RELAY_LOG_LEVEL",
        _ => "RELAY_TLS_KEY_PATH",
    };
    reload(&mut relay, "config_reloaded", changed)
}
