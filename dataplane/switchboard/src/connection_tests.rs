//! The whole of what follows from each input in each state, and what a connection weighs.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use relay_contract::{ConnectionId, Limits, Role};

use super::{Connection, Part, State};
use crate::Input;
use crate::board::{Board, answer, board, call, frame, grant};
use crate::wheel::Wheel;

/// Everything a connection can be. Each is reached by a newcomer in slot 0.
const STATES: [&str; 6] = ["none", "open daemon", "open client", "open worker", "closing", "cut"];

/// Everything that can happen to it, and a message.
const INPUTS: [&str; 12] = [
    "opened",
    "message",
    "too large",
    "protocol error",
    "pong",
    "sent",
    "worker reply",
    "closing",
    "closed",
    "elapsed",
    "set limits",
    "stop",
];

fn state_of(board: &Board, id: ConnectionId) -> &'static str {
    match board.switchboard.core.connections.get(id).map(|connection| &connection.state) {
        None => "none",
        Some(State::Open(member)) => match member.part {
            Part::Daemon { .. } => "open daemon",
            Part::Client(_) => "open client",
            Part::Worker(_) => "open worker",
        },
        Some(State::Closing { .. }) => "closing",
        Some(State::Cut { .. }) => "cut",
    }
}

fn name_of(input: &Input<'_>) -> &'static str {
    match input {
        Input::Opened { .. } => "opened",
        Input::Message { .. } => "message",
        Input::TooLarge { .. } => "too large",
        Input::ProtocolError { .. } => "protocol error",
        Input::Pong { .. } => "pong",
        Input::Sent { .. } => "sent",
        Input::WorkerReply { .. } => "worker reply",
        Input::Closing { .. } => "closing",
        Input::Closed { .. } => "closed",
        Input::Elapsed => "elapsed",
        Input::SetLimits(_) => "set limits",
        Input::Stop => "stop",
    }
}

/// A board whose slot 0 is in that state.
fn reach(state: &str) -> (Board, ConnectionId) {
    let mut board = board();
    let role = match state {
        "open daemon" => Role::Daemon,
        "open worker" => Role::Worker,
        _ => Role::Client,
    };
    let (id, _) = board.open(grant(role));
    match state {
        "none" => drop(board.close(id)),
        "closing" => drop(board.see(Input::Closing { connection: id })),
        "cut" => {
            board.see(Input::Closing { connection: id });
            board.pass(60_000);
        }
        _ => {}
    }
    assert_eq!(state_of(&board, id), state);
    (board, id)
}

fn tell(board: &mut Board, id: ConnectionId, input: &str) -> Vec<String> {
    let response = answer("w-1", true);
    let input = match input {
        "opened" => {
            let connection = ConnectionId { generation: 1, ..id };
            Input::Opened { connection, grant: Box::new(grant(Role::Client)) }
        }
        "message" => {
            let text = match state_of(board, id) {
                "open worker" => call("w-1", "/api/runtime/workspaces/ws1/managed-executors/ex1"),
                _ => frame("s"),
            };
            return board.say_logged(id, &text);
        }
        "too large" => Input::TooLarge { from: id },
        "protocol error" => Input::ProtocolError { from: id },
        "pong" => Input::Pong { from: id },
        "sent" => Input::Sent { to: id, bytes: 1 },
        "worker reply" => Input::WorkerReply { to: id, response: &response },
        "closing" => Input::Closing { connection: id },
        "closed" => Input::Closed { connection: id },
        "elapsed" => {
            board.now = board.now.after(std::time::Duration::from_secs(31));
            Input::Elapsed
        }
        "set limits" => Input::SetLimits(Arc::new(Limits { version: 2, ..Limits::default() })),
        _ => Input::Stop,
    };
    assert!(INPUTS.contains(&name_of(&input)));
    board.see(input)
}

#[test]
fn each_input_in_each_state_does_what_was_reviewed() {
    let mut table = String::new();
    for state in STATES {
        for input in INPUTS {
            let (mut board, id) = reach(state);
            let effects = tell(&mut board, id, input);
            let after = state_of(&board, id);
            writeln!(table, "{state}, {input} -> {after}").expect("strings grow");
            for effect in effects {
                writeln!(table, "    {effect}").expect("strings grow");
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/states.txt");
    if std::env::var_os("RELAY_BLESS").is_some() {
        std::fs::write(&path, &table).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(table == reviewed, "review, then run with RELAY_BLESS=1:\n{table}");
}

#[test]
fn an_idle_client_weighs_less_than_its_budget() {
    // A block of the allocator has a header of 8 bytes and is a multiple of 16; tables that double
    // are on average three quarters full.
    let block = |bytes: usize| (bytes + 8).next_multiple_of(16);
    let connection = block(size_of::<Connection>());
    let seat = size_of::<Option<Box<Connection>>>() * 4 / 3;
    let deadline = Wheel::<crate::switchboard::Timer>::ENTRY_BYTES * 4 / 3;
    let client_id = block(36);
    let sum = connection + seat + deadline + client_id;
    assert!(sum < 350, "{connection} + {seat} + {deadline} + {client_id} = {sum}");
}
