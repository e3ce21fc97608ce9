//! Every state of a client with every input: the table is reviewed, the test compares.

use std::collections::HashMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::daemon::{DaemonAction, DaemonEnd, DaemonInput, DaemonSettings};
use crate::ids::SessionId;
use crate::moment::Moment;

const STATES: [&str; 5] = ["Offline", "Exchanging", "Resting", "Open", "Rotating"];

type Play = fn(&mut Stage);

const INPUTS: [(&str, Play); 8] = [
    ("connected", |stage| stage.client(ClientInput::Connected)),
    ("disconnected", |stage| stage.client(ClientInput::Disconnected)),
    ("answer", |stage| {
        let answer = stage.answer();
        stage.client(ClientInput::Frame(&answer));
    }),
    ("bad answer", |stage| {
        let answer = stage.answer().replace("\"epoch\":", "\"epoch\":7");
        stage.client(ClientInput::Frame(&answer));
    }),
    ("notice", |stage| {
        let notice = stage.notice();
        stage.client(ClientInput::Frame(&notice));
    }),
    ("daemon away", |stage| {
        let status = r#"{"type":"relay_status","code":"DAEMON_UNAVAILABLE"}"#;
        stage.client(ClientInput::Frame(status));
    }),
    ("deadline", |stage| {
        if let Some(deadline) = stage.client.deadline() {
            stage.now = deadline;
        }
        stage.client(ClientInput::Expired);
    }),
    ("text", |stage| {
        let (message, text) = (MessageId(1), "x".to_owned());
        stage.client(ClientInput::Send { message, text });
    }),
];

const TABLE: &str = "\
Offline:    Exchanging Offline Offline Offline Offline Offline Offline Offline
Exchanging: Exchanging Offline Open Resting Exchanging Resting Resting Exchanging
Resting:    Exchanging Offline Resting Resting Resting Resting Exchanging Resting
Open:       Exchanging Offline Open Open Rotating Resting Open Open
Rotating:   Exchanging Offline Open Open Rotating Resting Open Rotating
";

/// A client, and a daemon to answer it.
struct Stage {
    client: ClientEnd,
    daemon: DaemonEnd,
    rng: StdRng,
    now: Tick,
    last_init: Option<String>,
    session: Option<(SessionId, u64)>,
}

impl Stage {
    fn in_state(state: &str) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let keys = KeyPair::generate(&mut rng);
        let client = ClientEnd::new(ClientSettings {
            keys: KeyPair::generate(&mut rng),
            daemon: *keys.public(),
            profile: ClientProfile::NoiseIk,
            limits: Limits::default(),
        });
        let daemon = DaemonEnd::new(DaemonSettings {
            keys,
            required: relay_contract::Profile::NoiseIk,
            peers: Box::new(HashMap::new()),
            limits: Limits::default(),
        });
        let mut stage =
            Self { client, daemon, rng, now: Tick::from_millis(1), last_init: None, session: None };
        let way: &[&str] = match state {
            "Offline" => &[],
            "Exchanging" => &["connected"],
            "Resting" => &["connected", "daemon away"],
            "Open" => &["connected", "answer"],
            _ => &["connected", "answer", "notice"],
        };
        for step in way {
            stage.play(step);
        }
        assert_eq!(stage.state(), state);
        stage
    }

    fn play(&mut self, name: &str) {
        let (_, play) = INPUTS.iter().find(|(input, _)| *input == name).unwrap();
        play(self);
    }

    fn client(&mut self, input: ClientInput<'_>) {
        let mut actions = Vec::new();
        self.client.handle(self.now, input, &mut self.rng, &mut actions);
        for action in actions {
            match action {
                ClientAction::Transmit { frame, .. } if frame.contains("key_exchange_init") => {
                    self.last_init = Some(frame);
                }
                ClientAction::Opened { session, epoch, .. } => {
                    self.session = Some((session, epoch));
                }
                _ => {}
            }
        }
    }

    /// The daemon's answer to the client's last message 1; to nobody's when there is none.
    fn answer(&mut self) -> String {
        let now = Moment { tick: self.now, unix_ms: 0 };
        let mut actions = Vec::new();
        for frame in [self.notice(), self.last_init.clone().unwrap_or_default()] {
            let input = DaemonInput::Frame(&frame);
            self.daemon.handle(now, input, &mut self.rng, &mut actions);
        }
        let answer = actions.into_iter().find_map(|action| match action {
            DaemonAction::Transmit { frame, .. } => Some(frame),
            _ => None,
        });
        answer.unwrap_or_default()
    }

    fn notice(&self) -> String {
        let (session, epoch) = self.session.clone().unwrap_or_else(|| ("none".into(), 0));
        let next = epoch + 1;
        format!(
            r#"{{"type":"relay_key_update_required","sessionId":"{session}","nextEpoch":{next}}}"#
        )
    }

    fn state(&self) -> &'static str {
        match self.client.state {
            State::Offline => "Offline",
            State::Exchanging { .. } => "Exchanging",
            State::Resting { .. } => "Resting",
            State::Open { .. } => "Open",
            State::Rotating { .. } => "Rotating",
        }
    }
}

#[test]
fn every_state_and_input_lead_where_the_table_says() {
    let mut table = String::new();
    for state in STATES {
        table.push_str(&format!("{:<11}", format!("{state}:")));
        for (input, _) in INPUTS {
            let mut stage = Stage::in_state(state);
            stage.play(input);
            table.push(' ');
            table.push_str(stage.state());
        }
        table.push('\n');
    }
    assert_eq!(table, TABLE);
}
