//! A simulated client: shakes hands, then talks in its session.

use anyhow::{Context, Result, bail, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::Value;

use crate::frame;
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::peer::{Card, Stage, TOKEN, Wire};

/// One client of one workspace. It connects again whenever it is gone.
pub(crate) struct Client {
    index: usize,
    pub(crate) workspace: usize,
    wire: Option<Wire>,
    /// Names the connection; never used again.
    pub(crate) life: u64,
    session: Session,
    handshakes: u64,
    /// The last handshake that was answered.
    answered: u64,
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
            answered: 0,
            daemon_life: None,
            sent_any: false,
        }
    }

    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        self.wire.as_mut()
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
        let target = format!("/ws?role=client&workspaceId=w{}&runtimeTargetId=t", self.workspace);
        let host = 1 + (self.index % 100) as u8;
        self.wire = Wire::connect(world, listener, Card { target: &target, host, token: TOKEN });
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
            if let Some(text) = oracle.witness(self.life, arrival)? {
                self.on_text(&text, oracle)?;
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
                let init = frame::key_exchange_init(&request_id, self.life);
                wire.send_text(init.as_bytes(), seed);
                self.session = Session::Asked(50);
            }
            Session::Asked(0) => self.session = Session::None,
            Session::Asked(rounds) => *rounds -= 1,
            Session::Made(session_id) => {
                let daemon = Actor::Daemon(self.workspace);
                for _ in 0..seed.length(3) {
                    let message = oracle.send(self.life, daemon, seed, bytes_max);
                    wire.send_text(frame::e2ee(session_id, &message).as_bytes(), seed);
                }
                let same = !self.sent_any || self.daemon_life == Some(daemon_life);
                self.daemon_life = same.then_some(daemon_life);
                self.sent_any = true;
            }
        }
    }

    fn on_text(&mut self, text: &[u8], oracle: &mut Oracle) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        let member = |name: &str| frame[name].as_str().unwrap_or_default();
        let session_id = member("sessionId");
        let sent = match member("type") {
            "relay_key_exchange_response" => {
                let request_id = member("requestId");
                let own = request_id.strip_prefix(&format!("r{}-", self.life));
                let number: u64 = own.context("an answer to another connection")?.parse()?;
                let expected = self.answered + 1..=self.handshakes;
                ensure!(expected.contains(&number), "{request_id} was answered out of turn");
                self.answered = number;
                self.session = Session::Made(session_id.to_owned());
                frame::key_exchange_response(request_id, session_id)
            }
            "e2ee" => {
                oracle.receive(Actor::Client(self.life), member("ciphertext"))?;
                frame::e2ee(session_id, member("ciphertext"))
            }
            "relay_status" => {
                // The daemon is away; the session is as good as gone.
                self.session = Session::None;
                return Ok(());
            }
            other => bail!("a client received {other:?}"),
        };
        ensure!(sent.as_bytes() == text, "a client received what was not sent");
        Ok(())
    }
}
