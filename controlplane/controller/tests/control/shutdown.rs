//! The end of a relay.

use std::time::Duration;

use relay_contract::{
    AdmissionId, Command, Event, Level, LogEntry, Refusal, ShardId, Tick, WorkerRequest,
};
use relay_controller::{Caps, DrainError, DrainOrder, Ended, RedirectUrl, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

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

/// A relay of one shard with so many admitted clients, and their admissions.
async fn with_clients(
    platform: &Platform,
    drain: Duration,
    count: usize,
) -> (Relay, Shard, Vec<AdmissionId>) {
    let claims = r#"{"ok":true,"claims":{"workspaceId":"ws1","runtimeTargetId":"rt1"}}"#;
    platform.on(VALIDATE, Behaviour::Answer(200, claims.into()));
    let (relay, mut shard) = Relay::one(Settings { drain, ..settings(&platform.url()) });
    let mut admissions = Vec::new();
    for _ in 0..count {
        shard.client(TOKEN);
        admissions.push(shard.admitted().await.admission);
    }
    (relay, shard, admissions)
}

#[tokio::test]
async fn peers_are_told_over_a_millisecond_each_and_the_rest_of_the_time_is_theirs() {
    let platform = Platform::start(None).await;
    let (relay, mut shard, admissions) = with_clients(&platform, Duration::from_secs(60), 3).await;
    let ended = relay.shut_down();
    let Command::Drain { window_ms, redirect, .. } = shard.command().await else {
        panic!("not drained");
    };
    assert_eq!((window_ms, redirect), (3, None));
    for admission in admissions {
        shard.tell(Event::Released { admission });
    }
    let Command::Stop { deadline_ms } = shard.command().await else {
        panic!("not stopped");
    };
    assert!((40_000..=60_000).contains(&deadline_ms), "{deadline_ms}");
    shard.tell(Event::Stopped { shard: ShardId(0) });
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_drain_ends_with_its_window_whoever_is_left() {
    let platform = Platform::start(None).await;
    let drain = Duration::from_millis(5);
    let (relay, mut shard, _) = with_clients(&platform, drain, 20).await;
    let ended = relay.shut_down();
    let Command::Drain { window_ms, .. } = shard.command().await else {
        panic!("not drained");
    };
    assert_eq!(window_ms, 4, "the last need a part of the time");
    assert!(matches!(shard.command().await, Command::Stop { deadline_ms: 0..=1 }));
    shard.tell(Event::Stopped { shard: ShardId(0) });
    assert_eq!(ended.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_relay_in_a_hurry_gives_peers_a_moment() {
    let platform = Platform::start(None).await;
    // While peers are told, and while they leave.
    for count in [20, 0] {
        let drain = Duration::from_secs(600);
        let (relay, mut shard, _) = with_clients(&platform, drain, count).await;
        let (ended, hurry) = relay.shut_down_patiently();
        if count > 0 {
            assert!(matches!(shard.command().await, Command::Drain { .. }));
        } else {
            assert!(matches!(shard.command().await, Command::Stop { deadline_ms: 500_000.. }));
        }
        hurry.send(()).unwrap();
        let Command::Stop { deadline_ms } = shard.command().await else {
            panic!("not stopped");
        };
        // A drain that was over before anybody was in a hurry is stopped twice.
        let deadline_ms = match deadline_ms {
            0..=200 => deadline_ms,
            _ => match shard.command().await {
                Command::Stop { deadline_ms } => deadline_ms,
                other => panic!("not stopped again: {other:?}"),
            },
        };
        assert!(deadline_ms <= 200, "{deadline_ms}");
        shard.tell(Event::Stopped { shard: ShardId(0) });
        assert_eq!(ended.await.unwrap(), Ended::Stopped);
    }
}

#[tokio::test]
async fn a_drain_by_order_makes_the_relay_unready_until_it_is_taken_back() {
    let url = RedirectUrl::parse("wss://b.example.net/ws").unwrap();
    let order = DrainOrder { window: None, redirect: Some(url) };
    let (relay, [mut shard]) = Relay::start_with(settings(NOWHERE), |controller| {
        assert_eq!(controller.resume(), Err(DrainError::NotDraining));
        let draining = controller.drain(order).unwrap();
        assert_eq!((draining.connections, draining.window), (0, Duration::ZERO));
    });
    let Command::Drain { window_ms: 0, redirect: Some(redirect), .. } = shard.command().await
    else {
        panic!("not drained");
    };
    assert_eq!(&*redirect, "wss://b.example.net/ws");
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 503);
    shard.ask_as("/health", None);
    assert_eq!(shard.response().await.0, 404, "shards answer that themselves");
    shard.client(TOKEN);
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    let logged = relay.logged(shard, "relay_draining").await;
    assert_eq!(logged.len(), 1);

    let (_relay, [mut shard]) = Relay::start_with(settings(NOWHERE), |controller| {
        controller.drain(DrainOrder::default()).unwrap();
        controller.resume().unwrap();
        assert!(controller.draining().is_none());
    });
    assert!(matches!(shard.command().await, Command::Drain { .. }));
    assert!(matches!(shard.command().await, Command::Resume { .. }));
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200);
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
