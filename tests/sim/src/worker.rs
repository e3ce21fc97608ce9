//! A simulated worker: calls the platform, which the control plane plays.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use relay_driver::sim::{Seed, World};
use serde_json::Value;

use crate::frame;
use crate::message::Actor;
use crate::oracle::Oracle;
use crate::peer::{Card, Stage, TOKEN, Wire};

/// The worker of one workspace. It connects again whenever it is gone.
pub(crate) struct Worker {
    workspace: usize,
    pub(crate) wire: Option<Wire>,
    /// Names the connection; never used again.
    life: u64,
    calls: u64,
    /// Calls that were not answered yet.
    waiting: BTreeSet<String>,
}

impl Worker {
    pub(crate) fn new(workspace: usize) -> Self {
        Self { workspace, wire: None, life: 0, calls: 0, waiting: BTreeSet::new() }
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.wire.is_some() {
            return false;
        }
        let target = format!("/ws?role=worker&workspaceId=w{}", self.workspace);
        let host = 120 + self.workspace as u8;
        self.wire = Wire::connect(world, listener, Card { target: &target, host, token: TOKEN });
        self.life = life;
        self.waiting.clear();
        self.wire.is_some()
    }

    /// Reads and, when it may, calls. A call that comes when `calls_max` are open is refused.
    pub(crate) fn turn(
        &mut self,
        oracle: &mut Oracle,
        seed: &mut Seed,
        talk: Option<usize>,
        calls_max: u32,
    ) -> Result<()> {
        let Some(mut wire) = self.wire.take() else {
            return Ok(());
        };
        for arrival in wire.turn(seed) {
            if let Some(text) = oracle.witness(self.life, arrival)? {
                self.on_text(&text, oracle, calls_max)?;
            }
        }
        if let (Some(bytes_max), Stage::Open, true) = (talk, wire.stage, wire.is_drained()) {
            for _ in 0..seed.length(3) {
                self.calls += 1;
                let request_id = format!("c{}-{}", self.life, self.calls);
                let body = oracle.send(self.life, Actor::Office, seed, bytes_max);
                let call = frame::worker_call(&request_id, &call_path(self.workspace), &body);
                wire.send_text(call.as_bytes(), seed);
                self.waiting.insert(request_id);
            }
        }
        if wire.stage != Stage::Over {
            self.wire = Some(wire);
        }
        Ok(())
    }

    /// At the end: is an answer missing?
    pub(crate) fn expect_answers(&self) -> Result<()> {
        let sound = self.wire.as_ref().is_some_and(Wire::is_sound);
        let missing = self.waiting.len();
        ensure!(!sound || missing == 0, "{missing} calls of worker {} unanswered", self.life);
        Ok(())
    }

    fn on_text(&mut self, text: &[u8], oracle: &mut Oracle, calls_max: u32) -> Result<()> {
        let frame: Value = serde_json::from_slice(text)?;
        let member = |name: &str| frame[name].as_str().unwrap_or_default();
        let kind = member("type");
        ensure!(kind == "viewport.worker_transport.response/v1", "a worker received {kind:?}");
        let request_id = member("requestId");
        let open = self.waiting.len();
        ensure!(self.waiting.remove(request_id), "{request_id} did not wait for an answer");
        if frame["status"] == 503 {
            // All calls that filled the quota are answered after this one.
            ensure!(open > calls_max as usize, "refused with {open} of {calls_max} calls open");
            return Ok(());
        }
        if oracle.forgives_calls() && frame["status"] == 502 {
            // The control plane was away, or came back as another.
            return Ok(());
        }
        ensure!(frame["status"] == 200, "a worker was answered {}", frame["status"]);
        oracle.receive(Actor::Client(self.life), member("body"))?;
        Ok(())
    }
}

/// The path of every call in that workspace.
pub(crate) fn call_path(workspace: usize) -> String {
    format!("/api/runtime/workspaces/w{workspace}/managed-executors/e/jobs")
}
