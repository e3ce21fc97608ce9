//! Calls of the control API that change something: who may make them, and what is written down.

use std::path::{Path, PathBuf};

use relay_contract::ShardReport;
use relay_controller::{AuditFile, AuditSink, ControlApi, ControlSocket};
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_client::ControlClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::api::{OPERATOR, Place, READER, port, tokens, with_token};
use crate::relay::{Relay, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A file that is there as long as this is.
struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        Self { _dir: dir, path }
    }

    fn sink(&self) -> AuditSink {
        sink(&self.path)
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn sink(path: &Path) -> AuditSink {
    AuditSink::File(AuditFile { path: path.to_owned(), bytes_max: 1 << 20, files_kept: 2 })
}

fn to_debug() -> proto::SetLogLevelRequest {
    proto::SetLogLevelRequest { log_level: proto::LogLevel::Debug.into() }
}

#[tokio::test]
async fn a_change_is_made_and_written_down_with_who_made_it() {
    let (place, log) = (Place::new(), Log::new());
    let api = ControlApi { audit: log.sink(), ..place.api() };
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), api);
    let mut client = place.client().await;
    let answer = client.set_log_level(to_debug()).await.unwrap().into_inner();
    assert_eq!(answer.previous_log_level(), proto::LogLevel::Info);
    let refused = client.set_log_level(proto::SetLogLevelRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let asking = tokio::spawn(async move { client.get_state(proto::GetStateRequest {}).await });
    shard.report(ShardReport::default()).await;
    let state = asking.await.unwrap().unwrap().into_inner().state.unwrap();
    assert_eq!(state.log_level(), proto::LogLevel::Debug);

    let lines = log.lines();
    assert_eq!(lines.len(), 2, "what changes nothing is not written down: {lines:?}");
    assert_eq!((&lines[0]["call"], &lines[0]["outcome"]), (&"SetLogLevel".into(), &"done".into()));
    assert_eq!(lines[0]["arguments"]["logLevel"], "LOG_LEVEL_DEBUG");
    assert_eq!(lines[0]["who"]["via"], "unix");
    assert_eq!(lines[0]["who"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(lines[0]["who"]["pid"], std::process::id());
    assert_eq!(
        (&lines[1]["outcome"], &lines[1]["code"]),
        (&"failed".into(), &"InvalidArgument".into())
    );
}

#[tokio::test]
async fn a_reader_changes_nothing_and_the_attempt_is_written_down() {
    let log = Log::new();
    let (listener, address) = port();
    let socket = ControlSocket::Tcp { listener, tls: None };
    let api = ControlApi { socket, access: tokens(), audit: log.sink(), commit: "unknown" };
    let (_relay, _shards) = Relay::with_api::<1>(settings(NOWHERE), api);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = ControlClient::new(endpoint.connect().await.unwrap());
    let refused = client.set_log_level(with_token(to_debug(), READER)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("operator"), "{refused}");
    let refused = client.set_log_level(with_token(to_debug(), "guess")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let answer = client.set_log_level(with_token(to_debug(), OPERATOR)).await.unwrap();
    assert_eq!(answer.into_inner().previous_log_level(), proto::LogLevel::Info);

    let lines = log.lines();
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (line["outcome"].as_str().unwrap(), line["who"]["role"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("refused", "reader"), ("refused", "nobody"), ("done", "operator")]);
    let text = std::fs::read_to_string(&log.path).unwrap();
    for secret in [READER, OPERATOR, "guess"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(lines[2]["who"]["token"].as_str().unwrap().starts_with("sha256:"));
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let place = Place::new();
    let api = ControlApi { audit: sink(Path::new("/dev/full")), ..place.api() };
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), api);
    let mut client = place.client().await;
    let refused = client.set_log_level(to_debug()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("nothing was changed"), "{refused}");
    let asking = tokio::spawn(async move { client.get_state(proto::GetStateRequest {}).await });
    shard.report(ShardReport::default()).await;
    let state = asking.await.unwrap().unwrap().into_inner().state.unwrap();
    assert_eq!(state.log_level(), proto::LogLevel::Info, "it is as it was");
    shard.ask("/metrics");
    shard.report(ShardReport::default()).await;
    let (_, _, metrics) = shard.response().await;
    assert!(metrics.contains("\nrelay_control_unaudited_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_drain_is_shown_while_it_goes_on_and_can_be_taken_back() {
    let place = Place::new();
    let (relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let wrong = proto::DrainRequest { redirect_url: "https://x".to_owned(), ..Default::default() };
    assert_eq!(client.drain(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let order = proto::DrainRequest { redirect_url: "wss://b.corp/ws".to_owned(), window_ms: 50 };
    for _ in 0..2 {
        let drain = client.drain(order.clone()).await.unwrap().into_inner().drain.unwrap();
        assert_eq!((&*drain.redirect_url, drain.connections), ("wss://b.corp/ws", 0));
        assert_eq!(drain.since_unix_ms, crate::relay::NOW_SECS * 1000);
        assert!(matches!(shard.command().await, relay_contract::Command::Drain { .. }));
    }
    relay.clock.advance(std::time::Duration::from_secs(1));
    let answer = client.get_readiness(proto::GetReadinessRequest {}).await.unwrap().into_inner();
    let reasons = answer.readiness.unwrap().reasons;
    assert_eq!(reasons, [i32::from(proto::UnreadyReason::Draining)]);
    for was_draining in [true, false] {
        let answer = client.resume(proto::ResumeRequest {}).await.unwrap().into_inner();
        assert_eq!(answer.was_draining, was_draining);
    }
    assert!(matches!(shard.command().await, relay_contract::Command::Resume));
    let answer = client.get_readiness(proto::GetReadinessRequest {}).await.unwrap().into_inner();
    assert!(answer.readiness.unwrap().ready);
}
