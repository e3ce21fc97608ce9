//! Both ends over an in-memory pipe that can lose, repeat and reorder frames.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_endpoint::handshake::HandshakeError;
use relay_endpoint::{
    ClientAction, ClientEnd, ClientInput, ClientProfile, ClientSettings, ConversationId,
    DaemonAction, DaemonEnd, DaemonInput, DaemonSettings, EndReason, KeyPair, Limits, MessageId,
    Moment, OpenError, Profile, Refusal, Tick, Undelivered,
};

struct Pipe {
    client: ClientEnd,
    daemon: DaemonEnd,
    rng: StdRng,
    now: Tick,
    up: VecDeque<String>,
    down: VecDeque<String>,
    at_client: Vec<String>,
    at_daemon: Vec<String>,
    talking_to: Option<ConversationId>,
    messages: u64,
    client_said: Vec<ClientAction>,
    daemon_said: Vec<DaemonAction>,
}

impl Pipe {
    fn new(limits: Limits, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = KeyPair::generate(&mut rng);
        let client = ClientEnd::new(ClientSettings {
            keys: KeyPair::generate(&mut rng),
            daemon: *keys.public(),
            profile: ClientProfile::NoiseIk,
            limits: limits.clone(),
        });
        let daemon = DaemonEnd::new(DaemonSettings {
            keys,
            required: Profile::NoiseIk,
            peers: Box::new(HashMap::new()),
            limits,
        });
        Self {
            client,
            daemon,
            rng,
            now: Tick::from_millis(1),
            up: VecDeque::new(),
            down: VecDeque::new(),
            at_client: Vec::new(),
            at_daemon: Vec::new(),
            talking_to: None,
            messages: 0,
            client_said: Vec::new(),
            daemon_said: Vec::new(),
        }
    }

    /// Connected and with a session on both sides.
    fn open(limits: Limits, seed: u64) -> Self {
        let mut pipe = Self::new(limits, seed);
        pipe.daemon(DaemonInput::Connected);
        pipe.client(ClientInput::Connected);
        pipe.settle();
        assert!(pipe.client.is_open());
        pipe
    }

    fn client(&mut self, input: ClientInput<'_>) {
        let mut actions = Vec::new();
        self.client.handle(self.now, input, &mut self.rng, &mut actions);
        for action in actions {
            match action {
                ClientAction::Transmit { frame, .. } => self.up.push_back(frame),
                ClientAction::Deliver { text } => self.at_client.push(text),
                other => self.client_said.push(other),
            }
        }
    }

    fn daemon(&mut self, input: DaemonInput<'_>) {
        let now = Moment { tick: self.now, unix_ms: 0 };
        let mut actions = Vec::new();
        self.daemon.handle(now, input, &mut self.rng, &mut actions);
        for action in actions {
            match action {
                DaemonAction::Transmit { frame, .. } => self.down.push_back(frame),
                DaemonAction::Deliver { from, text } => {
                    self.talking_to = Some(from);
                    self.at_daemon.push(text);
                }
                other => {
                    if let DaemonAction::Opened(caller) = &other {
                        self.talking_to.get_or_insert(caller.conversation);
                    }
                    self.daemon_said.push(other);
                }
            }
        }
    }

    fn message(&mut self) -> MessageId {
        self.messages += 1;
        MessageId(self.messages)
    }

    fn client_sends(&mut self, text: &str) {
        let (message, text) = (self.message(), text.to_owned());
        self.client(ClientInput::Send { message, text });
    }

    fn daemon_sends(&mut self, text: &str) {
        let (message, text) = (self.message(), text.to_owned());
        let to = self.talking_to.unwrap_or(ConversationId(0));
        self.daemon(DaemonInput::Send { to, message, text });
    }

    fn deliver_up(&mut self) {
        if let Some(frame) = self.up.pop_front() {
            self.daemon(DaemonInput::Frame(&frame));
        }
    }

    fn deliver_down(&mut self) {
        if let Some(frame) = self.down.pop_front() {
            self.client(ClientInput::Frame(&frame));
        }
    }

    fn settle(&mut self) {
        while !self.up.is_empty() || !self.down.is_empty() {
            self.deliver_up();
            self.deliver_down();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.client(ClientInput::Expired);
        self.daemon(DaemonInput::Expired);
    }

    fn refusals(&self) -> Vec<Refusal> {
        let at_daemon = self.daemon_said.iter().filter_map(|action| match action {
            DaemonAction::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        let at_client = self.client_said.iter().filter_map(|action| match action {
            ClientAction::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        at_daemon.chain(at_client).collect()
    }

    fn rotations(&self) -> usize {
        let rotated =
            |action: &&ClientAction| matches!(action, ClientAction::Opened { rotated: true, .. });
        self.client_said.iter().filter(rotated).count()
    }
}

fn rotating(rotate_after: u64, ask_after: u64) -> Limits {
    Limits { rotate_after, ask_after, ..Limits::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rotation_at_any_moment_loses_nothing(
        steps in prop::collection::vec(0_u8..4, 20..160),
        rotate_after in 1_u64..6,
        ask_after in 1_u64..9,
        seed: u64,
    ) {
        let mut pipe = Pipe::open(rotating(rotate_after, ask_after), seed);
        let (mut from_client, mut from_daemon) = (Vec::new(), Vec::new());
        for (number, step) in steps.into_iter().enumerate() {
            let text = format!("text {number}");
            match step {
                0 => {
                    pipe.client_sends(&text);
                    from_client.push(text);
                }
                1 => {
                    pipe.daemon_sends(&text);
                    from_daemon.push(text);
                }
                2 => pipe.deliver_up(),
                _ => pipe.deliver_down(),
            }
        }
        pipe.settle();
        prop_assert_eq!(&pipe.at_daemon, &from_client);
        prop_assert_eq!(&pipe.at_client, &from_daemon);
        if from_daemon.len() as u64 > rotate_after {
            prop_assert!(pipe.rotations() > 0);
        }
    }

    #[test]
    fn a_bad_network_repeats_nothing_and_the_ends_recover(
        steps in prop::collection::vec((0_u8..8, any::<u8>()), 20..160),
        seed: u64,
    ) {
        let mut pipe = Pipe::open(rotating(4, 7), seed);
        let mut sent = HashSet::new();
        for (number, (step, pick)) in steps.into_iter().enumerate() {
            let text = format!("text {number}");
            let line = if pick % 2 == 0 { &mut pipe.up } else { &mut pipe.down };
            let at = usize::from(pick / 2) % line.len().max(1);
            match step {
                0 => pipe.client_sends(&text),
                1 => pipe.daemon_sends(&text),
                2 | 3 => pipe.deliver_up(),
                4 => pipe.deliver_down(),
                5 => drop(line.remove(at)),
                6 => {
                    if let Some(frame) = line.get(at).cloned() {
                        line.push_back(frame);
                    }
                }
                _ => {
                    if let Some(frame) = line.remove(at) {
                        line.push_back(frame);
                    }
                }
            }
            sent.insert(text);
        }
        pipe.settle();
        for got in [&pipe.at_client, &pipe.at_daemon] {
            let distinct: HashSet<_> = got.iter().collect();
            prop_assert_eq!(distinct.len(), got.len(), "a text arrived twice");
            prop_assert!(got.iter().all(|text| sent.contains(text)));
        }
        let mut rounds = 0;
        while !(pipe.at_client.contains(&"down".into()) && pipe.at_daemon.contains(&"up".into())) {
            rounds += 1;
            prop_assert!(rounds < 10, "the ends did not recover");
            pipe.pass(Duration::from_secs(70));
            pipe.client_sends("up");
            pipe.settle();
            pipe.daemon_sends("down");
            pipe.settle();
        }
    }
}

#[test]
fn what_waits_before_the_session_is_sent_when_it_opens() {
    let mut pipe = Pipe::new(Limits::default(), 1);
    pipe.client_sends("early");
    pipe.daemon(DaemonInput::Connected);
    pipe.client(ClientInput::Connected);
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["early"]);
}

#[test]
fn a_repeated_message_is_refused_as_such() {
    let mut pipe = Pipe::open(Limits::default(), 1);
    pipe.client_sends("once");
    let frame = pipe.up[0].clone();
    pipe.up.push_back(frame);
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["once"]);
    assert_eq!(pipe.refusals(), [Refusal::Open(OpenError::Replayed)]);
}

#[test]
fn a_repeated_first_message_of_a_rotation_makes_no_session() {
    let mut pipe = Pipe::open(rotating(1, 100), 1);
    pipe.daemon_sends("one");
    pipe.deliver_down();
    pipe.deliver_down();
    let init = pipe.up[0].clone();
    pipe.deliver_up();
    let sessions = pipe.daemon.session_count();
    pipe.daemon(DaemonInput::Frame(&init));
    assert_eq!(pipe.daemon.session_count(), sessions);
    pipe.settle();
    pipe.client_sends("after");
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["after"]);
}

#[test]
fn a_forged_notice_costs_a_handshake_and_no_session() {
    let mut pipe = Pipe::open(Limits::default(), 1);
    let Some(ClientAction::Opened { session, .. }) = pipe.client_said.first().cloned() else {
        panic!("no session");
    };
    let notice = |epoch: u64| {
        format!(
            r#"{{"type":"relay_key_update_required","sessionId":"{session}","nextEpoch":{epoch}}}"#
        )
    };
    pipe.client(ClientInput::Frame(&notice(3)));
    assert!(pipe.up.is_empty());
    pipe.client(ClientInput::Frame(&notice(2)));
    pipe.client(ClientInput::Frame(&notice(2)));
    assert_eq!(pipe.up.len(), 1);
    pipe.client_sends("held");
    pipe.settle();
    assert!(pipe.refusals().contains(&Refusal::Handshake(HandshakeError::NoRotation)));
    pipe.pass(Duration::from_secs(10));
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["held"]);
    assert_eq!(pipe.rotations(), 0);
    assert_eq!(pipe.daemon.session_count(), 1);
}

#[test]
fn another_client_cannot_carry_a_conversation_on() {
    let mut pipe = Pipe::open(rotating(1, 100), 1);
    pipe.daemon_sends("one");
    let notice = pipe.down.pop_back().unwrap();
    pipe.settle();
    // A client with keys of its own that believes to be in that session.
    let mut stranger = Pipe::open(rotating(1, 100), 2);
    let Some(ClientAction::Opened { session, .. }) = stranger.client_said.first().cloned() else {
        panic!("no session");
    };
    let Some(ClientAction::Opened { session: victim, .. }) = pipe.client_said.first().cloned()
    else {
        panic!("no session");
    };
    stranger.client(ClientInput::Frame(&notice.replace(victim.as_str(), session.as_str())));
    let init = stranger.up.pop_front().unwrap();
    let sessions = pipe.daemon.session_count();
    pipe.daemon(DaemonInput::Frame(&init.replace(session.as_str(), victim.as_str())));
    assert_eq!(pipe.daemon.session_count(), sessions);
}

#[test]
fn a_lost_answer_of_a_rotation_is_asked_for_again() {
    let mut pipe = Pipe::open(rotating(1, 100), 1);
    pipe.daemon_sends("one");
    pipe.deliver_down();
    pipe.deliver_down();
    pipe.deliver_up();
    pipe.down.clear();
    pipe.pass(Duration::from_secs(10));
    pipe.client_sends("under the old key");
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["under the old key"]);
    pipe.daemon_sends("lost");
    pipe.settle();
    pipe.daemon_sends("found");
    pipe.settle();
    assert_eq!(pipe.at_client, ["one", "found"]);
    assert_eq!(pipe.rotations(), 2);
}

#[test]
fn an_idle_session_ends_and_says_so() {
    let mut pipe = Pipe::open(Limits::default(), 1);
    pipe.pass(Duration::from_secs(15 * 60 + 30));
    assert_eq!(pipe.daemon.session_count(), 0);
    let conversation = pipe.talking_to.unwrap();
    let ended = DaemonAction::Ended { conversation, reason: EndReason::Idle };
    assert!(pipe.daemon_said.contains(&ended));
    pipe.daemon_sends("too late");
    let message = MessageId(1);
    let reason = Undelivered::NoConversation;
    assert!(pipe.daemon_said.contains(&DaemonAction::Undelivered { message, reason }));
}

#[test]
fn the_oldest_session_goes_first() {
    let mut pipe = Pipe::open(Limits { sessions_max: 2, ..Limits::default() }, 1);
    let first = pipe.talking_to.unwrap();
    for _ in 0..2 {
        pipe.client(ClientInput::Disconnected);
        pipe.client(ClientInput::Connected);
        pipe.settle();
    }
    assert_eq!(pipe.daemon.session_count(), 2);
    let ended = DaemonAction::Ended { conversation: first, reason: EndReason::Evicted };
    assert!(pipe.daemon_said.contains(&ended));
    pipe.client_sends("still here");
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["still here"]);
}

#[test]
fn while_the_relay_is_away_the_oldest_text_is_refused_to_its_sender() {
    let limits = Limits { queue_messages_max: 2, ..Limits::default() };
    let mut pipe = Pipe::open(limits, 1);
    pipe.daemon(DaemonInput::Disconnected);
    for text in ["one", "two", "three"] {
        pipe.daemon_sends(text);
    }
    let message = MessageId(1);
    let reason = Undelivered::QueueFull;
    assert!(pipe.daemon_said.contains(&DaemonAction::Undelivered { message, reason }));
    pipe.daemon(DaemonInput::Connected);
    pipe.settle();
    assert_eq!(pipe.at_client, ["two", "three"]);
}

#[test]
fn a_daemon_that_was_away_gets_a_new_session() {
    let mut pipe = Pipe::open(Limits::default(), 1);
    let status =
        r#"{"type":"relay_status","code":"DAEMON_UNAVAILABLE","message":"away","retryable":true}"#;
    pipe.client(ClientInput::Frame(status));
    assert!(!pipe.client.is_open());
    pipe.client_sends("later");
    pipe.pass(Duration::from_secs(2));
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["later"]);
}

#[test]
fn garbage_is_refused_and_changes_nothing() {
    let mut pipe = Pipe::open(Limits::default(), 1);
    for garbage in ["", "[]", "{\"type\":\"e2ee\"}", "{\"type\":\"x\"}", "\u{0}"] {
        pipe.client(ClientInput::Frame(garbage));
        pipe.daemon(DaemonInput::Frame(garbage));
    }
    assert_eq!(pipe.refusals().len(), 10);
    pipe.client_sends("fine");
    pipe.settle();
    assert_eq!(pipe.at_daemon, ["fine"]);
}
