//! Key sets that change, are withdrawn, cannot be had, or belong to several issuers.

use std::time::Duration;

use relay_contract::{CloseReason, Refusal};
use relay_controller::{
    Admission, Caps, Ending, IssuerSettings, JwksSettings, KeySchedule, Settings, UnknownKeys,
};
use url::Url;

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, VALIDATE};
use crate::tokens::{JWKS, Signer, asked, checked, publish, validates};

/// Settings whose key sets are fetched as soon as a token needs it.
fn eager(platform: &Platform, admission: Admission) -> Settings {
    changed(platform, admission, |jwks| jwks.schedule.cooldown = Duration::ZERO)
}

fn changed(
    platform: &Platform,
    admission: Admission,
    change: impl FnOnce(&mut JwksSettings),
) -> Settings {
    let mut settings = checked(platform, admission);
    settings.caps = crowd();
    change(settings.jwks.as_mut().unwrap());
    settings
}

/// Room for as many as may come.
fn crowd() -> Caps {
    Caps {
        upgrades_per_minute: u32::MAX,
        connections_per_address_max: usize::MAX,
        clients_per_scope_max: usize::MAX,
        ..Caps::default()
    }
}

async fn fetched(platform: &Platform, times: usize) {
    while asked(platform, JWKS) < times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_key_is_found_by_the_first_token_that_names_it() {
    let platform = Platform::start(None).await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    publish(&platform, &[&old]);
    let (_relay, mut shard) = Relay::one(eager(&platform, Admission::Jwks));
    shard.client(&old.client(60));
    shard.admitted().await;
    publish(&platform, &[&old, &new]);
    for _ in 0..100 {
        shard.client(&new.client(60));
        shard.client(&old.client(60));
    }
    for _ in 0..200 {
        shard.admitted().await;
    }
    assert_eq!(asked(&platform, JWKS), 2, "one request for all who wait");
}

#[tokio::test]
async fn a_set_is_fetched_again_when_its_server_says_so() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let settings = changed(&platform, Admission::Jwks, |jwks| {
        jwks.schedule.interval = Duration::from_millis(5);
        jwks.schedule.interval_min = Duration::from_millis(5);
    });
    let (_relay, _shard) = Relay::one(settings);
    fetched(&platform, 5).await;
}

#[tokio::test]
async fn the_same_unknown_key_is_looked_for_once() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let (_relay, mut shard) = Relay::one(eager(&platform, Admission::Jwks));
    shard.client(&signer.client(60));
    shard.admitted().await;
    for _ in 0..50 {
        shard.client(&Signer::new("invented").client(60));
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    assert_eq!(asked(&platform, JWKS), 2, "at the start, and once for the unknown key");
}

#[tokio::test]
async fn a_flood_of_forged_tokens_costs_the_platform_nothing() {
    let platform = Platform::start(None).await;
    let (signer, forger) = (Signer::new("k"), Signer::new("k"));
    publish(&platform, &[&signer]);
    validates(&platform);
    let (_relay, mut shard) = Relay::one(changed(&platform, Admission::Both, |_| {}));
    shard.client(&signer.client(60));
    shard.admitted().await;
    let forged: Vec<_> = (0..50).map(|n| forger.client(60 + n)).collect();
    for _ in 0..20 {
        for token in &forged {
            shard.client(token);
        }
        for _ in &forged {
            assert_eq!(shard.refused().await, Refusal::Unauthorized);
        }
    }
    assert_eq!(asked(&platform, VALIDATE), 1, "about the good one");
    assert_eq!(asked(&platform, JWKS), 1);
}

#[tokio::test]
async fn a_flood_of_invented_keys_reaches_the_platform_at_its_rate_and_no_more() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    platform.on(VALIDATE, Behaviour::Answer(401, r#"{"ok":false}"#.into()));
    let mut settings = changed(&platform, Admission::Both, |_| {});
    settings.caps.asked_at_once = 10;
    settings.caps.undecided_per_second = 5;
    let (relay, mut shard) = Relay::one(settings);
    fetched(&platform, 1).await;
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let strangers: Vec<_> = ids.into_iter().map(Signer::new).collect();
    let flood = async |shard: &mut Shard, secs| {
        let mut unavailable = 0;
        for n in 0..100 {
            let stranger = &strangers[n % strangers.len()];
            shard.client(&stranger.client(secs + i64::try_from(n).unwrap()));
            let refusal = shard.refused().await;
            unavailable += usize::from(matches!(refusal, Refusal::Unavailable { .. }));
        }
        unavailable
    };
    assert_eq!(flood(&mut shard, 1000).await, 80);
    assert_eq!(asked(&platform, VALIDATE), 20, "twice as many as may be asked at once");
    relay.clock.advance(Duration::from_secs(2));
    assert_eq!(flood(&mut shard, 2000).await, 90);
    assert_eq!(asked(&platform, VALIDATE), 30);
    assert_eq!(asked(&platform, JWKS), 1);
}

#[tokio::test]
async fn without_keys_a_flood_of_forged_tokens_reaches_the_platform_at_its_rate_and_no_more() {
    let platform = Platform::start(None).await;
    platform.on(JWKS, Behaviour::Answer(503, String::new()));
    platform.on(VALIDATE, Behaviour::Answer(401, r#"{"ok":false}"#.into()));
    let mut settings = changed(&platform, Admission::Both, |_| {});
    settings.caps.asked_at_once = 10;
    settings.caps.undecided_per_second = 5;
    let (_relay, mut shard) = Relay::one(settings);
    let stranger = Signer::new("k");
    for n in 0..100 {
        shard.client(&stranger.client(1000 + n));
        shard.refused().await;
    }
    assert_eq!(asked(&platform, VALIDATE), 20, "twice as many as may be asked at once");
    // Those whom the platform knows are not held up.
    validates(&platform);
    let (_relay, mut shard) = {
        let mut settings = changed(&platform, Admission::Both, |_| {});
        settings.caps.asked_at_once = 10;
        settings.caps.undecided_per_second = 5;
        Relay::one(settings)
    };
    for n in 0..100 {
        shard.client(&stranger.client(2000 + n));
        shard.admitted().await;
    }
}

#[tokio::test]
async fn a_token_that_was_good_before_is_held_to_its_times_and_its_key_again() {
    let platform = Platform::start(None).await;
    let (old, new) = (Signer::new("k"), Signer::new("k"));
    publish(&platform, &[&old]);
    let settings = changed(&platform, Admission::Jwks, |jwks| {
        jwks.schedule.interval = Duration::from_millis(5);
        jwks.schedule.interval_min = Duration::from_millis(5);
    });
    let (relay, mut shard) = Relay::one(settings);
    let (short, long) = (old.client(60), old.client(600));
    for token in [&short, &long, &short, &long] {
        shard.client(token);
        shard.admitted().await;
    }
    relay.clock.advance(Duration::from_secs(70));
    shard.client(&short);
    assert_eq!(shard.refused().await, Refusal::Unauthorized, "it has expired");
    shard.client(&long);
    shard.admitted().await;
    publish(&platform, &[&new]);
    let before = asked(&platform, JWKS);
    fetched(&platform, before + 2).await;
    shard.client(&long);
    assert_eq!(shard.refused().await, Refusal::Unauthorized, "another key has its name");
}

#[tokio::test]
async fn who_knows_that_its_sets_are_complete_never_asks_about_unknown_keys() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    validates(&platform);
    let settings = changed(&platform, Admission::Both, |jwks| {
        jwks.unknown_keys = UnknownKeys::Refuse;
    });
    let (_relay, mut shard) = Relay::one(settings);
    fetched(&platform, 1).await;
    shard.client(&Signer::new("invented").client(60));
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    shard.client(&signer.client(60));
    shard.admitted().await;
    assert_eq!(asked(&platform, VALIDATE), 1);
}

#[tokio::test]
async fn a_key_server_that_is_down_slow_or_lying_changes_nothing_for_known_keys() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let mut settings = eager(&platform, Admission::Jwks);
    settings.internal_timeout = Duration::from_millis(200);
    let (_relay, mut shard) = Relay::one(settings);
    shard.client(&signer.client(60));
    shard.admitted().await;
    let lies = [
        Behaviour::Drop,
        Behaviour::Stall,
        Behaviour::Drip,
        Behaviour::Answer(500, String::new()),
        Behaviour::Answer(200, r#"{"keys":{"kty":"EC"}}"#.into()),
        Behaviour::Answer(200, r#"{"keys":[7,null,{"kty":7},{"kty":"EC","crv":[]}]}"#.into()),
        Behaviour::Answer(200, format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(10 << 20))),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        platform.on(JWKS, lie);
        let name: &'static str = format!("unknown-{n}").leak();
        shard.client(&Signer::new(name).client(60));
        // While the fetch is under way, and after it.
        for _ in 0..2 {
            shard.client(&signer.client(60));
        }
        let mut rulings = Vec::new();
        for _ in 0..3 {
            rulings.push(shard.ruling().await.1.is_ok());
        }
        rulings.sort_unstable();
        assert_eq!(rulings, [false, true, true]);
    }
}

#[tokio::test]
async fn each_issuer_is_checked_with_its_own_keys_and_no_other() {
    let (ours, theirs) = (Platform::start(None).await, Platform::start(None).await);
    let (our_signer, their_signer) = (Signer::new("k"), Signer::new("k"));
    publish(&ours, &[&our_signer]);
    publish(&theirs, &[&their_signer]);
    let settings = changed(&ours, Admission::Jwks, |jwks| {
        jwks.issuers.push(IssuerSettings {
            issuer: Some("partner".into()),
            url: Url::parse(&theirs.url()).unwrap().join(JWKS).unwrap(),
        });
    });
    let (_relay, mut shard) = Relay::one(settings);
    for (signer, issuer, admitted) in [
        (&our_signer, "viewport-server", true),
        (&their_signer, "partner", true),
        (&their_signer, "viewport-server", false),
        (&our_signer, "partner", false),
        (&our_signer, "somebody", false),
    ] {
        shard.client(&signer.client_of(issuer, 60));
        let (_, ruling) = shard.ruling().await;
        assert_eq!(ruling.is_ok(), admitted, "{issuer}");
    }
    assert_eq!((asked(&ours, JWKS), asked(&theirs, JWKS)), (1, 1));
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_had_holds_up_no_other() {
    let (ours, theirs) = (Platform::start(None).await, Platform::start(None).await);
    let signer = Signer::new("k");
    publish(&ours, &[&signer]);
    theirs.on(JWKS, Behaviour::Hang);
    let settings = changed(&ours, Admission::Jwks, |jwks| {
        jwks.issuers.push(IssuerSettings {
            issuer: Some("partner".into()),
            url: Url::parse(&theirs.url()).unwrap().join(JWKS).unwrap(),
        });
    });
    let (_relay, mut shard) = Relay::one(settings);
    shard.client(&signer.client_of("partner", 60));
    shard.client(&signer.client(60));
    shard.admitted().await;
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200);
}

/// A relay that follows its key set closely, with one client admitted under `old` and one under
/// `new`.
async fn rotated(ending: Ending) -> (Platform, Relay, Shard, [relay_contract::ConnectionId; 2]) {
    let platform = Platform::start(None).await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    publish(&platform, &[&old, &new]);
    let settings = changed(&platform, Admission::Jwks, |jwks| {
        jwks.schedule = KeySchedule {
            interval: Duration::from_millis(5),
            interval_min: Duration::from_millis(5),
            ..KeySchedule::default()
        };
        jwks.withdrawn = ending;
    });
    let (relay, mut shard) = Relay::one(settings);
    let mut opened = Vec::new();
    for signer in [&old, &new] {
        shard.client(&signer.client(600));
        let admission = shard.admitted().await.admission;
        opened.push(shard.open(admission));
    }
    publish(&platform, &[&new]);
    let opened = opened.try_into().unwrap();
    (platform, relay, shard, opened)
}

#[tokio::test]
async fn a_withdrawn_key_ends_its_connections_and_no_others() {
    let (_platform, relay, mut shard, [old, _]) = rotated(Ending::Close).await;
    assert_eq!(shard.closed().await, (old, CloseReason::KeyWithdrawn));
    let lines = relay.logged(shard, "jwks_key_withdrawn").await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["details"]["keyId"], "old");
    assert_eq!(lines[0]["details"]["connections"], 1);
}

#[tokio::test]
async fn a_grace_ends_connections_at_its_end_and_not_if_the_key_is_back() {
    let grace = Duration::from_secs(60);
    let (platform, relay, mut shard, [old, _]) = rotated(Ending::Grace(grace)).await;
    let before = asked(&platform, JWKS);
    fetched(&platform, before + 2).await;
    relay.clock.advance(grace / 2);
    let before = asked(&platform, JWKS);
    fetched(&platform, before + 2).await;
    // The answer to a question comes before any farewell that is due later.
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200);
    relay.clock.advance(grace / 2);
    assert_eq!(shard.closed().await, (old, CloseReason::KeyWithdrawn));
}
