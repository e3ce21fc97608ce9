//! What a switchboard takes to decide.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Result, ensure};
use relay_contract::{
    AdmissionId, Claims, ConnectionId, Credential, Grant, Limits, Profile, Role, Scope, ShardId,
    Tick, UpgradeRequest,
};
use relay_switchboard::{Effect, Effects, Input, Message, Switchboard, framed_bytes};
use relay_wire::envelope::{Envelope, Invalid, Scanner};

use crate::cases::Operation;
use crate::messages;

/// What is decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    /// An encrypted message of a client.
    ToDaemon,
    /// An encrypted message of a daemon, to the client that owns the session.
    ToClient,
    /// A key exchange: the client's question and the daemon's answer.
    KeyExchange,
    /// A viewer's presence, to seven others.
    Presence,
}

/// Judges the same scanned message over and over, and lets everything queued leave at once.
///
/// Scanning is done before: it is a case of its own.
pub(crate) struct Deciding {
    switchboard: Switchboard,
    effects: Effects,
    now: Tick,
    /// Who says what.
    said: Vec<Said>,
    sent: u64,
    sent_each: u64,
}

struct Said {
    from: ConnectionId,
    text: &'static [u8],
    envelope: Result<Envelope<'static>, Invalid>,
}

impl Deciding {
    /// Connects a daemon, clients and viewers, and lets them get acquainted.
    pub(crate) fn start(decision: Decision) -> Result<Self> {
        let mut deciding = Self {
            switchboard: Switchboard::new(ShardId(0), [7; 16], Arc::new(limits())),
            effects: Effects::new(),
            now: Tick::from_millis(1000),
            said: Vec::new(),
            sent: 0,
            sent_each: 1,
        };
        let daemon = deciding.open(0, Role::Daemon, None);
        let client = deciding.open(1, Role::Client, Some(Scope::Runtime));
        let viewers = [2, 3, 4, 5, 6, 7, 8, 9]
            .map(|slot| deciding.open(slot, Role::Client, Some(Scope::SessionEvents)));
        let init = Said::new(client, messages::KEY_EXCHANGE_INIT.into());
        let response = Said::new(daemon, messages::KEY_EXCHANGE_RESPONSE.into());
        let mut all = vec![init, response];
        all.extend(viewers.map(|viewer| Said::new(viewer, messages::SUBSCRIBE.into())));
        deciding.said = all;
        deciding.run();
        match decision {
            Decision::ToDaemon => deciding.said = vec![Said::new(client, messages::encrypted(256))],
            Decision::ToClient => deciding.said = vec![Said::new(daemon, messages::encrypted(256))],
            Decision::KeyExchange => {
                deciding.said.truncate(2);
                deciding.sent_each = 2;
            }
            Decision::Presence => {
                deciding.said = vec![Said::new(viewers[0], messages::PRESENCE.into())];
                deciding.sent_each = 7;
            }
        }
        deciding.sent = 0;
        Ok(deciding)
    }

    fn open(&mut self, slot: u32, role: Role, scope: Option<Scope>) -> ConnectionId {
        let connection = ConnectionId { shard: ShardId(0), slot, generation: 0 };
        let channels = (scope == Some(Scope::SessionEvents)).then(|| ["agent-session:s1".into()]);
        let claims = Claims {
            workspace_id: Some("ws_01J9ZK3V6WQ8".into()),
            runtime_target_id: Some("rt_01J9ZK3V6WR2".into()),
            client_id: scope.map(|_| format!("cl_01J9ZK3V6WT{slot}").into()),
            e2ee_profile: Some(Profile::NoiseIk),
            scope,
            session_channels: channels.map(Into::into),
            ..Claims::default()
        };
        let grant = Box::new(Grant {
            admission: AdmissionId(slot.into()),
            request: UpgradeRequest {
                role,
                workspace_id: "ws_01J9ZK3V6WQ8".into(),
                target_id: Some("rt_01J9ZK3V6WR2".into()),
            },
            claims,
            claims_digest: 0,
            credential: Credential::default(),
            address: [127, 0, 0, 1].into(),
        });
        self.switchboard.handle(self.now, Input::Opened { connection, grant }, &mut self.effects);
        self.effects.clear();
        connection
    }
}

impl Operation for Deciding {
    fn run(&mut self) {
        for said in &self.said {
            let message = Message {
                bytes: said.text.len(),
                envelope: said.envelope.as_ref().map_err(|&invalid| invalid),
                text: &|| Cow::Borrowed(said.text),
                call: None,
            };
            let input = Input::Message { from: said.from, message };
            self.switchboard.handle(self.now, input, &mut self.effects);
            let mut left = [(ConnectionId::default(), 0); 8];
            let mut count = 0;
            for effect in self.effects.drain() {
                let (to, bytes) = match effect {
                    Effect::Forward { to } => (to, said.text.len()),
                    Effect::Send { to, text } => (to, text.len()),
                    _ => continue,
                };
                left[count] = (to, framed_bytes(bytes));
                count += 1;
            }
            for &(to, bytes) in &left[..count] {
                let input = Input::Sent { to, bytes };
                self.switchboard.handle(self.now, input, &mut self.effects);
            }
            self.sent += count as u64;
        }
        self.now = self.now.after(TURN);
    }

    fn judge(&self, runs: u64) -> Result<()> {
        let expected = runs * self.sent_each;
        ensure!(self.sent == expected, "{} messages were sent, not {expected}", self.sent);
        Ok(())
    }
}

impl Said {
    /// What the scanner says of a text. Both live as long as the program, which ends soon.
    fn new(from: ConnectionId, text: Vec<u8>) -> Self {
        let text = &*text.leak();
        let scanner = Box::leak(Box::new(Scanner::new()));
        scanner.feed(text);
        Self { from, text, envelope: scanner.finish() }
    }
}

/// Limits that nobody reaches.
pub(crate) fn limits() -> Limits {
    Limits {
        key_exchange_per_minute: u32::MAX,
        runtime_per_minute: u32::MAX,
        runtime_per_minute_workspace: u32::MAX,
        daemon_per_minute: u32::MAX,
        ..Limits::default()
    }
}

/// What passes between two messages: so little that no deadline is reached.
pub(crate) const TURN: std::time::Duration = std::time::Duration::from_micros(10);
