//! A simulated daemon: answers handshakes, pairing requests, and messages of its sessions.

use anyhow::{Result, bail, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::Value;

use crate::frame;
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::peer::{Card, Stage, TOKEN, Wire};

/// The daemon of one workspace. It connects again whenever it is gone.
pub(crate) struct Daemon {
    workspace: usize,
    wire: Option<Wire>,
    /// Names the connection; never used again.
    pub(crate) life: u64,
    /// Sessions of this life, with the client's life each was made for.
    sessions: Vec<(String, u64)>,
    /// Text that waits for its turn.
    outbox: Vec<String>,
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

    /// Whether it is open, and all it sent was sound.
    pub(crate) fn is_sound(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_sound)
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.wire.is_some() {
            return false;
        }
        let workspace = self.workspace;
        let target =
            format!("/ws?role=workspace-daemon&workspaceId=w{workspace}&runtimeTargetId=t");
        self.wire =
            Wire::connect(world, listener, Card { target: &target, host: 200, token: TOKEN });
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
        bytes_max: usize,
    ) -> Result<()> {
        let Some(mut wire) = self.wire.take() else {
            return Ok(());
        };
        for arrival in wire.turn(seed) {
            if let Some(text) = oracle.witness(self.life, arrival)? {
                self.on_text(&text, oracle, seed, bytes_max)?;
            }
        }
        for text in self.outbox.drain(..) {
            wire.send_text(text.as_bytes(), seed);
        }
        if wire.stage != Stage::Over {
            self.wire = Some(wire);
        }
        Ok(())
    }

    fn on_text(
        &mut self,
        text: &[u8],
        oracle: &mut Oracle,
        seed: &mut Seed,
        bytes_max: usize,
    ) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        let member = |name: &str| frame[name].as_str().unwrap_or_default();
        let by = Actor::Daemon(self.workspace);
        let sent = match member("type") {
            "relay_key_exchange_init" => {
                let client = member("clientEphemeralPublicKey").parse()?;
                let session_id = format!("s{}-{}", self.life, self.sessions.len());
                let answer = frame::key_exchange_response(member("requestId"), &session_id);
                self.outbox.push(answer);
                self.sessions.push((session_id, client));
                frame::key_exchange_init(member("requestId"), client)
            }
            "relay_pairing_offer_request" => {
                let message = member("clientChannelPublicKey");
                let client = oracle.receive(by, message)?;
                let answer = oracle.send(self.life, Actor::Client(client), seed, bytes_max);
                self.outbox.push(frame::offer_response(member("requestId"), &answer));
                frame::offer_request(member("requestId"), message)
            }
            "e2ee" => {
                let (session_id, message) = (member("sessionId"), member("ciphertext"));
                let from = oracle.receive(by, message)?;
                if let Some((_, client)) = self.sessions.iter().find(|(id, _)| id == session_id) {
                    ensure!(*client == from, "connection {from} speaks in session {session_id}");
                    if seed.below(2) == 0 {
                        let answer = oracle.send(self.life, Actor::Client(from), seed, bytes_max);
                        self.outbox.push(frame::e2ee(session_id, &answer));
                    }
                }
                frame::e2ee(session_id, message)
            }
            other => bail!("a daemon received {other:?}"),
        };
        ensure!(sent.as_bytes() == text, "a daemon received what was not sent");
        Ok(())
    }
}
