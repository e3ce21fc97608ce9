//! The end of a relay.

use std::time::Duration;

use relay_contract::{
    AdmissionId, Command, Event, Level, LogEntry, Refusal, ShardId, Tick, WorkerRequest,
};
use relay_controller::{Caps, Ended, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, TOKEN, VALIDATE, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn every_shard_is_stopped_and_what_it_says_last_is_written() {
    let (relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    let page = relay.page.clone();
    let ended = relay.shut_down();
    for shard in [&mut a, &mut b] {
        let Command::Stop { deadline_ms } = shard.command().await else {
            panic!("not stopped");
        };
        assert_eq!(deadline_ms, 5000);
    }
    b.tell(Event::Logged {
        at: Tick(0),
        entry: Box::new(LogEntry::new(Level::Info, "client_disconnected")),
    });
    b.tell(Event::Stopped { shard: ShardId(1) });
    a.tell(Event::Stopped { shard: ShardId(0) });
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
    let lines = page.lines();
    assert_eq!(lines.first().unwrap()["event"], "relay_started");
    assert_eq!(lines.last().unwrap()["event"], "client_disconnected");
}

#[tokio::test]
async fn a_shard_that_never_ends_does_not_keep_the_relay() {
    let (relay, mut shard) =
        Relay::one(Settings { drain: Duration::from_millis(1), ..settings(NOWHERE) });
    let ended = relay.shut_down();
    assert!(matches!(shard.command().await, Command::Stop { .. }));
    assert_eq!(ended.await.unwrap(), Ended::DeadlinePassed);
}

#[tokio::test]
async fn the_end_of_all_shards_is_the_end_of_the_relay() {
    let (relay, shard) = Relay::one(settings(NOWHERE));
    let page = relay.page.clone();
    drop(shard);
    let ended = relay.shut_down();
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
    assert!(!page.lines().is_empty());
}

#[tokio::test]
async fn upgrades_that_wait_or_come_during_the_drain_are_told_to_come_back() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Hang);
    let (relay, mut shard) = Relay::one(settings(&platform.url()));
    shard.client(TOKEN);
    // The answer to a later question shows that the upgrade was seen.
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200);
    let ended = relay.shut_down();
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    assert!(matches!(shard.command().await, Command::Stop { .. }));
    shard.client(TOKEN);
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 503);
    shard.tell(Event::Stopped { shard: ShardId(0) });
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_worker_hears_during_the_drain_what_became_of_its_call() {
    let platform = Platform::start(None).await;
    platform.on("/api", Behaviour::Hang);
    let caps = Caps { worker_timeout: Duration::from_millis(300), ..Caps::default() };
    let (relay, mut shard) = Relay::one(Settings { caps, ..settings(&platform.url()) });
    let request = WorkerRequest {
        request_id: "w-1".into(),
        method: "GET".into(),
        path: "/api/runtime/workspaces/ws1/managed-executors/ex1/jobs".into(),
        headers: Vec::new(),
        body: None,
    };
    let connection = shard.connection();
    shard.tell(Event::WorkerAsked {
        connection,
        admission: AdmissionId(1),
        request: Box::new(request),
    });
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200);
    let ended = relay.shut_down();
    assert!(matches!(shard.command().await, Command::Stop { .. }));
    let Command::WorkerReply { response, .. } = shard.command().await else {
        panic!("no reply");
    };
    assert_eq!((&*response.request_id, response.status), ("w-1", 502));
    shard.tell(Event::Stopped { shard: ShardId(0) });
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
}
