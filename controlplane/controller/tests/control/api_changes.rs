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
    let mut operator = client.clone();
    let resuming = tokio::spawn(async move { operator.resume(proto::ResumeRequest {}).await });
    assert!(matches!(shard.command().await, relay_contract::Command::Resume { .. }));
    shard.report(ShardReport::default()).await;
    assert!(resuming.await.unwrap().unwrap().into_inner().was_draining);
    let answer = client.resume(proto::ResumeRequest {}).await.unwrap().into_inner();
    assert!(!answer.was_draining);
    let answer = client.get_readiness(proto::GetReadinessRequest {}).await.unwrap().into_inner();
    assert!(answer.readiness.unwrap().ready);
}

#[tokio::test]
async fn a_drain_counts_as_taken_back_when_the_shards_have_heard_of_it() {
    let place = Place::new();
    let (relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    client.drain(proto::DrainRequest::default()).await.unwrap();
    assert!(matches!(shard.command().await, relay_contract::Command::Drain { .. }));
    let resuming = tokio::spawn(async move { client.resume(proto::ResumeRequest {}).await });
    assert!(matches!(shard.command().await, relay_contract::Command::Resume { .. }));
    assert!(matches!(shard.command().await, relay_contract::Command::Report { .. }));
    // It hangs, and says nothing.
    relay.clock.advance(std::time::Duration::from_secs(1));
    let refused = resuming.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
}

/// Takes a shard's limits and routes of one version.
async fn versions(
    shard: &mut crate::relay::Shard,
) -> (u64, std::sync::Arc<relay_contract::Limits>) {
    use relay_contract::Command;
    let limits = match shard.command().await {
        Command::SetLimits(limits) => limits,
        other => panic!("{other:?}"),
    };
    match shard.command().await {
        Command::SetRoutes(routes) => assert_eq!(routes.version, limits.version),
        other => panic!("{other:?}"),
    }
    (limits.version, limits)
}

#[tokio::test]
async fn limits_change_as_a_version_and_only_what_is_given() {
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let limits = proto::Limits { runtime_per_minute: Some(480), ..Default::default() };
    let request = proto::SetLimitsRequest { limits: Some(limits), ..Default::default() };
    let answer = client.set_limits(request.clone()).await.unwrap().into_inner();
    let (version, told) = versions(&mut shard).await;
    assert_eq!((answer.version, told.runtime_per_minute), (version, 480));
    assert_eq!(told.daemon_per_minute, 2400, "as it was");
    let again = client.set_limits(request.clone()).await.unwrap().into_inner();
    assert_eq!(again.version, version, "nothing is different");

    let read = proto::GetLimitsRequest::default();
    let read = client.get_limits(read).await.unwrap().into_inner();
    let limits = read.limits.unwrap();
    assert_eq!((read.version, limits.runtime_per_minute), (version, Some(480)));
    assert_eq!(limits.connections_max, Some(2000));
    let late = proto::SetLimitsRequest { expected_version: version - 1, ..request.clone() };
    let refused = client.set_limits(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let zero = proto::Limits { frame_bytes_max: Some(0), ..Default::default() };
    let zero = proto::SetLimitsRequest { limits: Some(zero), ..Default::default() };
    assert_eq!(client.set_limits(zero).await.unwrap_err().code(), Code::InvalidArgument);
    let no_id = proto::SetLimitsRequest { workspace_id: "w".repeat(129), ..request.clone() };
    assert_eq!(client.set_limits(no_id).await.unwrap_err().code(), Code::InvalidArgument);
    let huge = proto::Limits { pairing_per_minute: Some(u64::MAX), ..Default::default() };
    let huge = proto::SetLimitsRequest { limits: Some(huge), ..Default::default() };
    assert_eq!(client.set_limits(huge).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_workspace_has_limits_of_its_own_until_they_are_reset() {
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let limits = proto::Limits { runtime_per_minute: Some(960), ..Default::default() };
    let own = proto::SetLimitsRequest {
        workspace_id: "acme".to_owned(),
        limits: Some(limits),
        ..Default::default()
    };
    let answer = client.set_limits(own.clone()).await.unwrap().into_inner();
    assert_eq!(answer.limits.unwrap().runtime_per_minute, Some(960));
    versions(&mut shard).await;
    let mut read = async |workspace: &str| {
        let request = proto::GetLimitsRequest { workspace_id: workspace.to_owned() };
        let answer = client.get_limits(request).await.unwrap().into_inner();
        (answer.limits.unwrap().runtime_per_minute, answer.own_limits)
    };
    let (of_acme, own_of_acme) = read("acme").await;
    assert_eq!((of_acme, own_of_acme.unwrap().runtime_per_minute), (Some(960), Some(960)));
    assert_eq!(read("other").await, (Some(240), Some(proto::Limits::default())));
    assert_eq!(read("").await, (Some(240), None));

    let caps = proto::Limits { connections_max: Some(5), ..Default::default() };
    let wrong = proto::SetLimitsRequest { limits: Some(caps), ..own.clone() };
    assert_eq!(client.set_limits(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let reset = proto::SetLimitsRequest { reset: true, limits: None, ..own };
    let answer = client.set_limits(reset).await.unwrap().into_inner();
    assert_eq!(answer.limits.unwrap().runtime_per_minute, Some(240));
}

#[tokio::test]
async fn a_log_level_outlives_a_change_of_limits() {
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    client.set_log_level(to_debug()).await.unwrap();
    let limits = proto::Limits { pairing_per_minute: Some(7), ..Default::default() };
    let request = proto::SetLimitsRequest { limits: Some(limits), ..Default::default() };
    client.set_limits(request).await.unwrap();
    versions(&mut shard).await;
    let answer = client.set_log_level(to_debug()).await.unwrap().into_inner();
    assert_eq!(answer.previous_log_level(), proto::LogLevel::Debug);
}
