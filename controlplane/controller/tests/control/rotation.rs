//! Two internal keys while one replaces the other.

use relay_contract::{Refusal, Secret, ShardReport};
use relay_controller::Settings;

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

const ADMITTED: &str = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
const REFUSED: &str = r#"{"ok":false,"reason":"INVALID_INTERNAL_KEY"}"#;

/// A platform that knows this key alone.
async fn platform_of(key: &str) -> Platform {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, knows(key));
    platform
}

fn knows(key: &str) -> Behaviour {
    Behaviour::Keyed { key: key.into(), known: ADMITTED.into(), unknown: REFUSED.into() }
}

fn rotating(platform: &Platform) -> Settings {
    Settings {
        internal_key: Some(Secret::from("new-key")),
        internal_key_previous: Some(Secret::from("old-key")),
        ..settings(&platform.url())
    }
}

fn keys_shown(platform: &Platform) -> Vec<String> {
    let key = |name: &str| name.to_owned();
    let requests = platform.requests();
    requests.iter().filter_map(|asked| asked.header("x-relay-internal-key").map(key)).collect()
}

async fn admit(shard: &mut Shard) {
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_platform_that_knows_the_new_key_is_asked_once() {
    let platform = platform_of("new-key").await;
    let (_relay, mut shard) = Relay::one(rotating(&platform));
    admit(&mut shard).await;
    assert_eq!(keys_shown(&platform), ["new-key"]);
}

#[tokio::test]
async fn a_platform_that_knows_the_old_key_is_asked_again_and_remembered() {
    let platform = platform_of("old-key").await;
    let (_relay, mut shard) = Relay::one(rotating(&platform));
    admit(&mut shard).await;
    admit(&mut shard).await;
    assert_eq!(keys_shown(&platform), ["new-key", "old-key", "old-key"]);
}

#[tokio::test]
async fn a_platform_that_forgets_the_old_key_is_asked_with_the_new_one() {
    let platform = platform_of("old-key").await;
    let (relay, mut shard) = Relay::one(rotating(&platform));
    admit(&mut shard).await;
    platform.on(VALIDATE, knows("new-key"));
    admit(&mut shard).await;
    admit(&mut shard).await;
    let shown = keys_shown(&platform);
    assert_eq!(shown, ["new-key", "old-key", "old-key", "new-key", "new-key"]);
    shard.ask("/metrics");
    shard.report(ShardReport::default()).await;
    let (_, _, body) = shard.response().await;
    assert!(body.contains("\nrelay_internal_key_retries_total 2\n"), "{body}");
    assert_eq!(relay.logged(shard, "internal_key_current").await.len(), 1);
}

#[tokio::test]
async fn a_token_the_platform_refuses_is_refused_after_both_keys() {
    let platform = platform_of("neither").await;
    let (relay, mut shard) = Relay::one(rotating(&platform));
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    assert_eq!(keys_shown(&platform), ["new-key", "old-key"]);
    let denied = relay.logged(shard, "admission_denied").await;
    assert_eq!(denied[0]["details"]["reason"], "INVALID_INTERNAL_KEY");
}

#[tokio::test]
async fn one_key_is_never_asked_with_twice() {
    let platform = platform_of("other").await;
    let (_relay, mut shard) =
        Relay::one(Settings { internal_key_previous: None, ..rotating(&platform) });
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    assert_eq!(keys_shown(&platform), ["new-key"]);
}
