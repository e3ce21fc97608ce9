use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use relay_platform::{Issuer, JWKS_PATH, Service, SigningKey, VALIDATE_PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::finding::Verdict;
use super::*;
use crate::config::{FlagValue, Machine};

/// The configuration that asks this platform, with further settings.
fn config(validate: &str, settings: &[(&str, &str)]) -> Config {
    let fixed = [("HOST", "127.0.0.1"), ("RELAY_VALIDATE_URL", validate)];
    let given = fixed.iter().chain(settings).map(|(name, value)| FlagValue::set(name, value));
    Config::parse(&given.collect::<Vec<_>>(), &Machine).expect("usable").config
}

/// Serves our own platform with these internal keys; returns its origin.
async fn platform(internal_keys: &[&str]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let service = Arc::new(Service {
        issuer: Issuer::new(SigningKey::generate().expect("randomness")),
        internal_keys: internal_keys.iter().copied().map(Secret::from).collect(),
    });
    tokio::spawn(relay_platform::serve(service, listener, std::future::pending()));
    format!("http://{address}")
}

/// Answers every request with this; returns its origin.
async fn answering(status: &'static str, headers: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}", body.len());
            let answer = format!("{head}Connection: close\r\n\r\n{body}");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn of(findings: &[Finding], check: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("{check} is not among {findings:?}")).clone()
}

const KEY: &str = "0f9e8d7c6b5a49382716051423324150";

#[tokio::test]
async fn a_platform_that_works_is_fine_in_every_respect() {
    let origin = platform(&[KEY]).await;
    let settings =
        [("RELAY_INTERNAL_KEY", KEY), ("RELAY_JWKS_URL", &format!("{origin}{JWKS_PATH}"))];
    let findings = check(&config(&format!("{origin}{VALIDATE_PATH}"), &settings)).await;
    for name in ["platform", "internal key known", "clock", "key set"] {
        assert_eq!(of(&findings, name).verdict, Verdict::Ok, "{findings:?}");
    }
    assert!(of(&findings, "key set").found.ends_with(": 1 can be used"), "{findings:?}");
}

#[tokio::test]
async fn a_wrong_key_is_told_from_a_wrong_token() {
    let origin = platform(&[KEY]).await;
    let url = format!("{origin}{VALIDATE_PATH}");
    let wrong = check(&config(&url, &[("RELAY_INTERNAL_KEY", "another-key")])).await;
    assert_eq!(of(&wrong, "internal key known").verdict, Verdict::Fail);
    assert!(!format!("{wrong:?}").contains("another-key"));
    let missing = check(&config(&url, &[])).await;
    assert_eq!(of(&missing, "internal key known").verdict, Verdict::Fail);
    let rotating = [("RELAY_INTERNAL_KEY", "new"), ("RELAY_INTERNAL_KEY_PREVIOUS", KEY)];
    let rotating = check(&config(&url, &rotating)).await;
    assert_eq!(of(&rotating, "internal key known").verdict, Verdict::Warn);
    let open = platform(&[]).await;
    let url = format!("{open}{VALIDATE_PATH}");
    let unasked = check(&config(&url, &[("RELAY_INTERNAL_KEY", KEY)])).await;
    assert_eq!(of(&unasked, "internal key known").verdict, Verdict::Warn);
}

#[tokio::test]
async fn each_status_has_its_meaning() {
    for (status, body, verdict, words) in [
        ("404 Not Found", "", Verdict::Fail, "nothing at this path"),
        ("405 Method Not Allowed", "", Verdict::Fail, "no POST"),
        ("302 Found", "", Verdict::Fail, "redirects"),
        ("502 Bad Gateway", "", Verdict::Fail, "gateway"),
        ("500 Internal Server Error", "", Verdict::Fail, "platform fails"),
        ("429 Too Many Requests", "", Verdict::Warn, "how often"),
        ("418 Teapot", "", Verdict::Warn, "401 is usual"),
        ("403 Forbidden", "{}", Verdict::Ok, "refuses a bad token"),
        ("200 OK", r#"{"ok":false}"#, Verdict::Ok, "refuses a bad token"),
        ("200 OK", r#"{"ok":true,"claims":{}}"#, Verdict::Fail, "so everybody"),
    ] {
        let origin = answering(status, "", body).await;
        let finding = of(&check(&config(&origin, &[])).await, "platform");
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.found.contains(words), "{finding:?}");
    }
}

#[tokio::test]
async fn a_platform_that_cannot_be_reached_says_why() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = check(&config(&format!("http://{address}/"), &[])).await;
    assert!(of(&refused, "platform").found.contains("takes no connection"), "{refused:?}");
    let unknown = check(&config("http://no-such-host.invalid/", &[])).await;
    assert!(of(&unknown, "platform").found.contains("does not resolve"), "{unknown:?}");
    let plain = answering("401 Unauthorized", "", "{}").await.replace("http:", "https:");
    let plain = check(&config(&plain, &[])).await;
    assert!(of(&plain, "platform").remedy.expect("one").contains("speaks no TLS"), "{plain:?}");
}

#[tokio::test]
async fn a_platform_that_never_answers_ends_the_check_in_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let silent = check(&config(&url, &[("RELAY_ADMISSION_TIMEOUT_MS", "50")])).await;
    assert!(of(&silent, "platform").found.contains("50 ms"), "{silent:?}");
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_counted() {
    let body = r#"{"keys":[{"kty":"oct","k":"AA"}]}"#;
    let origin = answering("200 OK", "", body).await;
    let none = check(&config(&origin, &[("RELAY_JWKS_URL", &origin)])).await;
    assert_eq!(of(&none, "key set").verdict, Verdict::Fail, "{none:?}");
    let missing = answering("404 Not Found", "", "").await;
    let missing = check(&config(&origin, &[("RELAY_JWKS_URL", &missing)])).await;
    assert!(of(&missing, "key set").found.ends_with("answers 404"), "{missing:?}");
}

#[test]
fn a_clock_is_judged_by_the_leeway() {
    let config = config("http://127.0.0.1:9/", &[("RELAY_JWT_LEEWAY_SECS", "30")]);
    let date = Some("Tue, 01 Jan 2030 00:00:00 GMT".to_owned());
    let answer = ProbeAnswer { status: 401, date, age_secs: None, body: Bytes::new() };
    let judge = |answer: &ProbeAnswer, secs: u64| {
        let now = UNIX_EPOCH + Duration::from_secs(1_893_456_000 + secs);
        clock(&config, "the platform's", answer, now)
    };
    let at = |secs| judge(&answer, secs).verdict;
    assert_eq!([1, 20, 31].map(at), [Verdict::Ok, Verdict::Warn, Verdict::Fail]);
    let kept = ProbeAnswer { date: answer.date.clone(), age_secs: Some(3600), ..answer };
    assert_eq!(judge(&kept, 3601).verdict, Verdict::Ok, "a cache has had it for an hour");
    let silent = ProbeAnswer { date: None, ..kept };
    assert_eq!(judge(&silent, 0).verdict, Verdict::Ok);
}

#[tokio::test]
async fn where_keys_alone_decide_the_clock_is_compared_with_their_publishers() {
    let body = r#"{"keys":[]}"#;
    let origin = answering("200 OK", "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n", body).await;
    let settings = [("RELAY_JWKS_URL", origin.as_str()), ("RELAY_ADMISSION", "jwks")];
    let findings = check(&config("http://no-such-host.invalid/", &settings)).await;
    let clock = of(&findings, "clock");
    assert_eq!(clock.verdict, Verdict::Fail, "{clock:?}");
    assert!(clock.found.contains(&format!("from that of {origin}")), "{clock:?}");
    assert!(!findings.iter().any(|finding| finding.check == "platform"), "nobody asks it");
}

#[tokio::test]
async fn a_key_server_is_called_apart_from_the_platform() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let issuer = format!("https://a.corp=http://127.0.0.1:{port}/keys");
    let other = config("http://127.0.0.1:9/", &[("RELAY_JWT_ISSUERS", &issuer)]);
    let gone = of(&check(&other).await, "key set");
    assert!(gone.remedy.is_some_and(|text| text.contains("RELAY_JWT_ISSUERS")), "{}", gone.found);
    let url = Url::parse("https://a.corp/keys").expect("a URL");
    let remedy = |error: &str, server| {
        let error = ProbeError::Failed(error.to_owned());
        unanswered("key set", &url, &error, server).remedy.expect("a remedy")
    };
    let unknown = "invalid peer certificate: UnknownIssuer";
    let verify = "RELAY_SERVER_TLS_VERIFY";
    assert!(remedy(unknown, Server::Other).contains(verify));
    assert!(!remedy(unknown, Server::Platform).contains(verify));
    let required = "received fatal alert: CertificateRequired";
    assert!(!remedy(required, Server::Other).contains("RELAY_SERVER_CLIENT_CERT_PATH"));
    assert!(remedy(required, Server::Platform).contains("RELAY_SERVER_CLIENT_CERT_PATH"));
}
