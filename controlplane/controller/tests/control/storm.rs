//! Many upgrades at once: who is asked about, in which order, and how often.

use std::time::Duration;

use relay_contract::{Refusal, Role, ShardReport, UpgradeRequest};
use relay_controller::{Caps, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};
use crate::tokens::{asked, validates};

fn request(role: Role, workspace: &str) -> UpgradeRequest {
    UpgradeRequest { role, workspace_id: workspace.into(), target_id: Some("rt1".into()) }
}

/// A relay that asks one question at a time, and a platform that does not answer the first.
async fn busy() -> (Platform, Relay, Shard, relay_contract::ConnectionId) {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Hang);
    let caps = Caps {
        asked_at_once: 1,
        upgrades_per_minute: u32::MAX,
        connections_max: usize::MAX,
        connections_per_address_max: usize::MAX,
        clients_per_scope_max: usize::MAX,
        ..Caps::default()
    };
    let (relay, mut shard) = Relay::one(Settings { caps, ..settings(&platform.url()) });
    let first = shard.upgrade(request(Role::Client, "first"), "token-of-the-first");
    while platform.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    (platform, relay, shard, first)
}

fn let_go(platform: &Platform, shard: &Shard, first: relay_contract::ConnectionId) {
    platform.on(VALIDATE, Behaviour::Answer(200, r#"{"ok":true,"claims":{}}"#.into()));
    shard.tell(relay_contract::Event::Abandoned { connection: first });
}

/// Lets so many questions take their place in the queue.
async fn all_wait(shard: &mut Shard, count: usize) {
    until(shard, &format!("relay_admission_questions_waiting {count}\n")).await;
}

/// Lets so many take a share in the question of another.
async fn all_share(shard: &mut Shard, count: usize) {
    until(shard, &format!("relay_admissions_shared_total {count}\n")).await;
}

async fn until(shard: &mut Shard, metric: &str) {
    loop {
        shard.ask("/metrics");
        shard.report(ShardReport::default()).await;
        if shard.response().await.2.contains(metric) {
            return;
        }
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once() {
    let (platform, _relay, mut shard, first) = busy().await;
    let same: Vec<_> = (0..50).map(|_| shard.client(TOKEN)).collect();
    shard.upgrade(request(Role::Worker, "ws1"), TOKEN);
    all_share(&mut shard, 49).await;
    all_wait(&mut shard, 2).await;
    let_go(&platform, &shard, first);
    let mut answered = Vec::new();
    for _ in 0..51 {
        let (connection, ruling) = shard.ruling().await;
        assert!(ruling.is_ok());
        answered.push(connection);
    }
    assert!(same.iter().all(|connection| answered.contains(connection)));
    assert_eq!(asked(&platform, VALIDATE), 3, "the first, the clients', the worker's");
}

#[tokio::test]
async fn a_refusal_is_shared_too_and_not_kept() {
    let (platform, _relay, mut shard, first) = busy().await;
    for _ in 0..3 {
        shard.client(TOKEN);
    }
    all_share(&mut shard, 2).await;
    platform.on(VALIDATE, Behaviour::Answer(403, r#"{"ok":false}"#.into()));
    shard.tell(relay_contract::Event::Abandoned { connection: first });
    for _ in 0..3 {
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    assert_eq!(asked(&platform, VALIDATE), 2);
    validates(&platform);
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_workspace_with_five_thousand_waiting_does_not_delay_another() {
    let (platform, _relay, mut shard, first) = busy().await;
    for n in 0..5000 {
        shard.upgrade(request(Role::Client, "crowded"), &format!("{TOKEN}-{n}"));
        if n % 256 == 0 {
            shard.heard().await;
        }
    }
    let small = shard.upgrade(request(Role::Client, "small"), TOKEN);
    all_wait(&mut shard, 5001).await;
    let_go(&platform, &shard, first);
    let mut before = 0;
    while shard.ruling().await.0 != small {
        before += 1;
    }
    assert!(before <= 1, "{before} of the crowd were answered before");
}

#[tokio::test]
async fn daemons_are_asked_about_first() {
    let (platform, _relay, mut shard, first) = busy().await;
    let clients: Vec<_> = (0..5).map(|n| shard.client(&format!("{TOKEN}-{n}"))).collect();
    let daemon = shard.upgrade(request(Role::Daemon, "ws1"), TOKEN);
    all_wait(&mut shard, 6).await;
    let_go(&platform, &shard, first);
    let mut order = Vec::new();
    for _ in 0..6 {
        order.push(shard.ruling().await.0);
    }
    assert_eq!(order[0], daemon);
    assert_eq!(order[1..], clients);
}

#[tokio::test]
async fn who_waits_too_long_is_told_to_come_back() {
    let (platform, relay, mut shard, first) = busy().await;
    let mut waiting = vec![shard.client(TOKEN), shard.client(TOKEN)];
    waiting.push(shard.client("another-token-0123"));
    all_share(&mut shard, 1).await;
    all_wait(&mut shard, 2).await;
    relay.clock.advance(Caps::default().admission_wait);
    let mut told = Vec::new();
    for _ in 0..3 {
        let (connection, ruling) = shard.ruling().await;
        assert!(matches!(ruling, Err(Refusal::Unavailable { retry_after_secs: 1.. })));
        told.push(connection);
    }
    told.sort_by_key(|connection| connection.slot);
    assert_eq!(told, waiting);
    let_go(&platform, &shard, first);
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_decision_is_used_again_for_its_time_where_that_is_wanted() {
    let platform = Platform::start(None).await;
    validates(&platform);
    let lifetime = Duration::from_secs(5);
    let settings = Settings { decision_cache: Some(lifetime), ..settings(&platform.url()) };
    let (relay, mut shard) = Relay::one(settings);
    for _ in 0..10 {
        shard.client(TOKEN);
        shard.admitted().await;
    }
    assert_eq!(asked(&platform, VALIDATE), 1);
    shard.upgrade(request(Role::Worker, "ws1"), TOKEN);
    shard.admitted().await;
    assert_eq!(asked(&platform, VALIDATE), 2, "another role is another question");
    relay.clock.advance(lifetime);
    shard.client(TOKEN);
    shard.admitted().await;
    assert_eq!(asked(&platform, VALIDATE), 3);
}

#[tokio::test]
async fn by_default_every_upgrade_that_comes_after_another_is_asked_about() {
    let platform = Platform::start(None).await;
    validates(&platform);
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    for _ in 0..3 {
        shard.client(TOKEN);
        shard.admitted().await;
    }
    assert_eq!(asked(&platform, VALIDATE), 3);
}
