//! Settings that change while the relay runs.

use std::sync::Arc;

use relay_contract::{Command, Event, Limits, Refusal, Routes, Secret, TenantLimits, Versioned};
use relay_controller::{ApplyError, Caps, LiveSettings, LogFormat, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

fn admits() -> Behaviour {
    Behaviour::Answer(200, r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#.into())
}

/// The limits and routes a shard is told.
async fn told(shard: &mut Shard) -> (Arc<Limits>, Arc<Routes>) {
    let (limits, routes) = (shard.command().await, shard.command().await);
    let (Command::SetLimits(limits), Command::SetRoutes(routes)) = (limits, routes) else {
        panic!("limits come first, and routes behind them");
    };
    (limits, routes)
}

#[tokio::test]
async fn new_settings_reach_every_shard_with_a_version_and_are_in_force_when_they_say_so() {
    let settings = settings("http://127.0.0.1:1");
    let mut live = LiveSettings::of(&settings);
    let (relay, [mut first, mut second]) = Relay::start(settings);
    live.limits.runtime_per_minute = 7;
    let memory_bytes_max = std::mem::replace(&mut live.limits.memory_bytes_max, 1);
    let own = TenantLimits { daemon_per_minute: Some(9), ..TenantLimits::default() };
    live.routes.tenants.insert("ws1".into(), own);

    let version = relay.applier.apply(Arc::new(live)).await.unwrap();
    for shard in [&mut first, &mut second] {
        let (limits, routes) = told(shard).await;
        assert_eq!((limits.version, limits.runtime_per_minute), (version, 7));
        assert_eq!(limits.memory_bytes_max, memory_bytes_max, "it was divided at the start");
        assert_eq!((routes.version, routes.tenants.len()), (version, 1));
    }
    for (shard, version) in [(&first, version), (&second, version - 1)] {
        for value in [Versioned::Limits, Versioned::Routes] {
            shard.tell(Event::InForce { shard: shard.id(), value, version });
        }
    }
    first.ask("/node");
    for shard in [&mut first, &mut second] {
        shard.report(relay_contract::ShardReport::default()).await;
    }
    let (_, _, body) = first.response().await;
    let in_force = format!(r#""settingsVersion":{},"#, version - 1);
    assert!(body.contains(&in_force), "one is behind: {body}");
}

#[tokio::test]
async fn caps_tokens_keys_and_the_log_change_at_once_and_admitted_connections_stay() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let settings = Settings {
        internal_key: Some(Secret::from("old-key")),
        caps: Caps { connections_max: 2, ..Caps::default() },
        ..settings(&platform.url())
    };
    let mut live = LiveSettings::of(&settings);
    let (relay, mut shard) = Relay::one(settings);
    shard.client(TOKEN);
    shard.admitted().await;

    live.caps.connections_max = 1;
    live.internal_key = Some(Secret::from("new-key"));
    live.admin.token = Some(Secret::from("new-admin-token"));
    live.log.format = LogFormat::Text;
    relay.applier.apply(Arc::new(live.clone())).await.unwrap();
    told(&mut shard).await;

    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Full, "the one that is open counts");
    live.caps.connections_max = 2;
    relay.applier.apply(Arc::new(live)).await.unwrap();
    told(&mut shard).await;
    shard.client(TOKEN);
    shard.admitted().await;
    let asked = platform.requests();
    let keys: Vec<_> =
        asked.iter().map(|asked| asked.header("x-relay-internal-key").unwrap()).collect();
    assert_eq!(keys, ["old-key", "new-key"]);

    shard.ask("/logs");
    assert_eq!(shard.response().await.0, 401, "the old token is no good any more");
    shard.ask_as("/logs", Some("Bearer new-admin-token"));
    assert_eq!(shard.response().await.0, 200);
}

#[tokio::test]
async fn settings_that_cannot_be_used_change_nothing() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let settings = settings(&platform.url());
    let mut live = LiveSettings::of(&settings);
    let (relay, mut shard) = Relay::one(settings);
    live.internal_key = Some(Secret::from("a\nkey"));
    live.caps.connections_max = 0;
    let refused = relay.applier.apply(Arc::new(live)).await;
    assert!(matches!(refused, Err(ApplyError::Validator(_))), "{refused:?}");
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_shard_that_took_no_command_is_told_when_it_does() {
    let settings = settings("http://127.0.0.1:1");
    let live = Arc::new(LiveSettings::of(&settings));
    let (relay, mut shard) = Relay::one(settings);
    let mut versions = Vec::new();
    // The lane and its backlog are full long before.
    for _ in 0..3000 {
        versions.push(relay.applier.apply(Arc::clone(&live)).await.unwrap());
    }
    let last = *versions.last().unwrap();
    let mut newest = (0, 0);
    while newest != (last, last) {
        match shard.command().await {
            Command::SetLimits(limits) => newest.0 = limits.version,
            Command::SetRoutes(routes) => newest.1 = routes.version,
            other => panic!("{other:?}"),
        }
    }
}
