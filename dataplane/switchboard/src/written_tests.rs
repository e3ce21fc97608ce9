//! A switchboard that was written down goes on as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use relay_contract::{AdmissionId, ConnectionId, Limits, Role, Scope, ShardId, Tick};

use super::RestoreError;
use crate::board::{
    answer, board, call, frame, grant, init, key_update, offer, presence, redeemed, response, say,
    seen, subscribe, unsubscribe,
};
use crate::{Effects, Input, Switchboard};

#[derive(Clone, Debug)]
enum Step {
    Open { who: usize, generation: Option<u64> },
    Say { slot: u32, what: usize, about: usize },
    Pong(u32),
    Progress(u32),
    Sent(u32),
    Reply(u32),
    Fault(u32),
    Closing(u32),
    Closed(u32),
    Pass(u64),
    Stop,
}

const SLOTS: u32 = 12;

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    prop_oneof![
        6 => (0..5usize, prop::option::of(0..3u64))
            .prop_map(|(who, generation)| Step::Open { who, generation }),
        20 => (slot.clone(), 0..12usize, 0..4usize)
            .prop_map(|(slot, what, about)| Step::Say { slot, what, about }),
        2 => slot.clone().prop_map(Step::Pong),
        1 => slot.clone().prop_map(Step::Progress),
        2 => slot.clone().prop_map(Step::Sent),
        1 => slot.clone().prop_map(Step::Reply),
        1 => slot.clone().prop_map(Step::Fault),
        1 => slot.clone().prop_map(Step::Closing),
        3 => slot.prop_map(Step::Closed),
        4 => (0..400u64).prop_map(Step::Pass),
        1 => (0..80u32).prop_map(|n| if n == 0 { Step::Stop } else { Step::Pass(0) }),
    ]
}

/// Small enough that every bound and deadline is met.
fn limits() -> Arc<Limits> {
    let mut limits = Limits {
        egress_bytes_max: 2000,
        key_exchange_per_minute: 10,
        pairing_per_minute: 10,
        runtime_per_minute: 40,
        daemon_per_minute: 60,
        daemon_keys_max: 2,
        pending_requests_max: 2,
        session_owners_max: 2,
        pending_request_ttl: Duration::from_millis(300),
        session_owner_ttl: Duration::from_millis(500),
        empty_scope_ttl: Duration::from_millis(200),
        cleanup_interval: Duration::from_millis(150),
        close_timeout: Duration::from_millis(100),
        worker_calls_max: 2,
        ..Limits::default()
    };
    limits.heartbeat.ping_interval = Duration::from_millis(70);
    limits.heartbeat.pong_timeout = Duration::from_millis(160);
    limits.heartbeat.idle_timeout = Duration::from_millis(900);
    Arc::new(limits)
}

/// What two switchboards are told alike.
struct Script {
    now: Tick,
    generations: [u32; SLOTS as usize],
    opened: u32,
}

impl Script {
    fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { shard: ShardId(3), slot, generation: self.generations[slot as usize] }
    }

    fn tell(&self, board: &mut Switchboard, step: &Step) -> Vec<String> {
        let mut effects = Effects::new();
        let response = answer("w", true);
        let input = match *step {
            Step::Open { who, generation } => {
                let slot = self.opened % SLOTS;
                let grant = Box::new(newcomer(who, generation, self.opened));
                Input::Opened { connection: self.id(slot), grant }
            }
            Step::Say { slot, what, about } => {
                let text = text(what, about).replace('\'', "\"");
                return say(board, self.now, self.id(slot), &text).iter().map(seen).collect();
            }
            Step::Pong(slot) => Input::Pong { from: self.id(slot) },
            Step::Progress(slot) => Input::Progress { from: self.id(slot) },
            Step::Sent(slot) => Input::Sent { to: self.id(slot), bytes: 700 },
            Step::Reply(slot) => Input::WorkerReply { to: self.id(slot), response: &response },
            Step::Fault(slot) => Input::ProtocolError { from: self.id(slot) },
            Step::Closing(slot) => Input::Closing { connection: self.id(slot) },
            Step::Closed(slot) => Input::Closed { connection: self.id(slot) },
            Step::Pass(_) => Input::Elapsed,
            Step::Stop => Input::Stop,
        };
        board.handle(self.now, input, &mut effects);
        effects.iter().map(seen).collect()
    }
}

fn newcomer(who: usize, generation: Option<u64>, number: u32) -> relay_contract::Grant {
    let role = [Role::Daemon, Role::Client, Role::Client, Role::Client, Role::Worker][who];
    let mut grant = grant(role);
    grant.admission = AdmissionId(number.into());
    grant.claims.daemon_issue_generation = generation;
    match who {
        2 => grant.claims.scope = Some(Scope::Pairing),
        3 => {
            grant.claims.scope = Some(Scope::SessionEvents);
            grant.claims.session_channels = Some(["agent-session:0".into()].into());
        }
        _ => {}
    }
    if number % 5 == 4 {
        grant.request.target_id = None;
        grant.claims.runtime_target_id = Some("rt2".into());
    }
    grant
}

fn text(what: usize, about: usize) -> String {
    let (id, channel) = (about.to_string(), format!("agent-session:{about}"));
    match what {
        0 | 1 => frame(&id),
        2 => init(&id),
        3 => response(&id, &id),
        4 => key_update(&id),
        5 => offer(&id),
        6 => redeemed(&id),
        7 => subscribe(&channel),
        8 => unsubscribe(&channel),
        9 => presence(&channel),
        10 => call("w", "/api/runtime/workspaces/ws1/managed-executors/ex1/x"),
        _ => "x".to_owned(),
    }
}

proptest! {
    #[test]
    fn writing_down_and_restoring_changes_no_later_effect(
        steps in prop::collection::vec((step(), any::<bool>()), 1..250)
    ) {
        let limits = limits();
        let mut lasting = Switchboard::new(ShardId(3), [9; 16], limits.clone());
        let mut moved = Switchboard::new(ShardId(3), [9; 16], limits.clone());
        let mut script = Script { now: Tick(5), generations: [0; SLOTS as usize], opened: 0 };
        for (step, moves) in steps {
            if let Step::Pass(ms) = step {
                script.now = Tick(script.now.0 + ms * 1_000_001);
            }
            if let Step::Open { .. } = step {
                script.opened += 1;
                script.generations[(script.opened % SLOTS) as usize] += 1;
            }
            if moves {
                moved = Switchboard::restore(&moved.write_down(), limits.clone(), Arc::default())
                    .expect("what was just written can be read");
            }
            prop_assert_eq!(script.tell(&mut lasting, &step), script.tell(&mut moved, &step));
            prop_assert_eq!(lasting.counters(), moved.counters());
            prop_assert_eq!(lasting.next_deadline(), moved.next_deadline());
        }
        prop_assert_eq!(lasting.write_down(), moved.write_down());
    }

    #[test]
    fn damaged_state_is_refused_or_harmless(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
        let mut board = board();
        board.daemon();
        let client = board.client();
        board.say(client, &init("r"));
        let mut state = board.switchboard.write_down();
        let at = at.index(state.len());
        state[at] = byte;
        let limits = Arc::new(Limits::default());
        if let Ok(mut restored) = Switchboard::restore(&state, limits, Arc::default()) {
            let mut effects = Effects::new();
            restored.handle(Tick::from_millis(100_000), Input::Elapsed, &mut effects);
            restored.handle(Tick::from_millis(100_000), Input::Stop, &mut effects);
        }
    }
}

#[test]
fn state_of_another_version_is_refused_by_number() {
    let mut state = board().switchboard.write_down();
    state[0] = 99;
    let refused =
        Switchboard::restore(&state, Arc::new(Limits::default()), Arc::default()).map(drop);
    assert_eq!(refused, Err(RestoreError::Version { found: 99, expected: super::VERSION }));
    let refused = Switchboard::restore(&[], Arc::new(Limits::default()), Arc::default()).map(drop);
    assert_eq!(refused, Err(RestoreError::Damaged));
}

#[test]
fn equal_machine_ids_share_their_text_also_after_a_restore() {
    let mut board = board();
    let clients = [board.client(), board.client()];
    let state = board.switchboard.write_down();
    let restored =
        Switchboard::restore(&state, Arc::new(Limits::default()), Arc::default()).unwrap();
    for switchboard in [&board.switchboard, &restored] {
        let [first, second] = clients.map(|client| {
            let (_, client) = switchboard.client(client).unwrap();
            client.machine_id.clone().unwrap()
        });
        assert!(Arc::ptr_eq(&first, &second));
    }
}
