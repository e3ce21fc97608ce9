//! A platform that signs: real tokens, the key set that checks them, and a validate call.
//!
//! The validate call answers with what the token says and checks no signature: it stands for the
//! platform, whose own cost is not measured here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_platform::{Issuer, JWKS_PATH, SigningKey, TokenClaims};
use serde_json::Value;
use tempfile::TempDir;

/// Signs tokens that every relay admits which trusts its key, or asks it.
pub(crate) struct Authority {
    issuer: Issuer,
    /// Where its key set and its validate call are.
    pub(crate) address: SocketAddr,
    validations: Arc<AtomicU64>,
    dir: TempDir,
}

/// Signs tokens with a key from a file, in another process than the authority's.
pub(crate) struct Signer(Issuer);

impl Authority {
    /// Makes a key and serves until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let issuer = Issuer::new(SigningKey::generate()?);
        let dir = tempfile::tempdir()?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the platform's port")?;
        let address = listener.local_addr()?;
        let keys: Arc<str> = issuer.key_set().to_string().into();
        let validations = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&validations);
        let authority = Self { issuer, address, validations, dir };
        std::fs::write(authority.key_file(), authority.issuer.key().to_pem()?.expose())?;
        thread::Builder::new().name("authority".into()).spawn(move || {
            for socket in listener.incoming().flatten() {
                let (keys, counted) = (Arc::clone(&keys), Arc::clone(&counted));
                // A connection that fails is the relay's to open again.
                let serve = move || drop(serve(&socket, &keys, &counted));
                drop(thread::Builder::new().name("authority".into()).spawn(serve));
            }
        })?;
        Ok(authority)
    }

    /// The key, for [`Signer::read`].
    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.path().join("signing.pem")
    }

    /// Validate calls so far.
    pub(crate) fn validations(&self) -> u64 {
        self.validations.load(Ordering::Relaxed)
    }

    /// The URL of the key set.
    pub(crate) fn key_set_url(&self) -> String {
        format!("http://{}{JWKS_PATH}", self.address)
    }
}

impl Signer {
    /// The signer of an authority's key.
    pub(crate) fn read(key_file: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(key_file).context("the signing key")?;
        Ok(Self(Issuer::new(SigningKey::from_pem(&pem)?)))
    }

    /// A client's token, unlike every other: each has an id of its own.
    pub(crate) fn token(&self, workspace: &str, target: &str, client: &str) -> Result<String> {
        let mut claims = TokenClaims::client(workspace, target, client);
        claims.machine_id = Some("machine".to_owned());
        let token = self.0.issue(claims, SystemTime::now(), LIFETIME)?;
        Ok(token.expose().to_owned())
    }

    /// The same, signed by nobody: its signature has the right form and is wrong.
    pub(crate) fn forged(&self, workspace: &str, target: &str, client: &str) -> Result<String> {
        let mut token = self.token(workspace, target, client)?;
        token.replace_range(token.len() - BENT.len().., BENT);
        Ok(token)
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
        let asks_for_keys = line.contains(JWKS_PATH);
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

/// The claims in the token of a validate call.
fn answer(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = request["relayToken"].as_str().unwrap_or_default();
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    match payload.and_then(|payload| String::from_utf8(payload).ok()) {
        Some(claims) if !claims.is_empty() => format!(r#"{{"ok":true,"claims":{claims}}}"#),
        _ => r#"{"ok":false,"reason":"INVALID_RELAY_TOKEN"}"#.to_owned(),
    }
}

/// The end of a forged signature.
const BENT: &str = "AAAAAAAA";

/// How long a token is good: longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_with_its_claims() {
        let authority = Authority::start().unwrap();
        let signer = Signer::read(&authority.key_file()).unwrap();
        let token = signer.token("w1", "t1", "c1").unwrap();
        let body = format!(r#"{{"relayToken":"{token}"}}"#);
        let answer: Value = serde_json::from_str(&answer(body.as_bytes())).unwrap();
        assert_eq!(answer["ok"], true);
        assert_eq!(answer["claims"]["workspaceId"], "w1");
        assert_eq!(answer["claims"]["scope"], "runtime");
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(answer(b"{}").contains("INVALID"));
        assert!(answer(br#"{"relayToken":"a.!.c"}"#).contains("INVALID"));
    }

    #[test]
    fn two_tokens_for_the_same_client_differ() {
        let authority = Authority::start().unwrap();
        let signer = Signer::read(&authority.key_file()).unwrap();
        assert_ne!(signer.token("w", "t", "c").unwrap(), signer.token("w", "t", "c").unwrap());
    }
}
