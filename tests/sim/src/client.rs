//! A simulated client: shakes hands, then talks in its session.

use anyhow::{Result, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::{Value, json};

use crate::daemon::e2ee;
use crate::oracle::{Actor, Oracle};
use crate::peer::{Arrival, Stage, Wire};

/// One client of one workspace. It connects again whenever it is gone.
pub(crate) struct Client {
    index: usize,
    pub(crate) workspace: usize,
    wire: Option<Wire>,
    /// Names the connection; never used again.
    pub(crate) life: u64,
    session: Session,
    handshakes: u64,
    /// The daemon's life in which all of this connection's messages fell; `None` when they fell in
    /// several.
    pub(crate) daemon_life: Option<u64>,
    sent_any: bool,
}

#[derive(Debug)]
enum Session {
    None,
    /// The rounds left before the handshake is tried again.
    Asked(u32),
    Made(String),
}

impl Client {
    pub(crate) fn new(index: usize, workspace: usize) -> Self {
        Self {
            index,
            workspace,
            wire: None,
            life: 0,
            session: Session::None,
            handshakes: 0,
            daemon_life: None,
            sent_any: false,
        }
    }

    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        self.wire.as_mut()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.stage == Stage::Open)
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.wire.is_some() {
            return false;
        }
        let target = format!("/ws?role=client&workspaceId=w{}&runtimeTargetId=t", self.workspace);
        self.wire = Wire::connect(world, listener, &target, 1 + (self.index % 100) as u8);
        self.life = life;
        self.session = Session::None;
        self.daemon_life = None;
        self.sent_any = false;
        self.wire.is_some()
    }

    /// Reads and, when it may, says something new. `daemon_life` is the daemon's connection if it
    /// is open.
    pub(crate) fn turn(
        &mut self,
        oracle: &mut Oracle,
        seed: &mut Seed,
        talk: Option<(u64, usize)>,
    ) -> Result<()> {
        let Some(mut wire) = self.wire.take() else {
            return Ok(());
        };
        for arrival in wire.turn(seed) {
            match arrival {
                Arrival::Opened => {}
                Arrival::Text(text) => self.on_text(&text, oracle)?,
                Arrival::Refused(status) => oracle.ended(self.actor(), Some(status)),
                Arrival::Closing(code) => oracle.ended(self.actor(), code),
                Arrival::Gone => oracle.ended(self.actor(), None),
            }
        }
        if let (Some((daemon_life, bytes_max)), Stage::Open, true) =
            (talk, wire.stage, wire.is_drained())
        {
            self.talk(&mut wire, oracle, seed, daemon_life, bytes_max);
        }
        if wire.stage != Stage::Over {
            self.wire = Some(wire);
        }
        Ok(())
    }

    fn talk(
        &mut self,
        wire: &mut Wire,
        oracle: &mut Oracle,
        seed: &mut Seed,
        daemon_life: u64,
        bytes_max: usize,
    ) {
        match &mut self.session {
            Session::None => {
                self.handshakes += 1;
                let request_id = format!("r{}-{}", self.life, self.handshakes);
                let init = json!({
                    "type": "relay_key_exchange_init", "version": 3, "profile": "noise-ik",
                    "requestId": request_id, "clientEphemeralPublicKey": self.index.to_string(),
                    "encryptedClientStatic": "s",
                });
                wire.send_text(init.to_string().as_bytes(), seed);
                self.session = Session::Asked(50);
            }
            Session::Asked(0) => self.session = Session::None,
            Session::Asked(rounds) => *rounds -= 1,
            Session::Made(session_id) => {
                let daemon = Actor::Daemon(self.workspace);
                for _ in 0..seed.length(3) {
                    let head = oracle.send(self.life, daemon);
                    wire.send_text(&e2ee(session_id, &head, seed, bytes_max), seed);
                }
                let same = !self.sent_any || self.daemon_life == Some(daemon_life);
                self.daemon_life = same.then_some(daemon_life);
                self.sent_any = true;
            }
        }
    }

    fn actor(&self) -> Actor {
        Actor::Client(self.index)
    }

    fn on_text(&mut self, text: &[u8], oracle: &mut Oracle) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        match frame["type"].as_str() {
            Some("relay_key_exchange_response") => {
                let request_id = frame["requestId"].as_str().unwrap_or_default();
                let own = request_id.starts_with(&format!("r{}-", self.life));
                ensure!(own, "client {} received the answer to {request_id}", self.index);
                let session_id = frame["sessionId"].as_str().unwrap_or_default();
                self.session = Session::Made(session_id.to_owned());
            }
            Some("e2ee") => {
                oracle.receive(self.actor(), frame["ciphertext"].as_str().unwrap_or_default())?;
            }
            // The daemon is away; the session is as good as gone.
            Some("relay_status") => self.session = Session::None,
            other => ensure!(false, "a client received {other:?}"),
        }
        Ok(())
    }
}
