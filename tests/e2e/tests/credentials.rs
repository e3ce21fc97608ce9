//! Tokens of open connections in the real program: revoked, expired, renewed.

use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use relay_contract::Secret;
use relay_e2e::{Platform, Relay, run, upgrade_from};
use relay_platform::TokenClaims;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

struct Stage {
    platform: Platform,
    relay: Relay,
    _dir: tempfile::TempDir,
    control: String,
}

impl Stage {
    fn set(more: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let control = format!("unix:{}", dir.path().join("control.sock").display());
        let platform = Platform::start()?;
        let url = platform.url();
        let mut variables = vec![
            ("SERVER_URL", url.as_str()),
            ("RELAY_SHARDS", "2"),
            ("RELAY_CONTROL_API_LISTEN", control.as_str()),
        ];
        variables.extend_from_slice(more);
        let relay = Relay::serve(&variables)?;
        Ok(Self { platform, relay, _dir: dir, control })
    }

    fn token(&self, client: &str, secs: u64) -> Result<Secret> {
        let claims = TokenClaims::client("ws1", "rt1", client);
        self.platform.token_for(claims, Duration::from_secs(secs))
    }

    fn open(&self, token: &Secret) -> Result<Peer> {
        let query = "role=client&workspaceId=ws1&runtimeTargetId=rt1";
        let mut request = format!("{}?{query}", self.relay.url()).into_client_request()?;
        let bearer = format!("Bearer {}", token.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    }

    /// What is answered to an upgrade with this token.
    fn status(&self, token: &Secret) -> Result<u16> {
        upgrade_from(Ipv4Addr::LOCALHOST, self.relay.port(), token.expose())
    }

    fn revoke(&self, what: &[&str]) -> Result<()> {
        let arguments = [&["ctl", "--address", &self.control, "revoke"], what].concat();
        let output = run(&arguments, &[])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// How long `relay ctl` and what comes of it may take on a busy machine: far less than a token
/// lives.
const AT_ONCE: Duration = Duration::from_secs(20);

/// What a token says under this name.
fn said(token: &Secret, name: &str) -> Result<Value> {
    use base64::Engine as _;
    let payload = token.expose().split('.').nth(1).context("a payload")?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?;
    Ok(serde_json::from_slice::<Value>(&payload)?[name].take())
}

/// The close frame that ends the connection, and when it came.
fn ended(peer: &mut Peer) -> Result<(u16, String, Instant)> {
    loop {
        match peer.read()? {
            Message::Close(Some(frame)) => {
                return Ok((frame.code.into(), frame.reason.to_string(), Instant::now()));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Text(_) => {}
            other => bail!("received {other:?}"),
        }
    }
}

#[test]
fn a_revoked_token_ends_its_connection_at_once_and_opens_no_other() -> Result<()> {
    let stage = Stage::set(&[])?;
    let (revoked, other) = (stage.token("cl1", 600)?, stage.token("cl2", 600)?);
    let mut going = stage.open(&revoked)?;
    let mut staying = stage.open(&other)?;
    let id = said(&revoked, "jti")?;
    let began = Instant::now();
    stage.revoke(&["--token-id", id.as_str().context("a token id")?])?;
    let (code, reason, at) = ended(&mut going)?;
    assert_eq!((code, reason.as_str()), (4008, "token revoked"));
    let took = at - began;
    println!("revoked, from the start of `relay ctl` to the close frame: {took:?}");
    ensure!(took < AT_ONCE, "it took {took:?}");
    assert_eq!(stage.status(&revoked)?, 401, "a revoked token opens no connection");
    stage.open(&stage.token("cl1", 600)?)?;
    staying.send(Message::Ping(Vec::new().into()))?;
    while !matches!(staying.read()?, Message::Pong(_)) {}
    Ok(())
}

#[test]
fn a_revoked_token_opens_no_connection_after_the_relay_was_killed_and_started_anew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("revocations").display().to_string();
    let mut stage = Stage::set(&[("RELAY_REVOCATIONS_FILE", &file)])?;
    let (revoked, other) = (stage.token("cl1", 600)?, stage.token("cl2", 600)?);
    let mut going = stage.open(&revoked)?;
    let id = said(&revoked, "jti")?;
    stage.revoke(&["--token-id", id.as_str().context("a token id")?])?;
    ended(&mut going)?;
    let platform = stage.platform.url();
    let variables = [("SERVER_URL", &*platform), ("RELAY_REVOCATIONS_FILE", &*file)];
    // The first one is killed when its place is taken.
    stage.relay = Relay::serve(&variables)?;
    assert_eq!(stage.status(&revoked)?, 401, "it is not forgotten that the token was revoked");
    stage.open(&other)?;
    Ok(())
}

#[test]
fn a_connection_ends_with_its_token_and_a_fresh_one_keeps_it() -> Result<()> {
    let stage = Stage::set(&[("RELAY_TOKEN_EXPIRY", "close")])?;
    let (short, kept) = (stage.token("cl1", 8)?, stage.token("cl2", 8)?);
    let mut short_lived = stage.open(&short)?;
    let mut renewed = stage.open(&kept)?;
    let fresh = stage.token("cl2", 12)?;
    let frame = json!({"type": "relay.renew_token/v1", "token": fresh.expose()});
    renewed.send(Message::text(frame.to_string()))?;
    let answer = loop {
        if let Message::Text(text) = renewed.read()? {
            break serde_json::from_str::<Value>(&text)?;
        }
    };
    let expiry = said(&fresh, "exp")?.as_i64().context("an expiry")?;
    assert_eq!(answer["type"], "relay.token_renewed/v1", "{answer}");
    assert_eq!(answer["expiresAtMs"], expiry * 1000);
    for (peer, token) in [(&mut short_lived, &short), (&mut renewed, &fresh)] {
        let (code, reason, _) = ended(peer)?;
        assert_eq!((code, reason.as_str()), (4008, "token expired"));
        let expiry = said(token, "exp")?.as_f64().context("an expiry")?;
        let late = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() - expiry;
        println!("expired, and ended {late:.3} s later");
        ensure!((0.0..10.0).contains(&late), "{late:.3} s after its token");
    }
    Ok(())
}
