//! The operator's own door: real sockets, HTTP by hand.

use std::net::SocketAddr;
use std::time::Duration;

use relay_contract::ShardReport;
use relay_controller::{AdminAccess, AdminSocket, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::relay::{ADMIN, Relay, Shard, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

fn separate() -> Settings {
    let admin = AdminAccess { separate: true, ..settings(NOWHERE).admin };
    Settings { admin, ..settings(NOWHERE) }
}

/// A relay with a door on loopback.
fn relay() -> (Relay, Shard, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (relay, shard) = Relay::with_door(separate(), AdminSocket::Tcp(socket));
    (relay, shard, address)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, target: &str, headers: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    exchange(stream, &request).await
}

fn bearer() -> String {
    format!("authorization: Bearer {ADMIN}\r\n")
}

#[tokio::test]
async fn it_answers_what_the_relays_port_then_does_not() {
    let (_relay, mut shard, address) = relay();
    let health = get(address, "/health", "").await;
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    let body = r#"{"ok":true,"service":"relay","uptimeMs":0,"tlsEnabled":false,"#;
    assert!(health.contains(body) && health.contains(r#""relayId":"relay-a"}"#), "{health}");
    assert!(get(address, "/ready", "").await.ends_with(r#"{"ok":true}"#));
    let logs = get(address, "/logs", &bearer()).await;
    assert!(logs.contains("relay_started"), "{logs}");
    for (target, answered) in
        [("/metrics", "relay_info"), ("/state", "workspaces"), ("/node", "shards")]
    {
        let headers = bearer();
        let asking = tokio::spawn(async move { get(address, target, &headers).await });
        shard.report(ShardReport::default()).await;
        let answer = asking.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(answered), "{answer}");
    }
    for path in ["/state", "/logs", "/metrics", "/node", "/health"] {
        shard.ask(path);
        let (status, _, body) = shard.response().await;
        assert_eq!((status, &*body), (404, r#"{"ok":false,"reason":"NOT_FOUND"}"#), "{path}");
    }
    shard.ask_as("/ready", None);
    assert_eq!(shard.response().await.0, 200, "for whoever balances load");
}

#[tokio::test]
async fn it_asks_for_the_token_and_knows_no_other_path_or_method() {
    let (_relay, _shard, address) = relay();
    for headers in ["", "authorization: Bearer wrong\r\n", "x-relay-admin-token: \r\n"] {
        let answer = get(address, "/logs", headers).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let own = format!("x-relay-admin-token: {ADMIN}\r\n");
    assert!(get(address, "/logs", &own).await.starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/ws", &bearer()).await.starts_with("HTTP/1.1 404 "));
    let stream = TcpStream::connect(address).await.unwrap();
    let post = "POST /logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(exchange(stream, post).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn it_can_be_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (_relay, _shard) = Relay::with_door(separate(), AdminSocket::Unix(socket));
    let stream = UnixStream::connect(&path).await.unwrap();
    let request = "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(exchange(stream, request).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_crowd_at_the_door_is_bounded_and_counted() {
    let (_relay, mut shard, address) = relay();
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // An answer shows that this one is inside.
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        crowd.push(stream);
    }
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0, "closed at once");
    let mut inside = crowd.pop().unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", bearer());
    inside.write_all(request.as_bytes()).await.unwrap();
    shard.report(ShardReport::default()).await;
    let mut answer = String::new();
    inside.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\nrelay_admin_connections_refused_total 1\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_drips_is_shown_out() {
    let (_relay, _shard, address) = relay();
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /ready HT").await.unwrap();
    let mut answer = Vec::new();
    let patience = Duration::from_secs(3600);
    let ended = tokio::time::timeout(patience, silent.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the deadline is the door's, not the peer's");
}
