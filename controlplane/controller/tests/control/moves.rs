//! A workspace that goes to another shard, as the control plane sees it.

use std::time::Duration;

use relay_contract::{AdmissionId, Command, Event, MoveFailure, ShardId, WorkerRequest};
use relay_controller::{Caps, DrainOrder, MoveError, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A relay of two shards that was told to move the workspace away from its home; the home first.
fn moving(base: &str) -> (Relay, [Shard; 2], ShardId) {
    let mut to = ShardId(1);
    let caps = Caps { worker_timeout: Duration::from_millis(300), ..Caps::default() };
    let settings = Settings { caps, ..settings(base) };
    let (relay, [a, b]) = Relay::start_with(settings, |controller| {
        if controller.move_workspace("ws1".into(), to) == Err(MoveError::AlreadyThere(to)) {
            to = ShardId(0);
            assert_eq!(controller.move_workspace("ws1".into(), to), Ok(ShardId(1)));
        }
        assert_eq!(controller.move_workspace("ws1".into(), to), Err(MoveError::Underway));
    });
    let shards = if to == ShardId(1) { [a, b] } else { [b, a] };
    (relay, shards, to)
}

fn moved(from: ShardId, to: ShardId) -> Event {
    let workspace_id = "ws1".into();
    Event::Moved { workspace_id, from, to, connections: 1, paused: Duration::from_micros(250) }
}

async fn home_of_next(shard: &mut Shard) -> (ShardId, AdmissionId) {
    shard.client(TOKEN);
    match shard.command().await {
        Command::Admit { home, grant, .. } => (home, grant.admission),
        other => panic!("not admitted: {other:?}"),
    }
}

/// The first entry of that name, which the log's thread may not have written yet.
async fn logged(relay: &Relay, event: &str) -> serde_json::Value {
    let written = async {
        loop {
            if let Some(line) = relay.page.lines().into_iter().find(|line| line["event"] == event) {
                return line;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.unwrap()
}

async fn platform() -> Platform {
    let platform = Platform::start(None).await;
    let claims = r#"{"ok":true,"claims":{"workspaceId":"ws1","runtimeTargetId":"rt1"}}"#;
    platform.on(VALIDATE, Behaviour::Answer(200, claims.into()));
    platform
}

#[tokio::test]
async fn newcomers_go_to_the_new_home_once_it_has_the_workspace() {
    let platform = platform().await;
    let (relay, [mut old, new], to) = moving(&platform.url());
    let from = ShardId(1 - to.0);
    let Command::Move { workspace_id, to: named } = old.command().await else {
        panic!("not moved");
    };
    assert_eq!((workspace_id.as_str(), named), ("ws1", to));
    assert_eq!(home_of_next(&mut old).await.0, from, "it is still there");
    new.tell(moved(from, to));
    new.heard().await;
    assert_eq!(home_of_next(&mut old).await.0, to);
    new.tell(Event::Stopped { shard: to });
    let entry = logged(&relay, "workspace_moved").await;
    assert_eq!(entry["details"]["pausedUs"], 250);
}

#[tokio::test]
async fn a_move_that_failed_leaves_the_home() {
    let platform = platform().await;
    let (relay, [mut old, _new], to) = moving(&platform.url());
    let from = ShardId(1 - to.0);
    assert!(matches!(old.command().await, Command::Move { .. }));
    let reason = MoveFailure::Driver;
    old.tell(Event::MoveFailed { workspace_id: "ws1".into(), from, reason });
    old.heard().await;
    assert_eq!(home_of_next(&mut old).await.0, from);
    let entry = logged(&relay, "workspace_move_failed").await;
    assert_eq!(entry["details"]["reason"], "driver");
}

#[tokio::test]
async fn an_answer_finds_the_worker_at_its_new_home() {
    let platform = platform().await;
    platform.on("/api/runtime/workspaces", Behaviour::Drip);
    let (_relay, [mut old, mut new], to) = moving(&platform.url());
    let from = ShardId(1 - to.0);
    assert!(matches!(old.command().await, Command::Move { .. }));
    let (_, admission) = home_of_next(&mut old).await;
    let (earlier, now) = (old.connection(), new.connection());
    let request = WorkerRequest {
        request_id: "w-1".into(),
        method: "GET".into(),
        path: "/api/runtime/workspaces/ws1/managed-executors/ex1/jobs".into(),
        headers: Vec::new(),
        body: None,
    };
    old.tell(Event::WorkerAsked { connection: earlier, admission, request: Box::new(request) });
    new.tell(moved(from, to));
    new.tell(Event::Opened { admission, connection: now });
    new.heard().await;
    // What was said of the earlier name comes late.
    old.tell(Event::Opened { admission, connection: earlier });
    old.heard().await;
    let Command::WorkerReply { connection, .. } = new.command().await else {
        panic!("no reply");
    };
    assert_eq!(connection, now);
}

#[tokio::test]
async fn what_cannot_be_moved_is_refused_by_reason() {
    let (_relay, [_a, _b]) = Relay::start_with(settings(NOWHERE), |controller| {
        let missing = controller.move_workspace("ws1".into(), ShardId(7));
        assert_eq!(missing, Err(MoveError::NoSuchShard(ShardId(7))));
        controller.drain(DrainOrder::default()).unwrap();
        let leaving =
            [ShardId(0), ShardId(1)].map(|to| controller.move_workspace("ws1".into(), to));
        assert!(leaving.contains(&Err(MoveError::Leaving)), "{leaving:?}");
    });
}
