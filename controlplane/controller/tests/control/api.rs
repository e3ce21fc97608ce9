//! The control API, called by a real client over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Event, Secret, ShardId, ShardLoad, ShardReport};
use relay_controller::{
    Admission, AuditSink, ControlAccess, ControlApi, ControlSocket, ControlTls, Ending,
    IssuerSettings, JwksSettings, KeySchedule, Settings, UnknownKeys,
};
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_client::ControlClient;
use rustls::ServerConfig;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use url::Url;

use crate::relay::{Relay, settings};

const NOWHERE: &str = "http://127.0.0.1:9";
pub(crate) const READER: &str = "reader-token";
pub(crate) const OPERATOR: &str = "operator-token";

/// A path for a socket, removed at the end.
pub(crate) struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        Self { _dir: dir, path }
    }

    /// The API at this path.
    pub(crate) fn api(&self) -> ControlApi {
        let socket = std::os::unix::net::UnixListener::bind(&self.path).unwrap();
        api(ControlSocket::Unix(socket), ControlAccess::default())
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.path.display())).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel().await)
    }
}

fn api(socket: ControlSocket, access: ControlAccess) -> ControlApi {
    ControlApi { socket, access, audit: AuditSink::Off, commit: "0123456789ab" }
}

pub(crate) fn tokens() -> ControlAccess {
    ControlAccess {
        readers: vec![Secret::from(READER)],
        operators: vec![Secret::from(OPERATOR), Secret::from("operator-token-before")],
    }
}

/// A listener on loopback.
pub(crate) fn port() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn it_says_what_the_relay_is() {
    let place = Place::new();
    let (relay, _shards) = Relay::with_api::<2>(settings(NOWHERE), place.api());
    relay.clock.advance(Duration::from_millis(1500));
    let mut client = place.client().await;
    let info = client.get_info(proto::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((&*info.relay_id, &*info.version), ("relay-a", "0.1.0"));
    assert_eq!((&*info.commit, info.uptime_ms), ("0123456789ab", 1500));
    assert_eq!(info.started_at_unix_ms, crate::relay::NOW_SECS * 1000);
    assert_eq!(info.role(), proto::ProcessRole::All);
    let [plane] = &info.data_planes[..] else { panic!("{info:?}") };
    assert_eq!((&plane.shard_ids[..], &*plane.driver), (&[0, 1][..], "test"));
}

#[tokio::test]
async fn its_state_is_that_of_every_shard_in_their_order() {
    let place = Place::new();
    let (_relay, [mut a, mut b]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let asking = tokio::spawn(async move { client.get_state(proto::GetStateRequest {}).await });
    let load = ShardLoad { residents: 7, cpu: Duration::from_millis(3), ..ShardLoad::default() };
    b.report(ShardReport { connection_count: 5, load, ..ShardReport::default() }).await;
    a.report(ShardReport { connection_count: 2, ..ShardReport::default() }).await;
    let answer = asking.await.unwrap().unwrap().into_inner();
    let state = answer.state.unwrap();
    assert!(state.readiness.unwrap().ready);
    assert_eq!(state.log_level, i32::from(proto::LogLevel::Info));
    let shown: Vec<_> = answer.shards.iter().map(|s| (s.shard_id, s.connections)).collect();
    assert_eq!(shown, [(0, 2), (1, 5)]);
    assert_eq!((answer.shards[1].sockets, answer.shards[1].cpu_ns), (7, 3_000_000));
}

#[tokio::test]
async fn a_silent_shard_does_not_keep_a_caller_waiting() {
    let place = Place::new();
    let (relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let asking = tokio::spawn(async move { client.get_state(proto::GetStateRequest {}).await });
    shard.asked_for_report().await;
    relay.clock.advance(Duration::from_secs(2));
    assert_eq!(asking.await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_relay_without_keys_is_not_ready_and_probes_see_it() {
    let place = Place::new();
    let jwks = JwksSettings {
        issuers: vec![IssuerSettings { issuer: None, url: Url::parse(NOWHERE).unwrap() }],
        audience: None,
        leeway: Duration::ZERO,
        schedule: KeySchedule::default(),
        unknown_keys: UnknownKeys::Ask,
        withdrawn: Ending::Ignore,
    };
    let settings = Settings { admission: Admission::Jwks, jwks: Some(jwks), ..settings(NOWHERE) };
    let (_relay, _shards) = Relay::with_api::<1>(settings, place.api());
    let mut client = place.client().await;
    let answer = client.get_readiness(proto::GetReadinessRequest {}).await.unwrap().into_inner();
    let readiness = answer.readiness.unwrap();
    assert!(!readiness.ready);
    assert_eq!(readiness.reasons, [i32::from(proto::UnreadyReason::NoKeys)]);

    let mut health = HealthClient::new(place.channel().await);
    let mut probe = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.map(|answer| answer.into_inner().status())
    };
    assert_eq!(probe("").await.unwrap(), ServingStatus::Serving);
    assert_eq!(probe("relay.control.v1.Control").await.unwrap(), ServingStatus::Serving);
    assert_eq!(probe("ready").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(probe("nothing").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watched_probe_hears_of_the_end() {
    let place = Place::new();
    let (relay, [shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut health = HealthClient::new(place.channel().await);
    let request = HealthCheckRequest { service: "ready".to_owned() };
    let mut changes = health.watch(request).await.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let ended = relay.shut_down();
    let next = changes.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    shard.tell(Event::Stopped { shard: ShardId(0) });
    ended.await.unwrap();
}

#[tokio::test]
async fn tools_without_a_schema_are_told_it() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let place = Place::new();
    let (_relay, _shards) = Relay::with_api::<1>(settings(NOWHERE), place.api());
    let mut client = ServerReflectionClient::new(place.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    names.sort_unstable();
    assert!(names.contains(&"relay.control.v1.Control"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("plane")), "{names:?}");
}

/// What the document's lines for grpcurl ask for: services, and calls of services.
fn asked_with_grpcurl() -> Vec<&'static str> {
    let document = include_str!("../../../../docs/control-api.md");
    let lines = document.lines().filter(|line| line.starts_with("grpcurl "));
    let words = lines.flat_map(|line| line.split_whitespace());
    words.filter(|word| word.contains(".v1.")).collect()
}

#[tokio::test]
async fn reflection_knows_what_the_document_has_tools_ask_for_in_both_versions() {
    use tonic_reflection::pb::v1::{self, server_reflection_client};
    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

    let place = Place::new();
    let (_relay, _shards) = Relay::with_api::<1>(settings(NOWHERE), place.api());
    let asked = asked_with_grpcurl();
    assert!(asked.len() >= 4, "{asked:?}");
    for word in asked {
        let symbol = word.replace('/', ".");
        let mut old = ServerReflectionClient::new(place.channel().await);
        let message_request = Some(MessageRequest::FileContainingSymbol(symbol.clone()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut answers =
            old.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{word}");

        let mut new = server_reflection_client::ServerReflectionClient::new(place.channel().await);
        let wanted = v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol);
        let request =
            v1::ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
        let mut answers =
            new.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response;
        let is_file = matches!(
            answer,
            Some(v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        );
        assert!(is_file, "{word}");
    }
}

#[tokio::test]
async fn at_a_port_the_token_decides() {
    let (listener, address) = port();
    let api = api(ControlSocket::Tcp { listener, tls: None }, tokens());
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), api);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = ControlClient::new(endpoint.connect().await.unwrap());
    let request = proto::GetInfoRequest {};
    for token in [READER, OPERATOR, "operator-token-before"] {
        assert!(client.get_info(with_token(request, token)).await.is_ok(), "{token}");
    }
    let refused = client.get_info(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("authorization: Bearer"), "{refused}");
    for token in ["reader-toke", "reader-token-", "x"] {
        let refused = client.get_info(with_token(request, token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
    }
    shard.ask("/metrics");
    shard.report(ShardReport::default()).await;
    let (_, _, metrics) = shard.response().await;
    assert!(metrics.contains("\nrelay_control_unauthorized_total 4\n"), "{metrics}");
}

#[tokio::test]
async fn over_tls_the_token_is_read_and_a_stranger_cannot_read_it() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let (listener, address) = port();
    let server = Arc::new(server);
    let tls = Some(ControlTls::new(move || Arc::clone(&server)));
    let api = api(ControlSocket::Tcp { listener, tls }, tokens());
    let (_relay, _shards) = Relay::with_api::<1>(settings(NOWHERE), api);

    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let endpoint = endpoint.tls_config(tls).unwrap();
    let mut client = ControlClient::new(endpoint.connect().await.unwrap());
    let request = proto::GetInfoRequest {};
    assert!(client.get_info(with_token(request, READER)).await.is_ok());
    assert_eq!(client.get_info(request).await.unwrap_err().code(), Code::Unauthenticated);

    // In the clear nobody is heard.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let answer = match endpoint.connect().await {
        Ok(channel) => ControlClient::new(channel).get_info(request).await.map(|_| ()),
        Err(_) => return,
    };
    assert!(answer.is_err());
}

#[tokio::test]
async fn a_crowd_at_the_socket_is_bounded_and_counted() {
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let mut client = place.client().await;
        client.get_info(proto::GetInfoRequest {}).await.unwrap();
        crowd.push(client);
    }
    let refused = Endpoint::from_shared(format!("unix:{}", place.path.display())).unwrap();
    let answer = match refused.connect().await {
        Ok(channel) => {
            ControlClient::new(channel).get_info(proto::GetInfoRequest {}).await.map(|_| ())
        }
        Err(_) => Err(tonic::Status::unavailable("closed at once")),
    };
    assert!(answer.is_err());
    shard.ask("/metrics");
    shard.report(ShardReport::default()).await;
    let (_, _, metrics) = shard.response().await;
    let line = "\nrelay_control_connections_refused_total ";
    let counted = metrics.split(line).nth(1).unwrap().lines().next().unwrap();
    assert_ne!(counted, "0");
    drop(crowd);
}
