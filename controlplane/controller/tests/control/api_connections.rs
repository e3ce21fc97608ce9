//! Connections, revocations and key sets by the control API.

use relay_contract::{CloseReason, Command, ConnectionId, Event, Grant, Role, UpgradeRequest};
use relay_controller::Settings;
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::revoke_request::Revoked;
use tonic::Code;

use crate::api::Place;
use crate::platform::{Behaviour, Platform};
use crate::relay::{NOW_SECS, Relay, Shard, TOKEN, VALIDATE, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A platform that gives every client this id.
async fn platform(client_id: &str) -> (Platform, Settings) {
    let platform = Platform::start(None).await;
    let body = format!(r#"{{"ok":true,"claims":{{"clientId":"{client_id}"}}}}"#);
    platform.on(VALIDATE, Behaviour::Answer(200, body));
    let settings = settings(&platform.url());
    (platform, settings)
}

/// Lets somebody in and opens the connection at the id it asked from.
async fn open(shard: &mut Shard, role: Role, workspace: &str) -> (ConnectionId, Box<Grant>) {
    let target_id = Some("rt1".into());
    let request = UpgradeRequest { role, workspace_id: workspace.into(), target_id };
    let connection = shard.upgrade(request, TOKEN);
    let grant = shard.admitted().await;
    shard.tell(Event::Opened { admission: grant.admission, connection });
    shard.heard().await;
    (connection, grant)
}

fn of_workspace(id: &str) -> Option<proto::ConnectionFilter> {
    Some(proto::ConnectionFilter { workspace_id: id.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn connections_are_listed_in_pages_and_by_what_they_are() {
    let (_platform, settings) = platform("cl1").await;
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings, place.api());
    let mut client = place.client().await;
    for n in 0..5 {
        open(&mut shard, Role::Client, &format!("ws{}", n % 2)).await;
    }
    let (daemon, _) = open(&mut shard, Role::Daemon, "ws0").await;
    let mut request = proto::ListConnectionsRequest { page_size: 2, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = client.list_connections(request.clone()).await.unwrap().into_inner();
        assert!(page.connections.len() <= 2);
        all.extend(page.connections);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(all.len(), 6);
    let found = all.iter().find(|one| one.role() == proto::ConnectionRole::Daemon).unwrap();
    assert_eq!(found.connection_id, daemon.to_string());
    assert_eq!((&*found.workspace_id, found.target_id.as_deref()), ("ws0", Some("rt1")));
    assert_eq!((&*found.address, found.is_leaving), ("127.0.0.1", false));

    let mut count = async |filter: proto::ConnectionFilter| {
        let request = proto::ListConnectionsRequest { filter: Some(filter), ..Default::default() };
        client.list_connections(request).await.map(|page| page.into_inner().connections.len())
    };
    let text = |text: &str| text.to_owned();
    let none = proto::ConnectionFilter::default;
    let both =
        proto::ConnectionFilter { workspace_id: text("ws0"), client_id: text("cl1"), ..none() };
    assert_eq!(
        count(proto::ConnectionFilter { workspace_id: text("ws1"), ..none() }).await.unwrap(),
        2
    );
    assert_eq!(count(both).await.unwrap(), 4);
    assert_eq!(
        count(proto::ConnectionFilter { address: text("127.0.0.1"), ..none() }).await.unwrap(),
        6
    );
    assert_eq!(
        count(proto::ConnectionFilter { address: text("192.0.2.1"), ..none() }).await.unwrap(),
        0
    );
    let wrong = count(proto::ConnectionFilter { address: text("here"), ..none() }).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn those_who_are_meant_are_closed_and_nobody_else() {
    let (_platform, settings) = platform("cl1").await;
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings, place.api());
    let mut client = place.client().await;
    let (meant, _) = open(&mut shard, Role::Client, "ws1").await;
    let (_other, _) = open(&mut shard, Role::Client, "ws2").await;

    let nobody = proto::CloseConnectionsRequest::default();
    assert_eq!(client.close_connections(nobody).await.unwrap_err().code(), Code::InvalidArgument);
    let either = proto::CloseConnectionsRequest {
        all: true,
        filter: of_workspace("ws1"),
        ..Default::default()
    };
    assert_eq!(client.close_connections(either).await.unwrap_err().code(), Code::InvalidArgument);

    let close = |dry_run| proto::CloseConnectionsRequest {
        filter: of_workspace("ws1"),
        dry_run,
        all: false,
    };
    for (dry_run, closed) in [(true, 1), (false, 1), (false, 0)] {
        let answer = client.close_connections(close(dry_run)).await.unwrap().into_inner();
        assert_eq!(answer.connections, closed, "a dry run: {dry_run}");
    }
    match shard.command().await {
        Command::Close { connection, reason } => {
            assert_eq!((connection, reason), (meant, CloseReason::ClosedByOperator));
        }
        other => panic!("{other:?}"),
    }
    let all = proto::CloseConnectionsRequest { all: true, ..Default::default() };
    let answer = client.close_connections(all).await.unwrap().into_inner();
    assert_eq!(answer.connections, 1, "the other one; the first is leaving already");
}

#[tokio::test]
async fn what_is_revoked_ends_stays_out_and_is_listed() {
    let (_platform, settings) = platform("cl1").await;
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(settings, place.api());
    let mut client = place.client().await;
    let (stands, _) = open(&mut shard, Role::Client, "ws1").await;
    let order = proto::RevokeRequest {
        revoked: Some(Revoked::WorkspaceId("ws1".to_owned())),
        until_unix_ms: 0,
    };
    let answer = client.revoke(order).await.unwrap().into_inner();
    assert_eq!((answer.closed_connections, answer.is_remembered), (1, true));
    match shard.command().await {
        Command::Close { connection, reason } => {
            assert_eq!((connection, reason), (stands, CloseReason::TokenRevoked));
        }
        other => panic!("{other:?}"),
    }
    let request =
        UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None };
    shard.upgrade(request, TOKEN);
    shard.refused().await;

    let other = proto::RevokeRequest {
        revoked: Some(Revoked::TokenId("jti-1".to_owned())),
        until_unix_ms: (NOW_SECS + 5) * 1000,
    };
    client.revoke(other).await.unwrap();
    let mut request = proto::ListRevocationsRequest { page_size: 1, ..Default::default() };
    let first = client.list_revocations(request.clone()).await.unwrap().into_inner();
    let token = Some(proto::revocation::Revoked::TokenId("jti-1".to_owned()));
    assert_eq!(first.revocations[0].revoked, token);
    assert_eq!(first.revocations[0].until_unix_ms, (NOW_SECS + 5) * 1000);
    request.page_token = first.next_page_token;
    let second = client.list_revocations(request).await.unwrap().into_inner();
    assert_eq!(second.revocations[0].until_unix_ms, (NOW_SECS + 24 * 60 * 60) * 1000);
    assert!(second.next_page_token.is_empty());

    for wrong in [
        proto::RevokeRequest::default(),
        proto::RevokeRequest {
            revoked: Some(Revoked::Subject("me".to_owned())),
            until_unix_ms: (NOW_SECS - 1) * 1000,
        },
    ] {
        assert_eq!(client.revoke(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn without_local_checks_there_are_no_key_sets() {
    let place = Place::new();
    let (_relay, _shards) = Relay::with_api::<1>(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let answer = client.list_key_sets(proto::ListKeySetsRequest {}).await.unwrap().into_inner();
    assert!(answer.key_sets.is_empty());
}
