//! The least platform that admits the load: it signs real tokens, publishes the key that checks
//! them, and answers validate calls.
//!
//! A validate call is answered with what the token says; its signature is not checked: that is the
//! relay's part where it checks tokens itself, and here it would be time of the load.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_contract::Scope;
use relay_platform::{Issuer, JWKS_PATH, SigningKey, TokenClaims};
use serde_json::Value;
use tempfile::TempDir;

/// Starts the platform; it serves until the process ends.
pub(crate) fn start() -> Result<SocketAddr> {
    start_with(issuer().key_set().to_string().into(), Arc::default())
}

/// The same with other keys; validate calls are counted.
pub(crate) fn start_with(keys: Arc<str>, validations: Arc<AtomicU64>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the platform's port")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("platform".into()).spawn(move || {
        for socket in listener.incoming().flatten() {
            let (keys, validations) = (Arc::clone(&keys), Arc::clone(&validations));
            // A connection that fails is the relay's to open again.
            let serve = move || drop(serve(&socket, &keys, &validations));
            drop(thread::Builder::new().name("platform".into()).spawn(serve));
        }
    })?;
    Ok(address)
}

/// Where a platform publishes its key.
pub(crate) fn key_set_url(platform: SocketAddr) -> String {
    format!("http://{platform}{JWKS_PATH}")
}

/// A token for one side of a pair, signed with this process's key (ES256).
pub(crate) fn token(role: &str, workspace: &str, target: &str, client: &str) -> String {
    let claims = match role {
        "client" => TokenClaims::client(workspace, target, client),
        _ => TokenClaims::daemon(workspace, target),
    };
    sign(claims)
}

/// A token for somebody who follows the events of one channel.
pub(crate) fn viewer_token(workspace: &str, target: &str, client: &str, channel: &str) -> String {
    let mut claims = TokenClaims::client(workspace, target, client);
    claims.scope = Some(Scope::SessionEvents);
    claims.session_channels = Some(vec![channel.to_owned()]);
    sign(claims)
}

fn sign(mut claims: TokenClaims) -> String {
    claims.machine_id = Some("machine".to_owned());
    let token = issuer().issue(claims, SystemTime::now(), LIFETIME);
    token.expect("a P-256 key signs whatever claims").expose().to_owned()
}

/// The issuer of this process: with the key its parent left for it, or one of its own.
fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let inherited = std::env::var_os(KEY_FILE_VARIABLE).map(|path| read_key(Path::new(&path)));
        let key = inherited.unwrap_or_else(|| Ok(SigningKey::generate()?));
        Issuer::new(key.expect("the parent left a key, or the system has randomness"))
    })
}

fn read_key(path: &Path) -> Result<SigningKey> {
    Ok(SigningKey::from_pem(&std::fs::read_to_string(path)?)?)
}

/// This process's key in a file for its children. It goes with this value.
pub(crate) struct KeyFile {
    dir: TempDir,
}

impl KeyFile {
    pub(crate) fn write() -> Result<Self> {
        let file = Self { dir: tempfile::tempdir()? };
        std::fs::write(file.path(), issuer().key().to_pem()?.expose())?;
        Ok(file)
    }

    /// Where it is; children find it in [`KEY_FILE_VARIABLE`].
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("signing.pem")
    }
}

/// Answers requests on one connection until it ends.
fn serve(socket: &TcpStream, keys: &str, validations: &AtomicU64) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    let mut line = String::new();
    let mut body = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asks_for_keys = line.split(' ').nth(1) == Some(JWKS_PATH);
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("content-length")?;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let answer = if asks_for_keys {
            keys.to_owned()
        } else {
            validations.fetch_add(1, Ordering::Relaxed);
            answer(&body)
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        writer.write_all([head, answer].concat().as_bytes())?;
    }
}

/// The claims that the token in the request spells out, as they stand there: reading them would be
/// time of the load.
fn answer(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = request["relayToken"].as_str().unwrap_or_default();
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    match payload.and_then(|payload| String::from_utf8(payload).ok()) {
        Some(claims) if !claims.is_empty() => format!(r#"{{"ok":true,"claims":{claims}}}"#),
        _ => r#"{"ok":false,"reason":"INVALID_RELAY_TOKEN"}"#.to_owned(),
    }
}

/// Where children find the key to sign with.
pub(crate) const KEY_FILE_VARIABLE: &str = "RELAY_LOAD_KEY_FILE";
/// How long a token is good: longer than any run.
pub(crate) const LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(body: &[u8]) -> Value {
        serde_json::from_str(&answer(body)).expect("an answer is JSON")
    }

    fn asked(token: &str) -> Value {
        told(json!({"relayToken": token}).to_string().as_bytes())
    }

    #[test]
    fn a_token_is_answered_with_what_it_says() {
        let answer = asked(&token("client", "w1", "t1", "c1"));
        assert_eq!(answer["ok"], true);
        assert_eq!(answer["claims"]["workspaceId"], "w1");
        assert_eq!(answer["claims"]["scope"], "runtime");
        let answer = asked(&viewer_token("w1", "t1", "c1", "agent-session:s1"));
        assert_eq!(answer["claims"]["scope"], "session-events");
        assert_eq!(answer["claims"]["sessionChannels"][0], "agent-session:s1");
    }

    #[test]
    fn the_published_key_checks_the_signature() {
        let token = token("workspace-daemon", "w1", "t1", "");
        assert!(issuer().judge(&token).is_ok());
        assert_eq!(issuer().key_set()["keys"][0]["alg"], "ES256");
        let file = KeyFile::write().expect("a temporary file");
        let key = read_key(&file.path()).expect("the key that was written");
        assert_eq!(key.key_id(), issuer().key().key_id());
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(told(b"{}")["ok"], false);
        assert_eq!(told(b"no json")["ok"], false);
        assert_eq!(asked("a.!.c")["ok"], false);
    }
}
