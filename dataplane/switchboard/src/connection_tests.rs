//! The whole of what follows from each input in each state, and what a connection weighs.

use std::fmt::Write;
use std::sync::Arc;

use relay_contract::{CloseReason, ConnectionId, Limits, Renewal, Role, Routes};

use super::{Part, SEAT_BYTES, State};
use crate::Input;
use crate::board::{Board, answer, assert_reviewed, board, call, frame, grant, message};
use crate::wheel::Wheel;

/// What a slot can hold. Each is reached by a newcomer in slot 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seat {
    None,
    OpenDaemon,
    OpenClient,
    OpenWorker,
    Closing,
    Cut,
}

impl Seat {
    const ALL: [Self; 6] = [
        Self::None,
        Self::OpenDaemon,
        Self::OpenClient,
        Self::OpenWorker,
        Self::Closing,
        Self::Cut,
    ];

    /// What the slot of a connection holds, that connection or another.
    fn of(board: &Board, id: ConnectionId) -> Self {
        let connections = &board.switchboard.core.connections;
        let seated = connections.id_at(id.slot).and_then(|id| connections.get(id));
        match seated.map(|seated| &seated.state) {
            None => Self::None,
            Some(State::Open(member)) => match member.part {
                Part::Daemon { .. } => Self::OpenDaemon,
                Part::Client(_) => Self::OpenClient,
                Part::Worker(_) => Self::OpenWorker,
            },
            Some(State::Closing { .. }) => Self::Closing,
            Some(State::Cut { .. }) => Self::Cut,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OpenDaemon => "open daemon",
            Self::OpenClient => "open client",
            Self::OpenWorker => "open worker",
            Self::Closing => "closing",
            Self::Cut => "cut",
        }
    }

    /// A board whose slot 0 is in that state.
    fn reach(self) -> (Board, ConnectionId) {
        let mut board = board();
        let role = match self {
            Self::OpenDaemon => Role::Daemon,
            Self::OpenWorker => Role::Worker,
            Self::None | Self::OpenClient | Self::Closing | Self::Cut => Role::Client,
        };
        let (id, _) = board.open(grant(role));
        match self {
            Self::OpenDaemon | Self::OpenClient | Self::OpenWorker => {}
            Self::None => drop(board.close(id)),
            Self::Closing => drop(board.see(Input::Closing { connection: id })),
            Self::Cut => {
                board.see(Input::Closing { connection: id });
                board.pass(60_000);
            }
        }
        assert_eq!(Self::of(&board, id), self);
        (board, id)
    }

    /// Each input there is, in this state.
    fn hear(self, row: &mut impl FnMut(Self, Input<'_>)) {
        let (_, id) = self.reach();
        let connection = ConnectionId { generation: 1, ..id };
        row(self, Input::Opened { connection, grant: Box::new(grant(Role::Client)) });
        let text = match self {
            Self::OpenWorker => call("w-1", "/api/runtime/workspaces/ws1/managed-executors/ex1"),
            Self::None | Self::OpenDaemon | Self::OpenClient | Self::Closing | Self::Cut => {
                frame("s")
            }
        };
        message(&text, |message| row(self, Input::Message { from: id, message }));
        row(self, Input::TooLarge { from: id });
        row(self, Input::ProtocolError { from: id });
        row(self, Input::SmallFrame { from: id });
        row(self, Input::Pong { from: id });
        row(self, Input::Progress { from: id });
        row(self, Input::Sent { to: id, bytes: 1 });
        row(self, Input::WorkerReply { to: id, response: &answer("w-1", true) });
        let outcome = Renewal::Renewed { expires_at_ms: None };
        row(self, Input::Renewed { to: id, outcome });
        row(self, Input::Closing { connection: id });
        row(self, Input::Evicted { connection: id, reason: CloseReason::BufferOverflow });
        row(self, Input::Dismissed { connection: id, reason: CloseReason::TokenExpired });
        let redirect = Some("wss://b.example.net/ws");
        row(self, Input::Drained { connection: id, redirect });
        row(self, Input::Closed { connection: id });
        row(self, Input::MemoryShort { bytes: 1 });
        row(self, Input::Elapsed);
        let newer = Limits { version: 2, ..Limits::default() };
        row(self, Input::SetLimits(Arc::new(newer)));
        let newer = Routes { version: 1, ..Routes::default() };
        row(self, Input::SetRoutes(Arc::new(newer)));
        row(self, Input::Stop);
    }
}

fn name_of(input: &Input<'_>) -> &'static str {
    match input {
        Input::Opened { .. } => "opened",
        Input::Message { .. } => "message",
        Input::TooLarge { .. } => "too large",
        Input::ProtocolError { .. } => "protocol error",
        Input::SmallFrame { .. } => "small frame",
        Input::Pong { .. } => "pong",
        Input::Progress { .. } => "progress",
        Input::Sent { .. } => "sent",
        Input::WorkerReply { .. } => "worker reply",
        Input::Renewed { .. } => "renewed",
        Input::Closing { .. } => "closing",
        Input::Evicted { .. } => "evicted",
        Input::Dismissed { .. } => "dismissed",
        Input::Drained { .. } => "drained",
        Input::Closed { .. } => "closed",
        Input::MemoryShort { .. } => "memory short",
        Input::Elapsed => "elapsed",
        Input::SetLimits(_) => "set limits",
        Input::SetRoutes(_) => "set routes",
        Input::Stop => "stop",
    }
}

/// Effects without the moments before them.
fn timeless(effects: Vec<String>) -> Vec<String> {
    effects.iter().filter_map(|seen| Some(seen.split_once(' ')?.1.to_owned())).collect()
}

#[test]
fn each_input_in_each_state_does_what_was_reviewed() {
    let mut table = String::new();
    for seat in Seat::ALL {
        seat.hear(&mut |before, input| {
            let (mut board, id) = before.reach();
            let name = name_of(&input);
            let effects = if matches!(input, Input::Elapsed) {
                // Deadline by deadline, as a shard that is never stopped does it.
                timeless(board.pass(31_000))
            } else {
                board.see(input)
            };
            let (before, after) = (before.name(), Seat::of(&board, id).name());
            writeln!(table, "{before}, {name} -> {after}").expect("strings grow");
            for effect in effects {
                writeln!(table, "    {effect}").expect("strings grow");
            }
        });
    }
    assert_reviewed("states.txt", &table);
}

#[test]
fn an_idle_client_weighs_less_than_its_budget() {
    // A block of the allocator has a header of 8 bytes and is a multiple of 16. Tables that double
    // as they grow are in memory only as far as they were used.
    let block = |bytes: usize| (bytes + 8).next_multiple_of(16);
    let seat = SEAT_BYTES;
    let deadline = Wheel::<crate::deadline::Timer>::ENTRY_BYTES;
    let client_id = block(36);
    let sum = seat + deadline + client_id;
    assert!(sum <= 264, "{seat} + {deadline} + {client_id} = {sum}");
}
