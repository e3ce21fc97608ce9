//! A switchboard under test: short ways to connect, speak and see what follows.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use relay_contract::{
    AdmissionId, Claims, ConnectionId, Counter, Credential, Grant, Limits, Profile, Role, Scope,
    ShardId, TargetId, Tick, UpgradeRequest, Value, WorkerResponse,
};
use relay_wire::envelope::Scanner;

use crate::{Effect, Effects, Input, Message, Switchboard};

pub(crate) struct Board {
    pub(crate) switchboard: Switchboard,
    pub(crate) now: Tick,
    limits: Limits,
    opened: u32,
}

/// An empty switchboard with the default limits, one second after the clock's origin.
pub(crate) fn board() -> Board {
    board_with(|_| {})
}

pub(crate) fn board_with(change: impl FnOnce(&mut Limits)) -> Board {
    let mut limits = Limits::default();
    change(&mut limits);
    let switchboard = Switchboard::new(ShardId(0), [7; 16], Arc::new(limits.clone()));
    Board { switchboard, now: Tick::from_millis(1000), limits, opened: 0 }
}

/// A grant for `ws1` and `rt1`, as the recorded scenarios have it.
pub(crate) fn grant(role: Role) -> Grant {
    let text = |text: &str| Some(Box::from(text));
    let mut claims = Claims {
        workspace_id: text("ws1"),
        runtime_target_id: text("rt1"),
        machine_id: text("m1"),
        ..Claims::default()
    };
    match role {
        Role::Daemon => {}
        Role::Client => {
            claims.client_id = text("cl1");
            claims.scope = Some(Scope::Runtime);
        }
        Role::Worker => {
            claims.runtime_target_id = None;
            claims.managed_executor_id = text("ex1");
        }
    }
    let target_id = claims.runtime_target_id.as_deref().map(TargetId::from);
    Grant {
        admission: AdmissionId(0),
        request: UpgradeRequest { role, workspace_id: "ws1".into(), target_id },
        claims,
        claims_digest: 7,
        credential: Credential::default(),
        address: [127, 0, 0, 1].into(),
    }
}

impl Board {
    /// Opens a connection in the next slot. Its admission has the slot's number.
    pub(crate) fn open(&mut self, mut grant: Grant) -> (ConnectionId, Vec<String>) {
        let connection = ConnectionId { shard: ShardId(0), slot: self.opened, generation: 0 };
        self.opened += 1;
        grant.admission = AdmissionId(connection.slot.into());
        let seen = self.see(Input::Opened { connection, grant: Box::new(grant) });
        (connection, seen)
    }

    /// Opens a connection for another target, and ends it.
    pub(crate) fn visit(&mut self, mut grant: Grant, target: &str) {
        grant.request.target_id = Some(target.into());
        grant.claims.runtime_target_id = Some(target.into());
        let (connection, _) = self.open(grant);
        self.close(connection);
    }

    pub(crate) fn daemon(&mut self) -> ConnectionId {
        self.open(grant(Role::Daemon)).0
    }

    pub(crate) fn daemon_with(&mut self, change: impl FnOnce(&mut Grant)) -> ConnectionId {
        let mut grant = grant(Role::Daemon);
        change(&mut grant);
        self.open(grant).0
    }

    pub(crate) fn client(&mut self) -> ConnectionId {
        self.open(grant(Role::Client)).0
    }

    pub(crate) fn client_with(&mut self, change: impl FnOnce(&mut Claims)) -> ConnectionId {
        let mut grant = grant(Role::Client);
        change(&mut grant.claims);
        self.open(grant).0
    }

    pub(crate) fn pairing(&mut self) -> ConnectionId {
        self.client_with(|claims| claims.scope = Some(Scope::Pairing))
    }

    /// A client that may use the channels s1 and s2.
    pub(crate) fn viewer(&mut self, name: &str) -> ConnectionId {
        self.client_with(|claims| {
            claims.scope = Some(Scope::SessionEvents);
            claims.client_id = Some(name.into());
            claims.session_channels =
                Some(["agent-session:s1", "agent-session:s2"].map(Box::from).into());
        })
    }

    pub(crate) fn worker(&mut self) -> ConnectionId {
        self.open(grant(Role::Worker)).0
    }

    /// What follows from a message, log entries left out. JSON may have single quotes.
    pub(crate) fn say(&mut self, from: ConnectionId, text: &str) -> Vec<String> {
        self.say_logged(from, text).into_iter().filter(|seen| !seen.starts_with("log")).collect()
    }

    pub(crate) fn say_logged(&mut self, from: ConnectionId, text: &str) -> Vec<String> {
        let effects = say(&mut self.switchboard, self.now, from, text);
        effects.iter().map(seen).collect()
    }

    /// What follows from an input, one line per effect.
    pub(crate) fn see(&mut self, input: Input<'_>) -> Vec<String> {
        let mut effects = Effects::new();
        self.switchboard.handle(self.now, input, &mut effects);
        effects.iter().map(seen).collect()
    }

    pub(crate) fn close(&mut self, connection: ConnectionId) -> Vec<String> {
        self.see(Input::Closed { connection })
    }

    /// Lets time pass, deadline by deadline. Each effect is preceded by its time.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<String> {
        let end = Tick(self.now.0 + Tick::from_millis(ms).0);
        let mut all = Vec::new();
        while let Some(at) = self.switchboard.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            let at = self.now.as_millis();
            all.extend(self.see(Input::Elapsed).iter().map(|seen| format!("{at} {seen}")));
        }
        self.now = end;
        all
    }

    pub(crate) fn relimit(&mut self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.limits);
        let limits = Arc::new(self.limits.clone());
        self.see(Input::SetLimits(limits));
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.switchboard.counters().of(counter)
    }

    /// Scopes as `workspace:target daemon clients`, in order.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let report = self.switchboard.report(true);
        let scopes = report.scopes.iter().map(|scope| {
            let target = scope.target_id.as_ref().map_or("-", |target| target.as_str());
            let daemon = if scope.daemon_connected { "daemon" } else { "-" };
            format!("{}:{target} {daemon} {}", scope.workspace_id, scope.client_ids.join(","))
        });
        scopes.collect()
    }
}

/// Scans a text and hands it over as a message.
pub(crate) fn say(
    switchboard: &mut Switchboard,
    now: Tick,
    from: ConnectionId,
    text: &str,
) -> Effects {
    let mut effects = Effects::new();
    message(text, |message| {
        switchboard.handle(now, Input::Message { from, message }, &mut effects);
    });
    effects
}

/// Scans a text and shows it as a message. JSON may have single quotes.
pub(crate) fn message(text: &str, show: impl FnOnce(Message<'_>)) {
    let text = text.replace('\'', "\"");
    let mut scanner = Scanner::new();
    scanner.feed(text.as_bytes());
    let envelope = scanner.finish();
    let whole = || Cow::Borrowed(text.as_bytes());
    show(Message {
        bytes: text.len(),
        envelope: envelope.as_ref().map_err(|&invalid| invalid),
        text: &whole,
        call: None,
    });
}

/// Compares a table with the one that was reviewed; `RELAY_BLESS` in the environment replaces that.
pub(crate) fn assert_reviewed(file: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(file);
    if std::env::var_os("RELAY_BLESS").is_some() {
        std::fs::write(&path, table).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(table == reviewed, "review, then run with RELAY_BLESS=1:\n{table}");
}

/// One effect as a line: what, and on which slot. Double quotes show as single ones.
pub(crate) fn seen(effect: &Effect) -> String {
    line(effect).replace('"', "'")
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Forward { to } => format!("forward {}", to.slot),
        Effect::Send { to, text } => format!("send {} {}", to.slot, String::from_utf8_lossy(text)),
        Effect::Ping { to } => format!("ping {}", to.slot),
        Effect::Close { connection, reason } => {
            format!("close {} {} {}", connection.slot, reason.code().0, reason.text())
        }
        Effect::Terminate { connection } => format!("terminate {}", connection.slot),
        Effect::CallPlatform { from, admission: _, request } => {
            let relay_contract::WorkerRequest { request_id, method, path, headers, body } =
                request.as_ref();
            format!(
                "call {} WorkerRequest {{ request_id: {request_id:?}, method: {method:?}, \
                 path: {path:?}, headers: {headers:?}, body: {body:?} }}",
                from.slot
            )
        }
        Effect::AskRenewal(fresh) => format!(
            "ask renewal {} admission {} digest {} {}",
            fresh.from.slot,
            fresh.admission.0,
            fresh.claims_digest,
            fresh.token.expose()
        ),
        Effect::Release { admission } => format!("release {}", admission.0),
        Effect::Log(entry) => {
            let mut line = format!("log {} {}", entry.level.name(), entry.event);
            for (key, value) in &entry.details {
                let value = match value {
                    Value::Text(text) => text,
                    Value::Name(name) => *name,
                    Value::Number(number) => {
                        write!(line, " {key}={number}").expect("strings grow");
                        continue;
                    }
                    Value::Flag(_) | Value::Null | Value::Redacted => {
                        panic!("no such value in these entries: {value:?}")
                    }
                };
                write!(line, " {key}={value}").expect("strings grow");
            }
            line
        }
    }
}

pub(crate) fn e2ee(session: &str, profile: Profile) -> String {
    let profile = profile.name();
    format!(
        "{{'type':'e2ee','version':2,'profile':'{profile}','sessionId':'{session}','epoch':1,\
         'seq':1,'iv':'aXY','tag':'dGFn','ciphertext':'Y2lwaGVy'}}"
    )
}

/// An encrypted frame of a session.
pub(crate) fn frame(session: &str) -> String {
    e2ee(session, Profile::NoiseIk)
}

pub(crate) fn init(request: &str) -> String {
    format!(
        "{{'type':'relay_key_exchange_init','version':3,'profile':'noise-ik',\
         'requestId':'{request}','clientEphemeralPublicKey':'AAAA',\
         'encryptedClientStatic':'BBBB'}}"
    )
}

pub(crate) fn response(request: &str, session: &str) -> String {
    format!(
        "{{'type':'relay_key_exchange_response','version':3,'profile':'noise-ik',\
         'requestId':'{request}','daemonPublicKey':'DDDD','daemonEphemeralPublicKey':'EEEE',\
         'encryptedMetadata':'FFFF','sessionId':'{session}','epoch':1,'proof':'GGGG'}}"
    )
}

pub(crate) fn key_update(session: &str) -> String {
    format!("{{'type':'relay_key_update_required','sessionId':'{session}','nextEpoch':2}}")
}

pub(crate) fn offer(request: &str) -> String {
    format!(
        "{{'type':'relay_pairing_offer_request','requestId':'{request}',\
         'clientChannelPublicKey':'PK'}}"
    )
}

pub(crate) fn redeemed(request: &str) -> String {
    format!("{{'type':'relay_pairing_redeem_response','requestId':'{request}','ok':true}}")
}

pub(crate) fn subscribe(channel: &str) -> String {
    format!("{{'type':'viewport.session_events.subscribe/v1','channel':'{channel}'}}")
}

pub(crate) fn unsubscribe(channel: &str) -> String {
    format!("{{'type':'viewport.session_events.unsubscribe/v1','channel':'{channel}'}}")
}

pub(crate) fn presence(channel: &str) -> String {
    format!(
        "{{'type':'viewport.session_viewer_presence/v1','channel':'{channel}','action':'joined',\
         'userId':'u1'}}"
    )
}

pub(crate) fn call(request: &str, path: &str) -> String {
    format!(
        "{{'type':'viewport.worker_transport.request/v1','requestId':'{request}','method':'GET',\
         'path':'{path}'}}"
    )
}

pub(crate) fn answer(request: &str, forwarded: bool) -> WorkerResponse {
    WorkerResponse {
        request_id: request.to_owned(),
        status: if forwarded { 200 } else { 502 },
        headers: Vec::new(),
        body: "{}".to_owned(),
        forwarded,
    }
}
