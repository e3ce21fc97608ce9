//! Whole turns of a shard: production code above the driver, a kernel of our own below it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use relay_contract::{
    AdmissionId, Claims, Command, Counter, Credential, Event, Grant, Preflight, Profile, Role,
    Scope, ShardId, Tick,
};
use relay_driver::{Config, Driver};
use relay_mailbox::{Bell, Receiver, Ring, Sender, lane};
use relay_shard::{HealthFacts, Ports, Shard, ShardConfig};
use relay_wire::http1::{TrustedProxies, UpgradeRules};

use crate::cases::Operation;
use crate::decisions;
use crate::kernel::{Kernel, Wires};
use crate::{frames, messages};

/// What arrives between two turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) payload_bytes: usize,
    /// Frames of each client, in one piece.
    pub(crate) frames: usize,
    /// Pairs of a client and a daemon, each in a workspace of its own.
    pub(crate) pairs: usize,
}

/// Clients send, daemons receive.
pub(crate) struct Forwarding {
    bench: Bench,
    /// Client and daemon of each pair.
    pairs: Vec<(usize, usize)>,
    burst: Vec<u8>,
    frames_each: u64,
    /// Bytes a daemon gets of one burst.
    forwarded_bytes: usize,
    /// What went to each daemon before the first frame.
    before_bytes: usize,
}

/// Turns of a shard with one pair that says nothing.
pub(crate) struct Idling {
    bench: Bench,
    turns: u64,
}

/// A shard that is turned by hand, with the control plane's ends of its lanes.
struct Bench {
    shard: Shard<Kernel>,
    wires: Rc<RefCell<Wires>>,
    commands: Sender<Command>,
    events: Receiver<Event>,
    failed: bool,
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl Forwarding {
    pub(crate) fn start(traffic: Traffic) -> Result<Self> {
        let mut bench = Bench::new();
        let pairs = (0..traffic.pairs)
            .map(|pair| {
                Ok((bench.connect("client", pair)?, bench.connect("workspace-daemon", pair)?))
            })
            .collect::<Result<Vec<_>>>()?;
        // Answers to the upgrades are on their way until the next turn.
        bench.turn();
        let before_bytes = bench.wires.borrow().sent_bytes[pairs[0].1];
        let frame = frames::masked(&messages::encrypted(traffic.payload_bytes));
        Ok(Self {
            bench,
            pairs,
            burst: frame.repeat(traffic.frames),
            frames_each: (traffic.frames * traffic.pairs) as u64,
            forwarded_bytes: (frame.len() - frames::KEY.len()) * traffic.frames,
            before_bytes,
        })
    }
}

impl Operation for Forwarding {
    fn prepare(&mut self) {
        let mut wires = self.bench.wires.borrow_mut();
        for &(client, _) in &self.pairs {
            wires.arrive(client, &self.burst);
        }
    }

    fn run(&mut self) {
        self.bench.turn();
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(!self.bench.failed, "a turn failed");
        let counters = self.bench.shard.counters();
        let forwarded = counters.of(Counter::FramesClientToDaemon);
        let expected = runs * self.frames_each;
        ensure!(forwarded == expected, "{forwarded} frames were forwarded, not {expected}");
        let wires = self.bench.wires.borrow();
        for &(_, daemon) in &self.pairs {
            let sent = (wires.sent_bytes[daemon] - self.before_bytes) as u64;
            let expected = runs * self.forwarded_bytes as u64;
            ensure!(sent == expected, "{sent} bytes were sent to a daemon, not {expected}");
        }
        Ok(())
    }
}

impl Idling {
    pub(crate) fn start() -> Result<Self> {
        let mut bench = Bench::new();
        bench.connect("client", 0)?;
        bench.connect("workspace-daemon", 0)?;
        bench.turn();
        Ok(Self { bench, turns: 0 })
    }
}

impl Operation for Idling {
    fn run(&mut self) {
        self.bench.turn();
        self.turns += 1;
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(!self.bench.failed, "a turn failed");
        ensure!(self.turns == runs, "there were {} turns, not {runs}", self.turns);
        Ok(())
    }
}

impl Bench {
    fn new() -> Self {
        let config = Config::default();
        let driver = Kernel::new(&config);
        let wires = driver.wires();
        let (commands, orders) = lane(64, driver.bell());
        let (to_control, events) = lane(64, Bell::new(Silent));
        let (_, arrivals) = lane(1, driver.bell());
        let (_, door) = lane(1, driver.bell());
        let shard_config = ShardConfig {
            shard: ShardId(0),
            limits: Arc::new(decisions::limits()),
            hash_key: [3; 16],
            upgrade_rules: UpgradeRules::default(),
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
            health: HealthFacts { started: Tick::default(), verbose: None },
            unix_ms_at_origin: 0,
            receive_buffers: usize::from(config.buffer_count),
            tls: None,
        };
        let ports =
            Ports { commands: orders, events: to_control, arrivals, homes: Vec::new(), door };
        let shard = Shard::new(shard_config, driver, ports);
        Self { shard, wires, commands, events, failed: false }
    }

    fn turn(&mut self) {
        self.failed |= self.shard.turn(Some(Duration::ZERO)).is_err();
    }

    /// Opens a WebSocket; the control plane admits everybody.
    fn connect(&mut self, role: &str, pair: usize) -> Result<usize> {
        let socket = self.wires.borrow_mut().connect();
        self.turn();
        let request = format!(
            "GET /ws?role={role}&workspaceId=ws{pair}&runtimeTargetId=rt{pair} HTTP/1.1\r\n\
             Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer 0123456789\r\n\r\n"
        );
        self.wires.borrow_mut().arrive(socket, request.as_bytes());
        for _ in 0..8 {
            self.turn();
            self.admit()?;
            if self.wires.borrow().sent_bytes[socket] > 0 {
                return Ok(socket);
            }
        }
        bail!("the upgrade was not answered")
    }

    fn admit(&mut self) -> Result<()> {
        while let Some(event) = self.events.receive() {
            let Event::AdmissionAsked { connection, request: asked } = event else {
                continue;
            };
            let Preflight::Ask { request, .. } = asked.preflight else {
                bail!("the upgrade cannot be asked about");
            };
            let client_id = (request.role == Role::Client).then(|| "cl_01J9ZK3V6WT7".into());
            let claims = Claims {
                workspace_id: Some(request.workspace_id.as_str().into()),
                runtime_target_id: request.target_id.as_ref().map(|id| id.as_str().into()),
                scope: client_id.is_some().then_some(Scope::Runtime),
                client_id,
                e2ee_profile: Some(Profile::NoiseIk),
                ..Claims::default()
            };
            let admission = AdmissionId(u64::from(connection.slot));
            let address = asked.address;
            let grant = Box::new(Grant {
                admission,
                request,
                claims,
                claims_digest: 0,
                credential: Credential::default(),
                address,
            });
            let admit = Command::Admit { connection, grant, home: ShardId(0) };
            self.commands.send(admit).ok().context("the lane has room")?;
        }
        Ok(())
    }
}
