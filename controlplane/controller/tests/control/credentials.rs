//! Connections whose token expires, and fresh tokens that keep them.

use std::time::Duration;

use relay_contract::{
    AdmissionId, CloseReason, Command, ConnectionId, Event, Grant, Renewal, RenewalRefusal, Secret,
};
use relay_controller::{Admission, Ending, Settings};
use serde_json::json;

use crate::platform::{Behaviour, Platform};
use crate::relay::{NOW_SECS, Relay, Shard, VALIDATE};
use crate::tokens::{Signer, checked, publish};

/// A relay whose connections end as `ending` says when their token expires.
async fn relay(ending: Ending) -> (Platform, Signer, Relay, Shard) {
    let platform = Platform::start(None).await;
    let signer = Signer::new("k");
    publish(&platform, &[&signer]);
    let mut settings = Settings { expiry: ending, ..checked(&platform, Admission::Jwks) };
    settings.jwks.as_mut().unwrap().leeway = Duration::ZERO;
    let (relay, shard) = Relay::one(settings);
    (platform, signer, relay, shard)
}

async fn opened(shard: &mut Shard, token: &str) -> (Box<Grant>, ConnectionId) {
    shard.client(token);
    let grant = shard.admitted().await;
    let connection = shard.open(grant.admission);
    (grant, connection)
}

async fn renewed(
    shard: &mut Shard,
    grant: &Grant,
    connection: ConnectionId,
    token: &str,
) -> Renewal {
    shard.tell(Event::RenewalAsked {
        connection,
        admission: grant.admission,
        claims_digest: grant.claims_digest,
        token: Secret::from(token),
    });
    match shard.command().await {
        Command::Renewed { connection: at, outcome, .. } => {
            assert_eq!(at, connection);
            outcome
        }
        other => panic!("no answer: {other:?}"),
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_token_where_that_is_wanted() {
    let (_platform, signer, relay, mut shard) = relay(Ending::Close).await;
    let (_, later) = opened(&mut shard, &signer.client(60)).await;
    let (_, sooner) = opened(&mut shard, &signer.client(59)).await;
    opened(&mut shard, &signer.client(1000)).await;
    relay.clock.advance(Duration::from_secs(59));
    assert_eq!(shard.closed().await, (sooner, CloseReason::TokenExpired));
    relay.clock.advance(Duration::from_secs(1));
    assert_eq!(shard.closed().await, (later, CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_grace_begins_when_the_token_expires() {
    let (_platform, signer, relay, mut shard) = relay(Ending::Grace(Duration::from_secs(5))).await;
    let (_, connection) = opened(&mut shard, &signer.client(10)).await;
    let (_, sooner) = opened(&mut shard, &signer.client(9)).await;
    relay.clock.advance(Duration::from_secs(14));
    assert_eq!(shard.closed().await, (sooner, CloseReason::TokenExpired));
    relay.clock.advance(Duration::from_secs(1));
    assert_eq!(shard.closed().await, (connection, CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_fresh_token_keeps_a_connection_past_the_end_of_the_first() {
    let (_platform, signer, relay, mut shard) = relay(Ending::Close).await;
    let (grant, connection) = opened(&mut shard, &signer.client(10)).await;
    let outcome = renewed(&mut shard, &grant, connection, &signer.client(30)).await;
    let expires_at_ms = Some((NOW_SECS + 30) * 1000);
    assert_eq!(outcome, Renewal::Renewed { expires_at_ms });
    let (_, other) = opened(&mut shard, &signer.client(20)).await;
    relay.clock.advance(Duration::from_secs(20));
    assert_eq!(shard.closed().await, (other, CloseReason::TokenExpired));
    relay.clock.advance(Duration::from_secs(10));
    assert_eq!(shard.closed().await, (connection, CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_fresh_token_must_be_good_and_for_the_same() {
    let (_platform, signer, relay, mut shard) = relay(Ending::Close).await;
    let (grant, connection) = opened(&mut shard, &signer.client(10)).await;
    let of_another = signer.signed(json!({
        "iss": "viewport-server", "aud": "viewport-relay", "role": "client", "scope": "runtime",
        "workspaceId": "ws1", "runtimeTargetId": "rt1", "clientId": "cl2",
        "exp": NOW_SECS + 1000,
    }));
    let forged = Signer::new("k").client(1000);
    for (token, refusal) in [
        (of_another, RenewalRefusal::ClaimsDiffer),
        (forged, RenewalRefusal::Denied),
        (signer.client(-10), RenewalRefusal::Denied),
    ] {
        let outcome = renewed(&mut shard, &grant, connection, &token).await;
        assert_eq!(outcome, Renewal::Refused(refusal));
    }
    relay.clock.advance(Duration::from_secs(10));
    assert_eq!(shard.closed().await, (connection, CloseReason::TokenExpired));
}

#[tokio::test]
async fn a_connection_that_is_gone_gets_no_answer_and_leaves_nothing_behind() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Answer(200, r#"{"ok":true,"claims":{}}"#.into()));
    let (_relay, mut shard) = Relay::one(crate::relay::settings(&platform.url()));
    let (grant, connection) = opened(&mut shard, "token-0123456789").await;
    platform.on(VALIDATE, Behaviour::Hang);
    let ask = |shard: &Shard, admission| {
        shard.tell(Event::RenewalAsked {
            connection,
            admission,
            claims_digest: grant.claims_digest,
            token: Secret::from("token-fresh-0123456789"),
        });
    };
    ask(&shard, grant.admission);
    ask(&shard, grant.admission);
    // The first is being judged, so the second is told to try again.
    let Command::Renewed { outcome, .. } = shard.command().await else {
        panic!("no answer");
    };
    assert_eq!(outcome, Renewal::Refused(RenewalRefusal::Unavailable));
    shard.tell(Event::Released { admission: grant.admission });
    ask(&shard, grant.admission);
    ask(&shard, AdmissionId(u64::MAX));
    platform.on(VALIDATE, Behaviour::Answer(200, r#"{"ok":true,"claims":{}}"#.into()));
    shard.client("token-0123456789");
    shard.admitted().await;
}
