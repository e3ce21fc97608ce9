//! Messages between the planes.

use std::sync::Arc;

use prost::Message as _;
use relay_contract::{
    AdmissionId, Command, ConnectionId, Event, Limits, LogEntry, Refusal, ShardId, ShardReport,
    Tick,
};
use relay_contract::{Level, QueryId};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};
use relay_link::convert::Frame;

/// Both directions, and what they carry by itself.
pub fn plane_message() -> Vec<Vec<u8>> {
    let frame = Frame { first: 0, count: 4, now: Tick(1 << 40), unix_ms: 1 << 40 };
    let connection = ConnectionId { shard: ShardId(1), slot: 2, generation: 3 };
    let entry = LogEntry::new(Level::Info, "client_connected").with("ip", "x".to_owned());
    let events = [
        Event::Released { admission: AdmissionId(7) },
        Event::Abandoned { connection },
        Event::Opened { admission: AdmissionId(7), connection },
        Event::Logged { at: Tick(1), entry: Box::new(entry.about(connection)) },
        Event::Reported { query: QueryId(1), report: Box::new(ShardReport::default()) },
    ];
    let commands = [
        Command::Refuse { connection, refusal: Refusal::Unavailable { retry_after_secs: 2 } },
        Command::SetLimits(Arc::new(Limits::default())),
        Command::Stop { deadline_ms: 1 },
    ];
    let mut inputs = Vec::new();
    for event in events {
        let event = frame.event_out(ShardId(0), event);
        inputs.push(event.encode_to_vec());
        let message = Some(up::Message::Event(event));
        let message = v1::FromDataPlane { message, number: 2, received: 0 };
        inputs.push(message.encode_to_vec());
    }
    for command in commands {
        let command = frame.command_out(ShardId(0), command);
        inputs.push(command.encode_to_vec());
        let message = Some(down::Message::Command(command));
        let message = v1::FromControlPlane { message, number: 1, received: 0 };
        inputs.push(message.encode_to_vec());
    }
    inputs
}
