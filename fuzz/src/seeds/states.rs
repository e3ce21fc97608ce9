//! Switchboards in the midst of their work, written down.

use std::borrow::Cow;
use std::sync::Arc;

use relay_contract::{
    AdmissionId, Claims, ConnectionId, Credential, Grant, Limits, Role, Scope, ShardId, Tick,
    UpgradeRequest,
};
use relay_switchboard::{Effects, Input, Message, Switchboard};
use relay_wire::envelope::Scanner;

/// An empty one, one with everything in it, one that is stopping; each also without its counters,
/// whose names would draw most of the mutations.
pub fn restored() -> Vec<Vec<u8>> {
    let mut board = Board::new();
    let empty = board.switchboard.write_down();
    board.fill();
    let busy = board.switchboard.write_down();
    board.tell(Input::Stop);
    let stopping = board.switchboard.write_down();
    let states = [empty, busy, stopping];
    states.iter().map(|state| without_counters(state)).chain(states.iter().cloned()).collect()
}

/// As a release with other counters would have written it.
fn without_counters(state: &[u8]) -> Vec<u8> {
    let ((version, _), rest): ((u16, Vec<(String, u64)>), _) =
        postcard::take_from_bytes(state).expect("a version and counters come first");
    let head = (version, Vec::<(String, u64)>::new());
    let mut state = postcard::to_allocvec(&head).expect("plain values serialise");
    state.extend_from_slice(rest);
    state
}

struct Board {
    switchboard: Switchboard,
    effects: Effects,
    opened: u32,
}

impl Board {
    fn new() -> Self {
        let limits = Arc::new(Limits::default());
        let switchboard = Switchboard::new(ShardId(0), [7; 16], limits);
        Self { switchboard, effects: Effects::new(), opened: 0 }
    }

    fn fill(&mut self) {
        let daemon = self.open(Role::Daemon, None);
        let client = self.open(Role::Client, Some(Scope::Runtime));
        let pairing = self.open(Role::Client, Some(Scope::Pairing));
        let viewer = self.open(Role::Client, Some(Scope::SessionEvents));
        let worker = self.open(Role::Worker, None);
        let leaver = self.open(Role::Client, Some(Scope::Runtime));
        for (from, text) in [
            (client, INIT),
            (daemon, RESPONSE),
            (client, ENVELOPE),
            (client, OPEN_INIT),
            (pairing, OFFER),
            (viewer, SUBSCRIBE),
            (worker, CALL),
        ] {
            self.say(from, text);
        }
        self.tell(Input::Closing { connection: leaver });
    }

    fn open(&mut self, role: Role, scope: Option<Scope>) -> ConnectionId {
        let connection = ConnectionId { shard: ShardId(0), slot: self.opened, generation: 0 };
        self.opened += 1;
        let is_worker = role == Role::Worker;
        let claims = Claims {
            client_id: (role == Role::Client).then(|| "c".into()),
            workspace_id: Some("w".into()),
            runtime_target_id: (!is_worker).then(|| "t".into()),
            machine_id: Some("m".into()),
            managed_executor_id: is_worker.then(|| "x".into()),
            scope,
            session_channels: (scope == Some(Scope::SessionEvents))
                .then(|| ["agent-session:a".into(), "agent-session:b".into()].into()),
            ..Claims::default()
        };
        let target_id = (!is_worker).then(|| "t".into());
        let grant = Grant {
            admission: AdmissionId(connection.slot.into()),
            request: UpgradeRequest { role, workspace_id: "w".into(), target_id },
            claims,
            claims_digest: 0,
            credential: Credential::default(),
            address: [127, 0, 0, 1].into(),
        };
        self.tell(Input::Opened { connection, grant: Box::new(grant) });
        connection
    }

    fn say(&mut self, from: ConnectionId, text: &str) {
        let mut scanner = Scanner::new();
        scanner.feed(text.as_bytes());
        let envelope = scanner.finish();
        let whole = || Cow::Borrowed(text.as_bytes());
        let message = Message {
            bytes: text.len(),
            envelope: envelope.as_ref().map_err(|&invalid| invalid),
            text: &whole,
            call: None,
        };
        self.tell(Input::Message { from, message });
    }

    fn tell(&mut self, input: Input<'_>) {
        self.switchboard.handle(Tick::from_millis(1000), input, &mut self.effects);
        self.effects.clear();
    }
}

const INIT: &str = r#"{"type":"relay_key_exchange_init","version":3,"profile":"noise-ik",
    "requestId":"r","clientEphemeralPublicKey":"A","encryptedClientStatic":"B"}"#;
const OPEN_INIT: &str = r#"{"type":"relay_key_exchange_init","version":3,"profile":"noise-ik",
    "requestId":"o","clientEphemeralPublicKey":"A","encryptedClientStatic":"B"}"#;
const RESPONSE: &str = r#"{"type":"relay_key_exchange_response","version":3,"profile":"noise-ik",
    "requestId":"r","daemonPublicKey":"D","daemonEphemeralPublicKey":"E","encryptedMetadata":"F",
    "sessionId":"s","epoch":1,"proof":"G"}"#;
const ENVELOPE: &str = r#"{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s",
    "epoch":1,"seq":1,"iv":"aXY","tag":"dGFn","ciphertext":"Y2lwaGVy"}"#;
const OFFER: &str = r#"{"type":"relay_pairing_offer_request","requestId":"p",
    "clientChannelPublicKey":"K","ttlSeconds":30}"#;
const SUBSCRIBE: &str =
    r#"{"type":"viewport.session_events.subscribe/v1","channel":"agent-session:a"}"#;
const CALL: &str = r#"{"type":"viewport.worker_transport.request/v1","requestId":"q",
    "method":"GET","path":"/api/runtime/workspaces/w/managed-executors/x/y"}"#;
