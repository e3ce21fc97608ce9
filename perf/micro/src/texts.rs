//! Passes over text: unmasking, scanning, reading a request head.

use anyhow::{Context, Result, ensure};
use relay_contract::Preflight;
use relay_wire::envelope::{CallReader, Scanner};
use relay_wire::http1::{UpgradeRules, handshake, parse_head, preflight};
use relay_wire::websocket::unmask;

use crate::cases::Operation;
use crate::{frames, messages};

/// Unmasks a payload in place; unmasking again masks it.
pub(crate) struct Unmasking {
    payload: Vec<u8>,
    first: Vec<u8>,
    runs: u64,
}

/// Scans a message from beginning to end.
pub(crate) struct Scanning {
    scanner: Scanner,
    text: Vec<u8>,
    valid: u64,
}

/// Reads a worker's call once more, a portion at a time.
pub(crate) struct Rereading {
    text: String,
    calls: u64,
}

/// Reads the head of an upgrade, judges it, and makes the 101.
#[derive(Default)]
pub(crate) struct Upgrading {
    rules: UpgradeRules,
    answered: u64,
}

impl Unmasking {
    pub(crate) fn new(bytes: usize) -> Self {
        let payload = messages::encrypted(bytes);
        Self { first: payload.clone(), payload, runs: 0 }
    }
}

impl Operation for Unmasking {
    fn run(&mut self) {
        unmask(&mut self.payload, frames::KEY, 0);
        self.runs += 1;
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(self.runs == runs, "it ran {} times, not {runs}", self.runs);
        let same = self.payload == self.first;
        ensure!(same == runs.is_multiple_of(2), "two masks are none, one is one");
        Ok(())
    }
}

impl Scanning {
    /// Scans an encrypted message.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { scanner: Scanner::new(), text: messages::encrypted(bytes), valid: 0 }
    }

    /// Scans a key exchange.
    pub(crate) fn key_exchange() -> Self {
        Self { text: messages::KEY_EXCHANGE_INIT.into(), ..Self::new(256) }
    }
}

impl Operation for Scanning {
    fn run(&mut self) {
        self.scanner.reset();
        self.scanner.feed(&self.text);
        self.valid += u64::from(self.scanner.finish().is_ok());
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(self.valid == runs, "{} of {runs} messages were valid", self.valid);
        Ok(())
    }
}

impl Rereading {
    /// A call that brings JSON of about so many bytes, an eighth of them quotes.
    pub(crate) fn new(bytes: usize) -> Self {
        let body = r#"\"name\":\"eight more bytes\","#.repeat(bytes / 32);
        Self { text: messages::worker_call(&body), calls: 0 }
    }
}

impl Operation for Rereading {
    fn run(&mut self) {
        let text = self.text.as_bytes();
        let mut reader = CallReader::new(text.len());
        text.chunks(PORTION_BYTES).for_each(|portion| reader.feed(portion));
        self.calls += u64::from(reader.finish().is_ok());
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(self.calls == runs, "{} of {runs} texts were calls", self.calls);
        Ok(())
    }
}

impl Operation for Upgrading {
    fn run(&mut self) {
        self.answered += u64::from(answer(&self.rules).is_ok());
    }

    fn judge(&self, runs: u64) -> Result<()> {
        answer(&self.rules)?;
        ensure!(self.answered == runs, "{} of {runs} upgrades were answered", self.answered);
        Ok(())
    }
}

fn answer(rules: &UpgradeRules) -> Result<Vec<u8>> {
    let head = parse_head(HEAD, HEAD.len())?.context("the head is whole")?;
    let asked = preflight(&head, rules);
    ensure!(matches!(asked, Preflight::Ask { .. }), "the upgrade can be asked about");
    handshake(&head).ok().context("the upgrade is one")
}

/// As a shard does it.
const PORTION_BYTES: usize = 8 << 10;

/// What a browser sends.
const HEAD: &[u8] =
    b"GET /ws?role=client&workspaceId=ws_01J9ZK3V6WQ8&runtimeTargetId=rt_01J9ZK3V6WR2 \
HTTP/1.1\r\nHost: relay.example.org\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 \
(KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
Origin: https://app.example.org\r\nSec-WebSocket-Version: 13\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Sec-WebSocket-Protocol: viewport-relay, auth.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd\r\n\
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
