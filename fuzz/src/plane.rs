//! What the planes can say to each other, each as if the other were a stranger.

use prost::Message as _;
use relay_contract::{ShardId, Tick};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};
use relay_link::convert::Frame;
use relay_link::{Berth, Cord, Identity, Versions};

const FRAME: Frame = Frame { first: 0, count: 4, now: Tick(1 << 40), unix_ms: 1 << 40 };
const THERE: Frame = Frame { first: 8, ..FRAME };

/// Bytes on the link: they mean something or are an error, at both ends, before and after the
/// greeting; and what means something is the same when it is said again.
pub fn plane_message(data: &[u8]) {
    if let Ok(message) = v1::FromDataPlane::decode(data) {
        at_berth(message);
    }
    if let Ok(message) = v1::FromControlPlane::decode(data) {
        at_cord(message);
    }
    if let Ok(event) = v1::Event::decode(data)
        && let Ok(event) = THERE.event_in(event)
    {
        let said = THERE.event_out(ShardId(8), event);
        let again = THERE.event_in(said.clone()).expect("it was understood before");
        let again = THERE.event_out(ShardId(8), again);
        assert_eq!(again.encode_to_vec(), said.encode_to_vec());
    }
    if let Ok(command) = v1::Command::decode(data)
        && let Ok((shard, command)) = FRAME.command_in(command)
    {
        let said = FRAME.command_out(shard, command);
        let (to, again) = FRAME.command_in(said.clone()).expect("it was understood before");
        assert_eq!(FRAME.command_out(to, again).encode_to_vec(), said.encode_to_vec());
    }
}

/// Before and after the inventory.
fn at_berth(message: v1::FromDataPlane) {
    let _ = Berth::new().receive(&THERE, message.clone());
    let mut berth = Berth::new();
    let inventory = v1::Inventory { complete: true, ..v1::Inventory::default() };
    let inventory = Some(up::Message::Inventory(inventory));
    let complete = v1::FromDataPlane { message: inventory, number: 1, received: 0 };
    berth.receive(&THERE, complete).expect("an inventory is expected");
    let _ = berth.receive(&THERE, message);
    while berth.next_message().is_some() {}
}

/// Before and after the greeting.
fn at_cord(message: v1::FromControlPlane) {
    let identity = || Identity {
        instance_id: "fuzz".to_owned(),
        shard_count: FRAME.count,
        memory_bytes_max: 1 << 20,
        versions: Versions::CURRENT,
        driver: "fuzz",
    };
    let mut fresh = Cord::new(identity());
    fresh.connect();
    let _ = fresh.receive(&FRAME, message.clone());
    let mut cord = Cord::new(identity());
    cord.connect();
    let welcome = v1::Welcome { protocol_version: 1, control_life: 1, resumed: false };
    let welcome = Some(down::Message::Welcome(welcome));
    let welcome = v1::FromControlPlane { message: welcome, number: 0, received: 0 };
    cord.receive(&FRAME, welcome).expect("a welcome is expected");
    let _ = cord.receive(&FRAME, message);
    while cord.next_message(&FRAME).is_some() {}
    while let Some((shard, _)) = cord.next_command() {
        assert!(shard.0 < FRAME.count);
    }
}
