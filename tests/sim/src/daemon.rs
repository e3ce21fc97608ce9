//! A simulated daemon: answers handshakes, and every message of a session it made.

use anyhow::{Result, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::{Value, json};

use crate::oracle::{Actor, Oracle};
use crate::peer::{Arrival, Stage, Wire};

/// The daemon of one workspace. It connects again whenever it is gone.
pub(crate) struct Daemon {
    workspace: usize,
    wire: Option<Wire>,
    /// Names the connection; never used again.
    pub(crate) life: u64,
    /// Sessions of this life, with the client each was made for.
    sessions: Vec<(String, usize)>,
    /// Text that waits for its turn.
    outbox: Vec<Vec<u8>>,
}

impl Daemon {
    pub(crate) fn new(workspace: usize) -> Self {
        Self { workspace, wire: None, life: 0, sessions: Vec::new(), outbox: Vec::new() }
    }

    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        self.wire.as_mut()
    }

    /// Whether it is connected and has nothing left to send.
    pub(crate) fn is_open(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.stage == Stage::Open)
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.wire.is_some() {
            return false;
        }
        let workspace = self.workspace;
        let target =
            format!("/ws?role=workspace-daemon&workspaceId=w{workspace}&runtimeTargetId=t");
        self.wire = Wire::connect(world, listener, &target, 200);
        self.life = life;
        self.sessions.clear();
        self.outbox.clear();
        self.wire.is_some()
    }

    /// Reads, answers and writes.
    pub(crate) fn turn(
        &mut self,
        oracle: &mut Oracle,
        seed: &mut Seed,
        ciphertext_bytes_max: usize,
    ) -> Result<()> {
        let Some(mut wire) = self.wire.take() else {
            return Ok(());
        };
        for arrival in wire.turn(seed) {
            match arrival {
                Arrival::Opened => {}
                Arrival::Text(text) => self.on_text(&text, oracle, seed, ciphertext_bytes_max)?,
                Arrival::Refused(status) => oracle.ended(self.actor(), Some(status)),
                Arrival::Closing(code) => oracle.ended(self.actor(), code),
                Arrival::Gone => oracle.ended(self.actor(), None),
            }
        }
        for text in self.outbox.drain(..) {
            wire.send_text(&text, seed);
        }
        if wire.stage != Stage::Over {
            self.wire = Some(wire);
        }
        Ok(())
    }

    fn actor(&self) -> Actor {
        Actor::Daemon(self.workspace)
    }

    fn on_text(
        &mut self,
        text: &[u8],
        oracle: &mut Oracle,
        seed: &mut Seed,
        ciphertext_bytes_max: usize,
    ) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        match frame["type"].as_str() {
            Some("relay_key_exchange_init") => {
                let request_id = frame["requestId"].as_str().unwrap_or_default();
                let client = frame["clientEphemeralPublicKey"].as_str().unwrap_or_default();
                let session_id = format!("s{}-{}", self.life, self.sessions.len());
                self.sessions.push((session_id.clone(), client.parse()?));
                self.outbox.push(
                    json!({
                        "type": "relay_key_exchange_response", "version": 3, "profile": "noise-ik",
                        "requestId": request_id, "daemonPublicKey": "k",
                        "daemonEphemeralPublicKey": "e", "encryptedMetadata": "m",
                        "sessionId": session_id, "epoch": 1, "proof": "p",
                    })
                    .to_string()
                    .into_bytes(),
                );
            }
            Some("e2ee") => {
                let ciphertext = frame["ciphertext"].as_str().unwrap_or_default();
                oracle.receive(self.actor(), ciphertext)?;
                let session_id = frame["sessionId"].as_str().unwrap_or_default();
                let session = self.sessions.iter().find(|(id, _)| id == session_id);
                if let (Some((_, client)), true) = (session, seed.below(2) == 0) {
                    let head = oracle.send(self.life, Actor::Client(*client));
                    self.outbox.push(e2ee(session_id, &head, seed, ciphertext_bytes_max));
                }
            }
            other => ensure!(false, "a daemon received {other:?}"),
        }
        Ok(())
    }
}

/// An encrypted frame as the relay sees it: the ciphertext begins with what identifies the message.
pub(crate) fn e2ee(session_id: &str, head: &str, seed: &mut Seed, bytes_max: usize) -> Vec<u8> {
    let ciphertext = format!("{head}{}", "x".repeat(seed.below(bytes_max as u64) as usize));
    format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"{}","epoch":1,"#,
            r#""seq":1,"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        session_id, ciphertext
    )
    .into_bytes()
}
