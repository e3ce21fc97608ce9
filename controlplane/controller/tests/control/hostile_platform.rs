//! Everything a broken or wicked platform can answer: the upgrade it was asked for is refused, and
//! the next one is judged as if nothing had happened.

use std::fmt::Write;
use std::time::Duration;

use relay_contract::Refusal;
use relay_controller::Settings;

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, TOKEN, VALIDATE, settings};

const ADMITTED: &str = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
const DENIED: &str = r#"{"ok":false,"reason":"NO"}"#;

fn answer(body: &str) -> Behaviour {
    Behaviour::Answer(200, body.to_owned())
}

fn then_close(text: impl Into<Vec<u8>>) -> Behaviour {
    Behaviour::RawThenClose(text.into())
}

/// Long enough for what answers, whatever the machine.
const PATIENT: Duration = Duration::from_secs(20);
/// Short enough for what never does.
const IMPATIENT: Duration = Duration::from_millis(200);

/// Has one upgrade judged by a platform that behaves so, and one by the same platform when it is
/// well again. Returns the reason in the log.
async fn reason_of(platform: &Platform, behaviour: Behaviour, timeout: Duration) -> String {
    platform.on(VALIDATE, behaviour);
    let (relay, mut shard) = Relay::one(Settings {
        admission_timeout: timeout,
        admission_response_bytes_max: 4096,
        ..settings(&platform.url())
    });
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    if timeout == PATIENT {
        platform.on(VALIDATE, answer(ADMITTED));
        shard.client(TOKEN);
        shard.admitted().await;
    }
    let lines = relay.logged(shard, "admission_denied").await;
    assert_eq!(lines.len(), 1);
    lines[0]["details"]["reason"].as_str().unwrap().to_owned()
}

async fn refused(behaviour: Behaviour, reason: &str) {
    let found = reason_of(&Platform::start(None).await, behaviour.clone(), PATIENT).await;
    assert!(found.starts_with(reason), "{behaviour:?}: {found}");
}

async fn refused_in_time(behaviour: Behaviour) {
    let found = reason_of(&Platform::start(None).await, behaviour.clone(), IMPATIENT).await;
    assert_eq!(found, "ADMISSION_TIMEOUT", "{behaviour:?}");
}

const TOO_LARGE: &str = "ADMISSION_RESPONSE_TOO_LARGE";
const UNREACHABLE: &str = "ADMISSION_UNREACHABLE";

#[tokio::test]
async fn an_answer_that_declares_too_much_is_not_read() {
    refused(then_close("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n"), TOO_LARGE)
        .await;
}

#[tokio::test]
async fn chunks_are_read_up_to_the_limit() {
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    refused(then_close(format!("{head}{}", chunk.repeat(5))), TOO_LARGE).await;
}

#[tokio::test]
async fn an_answer_without_length_is_read_up_to_the_limit() {
    refused(then_close(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5000))), TOO_LARGE).await;
}

#[tokio::test]
async fn a_head_that_is_cut_is_no_answer() {
    for cut in ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-le"] {
        refused(then_close(cut), UNREACHABLE).await;
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n";
    refused(then_close(format!("{head}{ADMITTED}")), UNREACHABLE).await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{ADMITTED}\r\n", ADMITTED.len());
    refused(then_close(format!("{head}{chunk}")), UNREACHABLE).await;
}

#[tokio::test]
async fn an_answer_that_is_reset_is_no_answer() {
    let platform = Platform::that_resets().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n{";
    let reason = reason_of(&platform, then_close(head), PATIENT).await;
    assert!(reason.starts_with(UNREACHABLE), "{reason}");
}

#[tokio::test]
async fn a_head_that_drips_ends_at_the_deadline() {
    refused_in_time(Behaviour::DripHead).await;
}

#[tokio::test]
async fn endless_interim_answers_end_at_the_deadline() {
    refused_in_time(Behaviour::DripInterim).await;
}

#[tokio::test]
async fn one_interim_answer_is_skipped() {
    let platform = Platform::start(None).await;
    let text = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ADMITTED}",
        ADMITTED.len()
    );
    platform.on(VALIDATE, Behaviour::Raw(text));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_redirect_is_a_denial_and_nobody_is_asked_there() {
    let platform = Platform::start(None).await;
    let elsewhere = Platform::start(None).await;
    elsewhere.on("/", answer(ADMITTED));
    for status in [301, 302, 303, 307, 308] {
        let text = format!(
            "HTTP/1.1 {status} X\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n",
            elsewhere.url()
        );
        assert_eq!(reason_of(&platform, Behaviour::Raw(text), PATIENT).await, "INVALID_JSON");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn what_is_not_json_or_not_of_the_right_types_is_a_denial() {
    for body in ["{", "{\"ok\":tru", "\u{0}", "[1,2", "{'ok':true}", "", "NaN"] {
        refused(answer(body), "INVALID_JSON").await;
    }
    for body in ["[]", "7", "\"ok\"", r#"{"ok":1}"#, r#"{"ok":"true"}"#, r#"{"claims":{}}"#] {
        refused(answer(body), "VALIDATION_FAILED").await;
    }
    for claims in ["[]", "7", "null", r#"{"workspaceId":7}"#, r#"{"sessionChannels":{}}"#] {
        refused(answer(&format!(r#"{{"ok":true,"claims":{claims}}}"#)), "INVALID_CLAIMS").await;
    }
}

#[tokio::test]
async fn json_nested_a_million_deep_is_a_denial() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let platform = Platform::start(None).await;
        let deep = format!("{}1{}", open.repeat(1_000_000), close.repeat(1_000_000));
        let body = format!(r#"{{"ok":true,"claims":{deep}}}"#);
        platform.on(VALIDATE, answer(&body));
        let (relay, mut shard) = Relay::one(Settings {
            admission_response_bytes_max: 16 << 20,
            ..settings(&platform.url())
        });
        shard.client(TOKEN);
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
        let lines = relay.logged(shard, "admission_denied").await;
        assert_eq!(lines[0]["details"]["reason"], "INVALID_JSON");
    }
}

#[tokio::test]
async fn http_1_0_is_an_answer() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, then_close(format!("HTTP/1.0 200 OK\r\n\r\n{ADMITTED}")));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    for _ in 0..2 {
        shard.client(TOKEN);
        shard.admitted().await;
    }
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    for text in
        ["nonsense\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "SSH-2.0-x\r\n", "\u{0}\u{1}\r\n\r\n"]
    {
        refused(then_close(text), UNREACHABLE).await;
    }
}

#[tokio::test]
async fn contradictory_lengths_are_no_answer() {
    for lengths in
        ["content-length: 5\r\ncontent-length: 6", "content-length: -1", "content-length: x"]
    {
        let text = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n{ADMITTED}");
        refused(then_close(text), UNREACHABLE).await;
    }
}

#[tokio::test]
async fn a_head_of_many_or_long_headers_is_no_answer() {
    let mut many = String::from("HTTP/1.1 200 OK\r\n");
    for n in 0..10_000 {
        write!(many, "x-{n}: 1\r\n").unwrap();
    }
    refused(then_close(format!("{many}\r\n")), UNREACHABLE).await;
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(4 << 20));
    refused(then_close(long), UNREACHABLE).await;
}

/// A length that is too short leaves an answer of the platform's choice on the connection.
#[tokio::test]
async fn what_follows_an_answer_is_not_the_answer_to_the_next_question() {
    let platform = Platform::start(None).await;
    let smuggled =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ADMITTED}", ADMITTED.len());
    let text =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{DENIED}{smuggled}", DENIED.len());
    platform.on(VALIDATE, Behaviour::Raw(text));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    for _ in 0..3 {
        shard.client(TOKEN);
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
}

/// [`ADMITTED`] as gzip makes it.
#[rustfmt::skip]
const COMPRESSED: [u8; 62] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xab, 0x56,
    0xca, 0xcf, 0x56, 0xb2, 0x2a, 0x29, 0x2a, 0x4d, 0xd5, 0x51, 0x4a, 0xce,
    0x49, 0xcc, 0xcc, 0x2d, 0x56, 0xb2, 0xaa, 0x56, 0x2a, 0xcf, 0x2f, 0xca,
    0x2e, 0x2e, 0x48, 0x4c, 0x4e, 0xf5, 0x4c, 0x51, 0xb2, 0x52, 0x2a, 0x2f,
    0x36, 0x54, 0xaa, 0xad, 0x05, 0x00, 0x6b, 0x0a, 0x7f, 0x21, 0x2a, 0x00,
    0x00, 0x00,
];

/// A good answer would be one after unpacking: so nothing is unpacked, a bomb neither.
#[tokio::test]
async fn a_compressed_answer_is_never_unpacked() {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        COMPRESSED.len()
    );
    let bytes = [head.as_bytes(), &COMPRESSED[..]].concat();
    let platform = Platform::start(None).await;
    assert_eq!(reason_of(&platform, then_close(bytes), PATIENT).await, "INVALID_JSON");
    let asked = &platform.requests()[0];
    assert_eq!(asked.header("accept-encoding"), None, "nor asked for");
}

#[tokio::test]
async fn a_slow_platform_refuses_some_and_admits_again_when_it_is_back() {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Hang);
    let (_relay, mut shard) =
        Relay::one(Settings { admission_timeout: IMPATIENT, ..settings(&platform.url()) });
    for _ in 0..10 {
        shard.client(TOKEN);
    }
    for _ in 0..10 {
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    platform.on(VALIDATE, answer(ADMITTED));
    // The deadline is short: on a busy machine a good answer may miss it, but not for ever.
    let mut admitted = false;
    for _ in 0..100 {
        shard.client(TOKEN);
        let (_, ruling) = shard.ruling().await;
        admitted |= ruling.is_ok();
        if admitted {
            break;
        }
    }
    assert!(admitted);
}

#[tokio::test]
async fn a_platform_that_was_down_is_asked_as_soon_as_it_is_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_relay, mut shard) = Relay::one(settings(&format!("http://{address}")));
    for _ in 0..3 {
        shard.client(TOKEN);
        assert_eq!(shard.refused().await, Refusal::Unauthorized);
    }
    let platform = Platform::start_at(address, None, false).await;
    platform.on(VALIDATE, answer(ADMITTED));
    shard.client(TOKEN);
    shard.admitted().await;
}

#[tokio::test]
async fn a_platform_that_closes_kept_connections_costs_no_upgrade() {
    let platform = Platform::start(None).await;
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ADMITTED}", ADMITTED.len());
    platform.on(VALIDATE, then_close(text));
    for _ in 0..5 {
        shard.client(TOKEN);
        shard.admitted().await;
    }
}
