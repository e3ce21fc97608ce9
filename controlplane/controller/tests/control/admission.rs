//! Upgrades judged with the platform's help.

use std::net::TcpListener;
use std::time::Duration;

use relay_contract::{Event, Refusal, Role, Secret, UpgradeRequest};
use relay_controller::{Caps, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, TOKEN, VALIDATE, request, settings};

const ADMITTED: &str =
    r#"{"ok":true,"claims":{"workspaceId":"ws1","runtimeTargetId":"rt1","clientId":"cl1"}}"#;

fn admits() -> Behaviour {
    Behaviour::Answer(200, ADMITTED.into())
}

#[tokio::test]
async fn the_platform_is_asked_once_and_its_claims_become_the_grant() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let (_relay, mut shard) = Relay::one(Settings {
        internal_key: Some(Secret::from("conformance-internal-key")),
        ..settings(&platform.url())
    });

    let connection = shard.client(TOKEN);
    let (admitted, grant) = shard.ruling().await;

    assert_eq!(admitted, connection);
    let grant = grant.unwrap();
    assert_eq!(grant.claims.client_id.as_deref(), Some("cl1"));
    assert_eq!(grant.request, request(Role::Client));
    let [asked] = &platform.requests()[..] else {
        panic!("asked more than once");
    };
    assert!(asked.head.starts_with(&format!("POST {VALIDATE} HTTP/1.1\r\n")));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("x-relay-internal-key"), Some("conformance-internal-key"));
    assert_eq!(
        asked.body,
        concat!(
            r#"{"relayToken":"token-0123456789","role":"client","#,
            r#""workspaceId":"ws1","runtimeTargetId":"rt1"}"#
        )
    );
}

#[tokio::test]
async fn a_target_that_was_not_asked_for_and_a_key_that_is_not_set_are_not_sent() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let request = UpgradeRequest { target_id: None, ..request(Role::Worker) };
    shard.upgrade(request, TOKEN);
    shard.admitted().await;
    let asked = &platform.requests()[0];
    assert_eq!(
        asked.body,
        r#"{"relayToken":"token-0123456789","role":"worker","workspaceId":"ws1"}"#
    );
    assert_eq!(asked.header("x-relay-internal-key"), None);
}

/// The refusal's reason and status in the log.
async fn reason_of(behaviour: Behaviour, timeout_ms: u64) -> (String, i64) {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, behaviour);
    let (relay, mut shard) = Relay::one(Settings {
        admission_timeout: Duration::from_millis(timeout_ms),
        ..settings(&platform.url())
    });
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    assert_eq!(platform.requests().len(), 1, "nothing is retried");

    // Whatever the platform did, the next one is served.
    if timeout_ms > 1000 {
        platform.on(VALIDATE, admits());
        shard.client(TOKEN);
        shard.admitted().await;
    }
    let lines = relay.logged(shard, "admission_denied").await;
    let details = &lines[0]["details"];
    assert_eq!(details["workspaceId"], "ws1");
    assert_eq!(details["ip"], "127.0.0.1");
    assert!(!lines[0].to_string().contains(TOKEN));
    let reason = details["reason"].as_str().unwrap().to_owned();
    (reason, details["status"].as_i64().unwrap())
}

const PATIENT: u64 = 20_000;
const IMPATIENT: u64 = 200;

#[tokio::test]
async fn a_denial_has_the_platforms_reason() {
    let denial = r#"{"ok":false,"reason":"TOKEN_REVOKED"}"#;
    let reason = reason_of(Behaviour::Answer(403, denial.into()), PATIENT).await;
    assert_eq!(reason, ("TOKEN_REVOKED".into(), 403));
}

#[tokio::test]
async fn a_reason_that_quotes_the_token_is_not_logged() {
    for quoted in [TOKEN, &TOKEN[TOKEN.len() - 12..], &TOKEN[2..14]] {
        let denial = format!(r#"{{"ok":false,"reason":"unknown token {quoted}"}}"#);
        let reason = reason_of(Behaviour::Answer(403, denial), PATIENT).await;
        assert_eq!(reason, ("VALIDATION_FAILED".into(), 403), "{quoted}");
    }
}

#[tokio::test]
async fn what_is_no_valid_answer_is_a_denial() {
    for (status, body, reason) in [
        (200, "hello", "INVALID_JSON"),
        (200, "null", "INVALID_JSON"),
        (500, ADMITTED, "VALIDATION_FAILED"),
        (302, ADMITTED, "VALIDATION_FAILED"),
        (200, r#"{"ok":true,"claims":{"extra":1}}"#, "INVALID_CLAIMS"),
    ] {
        let denied = reason_of(Behaviour::Answer(status, body.into()), PATIENT).await;
        assert_eq!(denied, (reason.to_owned(), i64::from(status)));
    }
}

#[tokio::test]
async fn an_answer_above_the_limit_is_not_read() {
    let long = format!(r#"{{"pad":"{}"}}"#, "x".repeat(5000));
    let reason = reason_of(Behaviour::Answer(200, long.clone()), PATIENT).await;
    assert_eq!(reason, ("ADMISSION_RESPONSE_TOO_LARGE".into(), 502));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    let reason = reason_of(Behaviour::Raw(chunked), PATIENT).await;
    assert_eq!(reason, ("ADMISSION_RESPONSE_TOO_LARGE".into(), 502));
}

#[tokio::test]
async fn a_cut_answer_is_a_denial() {
    for behaviour in [Behaviour::Cut, Behaviour::Drop, Behaviour::Raw("nonsense\r\n\r\n".into())] {
        let (reason, status) = reason_of(behaviour, PATIENT).await;
        assert!(reason.starts_with("ADMISSION_UNREACHABLE"), "{reason}");
        assert_eq!(status, 504);
    }
}

#[tokio::test]
async fn an_answer_that_hangs_stalls_or_drips_ends_at_the_deadline() {
    for behaviour in [Behaviour::Hang, Behaviour::Stall, Behaviour::Drip] {
        let (reason, status) = reason_of(behaviour.clone(), IMPATIENT).await;
        // A drip may reach the byte limit first on a slow machine.
        assert!(reason.starts_with("ADMISSION_"), "{behaviour:?}: {reason}");
        assert!([502, 504].contains(&status));
    }
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_a_denial() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (_relay, mut shard) = Relay::one(settings(&format!("http://127.0.0.1:{port}")));
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
}

#[tokio::test]
async fn a_cap_holds_for_upgrades_on_different_shards_at_once() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let (_relay, [mut a, mut b]) = Relay::start(Settings {
        caps: Caps { connections_per_address_max: 1, ..Caps::default() },
        ..settings(&platform.url())
    });
    a.client(TOKEN);
    b.client(TOKEN);
    let (_, a) = a.ruling().await;
    let (_, b) = b.ruling().await;
    let refusals: Vec<_> = [a, b].into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals, [Refusal::TooManyRequests]);
}

#[tokio::test]
async fn upgrades_beyond_those_that_may_wait_get_503_and_gone_ones_make_room() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Hang);
    let (_relay, mut shard) = Relay::one(Settings {
        caps: Caps { pending_admissions_max: 1, ..Caps::default() },
        ..settings(&platform.url())
    });
    let waiting = shard.client(TOKEN);
    shard.client(TOKEN);
    assert!(matches!(shard.refused().await, Refusal::Unavailable { .. }));
    shard.tell(Event::Abandoned { connection: waiting });
    platform.on(VALIDATE, admits());
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn the_platform_is_asked_about_a_few_and_the_others_wait_in_order() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Hang);
    let (_relay, mut shard) = Relay::one(Settings {
        caps: Caps { asked_at_once: 1, ..Caps::default() },
        ..settings(&platform.url())
    });
    let first = shard.client(TOKEN);
    while platform.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let others = ["b", "c", "d"].map(|name| shard.client(&format!("{TOKEN}-{name}")));
    platform.on(VALIDATE, admits());
    // Nobody else is asked about before the first is gone: it would be admitted.
    shard.tell(Event::Abandoned { connection: first });
    for other in others {
        let (connection, ruling) = shard.ruling().await;
        assert_eq!(connection, other);
        assert!(ruling.is_ok());
    }
    assert_eq!(platform.requests().len(), 4);
}

#[tokio::test]
async fn a_released_connection_makes_room_for_another() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, admits());
    let (_relay, mut shard) = Relay::one(Settings {
        caps: Caps { connections_max: 1, ..Caps::default() },
        ..settings(&platform.url())
    });
    shard.client(TOKEN);
    let admission = shard.admitted().await.admission;
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Full);
    shard.tell(Event::Released { admission });
    shard.client(TOKEN);
    shard.admitted().await;
}
