//! Who judges tokens, and by which keys, changes while the relay runs.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{CloseReason, Command};
use relay_controller::{
    Admission, ApplyError, Ending, IssuerSettings, LiveSettings, Settings, UnknownKeys,
};
use url::Url;

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, VALIDATE};
use crate::tokens::{JWKS, Signer, asked, checked, publish, validates};

/// A relay, its only shard, and its settings.
struct Stage {
    relay: Relay,
    shard: Shard,
    live: LiveSettings,
}

impl Stage {
    fn set(settings: Settings) -> Self {
        let live = LiveSettings::of(&settings);
        let (relay, shard) = Relay::one(settings);
        Self { relay, shard, live }
    }

    /// Puts the settings in force.
    async fn apply(&mut self) {
        self.relay.applier.apply(Arc::new(self.live.clone())).await.unwrap();
        for _ in 0..2 {
            let told = self.shard.command().await;
            assert!(matches!(told, Command::SetLimits(_) | Command::SetRoutes(_)), "{told:?}");
        }
    }

    /// Whether a token gets in.
    async fn admits(&mut self, token: &str) -> bool {
        self.shard.client(token);
        self.shard.ruling().await.1.is_ok()
    }
}

fn issuer(name: &str, platform: &Platform) -> IssuerSettings {
    let url = Url::parse(&platform.url()).unwrap().join(JWKS).unwrap();
    IssuerSettings { issuer: Some(name.into()), url }
}

#[tokio::test]
async fn an_issuer_comes_and_goes_and_the_others_keep_their_keys() {
    let (ours, theirs) = (Platform::start(None).await, Platform::start(None).await);
    let (our_signer, their_signer) = (Signer::new("ours"), Signer::new("theirs"));
    publish(&ours, &[&our_signer]);
    publish(&theirs, &[&their_signer]);
    let mut stage = Stage::set(checked(&ours, Admission::Jwks));
    let partner = their_signer.client_of("partner", 60);
    assert!(stage.admits(&our_signer.client(60)).await);
    assert!(!stage.admits(&partner).await);

    stage.live.jwks.as_mut().unwrap().issuers.insert(0, issuer("partner", &theirs));
    stage.apply().await;
    assert!(stage.admits(&partner).await, "whoever comes first waits for the keys");
    assert!(stage.admits(&our_signer.client(60)).await);
    assert_eq!((asked(&ours, JWKS), asked(&theirs, JWKS)), (1, 1), "ours are known already");

    stage.live.jwks.as_mut().unwrap().issuers.remove(0);
    stage.apply().await;
    assert!(!stage.admits(&partner).await);
    assert!(stage.admits(&our_signer.client(60)).await);
}

#[tokio::test]
async fn connections_of_an_issuer_that_is_none_any_more_end_as_under_withdrawn_keys() {
    let (ours, theirs) = (Platform::start(None).await, Platform::start(None).await);
    let (our_signer, their_signer) = (Signer::new("ours"), Signer::new("theirs"));
    publish(&ours, &[&our_signer]);
    publish(&theirs, &[&their_signer]);
    let mut settings = checked(&ours, Admission::Jwks);
    settings.jwks.as_mut().unwrap().issuers.push(issuer("partner", &theirs));
    let mut stage = Stage::set(settings);
    let mut opened = Vec::new();
    for token in [our_signer.client(600), their_signer.client_of("partner", 600)] {
        stage.shard.client(&token);
        let admission = stage.shard.admitted().await.admission;
        opened.push(stage.shard.open(admission));
    }

    // Ignored withdrawals are what the policy says, not what the keys are.
    stage.live.jwks.as_mut().unwrap().withdrawn = Ending::Close;
    stage.apply().await;
    stage.live.jwks.as_mut().unwrap().issuers.pop();
    stage.relay.applier.apply(Arc::new(stage.live.clone())).await.unwrap();
    assert_eq!(stage.shard.closed().await, (opened[1], CloseReason::KeyWithdrawn));
}

#[tokio::test]
async fn an_issuer_keeps_its_keys_when_its_name_or_their_place_changes() {
    let (old, new) = (Platform::start(None).await, Platform::start(None).await);
    let signer = Signer::new("k");
    publish(&old, &[&signer]);
    new.on(JWKS, Behaviour::Hang);
    let mut settings = checked(&old, Admission::Jwks);
    settings.jwks.as_mut().unwrap().withdrawn = Ending::Close;
    let mut stage = Stage::set(settings);
    assert!(stage.admits(&signer.client(60)).await);

    stage.live.jwks.as_mut().unwrap().issuers = vec![issuer("renamed", &old)];
    stage.apply().await;
    assert!(stage.admits(&signer.client_of("renamed", 60)).await);
    assert_eq!(asked(&old, JWKS), 1, "the same keys under another name");

    stage.live.jwks.as_mut().unwrap().issuers = vec![issuer("renamed", &new)];
    stage.apply().await;
    assert!(stage.admits(&signer.client_of("renamed", 60)).await, "the new place is silent");
    while asked(&new, JWKS) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tokens_are_checked_here_or_not_as_the_settings_say_now() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    validates(&platform);
    let both = checked(&platform, Admission::Both);
    let jwks = both.jwks.clone();
    let mut stage = Stage::set(Settings { admission: Admission::Validate, jwks: None, ..both });
    assert!(stage.admits(&signer.client(60)).await);
    assert_eq!((asked(&platform, JWKS), asked(&platform, VALIDATE)), (0, 1));

    (stage.live.admission, stage.live.jwks) = (Admission::Jwks, jwks);
    stage.apply().await;
    assert!(stage.admits(&signer.client(60)).await);
    assert_eq!((asked(&platform, JWKS), asked(&platform, VALIDATE)), (1, 1));
    assert!(!stage.admits(&Signer::new("k").client(60)).await, "forged");

    (stage.live.admission, stage.live.jwks) = (Admission::Validate, None);
    stage.apply().await;
    assert!(stage.admits(&signer.client(60)).await);
    assert_eq!((asked(&platform, JWKS), asked(&platform, VALIDATE)), (1, 2));
}

#[tokio::test]
async fn the_audience_and_what_becomes_of_unknown_keys_change_at_once() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    validates(&platform);
    let mut stage = Stage::set(checked(&platform, Admission::Both));
    assert!(stage.admits(&signer.client(60)).await);
    let stranger = Signer::new("nobody's").client(60);
    assert!(stage.admits(&stranger).await, "the platform knows it");

    stage.live.jwks.as_mut().unwrap().unknown_keys = UnknownKeys::Refuse;
    stage.apply().await;
    assert!(!stage.admits(&stranger).await);
    stage.live.jwks.as_mut().unwrap().audience = Some("somebody-else".into());
    stage.apply().await;
    assert!(!stage.admits(&signer.client(60)).await);
}

#[tokio::test]
async fn an_expired_token_ends_its_connection_once_the_settings_say_so() {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let mut settings = checked(&platform, Admission::Jwks);
    settings.expiry = Ending::Ignore;
    settings.jwks.as_mut().unwrap().leeway = Duration::from_secs(1);
    let mut stage = Stage::set(settings);
    stage.shard.client(&signer.client(1));
    let admission = stage.shard.admitted().await.admission;
    let connection = stage.shard.open(admission);
    stage.relay.clock.advance(Duration::from_secs(3));
    stage.live.expiry = Ending::Close;
    stage.apply().await;
    assert_eq!(stage.shard.closed().await, (connection, CloseReason::TokenExpired));
}

#[tokio::test]
async fn keys_that_nobody_says_where_to_find_change_nothing() {
    let platform = Platform::start(None).await;
    validates(&platform);
    let settings = Settings { jwks: None, ..checked(&platform, Admission::Both) };
    let mut stage = Stage::set(Settings { admission: Admission::Validate, ..settings });
    stage.live.admission = Admission::Jwks;
    stage.live.caps.connections_max = 0;
    let refused = stage.relay.applier.apply(Arc::new(stage.live.clone())).await;
    assert!(matches!(refused, Err(ApplyError::Keys(_))), "{refused:?}");
    assert!(stage.admits(&Signer::new("k").client(60)).await);
}
