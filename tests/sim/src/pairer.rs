//! A simulated pairing client: asks for offers, one after the other.

use anyhow::{Context, Result, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::Value;

use crate::frame;
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::peer::{Card, PAIRING_TOKEN, Stage, Wire};

/// The pairing client of one workspace. It connects again whenever it is gone.
pub(crate) struct Pairer {
    pub(crate) workspace: usize,
    pub(crate) wire: Option<Wire>,
    /// Names the connection; never used again.
    life: u64,
    requests: u64,
    /// The last request that was answered.
    answered: u64,
    /// The daemon's life in which the open request was made.
    waiting: Option<u64>,
}

impl Pairer {
    pub(crate) fn new(workspace: usize) -> Self {
        Self { workspace, wire: None, life: 0, requests: 0, answered: 0, waiting: None }
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.wire.is_some() {
            return false;
        }
        let target = format!("/ws?role=client&workspaceId=w{}&runtimeTargetId=t", self.workspace);
        let host = 110 + self.workspace as u8;
        let card = Card { target: &target, host, token: PAIRING_TOKEN };
        self.wire = Wire::connect(world, listener, card);
        self.life = life;
        self.waiting = None;
        self.wire.is_some()
    }

    /// Reads and, when it may and nothing is open with this daemon, asks.
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
            && self.waiting != Some(daemon_life)
        {
            self.requests += 1;
            self.waiting = Some(daemon_life);
            let daemon = Actor::Daemon(self.workspace);
            let message = oracle.send(self.life, daemon, seed, bytes_max);
            let request_id = format!("p{}-{}", self.life, self.requests);
            wire.send_text(frame::offer_request(&request_id, &message).as_bytes(), seed);
        }
        if wire.stage != Stage::Over {
            self.wire = Some(wire);
        }
        Ok(())
    }

    /// At the end, with a daemon of this life beside it: is an answer missing?
    pub(crate) fn expect_answer(&self, daemon_life: u64) -> Result<()> {
        let sound = self.wire.as_ref().is_some_and(Wire::is_sound);
        ensure!(
            !sound || self.waiting != Some(daemon_life),
            "pairing request {} of connection {} was never answered",
            self.requests,
            self.life
        );
        Ok(())
    }

    fn on_text(&mut self, text: &[u8], oracle: &mut Oracle) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        let member = |name: &str| frame[name].as_str().unwrap_or_default();
        if member("type") == "relay_status" {
            self.waiting = None;
            return Ok(());
        }
        let (request_id, message) = (member("requestId"), member("encCiphertext"));
        let sent = frame::offer_response(request_id, message);
        ensure!(sent.as_bytes() == text, "a pairing client received what was not sent");
        oracle.receive(Actor::Client(self.life), message)?;
        let own = request_id.strip_prefix(&format!("p{}-", self.life));
        let number: u64 = own.context("an answer to another connection")?.parse()?;
        let expected = self.answered + 1..=self.requests;
        ensure!(expected.contains(&number), "{request_id} was answered out of turn");
        self.answered = number;
        if number == self.requests {
            self.waiting = None;
        }
        Ok(())
    }
}
