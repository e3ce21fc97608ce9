//! Fresh tokens over open connections.

use relay_contract::{AdmissionId, Command, ConnectionId, Event, Renewal, RenewalRefusal, Secret};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

const FRESH: &str = "fresh-token-0123456789";

fn claims(more: &str) -> Behaviour {
    let claims = r#""workspaceId":"ws1","runtimeTargetId":"rt1","clientId":"cl1""#;
    Behaviour::Answer(200, format!(r#"{{"ok":true,"claims":{{{claims}{more}}}}}"#))
}

/// An open connection, with what its shard knows of it.
struct Open {
    connection: ConnectionId,
    admission: AdmissionId,
    claims_digest: u64,
}

impl Open {
    async fn admitted(shard: &mut Shard) -> Self {
        let connection = shard.client(TOKEN);
        let grant = shard.admitted().await;
        shard.tell(Event::Opened { admission: grant.admission, connection });
        Self { connection, admission: grant.admission, claims_digest: grant.claims_digest }
    }

    fn renew(&self, shard: &Shard) {
        let Self { connection, admission, claims_digest } = *self;
        let token = Secret::from(FRESH);
        shard.tell(Event::RenewalAsked { connection, admission, claims_digest, token });
    }
}

async fn renewal(shard: &mut Shard) -> (ConnectionId, Renewal) {
    match shard.command().await {
        Command::Renewed { connection, outcome, .. } => (connection, outcome),
        other => panic!("no answer to a fresh token: {other:?}"),
    }
}

#[tokio::test]
async fn a_fresh_token_is_judged_as_an_upgrade_to_what_the_connection_is_for() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, claims(r#","exp":1000"#));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let open = Open::admitted(&mut shard).await;

    platform.on(VALIDATE, claims(r#","exp":2000"#));
    open.renew(&shard);
    let renewed = Renewal::Renewed { expires_at_ms: Some(2_000_000) };
    assert_eq!(renewal(&mut shard).await, (open.connection, renewed));
    let [_, asked] = &platform.requests()[..] else { panic!("asked once for each") };
    assert_eq!(
        asked.body,
        concat!(
            r#"{"relayToken":"fresh-token-0123456789","role":"client","#,
            r#""workspaceId":"ws1","runtimeTargetId":"rt1"}"#
        )
    );
}

#[tokio::test]
async fn a_fresh_token_for_something_else_changes_nothing() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, claims(r#","scope":"runtime""#));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let open = Open::admitted(&mut shard).await;
    let refusal = |refusal| (open.connection, Renewal::Refused(refusal));

    platform.on(VALIDATE, claims(r#","scope":"pairing""#));
    open.renew(&shard);
    assert_eq!(renewal(&mut shard).await, refusal(RenewalRefusal::ClaimsDiffer));

    platform.on(VALIDATE, Behaviour::Answer(403, r#"{"ok":false}"#.into()));
    open.renew(&shard);
    assert_eq!(renewal(&mut shard).await, refusal(RenewalRefusal::Denied));
}

#[tokio::test]
async fn a_fresh_token_of_a_connection_that_is_gone_is_asked_of_nobody() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, claims(""));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let open = Open::admitted(&mut shard).await;
    shard.tell(Event::Released { admission: open.admission });
    open.renew(&shard);
    let other = Open::admitted(&mut shard).await;
    other.renew(&shard);
    assert_eq!(renewal(&mut shard).await.0, other.connection, "the other has no answer");
    assert_eq!(platform.requests().len(), 3);
}
