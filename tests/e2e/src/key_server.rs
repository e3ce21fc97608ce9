//! A platform that publishes signing keys, and counts what it is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use relay_platform::{Issuer, JWKS_PATH};
use serde_json::json;

use crate::platform::BACKLOG;

/// Key set and validation endpoint in one, on loopback. Every token it is asked about is accepted.
///
/// Its threads end with the process of the test.
pub struct KeyServer {
    url: String,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The key set, or nothing while fetches are answered 503.
    document: Mutex<Option<String>>,
    validations: AtomicUsize,
    fetches: AtomicUsize,
}

impl KeyServer {
    /// Starts one that publishes these issuers' keys.
    pub fn start(issuers: &[&Issuer]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        rustix::net::listen(&listener, BACKLOG)?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Self { url, kept: Arc::default() };
        server.publish(issuers);
        let kept = Arc::clone(&server.kept);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // A connection that fails is the relay's to open again.
                thread::spawn(move || drop(serve(&socket, &kept)));
            }
        });
        Ok(server)
    }

    /// Its origin.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its keys are.
    pub fn key_set_url(&self) -> String {
        format!("{}{JWKS_PATH}", self.url)
    }

    /// Publishes these issuers' keys from now on, and no others.
    pub fn publish(&self, issuers: &[&Issuer]) {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.key().public_jwk()).collect();
        self.answer(Some(json!({ "keys": keys }).to_string()));
    }

    /// Answers fetches with 503 until keys are published again.
    pub fn fail(&self) {
        self.answer(None);
    }

    fn answer(&self, document: Option<String>) {
        *self.kept.document.lock().unwrap_or_else(PoisonError::into_inner) = document;
    }

    /// Tokens it was asked about so far.
    pub fn validations(&self) -> usize {
        self.kept.validations.load(Ordering::Relaxed)
    }

    /// Fetches of its key set so far, failed ones included.
    pub fn fetches(&self) -> usize {
        self.kept.fetches.load(Ordering::Relaxed)
    }
}

fn serve(socket: &TcpStream, kept: &Kept) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asks_for_keys = line.contains(JWKS_PATH);
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let body = if asks_for_keys {
            kept.fetches.fetch_add(1, Ordering::Relaxed);
            kept.document.lock().unwrap_or_else(PoisonError::into_inner).clone()
        } else {
            kept.validations.fetch_add(1, Ordering::Relaxed);
            Some(r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#.to_owned())
        };
        let status = if body.is_some() { "200 OK" } else { "503 Service Unavailable" };
        let body = body.unwrap_or_default();
        let length = body.len();
        write!(writer, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")?;
    }
}
